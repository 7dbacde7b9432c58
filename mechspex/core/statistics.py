"""Paired comparisons: two subsets of units on the same outputs (prompts)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats


@dataclass(frozen=True)
class Difference:
    """A mean paired difference, its interval, and the p-value of no difference."""

    value: float
    low: float
    high: float
    p_value: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def paired_difference(
    ours: Float[np.ndarray, " output"],
    theirs: Float[np.ndarray, "subset output"],
    *,
    level: float = 0.05,
) -> Difference:
    """Mean of ours − theirs over outputs, by Student's paired t.

    With several subsets on their side (drawn at random) it is the difference to their mean. Its
    variance then has two parts, as in a two-way layout of subsets and outputs: that over outputs
    of the mean over subsets, and that over subsets of the mean over outputs; degrees of freedom
    are those of the smaller number.

    Differences that are all the same leave no doubt: p is 1 where they are 0 and 0 elsewhere.

    Args:
        ours: one value an output; at least two outputs.
        theirs: of the same outputs; one row, or one for each random subset.
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
    if error <= 1e-12 * max(1e-12, float(np.abs(theirs).max())):
        return Difference(mean, mean, mean, float(mean == 0))
    halfwidth = float(stats.t.ppf(1 - level / 2, degrees)) * error
    p_value = 2 * float(stats.t.sf(abs(mean) / error, degrees))
    return Difference(mean, mean - halfwidth, mean + halfwidth, p_value)


def mcnemar(ours: Bool[np.ndarray, " output"], theirs: Bool[np.ndarray, " output"]) -> float:
    """p-value of equally many right answers, by the exact test (McNemar 1947).

    Only outputs on which the two disagree tell: of b + c of them ours is right on b, which is
    binomial(b + c, ½) if neither is better. Two-sided; 1 where they never disagree.
    """
    only_ours = int((ours & ~theirs).sum())
    disagreements = only_ours + int((theirs & ~ours).sum())
    if not disagreements:
        return 1.0
    return float(stats.binomtest(only_ours, disagreements).pvalue)


def holm(p_values: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """p-values adjusted so that any false claim at all is as rare as the level (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    steps = (len(p_values) - np.arange(len(p_values))) * p_values[order]
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted
