"""Ridge regression in closed form, its penalty by exact leave-one-out."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

_PENALTIES = np.logspace(-4, 4, 17)


def ridge(
    design: Float[np.ndarray, "mask term"], values: Float[np.ndarray, "mask output"]
) -> tuple[Float[np.ndarray, "term output"], Float[np.ndarray, " output"]]:
    """Coefficients and intercepts that minimise ‖y − b − Xc‖² + α‖c‖², each output with its own α.

    One eigendecomposition XᵀX = WΛWᵀ of the centred X serves every α and output: the coefficients
    are W(Λ + α)⁻¹WᵀXᵀy, the leverages h = 1/N + Σ_j (XW)²_j/(λ_j + α), and the α with the least
    sum of leave-one-out errors (y − ŷ)/(1 − h) is taken. The intercept is not penalised.

    Args:
        design: X, with no more terms than masks.
        values: y.
    """
    centre, mean = design.mean(axis=0), values.mean(axis=0)
    x, y = design - centre, values - mean
    eigenvalues, vectors = np.linalg.eigh(x.T @ x)
    rotated = x @ vectors
    squares, moments = rotated**2, rotated.T @ y
    least = np.full(values.shape[1], np.inf)
    best = np.zeros_like(moments)
    for penalty in _PENALTIES:
        inverse = 1 / (np.maximum(eigenvalues, 0) + penalty)
        coefficients = inverse[:, None] * moments
        leverage = 1 / len(x) + squares @ inverse
        left_out = (y - rotated @ coefficients) / (1 - leverage)[:, None]
        error = (left_out**2).sum(axis=0)
        best = np.where(error < least, coefficients, best)
        least = np.minimum(error, least)
    coefficients = vectors @ best
    return coefficients, mean - centre @ coefficients
