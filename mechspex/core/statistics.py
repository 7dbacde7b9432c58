"""Estimates with their intervals, tests, and what many tests at once ask for: all of it is here.

`level` is a chance of being wrong throughout: 1 − coverage of an interval, or the expected share of
false ones among what a family of tests discovers. Degrees of freedom may be fractions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int

from mechspex.core.drawn_outputs import drawn_outputs

# Intervals cover 95% where nothing else is asked for.
_LEVEL, _COVERAGE = 0.05, 0.95
# A spread below this share of the values is rounding.
_ROUNDING_OF_VALUES = 1e-12
# A correlation of 1 has no finite z.
_NEARLY_ONE = 1 - 1e-9

Numbers = TypeVar("Numbers", float, np.ndarray)
Degrees = int | float | np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    A format is that of all three numbers: ``f"{estimate:+.2f}"`` is ``+1.25 [+0.75, +1.75]``.

    Attributes:
        value: the estimate itself.
        low, high: both ends of its interval.
    """

    value: float
    low: float
    high: float

    @property
    def leaves_out_zero(self) -> bool:
        """Whether the interval says which side of zero the number is on."""
        return not self.low <= 0 <= self.high

    def to_list(self) -> list[float]:
        """``[value, low, high]``."""
        return [self.value, self.low, self.high]

    def __format__(self, spec: str) -> str:
        spec = spec or "z.3f"
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def __str__(self) -> str:
        return format(self)


@dataclass(frozen=True)
class Difference(Estimate):
    """A mean paired difference with its interval.

    Attributes:
        p_value: how likely so large a difference is where there is none.
    """

    p_value: float

    def __str__(self) -> str:
        return format(self, "+.3f")


def standard_error(values: Float[np.ndarray, "*many output"]) -> Float[np.ndarray, "*many"]:
    """Standard error of the mean over the last axis; 0 of a single value, which has no spread."""
    n_values = values.shape[-1]
    if n_values == 1:
        return np.zeros(values.shape[:-1])
    # Of an infinite value it is no number.
    with np.errstate(invalid="ignore"):
        return np.asarray(values.std(axis=-1, ddof=1) / np.sqrt(n_values))


def halfwidth(error: Numbers, degrees: Degrees, level: float = _LEVEL) -> Numbers:
    """Half of Student's interval of a mean, from its standard error; numbers or arrays."""
    from scipy.special import stdtrit

    return stdtrit(degrees, 1 - level / 2) * error


def mean_estimate(values: Float[np.ndarray, " output"], level: float = _LEVEL) -> Estimate:
    """The mean with Student's interval; a single value has no spread, and stands alone."""
    mean = float(values.mean())
    if len(values) == 1:
        return Estimate(mean, mean, mean)
    half = halfwidth(float(standard_error(values)), len(values) - 1, level)
    return Estimate(mean, float(mean - half), float(mean + half))


def two_sided_p(t: Numbers, degrees: Degrees) -> Numbers:
    """p-values of means that are `t` standard errors away from zero; numbers or arrays."""
    from scipy.special import stdtr

    return 2 * stdtr(degrees, -np.abs(t))


def one_sided_p(values: Float[np.ndarray, "*many output"]) -> Float[np.ndarray, "*many"]:
    """p-values of means over the last axis not above zero, by Student's t."""
    from scipy.special import stdtr

    n_values = values.shape[-1]
    with np.errstate(divide="ignore"):
        t = np.sqrt(n_values) * values.mean(axis=-1) / values.std(axis=-1, ddof=1)
    return np.asarray(stdtr(n_values - 1, -t))


