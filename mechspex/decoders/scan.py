"""Scans: which products of a basis' factors correlate most with a residual."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, compress

import numpy as np
from jaxtyping import Bool, Float, Int

from mechspex.core.units import Term
from mechspex.set_functions.bases import Basis, affine

# Candidates kept of each order in a scan of one round.
BEAM = 60
# A term must rest on this many masks: below it, single rows decide.
SUPPORT = 8
# Where there are no more sets than this, all of them are candidates.
_EVERY_SET = 5 * BEAM
# Pairs scanned in one round: all of them up to 2,048 units, beyond that those of the strongest.
_PAIRS_A_ROUND = 1 << 22
# Pairs, or triples, kept of a scan of all of them, and the scores held at once while it runs.
_POOL, _BLOCK = 1_000, 1 << 24
# Multiplications that a scan of all pairs may take: they say along how many directions it scans.
_SCAN_WORK = 2e13
# Columns of one product where only those above the diagonal are of use.
_TILE = 96
# A score is noise where the product has next to no variance.
_NO_VARIANCE = 1e-9

# One row a term: what is of one term lies side by side, and is gathered so.
Products = Float[np.ndarray, "term mask"]
Residuals = Float[np.ndarray, "mask direction"]


class Factors:
    """The factors φ_i(m) of a basis, and the scans over their products.

    A scan scores a set by Σ_q ⟨φ_S, r_q⟩² / var φ_S over the residual's directions r_q. The
    variance is that of independent units, which saves half of the work and is exact enough for
    candidates.

    Args:
        masks: True = kept.
        keep: the probability p of the Fourier basis.
    """

    def __init__(self, masks: Bool[np.ndarray, "mask unit"], keep: float) -> None:
        self._masks, self._keep = masks, keep
        self._share = masks.mean(axis=0)
        self._values = {"fourier": self._factors("fourier")}
        n_units = masks.shape[1]
        self._hubs = min(n_units, max(BEAM, _PAIRS_A_ROUND // n_units))
        self.all_pairs_a_round = self._hubs == n_units

    def best(
        self, residual: Residuals, basis: Basis, order: int, present: list[Term]
    ) -> list[Term]:
        """The sets with the highest scores, some of each order.

        Where there are few sets in all, these are all of them. Elsewhere all pairs are scanned, or
        those of the strongest units where there are too many; larger sets above the best and the
        present ones. Pairs are looked for among the Fourier products too: a product of another
        basis, with single units taken out of it, is a Fourier product.

        Args:
            residual: the residual, its directions orthonormal.
            basis: the basis of the products.
            order: the most units of a set.
            present: sets whose extensions are scanned too.
        """
        n_units, orders = self._masks.shape[1], range(1, order + 1)
        if sum(math.comb(n_units, k) for k in orders) <= _EVERY_SET:
            return [term for k in orders for term in combinations(range(n_units), k)]
        white = residual.astype(np.float32)
        units = np.argsort(-self._strengths(white), kind="stable")
        found: list[Term] = [(unit,) for unit in units[:BEAM].tolist()]
        if order < 2:
            return found
        bases: tuple[Basis, ...] = tuple(dict.fromkeys((basis, "fourier")))
        pairs = self._pairs(np.sort(units[: self._hubs]), white, bases)
        found += [pair for best in pairs for pair in best]
        base = pairs[0]
        for size in range(2, order):
            base = list(dict.fromkeys([*base, *(term for term in present if len(term) == size)]))
            base = self._extensions(base, white, basis)
            found += base
        return list(dict.fromkeys(found))

    def best_of_all_pairs(self, residual: Residuals) -> list[Term]:
        """The Fourier pairs with the highest scores, block by block: memory stays bounded.

        Args:
            residual: the residual along any directions; this makes them orthonormal.
        """
        values = self._values["fourier"]
        n_masks, n_units = values.shape
        n_directions = max(1, int(_SCAN_WORK / (n_units**2 * n_masks)))
        white = _directions(residual, n_directions)
        first, second = self._moments("fourier")
        best = np.empty((0, 3))
        rows = max(1, _BLOCK // n_units)
        for start in range(0, n_units - 1, rows):
            block = slice(start, min(start + rows, n_units))
            scores = np.zeros((block.stop - start, n_units - start), dtype=np.float32)
            for direction in white.T:
                scores += ((values[:, block] * direction[:, None]).T @ values[:, start:]) ** 2
            variances = _outer(first[block], first[start:], second[block], second[start:])
            scores = _ratio(scores, variances)
            # Only pairs i < j; a unit with itself is no pair.
            scores[np.tril_indices(len(scores), 0, scores.shape[1])] = 0.0
            pairs = [(scores[i, j], start + i, start + j) for i, j in _largest(scores, _POOL)]
            best = np.array(sorted([*map(tuple, best), *pairs], reverse=True)[:_POOL])
        return [(int(i), int(j)) for _, i, j in best]

    def best_of_all_triples(
        self, residual: Residuals, units: Int[np.ndarray, " unit"], least: float, most: int
    ) -> tuple[list[Term], Float[np.ndarray, " term"]]:
        """The Fourier triples with the highest scores, and these scores, the highest first.

        For each unit i a product Zᵀ diag(z_i r) Z gives ⟨z_i z_j z_k, r⟩ for all j and k. Its part
        above the diagonal takes N·n³/6 multiplications over all i, for each direction.

        Args:
            residual: the residual along any directions; this makes them orthonormal.
            units: the units among which all triples are scanned, in ascending order.
            least: triples of a lower score are left out; a score is at most the number of masks.
            most: along how many directions of the residual, the largest first.
        """
        values = np.ascontiguousarray(self._values["fourier"][:, units])
        white = _directions(residual, most)
        first, second = (moment[units] for moment in self._moments("fourier"))
        triples, best = np.empty((0, 3), dtype=np.int64), np.empty(0)
        for i in range(len(units) - 2):
            rest = values[:, i + 1 :]
            squares = np.zeros((rest.shape[1], rest.shape[1]), dtype=np.float32)
            for direction in white.T:
                squares += _upper(rest, values[:, i] * direction) ** 2
            means, powers = first[i] * first[i + 1 :], second[i] * second[i + 1 :]
            variances = _outer(means, first[i + 1 :], powers, second[i + 1 :])
            scores = np.triu(_ratio(squares, variances), 1)
            j, k = np.nonzero(scores > least)
            found = np.stack([np.full_like(j, i), j + i + 1, k + i + 1], axis=1)
            triples, best = np.concatenate([triples, found]), np.concatenate([best, scores[j, k]])
            order = np.argsort(-best, kind="stable")[:_POOL]
            triples, best = triples[order], best[order]
            if len(best) == _POOL:
                least = max(least, float(best[-1]))
        return [tuple(units[triple].tolist()) for triple in triples], best

    def products(self, terms: Sequence[Term], basis: Basis) -> Products:
        """φ_S(m) in single precision, a row a set.

        Args:
            terms: the sets S, none of them empty.
            basis: the basis of the factors.
        """
        by_unit = self._values_in(basis).T
        products = np.empty((len(terms), by_unit.shape[1]), dtype=np.float32)
        sizes = np.array([len(term) for term in terms])
        for size in np.unique(sizes).tolist():
            rows = np.flatnonzero(sizes == size)
            first, *others = np.array([terms[row] for row in rows.tolist()]).T
            product = by_unit[first]
            for unit in others:
                product *= by_unit[unit]
            products[rows] = product
        return products

    def _factors(self, basis: Basis) -> Float[np.ndarray, "mask unit"]:
        slope, offset = affine(basis, self._keep)
        # What is of one unit lies side by side.
        kept = np.ascontiguousarray(self._masks.T)
        return np.where(kept, np.float32(slope + offset), np.float32(offset)).T

    def _values_in(self, basis: Basis) -> Float[np.ndarray, "mask unit"]:
        if basis not in self._values:
            self._values[basis] = self._factors(basis)
        return self._values[basis]

    def _moments(
        self, basis: Basis
    ) -> tuple[Float[np.ndarray, " unit"], Float[np.ndarray, " unit"]]:
        """The mean of φ_i and of φ_i²."""
        slope, offset = affine(basis, self._keep)
        kept, share = slope + offset, self._share
        return (
            share * kept + (1 - share) * offset,
            share * kept**2 + (1 - share) * offset**2,
        )

    def _strengths(self, white: Residuals) -> Float[np.ndarray, " unit"]:
        """The score of every single unit, which is the same in every basis."""
        first, second = self._moments("fourier")
        slopes = ((white.T @ self._values["fourier"]) ** 2).sum(axis=0)
        return _ratio(slopes, second - first**2)

    def _pairs(
        self, hubs: Int[np.ndarray, " hub"], white: Residuals, bases: Sequence[Basis]
    ) -> list[list[Term]]:
        """For each basis the best pairs of a hub and any unit.

        With φ = a·z + b, ⟨φ_i φ_j, r⟩ = a²⟨z_i z_j, r⟩ + ab(⟨z_i, r⟩ + ⟨z_j, r⟩) + b²⟨1, r⟩. So one
        product of matrices serves every basis.
        """
        values = self._values["fourier"]
        n_units = values.shape[1]
        scores = [np.zeros((len(hubs), n_units), dtype=np.float32) for _ in bases]
        slope, offset = affine("fourier", self._keep)
        for direction in white.T:
            if self.all_pairs_a_round:
                products = _upper(values, direction)
            else:
                products = (values[:, hubs] * direction[:, None]).T @ values
            singles, total = direction @ values, float(direction.sum())
            for score, basis in zip(scores, bases, strict=True):
                a, b = affine(basis, self._keep)
                a, b = a / slope, b - a * offset / slope
                moments = products
                if basis != "fourier":
                    moments = a**2 * products + a * b * singles
                    moments += (a * b * singles[hubs] + b**2 * total)[:, None]
                score += moments**2
        pairs = []
        for score, basis in zip(scores, bases, strict=True):
            first, second = self._moments(basis)
            score = _ratio(score, _outer(first[hubs], first, second[hubs], second))
            if self.all_pairs_a_round:
                score = np.triu(score, 1)
            score[np.arange(len(hubs)), hubs] = 0.0
            pairs.append(_sets([(hub,) for hub in hubs.tolist()], score))
        return pairs

    def _extensions(self, base: list[Term], white: Residuals, basis: Basis) -> list[Term]:
        """The best of all sets that are a set of `base`, all of one size, and one more unit.

        A set that rests on too few masks is not extended: with one more unit they become fewer.
        """
        if not base:
            return []
        products = self.products(base, basis)
        supported = support(products) >= SUPPORT
        if not supported.any():
            return []
        base, products = list(compress(base, supported)), products[supported]
        values = self._values_in(basis)
        scores = np.zeros((len(base), values.shape[1]), dtype=np.float32)
        for direction in white.T:
            scores += ((products * direction) @ values) ** 2
        first, second = self._moments(basis)
        means, squares = products.mean(axis=1), (products**2).mean(axis=1)
        scores = _ratio(scores, _outer(means, first, squares, second))
        np.put_along_axis(scores, np.array(base), 0.0, axis=1)
        return _sets(base, scores)


def support(products: Products) -> Float[np.ndarray, " term"]:
    """On how many masks each product rests: (Σφ²)² / Σφ⁴, the number of ones where φ is 0 or 1."""
    squares = products**2
    return squares.sum(axis=1) ** 2 / np.maximum((squares**2).sum(axis=1), 1e-30)


def _directions(residual: Residuals, most: int) -> Residuals:
    """Orthonormal directions of the residual, those that hold most of it first."""
    left, sizes, _ = np.linalg.svd(residual, full_matrices=False)
    return (left * (sizes > 0))[:, :most].astype(np.float32)


def _upper(
    values: Float[np.ndarray, "mask unit"], weights: Float[np.ndarray, " mask"]
) -> Float[np.ndarray, "unit other"]:
    """Σ_m w_m z_mi z_mj for i ≤ j, tile by tile; of what lies below the diagonal most is 0."""
    n_units = values.shape[1]
    weighted = values * weights[:, None]
    products = np.zeros((n_units, n_units), dtype=np.float32)
    for start in range(0, n_units, _TILE):
        tile = slice(start, start + _TILE)
        products[tile, start:] = weighted[:, tile].T @ values[:, start:]
    return products


def _outer(
    first: Float[np.ndarray, " set"],
    other_first: Float[np.ndarray, " unit"],
    second: Float[np.ndarray, " set"],
    other_second: Float[np.ndarray, " unit"],
) -> Float[np.ndarray, "set unit"]:
    """Variances of products of independent factors, from the means of both and of their squares."""
    return np.outer(second, other_second) - np.outer(first, other_first) ** 2


def _ratio(scores: np.ndarray, variances: np.ndarray) -> np.ndarray:
    return np.where(variances > _NO_VARIANCE, scores / np.maximum(variances, _NO_VARIANCE), 0.0)


def _sets(base: list[Term], scores: Float[np.ndarray, "set unit"]) -> list[Term]:
    """The best sets of a row's units and a column's."""
    # A set of k units is met up to k times.
    max_sets = min(BEAM * (len(base[0]) + 1), scores.size)
    sets = (tuple(sorted((*base[row], unit))) for row, unit in _largest(scores, max_sets))
    return list(dict.fromkeys(sets))[:BEAM]


def _largest(scores: Float[np.ndarray, "set unit"], max_sets: int) -> list[tuple[int, int]]:
    """Row and column of the largest positive scores, best first."""
    flat = scores.ravel()
    max_sets = min(max_sets, len(flat))
    order = np.argpartition(-flat, max_sets - 1)[:max_sets]
    order = order[np.argsort(-flat[order], kind="stable")]
    order = order[flat[order] > 0]
    rows, columns = np.unravel_index(order, scores.shape)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))
