"""The test for a monotone link: one bent curve over a sum of singles makes every pair look active.

If f(m) = g(Σ_i w_i m_i) with g not straight (a sigmoid, a clip, a logarithm), f has interactions
of every order in every basis, and none of them says that two units act together. Such a value is
better explained on another scale than by a list of pairs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.interpolate import BSpline
from scipy.optimize import nnls

from mechspex.core.checks import SEED
from mechspex.core.doors import door
from mechspex.core.errors import BudgetError
from mechspex.core.json_values import read_number, read_whole
from mechspex.core.result import Result
from mechspex.core.statistics import one_sided_p
from mechspex.decoders.decoder import check_samples
from mechspex.set_functions.r_squared import non_additive_share, r_squared

_FOLDS = 5
FEWEST_MASKS = 50
# Of more units than this, those that correlate most with the value in the training fold: so many,
# but at least this many masks for each.
_MOST_UNITS = 500
_MASKS_A_UNIT = 4
# Pairs the link has to compete with: about as many numbers as the curve has.
_RIVAL_PAIRS = 10
_DEGREE, _PIECES = 3, 8
_ROUNDS = 12
_CONVERGED = 1e-4
_SIGNIFICANT = 0.01
# A curve that explains less than this of the rest fakes no interactions; screening alone can
# give a few hundredths.
_SMALLEST_SHARE = 0.05
# Below this share of the variance an additive fit leaves rounding, not signal.
_ROUNDING_OF_VARIANCE = 1e-6
_ROUNDING_OF_VALUES = 1e-12
_PENALTIES = np.logspace(-8, 3, 34)
# Columns of masks that become floats at once.
_BLOCK = 4096


@dataclass(frozen=True, eq=False, repr=False)
class Link(Result):
    """How much a monotone curve over a sum of singles explains, on masks it has not seen.

    Attributes:
        additive_r2: R² of the sum of singles, out of fold.
        link_r2: R² of g(sum of singles), g monotone, the sum refitted for g, out of fold.
        p_value: the p-value against "g predicts no better than a straight line": the larger of
            two paired t-tests over masks. One compares g with the line. The other does so beside
            the ten pairs that each training fold shows most clearly: a true interaction bends the
            curve too, but a term of its own then predicts it better.
        n_masks: how many masks the test rests on.
    """

    schema: ClassVar[str] = "mechspex.link/1"
    within: ClassVar[bool] = True
    called: ClassVar[str] = "monotone link"

    additive_r2: float
    link_r2: float
    p_value: float
    n_masks: int

    @property
    def share(self) -> float:
        """1 − (1 − link R²)/(1 − additive R²): how much of what singles leave g explains."""
        return non_additive_share(self.link_r2, self.additive_r2)

    @property
    def recognised(self) -> bool:
        """Whether g explains more than a straight line (p < 0.01), and enough to matter (5%)."""
        return self.p_value < _SIGNIFICANT and self.share > _SMALLEST_SHARE

    def to_pandas(self) -> pd.DataFrame:
        """One row: both R², the share that g explains, p, masks, and whether g is recognised."""
        row = {**asdict(self), "share": self.share, "recognised": self.recognised}
        return pd.DataFrame([row])

    def to_dict(self) -> dict[str, Any]:
        """The test as plain numbers."""
        return asdict(self)

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Link:
        return cls(
            additive_r2=read_number(record["additive_r2"]),
            link_r2=read_number(record["link_r2"]),
            p_value=read_number(record["p_value"]),
            n_masks=read_whole(record["n_masks"]),
        )

    @property
    def in_short(self) -> str:
        """Whether a link is recognised, and how much it explains."""
        verdict = "a monotone link" if self.recognised else "no monotone link"
        return (
            f"{verdict}: explains {self.share:.2f} of what singles leave over "
            f"(R² {self.link_r2:.3f}, additive {self.additive_r2:.3f}; p = {self.p_value:.2g}, "
            f"{self.n_masks:,} masks)"
        )

    def __str__(self) -> str:
        return self.in_short


@door(seed=SEED)
def monotone_link(
    masks: Bool[np.ndarray, "mask unit"] | np.ndarray,
    values: Float[np.ndarray, " mask *output"] | np.ndarray,
    *,
    keep: float | None = None,
    seed: int = 0,
) -> Link:
    """Test whether f(m) = g(Σ_i w_i m_i), g monotone, explains what a sum of singles does not.

    Each of five folds alternates between w and g until the error settles: w by ridge regression
    (generalised cross-validation), at first with g straight and then with g linearised
    (Gauss–Newton); and g as a cubic spline with rising coefficients over w·m. This is projection
    pursuit with a monotone ridge function (Friedman and Stuetzle 1981). Falling links are included:
    w takes the sign. Several outputs are averaged first, since terms are reported for their mean.
    With more than 500 units a fold uses those that correlate most with its training values: at
    most 500, and at most a quarter as many as there are training masks.

    >>> import numpy as np
    >>> import mechspex as mx
    >>> masks = mx.sample_masks(12, 300)
    >>> link = mx.monotone_link(masks, np.log1p(masks @ np.linspace(0.5, 1, 12)))
    >>> link.recognised, round(link.additive_r2, 2), round(link.link_r2, 2)
    (True, 0.96, 1.0)

    Args:
        masks: ``[mask, unit]``, True = kept.
        values: ``[mask]`` or ``[mask, output]``.
        keep: the probability with which a unit was kept; the share of kept entries if not given.
        seed: the seed of the folds.

    Raises:
        BudgetError: fewer than 50 masks.
        ShapeError, FailedMasksError, Refused: for the same reasons as `decode`.
    """
    samples = check_samples(masks, values, keep=keep, max_order=None, seed=seed)
    if samples.n_masks < FEWEST_MASKS:
        raise BudgetError(
            f"{samples.n_masks} masks of {samples.n_units} units, a link is tested on at least "
            f"{FEWEST_MASKS}; measure {FEWEST_MASKS - samples.n_masks} more"
        )
    mean_values = samples.values.reshape(samples.n_masks, -1).mean(axis=1)
    predicted = {name: np.empty(samples.n_masks) for name in ("sum", "link", "pairs", "both")}
    shuffled = np.random.default_rng(seed).permutation(samples.n_masks)
    for test in np.array_split(shuffled, _FOLDS):
        train = np.setdiff1d(shuffled, test)
        y = mean_values[train]
        units = _strongest_units(masks, train, y)
        z = masks[:, units].astype(np.float64) - samples.keep
        weights = _ridge(z[train], y)
        predicted["sum"][test] = _centred(z, train, y, weights)[test]
        curve = _Curve.fit(z[train], y, weights).predict(z)
        predicted["link"][test] = curve[test]
        residual = y - _centred(z, train, y, weights)[train]
        z = np.hstack([z, _strongest_pairs(z, train, residual)])
        predicted["pairs"][test] = _centred(z, train, y, _ridge(z[train], y))[test]
        residual = y - curve[train]
        beside = _centred(z, train, residual, _ridge(z[train], residual))
        predicted["both"][test] = (curve + beside)[test]
    additive_r2 = r_squared(mean_values, predicted["sum"])
    p_value = max(
        _p_value(mean_values, predicted["sum"], predicted["link"]),
        _p_value(mean_values, predicted["pairs"], predicted["both"]),
    )
    return Link(additive_r2, r_squared(mean_values, predicted["link"]), p_value, samples.n_masks)


def _p_value(
    values: Float[np.ndarray, " mask"],
    straight: Float[np.ndarray, " mask"],
    bent: Float[np.ndarray, " mask"],
) -> float:
    """Paired one-sided t-test: the squared error of `bent` is smaller than that of `straight`."""
    error = (values - straight) ** 2
    gain = error - (values - bent) ** 2
    rounding = (_ROUNDING_OF_VALUES * np.abs(values).max()) ** 2
    if error.mean() <= _ROUNDING_OF_VARIANCE * values.var() + rounding or not gain.any():
        return 1.0
    return float(one_sided_p(gain))


@dataclass(frozen=True)
class _Curve:
    """g(w·z): weights w and a rising cubic spline g, straight beyond its outermost knots."""

    weights: Float[np.ndarray, " feature"]
    spline: BSpline

    @classmethod
    def fit(
        cls,
        z: Float[np.ndarray, "mask feature"],
        y: Float[np.ndarray, " mask"],
        weights: Float[np.ndarray, " feature"],
    ) -> _Curve:
        """Alternate between g for w and w for g linearised, from the weights of a straight g."""
        curve = cls(weights, _rising_spline(z @ weights, y))
        loss = curve.loss(z, y)
        for _ in range(_ROUNDS):
            score = z @ curve.weights
            slope = curve.slope(score)
            # g(s′) ≈ g(s) + g′(s)·(s′ − s), so regress y − g(s) + g′(s)·s on g′(s)·z.
            wanted = _ridge(z, y - curve.at(score) + slope * score, slope)
            for step in (1.0, 0.5, 0.25, 0.125):
                moved = curve.weights + step * (wanted - curve.weights)
                candidate = cls(moved, _rising_spline(z @ moved, y))
                if candidate.loss(z, y) < loss:
                    break
            else:
                break
            gained = 1 - candidate.loss(z, y) / loss
            curve, loss = candidate, candidate.loss(z, y)
            if gained < _CONVERGED:
                break
        return curve

    def predict(self, z: Float[np.ndarray, "mask feature"]) -> Float[np.ndarray, " mask"]:
        return self.at(z @ self.weights)

    def loss(self, z: Float[np.ndarray, "mask feature"], y: Float[np.ndarray, " mask"]) -> float:
        return float(((y - self.predict(z)) ** 2).sum())

    def at(self, score: Float[np.ndarray, " mask"]) -> Float[np.ndarray, " mask"]:
        inside = self._inside(score)
        return self.spline(inside) + self.slope(score) * (score - inside)

    def slope(self, score: Float[np.ndarray, " mask"]) -> Float[np.ndarray, " mask"]:
        return self.spline.derivative()(self._inside(score))

    def _inside(self, score: Float[np.ndarray, " mask"]) -> Float[np.ndarray, " mask"]:
        return np.clip(score, self.spline.t[0], self.spline.t[-1])


def _rising_spline(score: Float[np.ndarray, " mask"], y: Float[np.ndarray, " mask"]) -> BSpline:
    """The cubic spline with rising coefficients, knots at quantiles, nearest to y."""
    inner = np.unique(np.quantile(score, np.linspace(0, 1, _PIECES + 1)))
    if len(inner) < 2:
        inner = np.array([inner[0] - 1.0, inner[0] + 1.0])
    knots = np.concatenate([[inner[0]] * _DEGREE, inner, [inner[-1]] * _DEGREE])
    basis = BSpline.design_matrix(score, knots, _DEGREE).toarray()
    # Coefficients that rise: c_j = c_0 + Σ_{i≤j} β_i with β ≥ 0; the B-splines add up to one.
    rises = np.cumsum(basis[:, ::-1], axis=1)[:, ::-1][:, 1:]
    centre = rises.mean(axis=0)
    steps, _ = nnls(rises - centre, y - y.mean())
    first = y.mean() - centre @ steps
    return BSpline(knots, first + np.concatenate([[0.0], np.cumsum(steps)]), _DEGREE)


def _ridge(
    z: Float[np.ndarray, "mask feature"],
    y: Float[np.ndarray, " mask"],
    slope: Float[np.ndarray, " mask"] | None = None,
) -> Float[np.ndarray, " feature"]:
    """w of y ≈ slope·(w·z + c), Σw² penalised by generalised cross-validation, c free."""
    slope = np.ones(len(y)) if slope is None else slope
    total = slope @ slope
    if total == 0:
        return np.zeros(z.shape[1])
    design = slope[:, None] * (z - slope**2 @ z / total)
    target = y - slope * (slope @ y / total)
    scales, directions = np.linalg.eigh(design.T @ design)
    scales = np.maximum(scales, 0.0)
    projected = directions.T @ (design.T @ target)
    largest = max(scales[-1], np.finfo(float).tiny)
    penalties = largest * _PENALTIES[:, None]
    damped = projected / (scales + penalties)
    residual = target @ target - (damped * (2 * projected - damped * scales)).sum(axis=1)
    freedom = len(y) - 1 - (scales / (scales + penalties)).sum(axis=1)
    score = np.where(freedom > 0, np.maximum(residual, 0) / np.maximum(freedom, 1e-9) ** 2, np.inf)
    # The last of equals: where the error is rounding, the larger penalty.
    best = len(score) - 1 - int(np.argmin(score[::-1]))
    return directions @ damped[best]


def _centred(
    z: Float[np.ndarray, "mask feature"],
    train: np.ndarray,
    y: Float[np.ndarray, " train"],
    weights: Float[np.ndarray, " feature"],
) -> Float[np.ndarray, " mask"]:
    """w·z plus the constant that fits the training values."""
    score = z @ weights
    return score + (y.mean() - score[train].mean())


def _strongest_units(
    masks: Bool[np.ndarray, "mask unit"], train: np.ndarray, y: Float[np.ndarray, " train"]
) -> np.ndarray:
    """All units, or of many those that correlate most with the training values."""
    n_units = masks.shape[1]
    n_chosen = min(_MOST_UNITS, len(train) // _MASKS_A_UNIT)
    if n_units <= _MOST_UNITS:
        return np.arange(n_units)
    correlation = np.empty(n_units)
    for start in range(0, n_units, _BLOCK):
        block = masks[train, start : start + _BLOCK].astype(np.float32)
        spread = np.maximum(block.std(axis=0), 1e-6)
        correlation[start : start + _BLOCK] = (y - y.mean()).astype(np.float32) @ block / spread
    return np.sort(np.argsort(-np.abs(correlation), kind="stable")[:n_chosen])


def _strongest_pairs(
    z: Float[np.ndarray, "mask unit"], train: np.ndarray, left: Float[np.ndarray, " train"]
) -> Float[np.ndarray, "mask pair"]:
    """z_i z_j of the pairs that correlate most with what singles leave of the training values."""
    inner = z[train]
    product = np.abs(inner.T @ (left[:, None] * inner))
    first, second = np.triu_indices(z.shape[1], k=1)
    strongest = np.argsort(-product[first, second], kind="stable")[:_RIVAL_PAIRS]
    return z[:, first[strongest]] * z[:, second[strongest]]