def equivalence_margin(
    difference: Float[np.ndarray, " output"],
    whole: Float[np.ndarray, " output"],
    level: float = _LEVEL,
) -> float:
    """The smallest share ε of the mean w̄ within which the mean d̄ of differences surely lies.

    Two one-sided t tests (Schuirmann 1987) reject |d̄| ≥ ε |w̄| where the means of ε w + d and of
    ε w − d both lie Student's quantile of their standard errors above zero. Each bound is a root of
    a quadratic in ε (Fieller 1954), and the larger one is

    ε = (|b| + √(b² − a c)) / a, with a = w̄² − q s_ww, b = w̄ d̄ − q s_wd, c = d̄² − q s_dd

    for covariances s and q the squared quantile over the number of outputs. Infinite where w̄ is
    not surely other than zero, and of one output, which has no spread.

    Args:
        difference: d on each output.
        whole: w on each output.
        level: the chance that the mean difference is larger.
    """
    from scipy.special import stdtrit

    n_outputs = len(whole)
    if n_outputs < 2:
        return np.inf
    q = float(stdtrit(n_outputs - 1, level)) ** 2 / n_outputs
    w, d = float(whole.mean()), float(difference.mean())
    (s_ww, s_wd), (_, s_dd) = np.cov(whole, difference)
    a, b = w**2 - q * s_ww, w * d - q * s_wd
    if not a > 0:
        return np.inf
    # b² − a c, as the variance of w̄ d − d̄ w, which does not vanish in rounding.
    root = q * (w**2 * s_dd - 2 * w * d * s_wd + d**2 * s_ww) - q**2 * (s_ww * s_dd - s_wd**2)
    return float((abs(b) + np.sqrt(max(root, 0.0))) / a)


def clustered_error(
    summands: Float[np.ndarray, "draw column"], clusters: Int[np.ndarray, " draw"]
) -> tuple[Float[np.ndarray, " column"], Float[np.ndarray, " column"]]:
    """Standard errors of the columns' means, and their degrees of freedom.

    Draws of one cluster depend on each other, so their sums x are what is independent. The degrees
    are the effective number of clusters, (Σx²)²/Σx⁴: few where some sums are far larger than all
    others.

    Args:
        summands: one row a draw.
        clusters: the number of each draw's cluster, from 0 up.
    """
    sums = _cluster_sums(summands - summands.mean(axis=0), clusters)
    # A fourth power by itself takes NumPy hundreds of times as long as two squares.
    squares, fourths = (sums**2).sum(axis=0), ((sums**2) ** 2).sum(axis=0)
    errors = np.sqrt(squares * len(sums) / max(1, len(sums) - 1)) / len(summands)
    degrees = squares**2 / np.maximum(fourths, np.finfo(float).tiny)
    return errors, np.where(squares > 0, np.maximum(degrees, 1.0), len(summands))


def hotelling_p(
    estimate: Float[np.ndarray, " output"],
    summands: Float[np.ndarray, "draw output"],
    clusters: Int[np.ndarray, " draw"],
    degrees: float,
    *,
    floor: float = 0.0,
) -> float:
    """p-value of "no output differs from zero", by Hotelling's T²; 1 of too few degrees.

    Args:
        estimate: one number an output.
        summands: the draws whose mean the estimate's error is that of.
        clusters: the number of each draw's cluster, from 0 up.
        degrees: degrees of freedom of the estimate.
        floor: variance that rounding alone leaves in each output.
    """
    from scipy.special import fdtrc

    n_outputs = len(estimate)
    free = degrees - n_outputs
    if not free > 0:
        return 1.0
    sums = _cluster_sums(summands - summands.mean(axis=0), clusters)
    covariance = sums.T @ sums / len(summands) ** 2
    covariance += max(floor, np.finfo(float).tiny) * np.eye(n_outputs)
    squared = float(estimate @ np.linalg.solve(covariance, estimate))
    return float(fdtrc(n_outputs, free, squared * free / (n_outputs * degrees)))


def _cluster_sums(
    summands: Float[np.ndarray, "draw column"], clusters: Int[np.ndarray, " draw"]
) -> Float[np.ndarray, "cluster column"]:
    n_clusters = int(clusters.max()) + 1
    if n_clusters == len(clusters):
        return summands
    sums = np.zeros((n_clusters, summands.shape[1]))
    np.add.at(sums, clusters, summands)
    return sums


