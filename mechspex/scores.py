"""Scores of a recovered function on masks that were not used to recover it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def r_squared(values: Float[np.ndarray, " mask"], predicted: Float[np.ndarray, " mask"]) -> float:
    """R² = 1 − Σ(f − f̂)²/Σ(f − mean f)²; 1 for a constant that is predicted exactly.

    A constant predicted wrongly has no variance to explain: minus infinity.
    """
    values = np.asarray(values, dtype=np.float64)
    residual = float(((values - predicted) ** 2).sum())
    total = float(((values - values.mean()) ** 2).sum())
    # A constant stored in float32 still spreads by its rounding.
    rounding = len(values) * (np.finfo(np.float32).eps * np.abs(values).max(initial=0.0)) ** 2
    if total <= rounding:
        return 1.0 if residual <= 16 * rounding else -np.inf
    return 1 - residual / total


def non_additive_share(r2: float, additive_r2: float) -> float:
    """1 − (1 − R²)/(1 − additive R²): how much of what singles leave over is explained.

    0 where singles leave less than rounding and shrinkage do, a millionth of the variance.
    """
    left = 1 - additive_r2
    return 0.0 if left < 1e-6 else 1 - (1 - r2) / left
