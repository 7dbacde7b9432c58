"""The group LASSO over several outputs, its penalty chosen by cross-validation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

# From the penalty that empties the model down to one whose bias is a ten-thousandth.
_PENALTIES = np.logspace(0, -4, 41)
_FOLDS = 5
# A path ends when its held-out error has been above its least this often in a row.
_PATIENCE = 4
# Relative change of the coefficients at which iteration stops: while comparing, and at the end.
_COARSE, _FINE = 1e-3, 1e-7
_MOST_STEPS = 2_000

Gram = Float[np.ndarray, "feature feature"]
Coefficients = Float[np.ndarray, "feature output"]


@dataclass(frozen=True)
class Moments:
    """Second moments of some rows, from which paths and errors are computed without the rows.

    Attributes:
        gram: ZᵀZ.
        moment: ZᵀY.
        energy: Σ Y².
        n_rows: how many rows.
    """

    gram: Gram
    moment: Coefficients
    energy: float
    n_rows: int

    @classmethod
    def of(
        cls, design: Float[np.ndarray, "row feature"], values: Float[np.ndarray, "row output"]
    ) -> Moments:
        """The moments of rows.

        Args:
            design: the features Z.
            values: the values Y.
        """
        return cls(design.T @ design, design.T @ values, float((values**2).sum()), len(design))

    def without(self, other: Moments) -> Moments:
        """The moments of these rows without some of them.

        Args:
            other: the moments of the rows that are left out.
        """
        return Moments(
            self.gram - other.gram,
            self.moment - other.moment,
            self.energy - other.energy,
            self.n_rows - other.n_rows,
        )

    @cached_property
    def largest_eigenvalue(self) -> float:
        """That of ZᵀZ/N, by power iteration, which may fall a little short: rounded up.

        Of a part of the features it is no larger (Cauchy's interlacing theorem).
        """
        vector = np.random.default_rng(0).normal(size=len(self.gram))
        for _ in range(30):
            vector = self.gram @ (vector / np.linalg.norm(vector))
        return 1.05 * max(float(np.linalg.norm(vector)), 1e-300) / self.n_rows

    def squared_error(self, coefficients: Coefficients) -> float:
        """Σ (Y − ZB)² over the rows, with the coefficients B."""
        fitted = self.gram @ coefficients - 2 * self.moment
        return self.energy + float((coefficients * fitted).sum())


def group_lasso(
    design: Float[np.ndarray, "row feature"],
    values: Float[np.ndarray, "row output"],
    *,
    seed: int,
) -> Coefficients:
    """Least squares with one penalty a feature, shared by its coefficients for all outputs.

    B = argmin ‖Y − ZB‖²/2N + α Σ_j ‖B_j‖₂ (Yuan & Lin 2006, eq. 2.1), a group being a row of B;
    with one output this is the LASSO. Cross-validation in five folds chooses α. The problem is
    solved on the second moments by accelerated proximal gradient steps, along a path of falling α
    with warm starts.

    Args:
        design: the centred features Z.
        values: the centred values Y.
        seed: the seed of the folds.

    Returns:
        The coefficients B; all are 0 where the largest α fits best.
    """
    whole = Moments.of(design, values)
    largest = float(np.linalg.norm(whole.moment, axis=1).max(initial=0.0)) / whole.n_rows
    if largest == 0.0:
        return np.zeros_like(whole.moment)
    penalties = largest * _PENALTIES
    shuffled = np.random.default_rng(seed).permutation(len(design))
    errors = np.zeros(len(penalties))
    for part in np.array_split(shuffled, _FOLDS):
        held_out = Moments.of(design[part], values[part])
        errors += _path_errors(whole.without(held_out), held_out, penalties)
    best = int(np.argmin(errors))
    coefficients = np.zeros_like(whole.moment)
    for penalty in penalties[: best + 1]:
        coefficients = _solve(whole, penalty, coefficients, _COARSE)
    return _solve(whole, penalties[best], coefficients, _FINE)


def _path_errors(
    train: Moments, held_out: Moments, penalties: Float[np.ndarray, " penalty"]
) -> Float[np.ndarray, " penalty"]:
    """Held-out error at each penalty; infinite where the path ended before it."""
    errors = np.full(len(penalties), np.inf)
    coefficients, rises = np.zeros_like(train.moment), 0
    for step, penalty in enumerate(penalties):
        coefficients = _solve(train, penalty, coefficients, _COARSE)
        errors[step] = held_out.squared_error(coefficients)
        rises = rises + 1 if step and errors[step] > errors[:step].min() else 0
        if rises == _PATIENCE:
            break
    return errors


def _solve(moments: Moments, penalty: float, start: Coefficients, tolerance: float) -> Coefficients:
    """FISTA with restarts (Beck & Teboulle 2009) on the features that may be active.

    Features outside are checked against the optimality condition ‖gradient_j‖ ≤ α afterwards.
    """
    coefficients = start
    gradient = moments.moment - moments.gram @ coefficients
    active = np.flatnonzero(
        (np.linalg.norm(gradient, axis=1) > 0.8 * penalty * moments.n_rows)
        | coefficients.any(axis=1)
    )
    while True:
        coefficients = np.zeros_like(start)
        if len(active):
            coefficients[active] = _fista(
                moments.gram[np.ix_(active, active)] / moments.n_rows,
                moments.moment[active] / moments.n_rows,
                penalty,
                1 / moments.largest_eigenvalue,
                start[active],
                tolerance,
            )
        gradient = moments.moment - moments.gram[:, active] @ coefficients[active]
        violating = np.linalg.norm(gradient, axis=1) > (1 + 1e-3) * penalty * moments.n_rows
        violating[active] = False
        if not violating.any():
            return coefficients
        active = np.union1d(active, np.flatnonzero(violating))
        start = coefficients


def _fista(
    gram: Gram,
    moment: Coefficients,
    penalty: float,
    step: float,
    start: Coefficients,
    tolerance: float,
) -> Coefficients:
    solution, ahead, momentum = start, start, 1.0
    for _ in range(_MOST_STEPS):
        moved = ahead - step * (gram @ ahead - moment)
        sizes = np.linalg.norm(moved, axis=1, keepdims=True)
        shrunk = moved * np.maximum(1 - step * penalty / np.maximum(sizes, 1e-300), 0)
        change = shrunk - solution
        if np.abs(change).max() <= tolerance * np.abs(shrunk).max():
            return shrunk
        if ((ahead - shrunk) * change).sum() > 0:
            momentum = 1.0
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = shrunk + (momentum - 1) / following * change
        solution, momentum = shrunk, following
    return solution