def discovered(
    p_values: Sequence[float] | Float[np.ndarray, " test"],
    level: float,
    family: Float[np.ndarray, " test"] | None = None,
) -> Bool[np.ndarray, " test"]:
    """Which tests are significant at a false discovery rate (Benjamini & Hochberg 1995).

    Args:
        p_values: one a test; NaN discovers nothing.
        level: the expected share of false ones among the discovered, at most.
        family: for each test the number of tests that share its part of the level, those not named
            included (weights of Genovese, Roeder & Wasserman 2006); all p-values if not given.
    """
    p_values = np.nan_to_num(np.asarray(p_values, dtype=np.float64), nan=np.inf)
    weighted = p_values * (len(p_values) if family is None else family)
    ranked = np.sort(weighted)
    below = np.flatnonzero(ranked <= level * np.arange(1, len(ranked) + 1))
    return weighted <= (ranked[below[-1]] if len(below) else -1.0)


def discovery_halfwidths(
    means: Float[np.ndarray, " test"],
    errors: Float[np.ndarray, " test"],
    degrees: int,
    *,
    level: float,
    rounding: Float[np.ndarray, " test"],
) -> Float[np.ndarray, " test"]:
    """Halves of intervals that leave out zero where a false discovery rate confirms the mean.

    They are Student's at the level that the corrections leave, `level` · R/m with R of m means
    discovered, at least one (Benjamini & Yekutieli 2005).

    Args:
        means, errors: the means to be told from zero, and their standard errors.
        degrees: degrees of freedom of all errors.
        level: the false discovery rate.
        rounding: how far rounding may move each mean: a mean within it counts as zero, and it
            widens the interval.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = np.maximum(np.abs(means) - rounding, 0)
        p_values = two_sided_p(np.where(distance > 0, distance / errors, 0), degrees)
    n_tests = max(1, len(means))
    n_discovered = max(1, int(discovered(p_values, level).sum()))
    return halfwidth(errors, degrees, level * n_discovered / n_tests) + rounding


def errors_to_discover(n_values: int, n_tests: int, level: float) -> float:
    """How many standard errors from zero a mean must lie to be discovered alone among tests.

    Student's quantile at `level` / `n_tests`: with few values it is large, and more tests or a
    smaller level make it larger yet.

    Args:
        n_values: how many values the mean is over, at least 2.
        n_tests: how many means are tested together.
        level: the false discovery rate.
    """
    return float(halfwidth(1.0, n_values - 1, level / n_tests))


def holm(p_values: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """p-values adjusted so that any false claim at all is as rare as the level (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    steps = (len(p_values) - np.arange(len(p_values))) * p_values[order]
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def paired_difference(
    ours: Float[np.ndarray, " output"],
    theirs: Float[np.ndarray, "subset output"],
    *,
    level: float = _LEVEL,
) -> Difference:
    """Mean of ours − theirs over outputs, by Student's paired t.

    If their side has several subsets, drawn at random, it is the difference to their mean. Its
    variance then has two parts, as in a two-way layout of subsets and outputs: the variance over
    outputs of the mean over subsets, and the variance over subsets of the mean over outputs. The
    degrees of freedom are those of the smaller number.

    Differences that are all the same leave no doubt: p is 1 where they are 0 and 0 elsewhere.

    Args:
        ours: one value an output; at least two outputs.
        theirs: values of the same outputs; one row, or one for each random subset.
        level: 1 − coverage of the interval.
    """
    differences = ours - theirs
    n_subsets, n_outputs = differences.shape
    mean, degrees = float(differences.mean()), n_outputs - 1
    variance = differences.mean(axis=0).var(ddof=1) / n_outputs
    if n_subsets > 1:
        variance += differences.mean(axis=1).var(ddof=1) / n_subsets
        degrees = min(n_outputs, n_subsets) - 1
    error = float(np.sqrt(variance))
    scale = max(_ROUNDING_OF_VALUES, float(np.abs(theirs).max()))
    if error <= _ROUNDING_OF_VALUES * scale:
        return Difference(mean, mean, mean, float(mean == 0))
    half, p_value = halfwidth(error, degrees, level), two_sided_p(mean / error, degrees)
    return Difference(mean, float(mean - half), float(mean + half), float(p_value))


def mcnemar(ours: Bool[np.ndarray, " output"], theirs: Bool[np.ndarray, " output"]) -> float:
    """p-value of equally many right answers, by the exact test (McNemar 1947).

    Only outputs on which the two disagree tell: of b + c of them ours is right on b, which is
    binomial(b + c, ½) if neither is better. Two-sided; 1 where they never disagree.
    """
    from scipy.stats import binomtest

    only_ours = int((ours & ~theirs).sum())
    disagreements = only_ours + int((theirs & ~ours).sum())
    if not disagreements:
        return 1.0
    return float(binomtest(only_ours, disagreements).pvalue)


def proportion(right: Bool[np.ndarray, " output"]) -> Estimate:
    """The share that is right with its 95% interval (Wilson 1927): of few, all right, it is not
    sure to be 1."""
    from scipy.special import ndtri

    n_right, n_outputs = int(right.sum()), len(right)
    share, z = n_right / n_outputs, ndtri(0.5 + 0.5 * _COVERAGE)
    twice = 2 * (n_outputs + z**2)
    centre = (2 * n_outputs * share + z**2) / twice
    half = z / twice * np.sqrt(4 * n_outputs * share * (1 - share) + z**2)
    low = 0.0 if n_right == 0 else float(centre - half)
    high = 1.0 if n_right == n_outputs else float(centre + half)
    return Estimate(share, low, high)


def largest_share(n_right: int, n_drawn: int, level: float = _LEVEL) -> float:
    """The share of all that a sample of them cannot rule out (Clopper & Pearson 1934)."""
    from scipy.special import betaincinv

    if n_right == n_drawn:
        return 1.0
    return float(betaincinv(n_right + 1, n_drawn - n_right, 1 - level))


def ratio_estimator(
    whole: Float[np.ndarray, " output"], rng: np.random.Generator
) -> Callable[..., Estimate]:
    """Estimates of ratios of means over outputs, all on the same outputs drawn again (Efron 1979).

    What is returned takes the numerators ``[…, output]``, and, to estimate one number from the
    ratios of many rows, a function of them along their first axis; intervals cover 95%.

    Args:
        whole: the denominator on each output.
        rng: draws the outputs.
    """
    drawn = drawn_outputs(len(whole), rng)

    def estimate(
        part: Float[np.ndarray, "*many output"],
        area: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> Estimate:
        ratios = part @ drawn.T / (whole @ drawn.T)
        ratio = part.mean(axis=-1) / whole.mean()
        if area is not None:
            ratios, ratio = area(ratios), area(ratio)
        tail = (1 - _COVERAGE) / 2
        low, high = np.quantile(ratios, [tail, 1 - tail])
        return Estimate(float(ratio), float(low), float(high))

    return estimate


def correlation(a: Float[np.ndarray, " term"], b: Float[np.ndarray, " term"]) -> float:
    """Pearson's r; NaN where one of them does not vary, or of fewer than two pairs."""
    if len(a) < 2 or not a.std() or not b.std():
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def rank_correlation(a: Float[np.ndarray, " term"], b: Float[np.ndarray, " term"]) -> float:
    """Spearman's rank correlation; NaN as `correlation`."""
    from scipy.stats import rankdata

    return correlation(rankdata(a), rankdata(b))


def rank_correlation_estimate(r: float, n_pairs: int, level: float = _LEVEL) -> Estimate:
    """Spearman's r of so many pairs with its interval, by Fisher's z (Bonett & Wright 2000).

    atanh r has the variance (1 + r²/2)/(n − 3). Without bounds of fewer than four pairs.
    """
    from scipy.special import ndtri

    if n_pairs < 4 or not np.isfinite(r):
        return Estimate(r, float("nan"), float("nan"))
    inside = min(max(r, -_NEARLY_ONE), _NEARLY_ONE)
    half = ndtri(1 - level / 2) * np.sqrt((1 + r**2 / 2) / (n_pairs - 3))
    low, high = np.tanh(np.arctanh(inside) + np.array([-half, half]))
    return Estimate(r, min(r, float(low)), max(r, float(high)))
