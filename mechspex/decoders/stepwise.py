"""Stepwise search: terms are added and dropped, one round after another, while the EBIC falls."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import solve_triangular

from mechspex.core.units import Term
from mechspex.decoders.decoder import Samples
from mechspex.decoders.scan import SUPPORT, Factors, Products, Residuals, support
from mechspex.set_functions.bases import Basis, features

LARGEST_ORDER = 5
# The fit is exact when Σ residual² is below this share of Σ value².
_ROUNDING_OF_SQUARES = 1e-18
# A direction of the outputs is explained when its residual is below this share of all residuals.
_SINGULAR = 1e-14
# A column is new if this share of its squared length lies outside the span of the present columns.
_NEW = 1e-8
# Directions of the outputs that together hold less than this share of the variance are noise.
_REST = 1e-3
# One survey serves until it was followed by terms of this share of the present ones, above so many:
# the first few decide where the search ends, and each is chosen from a survey of its own.
_STALE, _FEW = 0.1, 24

Columns = Float[np.ndarray, "mask term"]


@dataclass
class _Pool:
    """Candidates of one survey, with their own units, kept orthogonal to the present terms.

    Single precision is enough to choose by; the coefficients never come from here.

    Attributes:
        terms: the candidates, then the single units in them.
        n_candidates: how many of `terms` are candidates.
        products: the product of each of `terms`, a row each.
        rest: the part of each product outside the span of the present terms.
        sizes: the squared length of each row of `rest`.
        added: how many terms were added since the survey.
        visited: the present terms of each round since the survey.
    """

    terms: list[Term]
    n_candidates: int
    products: Products
    rest: Products
    sizes: Float[np.ndarray, " term"]
    added: int = 0
    visited: set[frozenset[Term]] = field(default_factory=set)

    def without(self, directions: Columns) -> None:
        """Keep what is orthogonal to more directions, which are orthonormal, as well."""
        directions = directions.astype(np.float32)
        along = self.rest @ directions
        self.rest -= along @ directions.T
        self.sizes = np.maximum(self.sizes - (along**2).sum(axis=1), 0.0)

    def with_direction(self, direction: Float[np.ndarray, " mask"]) -> None:
        """Give back a direction that the present terms span no longer, of length 1."""
        direction = direction.astype(np.float32)
        along = self.products @ direction
        self.rest += along[:, None] * direction
        self.sizes += along**2


class Search:
    """One greedy search; `terms` are its result, `score` says how good they are.

    Singles span the same functions in every basis, so the search begins with them and is continued
    in one basis or another by `in_basis`.

    Args:
        samples: the masks and values.
        proposed: sets that are tried in every round, such as those of another decoder.
    """

    def __init__(self, samples: Samples, proposed: tuple[Term, ...]) -> None:
        self.basis: Basis = "fourier"
        self._samples = samples
        self._values = _principal(samples.values - samples.values.mean(axis=0))
        self._floor = _ROUNDING_OF_SQUARES * float((self._values**2).sum()) / self._values.shape[1]
        self.order = samples.order_up_to(LARGEST_ORDER)
        self._prices_by_order = self._price_list()
        self.factors = Factors(samples.masks, samples.keep)
        self.proposed = proposed
        self.terms: list[Term] = [()]
        self._design = np.ones((samples.n_masks, 1))
        self._solve()
        self.climb(1)

    def in_basis(self, basis: Basis) -> Search:
        """The same search, to be continued in another basis; only for terms of one unit.

        Args:
            basis: the basis of the terms from here on.
        """
        other = copy(self)
        other.basis = basis
        other._design = other._columns(other.terms)
        other._solve()
        return other

    @property
    def score(self) -> float:
        """EBIC of leave-one-out residuals."""
        n_masks = self._samples.n_masks
        volume = np.linalg.slogdet(self._covariance(self._left_out()) / n_masks)[1]
        return n_masks * float(volume) + self._prices(self.terms).sum()

    @property
    def residual(self) -> Residuals:
        """What the terms leave over, along the principal directions of the outputs."""
        return self._residual

    @property
    def unexplained(self) -> float:
        """Σ leave-one-out residual² over Σ value²."""
        return float((self._left_out() ** 2).sum() / (self._values**2).sum())

    @property
    def is_exact(self) -> bool:
        """Whether rounding is all that is left over."""
        return float((self._residual**2).sum()) <= self._floor * self._residual.shape[1]

    def output_coefficients(self) -> Float[np.ndarray, "term output"]:
        """Least squares for every output of its own on the shared terms."""
        values = self._samples.values - self._samples.values.mean(axis=0)
        return self._inverse @ (self._q.T @ values)

    def price(self, order: int) -> float:
        """What a term of so many units must lower N log det(RᵀR) by.

        Args:
            order: how many units.
        """
        return self._prices_by_order[order]

    def climb(self, order: int, max_terms: int | None = None) -> None:
        """Add and drop terms until none pays.

        One survey of all sets serves several rounds: until nothing in it pays, or too many terms
        were added since.

        Args:
            order: the most units of a term.
            max_terms: interactions after which to stop; no such bound if not given.
        """
        max_terms = len(self._design) if max_terms is None else max_terms
        surveyed: set[frozenset[Term]] = set()
        pool: _Pool | None = None
        while not self.is_exact and sum(len(term) > 1 for term in self.terms) < max_terms:
            present = frozenset(self.terms)
            # What was there before would come again, unless the survey is a new one.
            if pool is None or present in pool.visited or self._is_stale(pool):
                if present in surveyed:
                    return
                surveyed.add(present)
                pool = self._survey(order)
            pool.visited.add(present)
            chosen = self._choose(pool)
            if chosen:
                self._add([pool.terms[j] for j in chosen], pool)
                self._prune(pool)
            elif pool.added:
                pool = None
            else:
                return

    def _is_stale(self, pool: _Pool) -> bool:
        return pool.added > _STALE * max(0, len(self.terms) - _FEW)

    # ── Least squares ─────────────────────────────────────────────────────────────────────────────

    def _solve(self) -> None:
        """Least squares on the present terms."""
        self._q, r = _qr(self._design)
        self._inverse = np.linalg.inv(r)
        self._residual = self._values - self._q @ (self._q.T @ self._values)
        self._finish()

    def _add(self, terms: list[Term], pool: _Pool) -> None:
        """Least squares on the present terms and some more, by the new columns of Q and R alone."""
        columns = self._columns(terms)
        along = self._q.T @ columns
        outside = columns - self._q @ along
        again = self._q.T @ outside
        q, r = _qr(outside - self._q @ again)
        inverse = np.linalg.inv(r)
        corner = -self._inverse @ ((along + again) @ inverse)
        below = np.zeros((len(terms), len(self.terms)))
        self._inverse = np.block([[self._inverse, corner], [below, inverse]])
        self._q = np.hstack([self._q, q])
        self.terms = self.terms + terms
        self._design = np.hstack([self._design, columns])
        self._residual = self._residual - q @ (q.T @ self._residual)
        self._finish()
        pool.without(q)
        pool.added += len(terms)

    def _finish(self) -> None:
        self._coefficients = self._inverse @ (self._q.T @ self._values)
        self._variances = (self._inverse**2).sum(axis=1)
        self._white = np.linalg.inv(np.linalg.cholesky(self._covariance(self._residual))).T

    def _left_out(self) -> Residuals:
        leverage = np.minimum((self._q**2).sum(axis=1, keepdims=True), 1 - 1e-9)
        return self._residual / (1 - leverage)

    def _covariance(self, residual: Residuals) -> Float[np.ndarray, "direction direction"]:
        """RᵀR, floored where the fit is exact, of all outputs or of some."""
        covariance = residual.T @ residual
        floor = max(self._floor, _SINGULAR * float(np.trace(covariance)))
        return covariance + floor * np.eye(len(covariance))

    # ── The criterion ─────────────────────────────────────────────────────────────────────────────

    def _price_list(self) -> list[float]:
        n_masks, n_units = self._samples.n_masks, self._samples.n_units
        others = self._values.shape[1] - 1
        prices = []
        for k in range(self.order + 1):
            t = math.log(n_masks) / 2 + math.log(math.comb(n_units, k))
            prices.append(2 * t + others + 2 * math.sqrt(others * t))
        return prices

    def _prices(self, terms: list[Term]) -> Float[np.ndarray, " term"]:
        return np.array([self._prices_by_order[len(term)] for term in terms])

    def _gains(
        self, moments: Float[np.ndarray, "term direction"], sizes: Float[np.ndarray, " term"]
    ) -> Float[np.ndarray, " term"]:
        """How much columns, orthogonal to the present terms, would lower N log det(RᵀR).

        Args:
            moments: ⟨column, whitened residual⟩.
            sizes: ⟨column, column⟩.
        """
        # A column in the span of the present terms leaves rounding only.
        share = np.where(sizes > _NEW, (moments**2).sum(axis=1) / np.maximum(sizes, _NEW), 0.0)
        return -self._samples.n_masks * np.log1p(-np.minimum(share, 1 - 1e-15))

    def _choose(self, pool: _Pool) -> list[int]:
        """The best candidates that pay, few enough that they do not stand in for each other.

        A product of two units correlates with each of them, so an interaction must also pay once
        its own units are free to act alone: an additive function has none.

        Returns:
            Places of the chosen terms in the pool.
        """
        n, rest = pool.n_candidates, pool.rest
        white = (self._residual @ self._white).astype(np.float32)
        moments = (rest @ white).astype(float)
        gains = self._gains(moments[:n], pool.sizes[:n]) - self._prices(pool.terms[:n])
        paying = np.flatnonzero(gains > 0)
        paying = paying[support(rest[paying]) >= SUPPORT]
        paying = paying[np.argsort(-gains[paying], kind="stable")]
        paying = paying[self._interact(paying, rest[paying], pool)]
        max_terms = min(1 + len(self.terms) // 8, self._samples.n_masks // 2 - len(self.terms))
        chosen: list[int] = []
        directions = np.empty((rest.shape[1], 0))
        for j in paying.tolist():
            if len(chosen) >= max_terms or (chosen and gains[j] <= 0.5 * gains[chosen[0]]):
                break
            column = _orthogonal(rest[[j]].T, directions)
            if (column**2).sum() < _NEW * pool.sizes[j]:
                continue
            if chosen and not self._interact(np.array([j]), column.T, pool)[0]:
                continue
            chosen.append(j)
            directions = np.hstack([directions, column / np.linalg.norm(column)])
        return chosen

    def _interact(
        self, places: Int[np.ndarray, " term"], products: Products, pool: _Pool
    ) -> np.ndarray:
        """Whether terms, orthogonal to the present ones, pay beyond their own units.

        With U the units of a term, c its product and R the residual, all orthogonal to the present
        terms, the gain is −N log(1 − m′ᵀ C⁻¹ m′ / s′). Here s′ = cᵀc − cᵀU(UᵀU)⁻¹Uᵀc,
        m′ = Rᵀc − RᵀU(UᵀU)⁻¹Uᵀc, and C = RᵀR − RᵀU(UᵀU)⁻¹UᵀR.

        Args:
            places: the places of the terms in the pool.
            products: their products.
            pool: the candidates and their units.
        """
        terms = [pool.terms[j] for j in places]
        pays = np.array([len(term) == 1 for term in terms], dtype=bool)
        if pays.all():
            return pays
        place_of = {term[0]: j for j, term in enumerate(pool.terms) if len(term) == 1}
        used = sorted({i for term in terms if len(term) > 1 for i in term})
        row_of = {unit: row for row, unit in enumerate(used)}
        units = pool.rest[[place_of[unit] for unit in used]].astype(float)
        products = products.astype(float)
        gram, cross = units @ units.T, units @ products.T
        by_unit, by_term = units @ self._residual, products @ self._residual
        sizes = (products**2).sum(axis=1)
        covariance = self._covariance(self._residual)
        for order in {len(term) for term in terms} - {1}:
            rows = np.array([j for j, term in enumerate(terms) if len(term) == order])
            own = np.array([[row_of[i] for i in terms[j]] for j in rows])
            inverse = _inverses(gram[own[:, :, None], own[:, None, :]])
            slopes = (inverse @ cross[own, rows[:, None]][:, :, None])[:, :, 0]
            size = sizes[rows] - (slopes * cross[own, rows[:, None]]).sum(axis=1)
            moment = by_term[rows] - np.einsum("tu,tud->td", slopes, by_unit[own])
            left = covariance - by_unit[own].transpose(0, 2, 1) @ inverse @ by_unit[own]
            solved = np.linalg.solve(left, moment[:, :, None])[:, :, 0]
            new = size > _NEW * np.maximum(sizes[rows], 1.0)
            share = np.where(new, (moment * solved).sum(axis=1) / np.maximum(size, _NEW), 0.0)
            gains = -self._samples.n_masks * np.log1p(-np.clip(share, 0.0, 1 - 1e-15))
            pays[rows] = gains > self._prices_by_order[order]
        return pays

    def _prune(self, pool: _Pool) -> None:
        """Drop the terms, worst first, whose loss the criterion does not notice."""
        while len(self.terms) > 1:
            white = self._coefficients @ self._white
            increase = (white**2).sum(axis=1) / self._variances
            losses = self._samples.n_masks * np.log1p(increase)
            losses -= self._prices(self.terms)
            losses[0] = np.inf
            worst = int(np.argmin(losses))
            if losses[worst] > 0:
                return
            # The direction in the span of all terms that is orthogonal to all others.
            own = self._inverse[worst] / math.sqrt(self._variances[worst])
            pool.with_direction(self._q @ own)
            self.terms = self.terms[:worst] + self.terms[worst + 1 :]
            self._design = np.delete(self._design, worst, axis=1)
            self._solve()

    # ── Candidates ────────────────────────────────────────────────────────────────────────────────

    def _columns(self, terms: list[Term]) -> Columns:
        return features(self._samples.masks, terms, basis=self.basis, keep=self._samples.keep)

    def _survey(self, order: int) -> _Pool:
        """The sets whose products correlate most with the residual, some of each order."""
        sets = dict.fromkeys(term for term in self.proposed if len(term) <= order)
        white = self._residual @ self._white
        sets.update(dict.fromkeys(self.factors.best(white, self.basis, order, self.terms)))
        present = set(self.terms)
        candidates = [term for term in sets if term not in present]
        alone = dict.fromkeys((unit,) for term in candidates for unit in term)
        others = [term for term in alone if term not in sets or term in present]
        terms = candidates + others
        products = self.factors.products(terms, self.basis)
        q = self._q.astype(np.float32)
        rest = products - (products @ q) @ q.T
        return _Pool(terms, len(candidates), products, rest, np.einsum("tm,tm->t", rest, rest))


def _principal(values: Float[np.ndarray, "mask output"]) -> Residuals:
    """The values along the principal directions of the outputs, without the negligible ones."""
    left, sizes, _ = np.linalg.svd(values, full_matrices=False)
    shares = sizes**2 / (sizes**2).sum()
    kept = 1 + int((np.cumsum(shares[::-1])[::-1][1:] > _REST).sum())
    return left[:, :kept] * sizes[:kept]


def _qr(design: Columns) -> tuple[Columns, Float[np.ndarray, "term term"]]:
    """QR by Cholesky, twice (Yamamoto et al. 2015): several times as fast, and as accurate unless
    the terms are nearly dependent; then by Householder."""
    q, r = design, np.eye(design.shape[1])
    try:
        for _ in range(2):
            factor = np.linalg.cholesky(q.T @ q).T
            q = solve_triangular(factor, q.T, trans=1, check_finite=False).T
            r = factor @ r
    except np.linalg.LinAlgError:
        return np.linalg.qr(design)
    return q, r


def _inverses(grams: Float[np.ndarray, "term unit unit"]) -> Float[np.ndarray, "term unit unit"]:
    """Inverses of Gram matrices along the directions in which they are not singular."""
    # The least eigenvalue is det / ∏ others, and ∏ others is at most (tr / (k−1))^(k−1).
    others = max(1, grams.shape[-1] - 1)
    traces = np.trace(grams, axis1=1, axis2=2)
    least = np.linalg.det(grams) * (others / np.maximum(traces, 1.0)) ** others
    if (least > _NEW * np.maximum(traces, 1.0)).all():
        return np.linalg.inv(grams)
    sizes, vectors = np.linalg.eigh(grams)
    regular = sizes > _NEW * np.maximum(sizes[:, -1:], 1.0)
    inverse = np.where(regular, 1 / np.where(regular, sizes, 1.0), 0.0)
    return (vectors * inverse[:, None, :]) @ vectors.transpose(0, 2, 1)


def _orthogonal(columns: Columns, basis: Float[np.ndarray, "mask direction"]) -> Columns:
    """The part of the columns outside an orthonormal basis; taken twice, against rounding."""
    rest = columns - basis @ (basis.T @ columns)
    return rest - basis @ (basis.T @ rest)
