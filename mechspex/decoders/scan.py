"""Scans: which products of a basis' factors correlate most with a residual."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.units import Term
from mechspex.set_functions.bases import Basis, affine

# Candidates kept of each order in a scan of one round.
BEAM = 60
# Pairs scanned in one round: all of them up to 2,048 units, beyond that those of the strongest.
_PAIRS_A_ROUND = 1 << 22
# Pairs kept of a scan of all of them, and the scores held at once while it runs.
_POOL, _BLOCK = 1_000, 1 << 24
# Multiplications that a scan of all pairs may take: they say along how many directions it scans.
_SCAN_WORK = 2e13

Columns = Float[np.ndarray, "mask term"]
Residuals = Float[np.ndarray, "mask direction"]


class Factors:
    """The factors φ_i(m) of a basis, and the scans over their products.

    A scan scores a set by Σ_q ⟨φ_S, r_q⟩² / var φ_S over the residual's directions r_q. The
    variance is that of independent units, which saves half of the work and is exact enough for
    candidates.

    Args:
        masks: True = kept.
        basis: ``fourier``, ``kept`` or ``ablated``.
        keep: the probability p of the Fourier basis.
    """

    def __init__(self, masks: Bool[np.ndarray, "mask unit"], basis: Basis, keep: float) -> None:
        slope, offset = affine(basis, keep)
        self._ablated, self._kept = np.float32(offset), np.float32(slope + offset)
        self._values = np.where(masks, self._kept, self._ablated)
        share = masks.mean(axis=0)
        self._first = share * self._kept + (1 - share) * self._ablated
        self._second = share * self._kept**2 + (1 - share) * self._ablated**2
        n_units = masks.shape[1]
        self.hubs = min(n_units, max(BEAM, _PAIRS_A_ROUND // n_units))
        self.all_pairs_a_round = self.hubs == n_units

    def strengths(self, white: Residuals) -> Float[np.ndarray, " unit"]:
        """The score of every single unit.

        Args:
            white: the residual, its directions orthonormal.
        """
        variances = self._second - self._first**2
        slopes = ((white.T @ self._values) ** 2).sum(axis=0)
        return np.where(variances > 1e-9, slopes / np.maximum(variances, 1e-9), 0.0)

    def extend(self, base: list[Term], white: Residuals) -> list[Term]:
        """The best of all sets that are a set of `base` and one more unit.

        Args:
            base: sets of equal size.
            white: the residual, its directions orthonormal.
        """
        if not base:
            return []
        products = np.ones((len(white), len(base)), dtype=np.float32)
        for j in range(len(base[0])):
            products *= self._values[:, [term[j] for term in base]]
        first, second = products.mean(axis=0), (products**2).mean(axis=0)
        scores = self._scores(products, first, second, white, slice(None))
        for row, term in enumerate(base):
            scores[row, list(term)] = 0.0
        # A set of k units is met up to k times.
        max_sets = min(BEAM * (len(base[0]) + 1), scores.size)
        sets = (tuple(sorted((*base[row], unit))) for row, unit in _largest(scores, max_sets))
        return list(dict.fromkeys(sets))[:BEAM]

    def best_of_all_pairs(self, residual: Residuals) -> list[Term]:
        """The pairs with the highest scores, block by block: memory stays bounded.

        Args:
            residual: the residual along any directions; this makes them orthonormal.
        """
        n_masks, n_units = self._values.shape
        left, sizes, _ = np.linalg.svd(residual, full_matrices=False)
        n_directions = max(1, int(_SCAN_WORK / (n_units**2 * n_masks)))
        white = (left * (sizes > 0))[:, :n_directions].astype(np.float32)
        best = np.empty((0, 3))
        rows = max(1, _BLOCK // n_units)
        for start in range(0, n_units - 1, rows):
            block = slice(start, min(start + rows, n_units))
            scores = self._scores(
                self._values[:, block],
                self._first[block],
                self._second[block],
                white,
                slice(start, None),
            )
            # Only pairs i < j; a unit with itself is no pair.
            scores[np.tril_indices(len(scores), 0, scores.shape[1])] = 0.0
            pairs = [(scores[i, j], start + i, start + j) for i, j in _largest(scores, _POOL)]
            best = np.array(sorted([*map(tuple, best), *pairs], reverse=True)[:_POOL])
        return [(int(i), int(j)) for _, i, j in best]

    def _scores(
        self,
        products: Float[np.ndarray, "mask set"],
        first: Float[np.ndarray, " set"],
        second: Float[np.ndarray, " set"],
        white: Residuals,
        units: slice,
    ) -> Float[np.ndarray, "set unit"]:
        values = self._values[:, units]
        scores = np.zeros((products.shape[1], values.shape[1]), dtype=np.float32)
        for direction in white.T:
            scores += ((products * direction[:, None]).T @ values) ** 2
        variances = np.outer(second, self._second[units])
        variances -= np.outer(first, self._first[units]) ** 2
        return np.where(variances > 1e-9, scores / np.maximum(variances, 1e-9), 0.0)


def _largest(scores: Float[np.ndarray, "set unit"], max_sets: int) -> list[tuple[int, int]]:
    """Row and column of the largest positive scores, best first."""
    flat = scores.ravel()
    max_sets = min(max_sets, len(flat))
    order = np.argpartition(-flat, max_sets - 1)[:max_sets]
    order = order[np.argsort(-flat[order], kind="stable")]
    order = order[flat[order] > 0]
    rows, columns = np.unravel_index(order, scores.shape)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))
