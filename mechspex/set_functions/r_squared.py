"""Scores of a recovered function on masks that were not used to recover it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from mechspex.core.statistics import halfwidth, standard_error


def rounding(values: Float[np.ndarray, "mask ..."]) -> float:
    """How far rounding may move a value, in the units of the values.

    It is relative to the largest |value|. If all values are float32 numbers it is the rounding of
    float32; else it is 64 times that of float64, since the values are then results of sums.

    Args:
        values: the values.
    """
    single = bool((values == values.astype(np.float32)).all())
    epsilon = np.finfo(np.float32).eps if single else 64 * np.finfo(np.float64).eps
    return float(epsilon * np.abs(values).max(initial=0.0))


def r_squared(
    values: Float[np.ndarray, "mask ..."], predicted: Float[np.ndarray, "mask ..."]
) -> float:
    """R² = 1 − Σ(f − f̂)²/Σ(f − mean f)².

    With several outputs both sums go over all of them, each with its own mean. A constant has no
    variance to explain: R² is 1 if it is predicted exactly, else minus infinity.

    Args:
        values: f of each mask.
        predicted: f̂ of each mask.
    """
    values = np.asarray(values, dtype=np.float64)
    residual = float(((values - predicted) ** 2).sum())
    total = float(((values - values.mean(axis=0)) ** 2).sum())
    # A constant still spreads by its rounding.
    least = values.size * rounding(values) ** 2
    if total <= least:
        return 1.0 if residual <= 16 * least else -np.inf
    return 1 - residual / total


def r2_interval(
    values: Float[np.ndarray, " mask"],
    predicted: Float[np.ndarray, " mask"],
    coverage: float = 0.95,
) -> tuple[float, float]:
    """Interval of R² over masks, by the delta method on log(1 − R²).

    1 − R² is a ratio of means over masks, Σe²/Σd² with e = f − f̂ and d = f − mean f. Its relative
    error is that of the mean of e²/mean e² − d²/mean d².

    Args:
        values: f of each mask.
        predicted: f̂ of each mask.
        coverage: the coverage of the interval.

    Returns:
        Both ends; R² twice for a perfect fit and for a constant.
    """
    r2 = r_squared(values, predicted)
    errors, spreads = (values - predicted) ** 2, (values - values.mean()) ** 2
    if len(values) < 2 or not np.isfinite(r2) or errors.mean() == 0 or spreads.mean() == 0:
        return r2, r2
    relative = errors / errors.mean() - spreads / spreads.mean()
    half = halfwidth(float(standard_error(relative)), len(values) - 1, 1 - coverage)
    return 1 - (1 - r2) * float(np.exp(half)), 1 - (1 - r2) * float(np.exp(-half))


def non_additive_share(r2: float, additive_r2: float) -> float:
    """1 − (1 − R²)/(1 − additive R²): the share of the variance left by singles that is explained.

    It is 0 where singles leave less than a millionth of the variance: rounding and shrinkage leave
    that much.

    Args:
        r2: R² of the whole function.
        additive_r2: R² of singles alone.
    """
    unexplained = 1 - additive_r2
    return 0.0 if unexplained < 1e-6 else 1 - (1 - r2) / unexplained
