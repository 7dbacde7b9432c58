"""Pursuit decoder: greedy search for few terms, in the basis where they are fewest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from scipy.linalg import solve_triangular

from mechspex.core.units import Term
from mechspex.decoders.decoder import Decoder, Samples
from mechspex.decoders.scan import BEAM, Columns, Factors, Residuals
from mechspex.decoders.spex.decoder import Spex
from mechspex.set_functions.bases import Basis, features
from mechspex.set_functions.r_squared import r_squared
from mechspex.set_functions.set_function import SetFunction

_LARGEST_ORDER = 5
# Interactions after which the bases are compared and only the best one goes on.
_HEAD_START = 40
# A term must rest on this many masks: below it, single rows decide.
_SUPPORT = 8
# The fit is exact when Σ residual² is below this share of Σ value².
_ROUNDING_OF_SQUARES = 1e-18
# A direction of the outputs is explained when its residual is below this share of all residuals.
_SINGULAR = 1e-14
# A column is new if this share of its squared length lies outside the span of the present columns.
_NEW = 1e-8
# Shares of kept entries beyond which a Fourier product takes its variance from a few rare masks.
_FOURIER_DENSITIES = (0.25, 0.75)
# Directions of the outputs that together hold less than this share of the variance are noise.
_REST = 1e-3


@dataclass(frozen=True, repr=False)
class Pursuit(Decoder):
    """Stepwise regression on sets of units, chosen by the extended information criterion.

    Each round scans the residual's correlation with every single, every pair (one matrix product,
    Zᵀ diag(r) Z) and the extensions of the best sets by one unit. It adds the terms that most lower

        EBIC = N log det(RᵀR) + Σ_S price(S),    price(S) = log N + 2 log C(n, |S|)  for one output

    and drops terms that no longer pay. A set that does nothing lowers the EBIC only if it is the
    luckiest of all C(n, |S|) by a margin of log N. So on pure noise the chance of reporting any
    interaction falls as 1/√N (Chen & Chen 2008, the criterion at γ = 1).

    Several outputs share the terms. R holds the residual along the q principal directions of the
    outputs, so an effect that cancels in their mean is found. With t = price(S)/2 the price becomes
    2t + q − 1 + 2√((q−1)t), the same tail of χ² with q degrees of freedom (Laurent & Massart 2000,
    lemma 1).

    An AND is one term in the `kept` basis, an OR one in `ablated`, a parity one in `fourier`. All
    bases that suit the design are tried. The one with the lowest EBIC of leave-one-out residuals
    after some forty interactions goes on to the end. A pair is found even if neither of its units
    acts alone: all pairs are scanned, in blocks, also where there are a billion. A larger set is
    found above a smaller set that shows, or if it is proposed: by SPEX where the masks are SPEX's,
    by other decoders, or by the user.

    Attributes:
        candidates: sets that are tried in every round, such as those of a screen.
        proposers: other decoders whose terms are tried too, such as boosted trees.
    """

    name: ClassVar[str] = "pursuit"

    candidates: tuple[Term, ...] = ()
    proposers: tuple[Decoder, ...] = ()

    def minimum_masks(self, n_units: int) -> int:
        return 20

    def fit(self, samples: Samples) -> SetFunction:
        bases: list[Basis] = ["ablated", "kept"]
        lowest, highest = _FOURIER_DENSITIES
        if lowest <= samples.masks.mean() <= highest:
            bases.append("fourier")
        proposed = self._proposed(samples)
        searches = [_Search(samples, basis, proposed) for basis in bases]
        best = min(searches, key=lambda search: search.score)
        best.go_on()
        coefficients = best.output_coefficients()
        coefficients[0] += samples.values.mean(axis=0)
        assumed = (
            "sets without structure come from SPEX's design"
            if samples.groups
            else "sets of three and more are looked for above sets that show"
        )
        note = (
            f"pursuit: {len(best.terms) - 1} terms, fewest in the {best.basis} basis; all pairs "
            f"searched, {assumed}"
        )
        terms = dict(zip(best.terms, coefficients, strict=True))
        return samples.function(terms, basis=best.basis, notes=(note,))

    def _proposed(self, samples: Samples) -> tuple[Term, ...]:
        proposers = (Spex(), *self.proposers) if samples.groups else self.proposers
        answers = (decoder.decode(samples) for decoder in proposers)
        terms = [*self.candidates, *(term for answer in answers for term in answer.terms)]
        highest = samples.order_up_to(_LARGEST_ORDER)
        return tuple(dict.fromkeys(term for term in terms if 0 < len(term) <= highest))


class _Search:
    """One greedy search in one basis; `terms` are its result, `score` says how good they are."""

    def __init__(self, samples: Samples, basis: Basis, proposed: tuple[Term, ...]) -> None:
        self.basis: Basis = basis
        self._samples = samples
        self._values = _principal(samples.values - samples.values.mean(axis=0))
        self._floor = _ROUNDING_OF_SQUARES * float((self._values**2).sum()) / self._values.shape[1]
        self._order = samples.order_up_to(_LARGEST_ORDER)
        self._prices_by_order = self._price_list()
        self._factors = [
            Factors(samples.masks, b, samples.keep) for b in dict.fromkeys((basis, "fourier"))
        ]
        self._pool = proposed
        self.terms: list[Term] = [()]
        self._design = np.ones((samples.n_masks, 1))
        self._solve()
        for order in sorted({1, self._order}):
            self._climb(order, _HEAD_START)

    @property
    def score(self) -> float:
        """EBIC of leave-one-out residuals."""
        leverage = np.minimum((self._q**2).sum(axis=1, keepdims=True), 1 - 1e-9)
        left_out = self._residual / (1 - leverage)
        n_masks = self._samples.n_masks
        volume = np.linalg.slogdet(self._covariance(left_out) / n_masks)[1]
        return n_masks * float(volume) + self._prices(self.terms).sum()

    def output_coefficients(self) -> Float[np.ndarray, "term output"]:
        """Least squares for every output of its own on the shared terms."""
        values = self._samples.values - self._samples.values.mean(axis=0)
        return self._inverse @ (self._q.T @ values)

    def go_on(self) -> None:
        """Climb to the end; scan all pairs of units, however many, and climb from the best."""
        self._climb(self._order)
        if self._order < 2 or self._is_exact() or self._factors[-1].all_pairs_a_round:
            return
        self._pool += tuple(self._factors[-1].best_of_all_pairs(self._residual))
        self._climb(self._order)

    def _solve(self) -> None:
        """Least squares on the present terms."""
        self._q, r = _qr(self._design)
        self._inverse = np.linalg.inv(r)
        self._coefficients = self._inverse @ (self._q.T @ self._values)
        self._variances = (self._inverse**2).sum(axis=1)
        self._residual = self._values - self._design @ self._coefficients
        self._white = np.linalg.inv(np.linalg.cholesky(self._covariance(self._residual))).T

    def _covariance(self, residual: Residuals) -> Float[np.ndarray, "direction direction"]:
        """RᵀR, floored where the fit is exact, of all outputs or of some."""
        covariance = residual.T @ residual
        floor = max(self._floor, _SINGULAR * float(np.trace(covariance)))
        return covariance + floor * np.eye(len(covariance))

    def _is_exact(self) -> bool:
        return float((self._residual**2).sum()) <= self._floor * self._residual.shape[1]

    def _price_list(self) -> list[float]:
        n_masks, n_units = self._samples.n_masks, self._samples.n_units
        others = self._values.shape[1] - 1
        prices = []
        for k in range(self._order + 1):
            t = math.log(n_masks) / 2 + math.log(math.comb(n_units, k))
            prices.append(2 * t + others + 2 * math.sqrt(others * t))
        return prices

    def _prices(self, terms: list[Term]) -> Float[np.ndarray, " term"]:
        return np.array([self._prices_by_order[len(term)] for term in terms])

    def _climb(self, order: int, max_terms: int | None = None) -> None:
        """Add and drop terms until none pays, or there are `max_terms` interactions."""
        max_terms = len(self._design) if max_terms is None else max_terms
        seen: set[frozenset[Term]] = set()
        while not self._is_exact() and frozenset(self.terms) not in seen:
            if sum(len(term) > 1 for term in self.terms) >= max_terms:
                return
            seen.add(frozenset(self.terms))
            candidates = [t for t in self._scan(order) if t not in set(self.terms)]
            columns = self._columns(candidates)
            chosen = self._choose(candidates, _orthogonal(columns, self._q))
            if not chosen:
                return
            self.terms = self.terms + [candidates[j] for j in chosen]
            self._design = np.hstack([self._design, columns[:, chosen]])
            self._solve()
            self._prune()

    def _choose(self, candidates: list[Term], rest: Columns) -> list[int]:
        """The best candidates that pay, few enough that they do not stand in for each other.

        A product of two units correlates with each of them, so an interaction must also pay once
        its own units are free to act alone: an additive function has none.

        Args:
            candidates: the terms to choose from.
            rest: the part of each candidate's column that is orthogonal to the present terms.

        Returns:
            Places of the chosen terms among the candidates.
        """
        gains = self._gains(rest) - self._prices(candidates)
        max_terms = min(1 + len(self.terms) // 8, self._samples.n_masks // 2 - len(self.terms))
        paying = np.flatnonzero(gains > 0)
        units = sorted({i for j in paying for i in candidates[j]})
        alone = _orthogonal(self._columns([(i,) for i in units]), self._q)
        column_of = {unit: column for column, unit in enumerate(units)}
        chosen: list[int] = []
        directions = np.empty((len(rest), 0))
        for j in paying[np.argsort(-gains[paying], kind="stable")].tolist():
            if len(chosen) >= max_terms or (chosen and gains[j] <= 0.5 * gains[chosen[0]]):
                break
            column = _orthogonal(rest[:, [j]], directions)
            if (column**2).sum() < _NEW * (rest[:, j] ** 2).sum():
                continue
            own = alone[:, [column_of[i] for i in candidates[j]]]
            if len(candidates[j]) > 1 and not self._interacts(candidates[j], column, own):
                continue
            chosen.append(j)
            directions = np.hstack([directions, column / np.linalg.norm(column)])
        return chosen

    def _interacts(
        self, term: Term, column: Float[np.ndarray, "mask 1"], own: Float[np.ndarray, "mask unit"]
    ) -> bool:
        """Whether a term, orthogonal to the present terms, pays beyond its own units.

        This takes the products of `own`, `column` and the residual alone, not the masks.
        """
        both = np.hstack([own, column])
        gram, moment = both.T @ both, both.T @ self._residual
        covariance = self._covariance(self._residual)
        volumes = [
            np.linalg.slogdet(covariance - _explained(gram[:k, :k], moment[:k]))[1]
            for k in (len(gram) - 1, len(gram))
        ]
        return bool(self._samples.n_masks * (volumes[0] - volumes[1]) > self._prices([term])[0])

    def _gains(
        self, rest: Columns, residual: Residuals | None = None
    ) -> Float[np.ndarray, " term"]:
        """How much each column, orthogonal to the present terms, would lower N log det(RᵀR)."""
        white = self._residual @ self._white
        if residual is not None:
            white = residual @ np.linalg.inv(np.linalg.cholesky(self._covariance(residual))).T
        squares = rest**2
        norms = squares.sum(axis=0)
        # A column in the span of the present terms leaves rounding only.
        new = norms > _NEW
        norms = np.where(new, norms, 1.0)
        support = norms**2 / np.maximum((squares**2).sum(axis=0), np.finfo(float).tiny)
        share = ((rest.T @ white) ** 2).sum(axis=1) / norms
        share = np.where(new & (support >= _SUPPORT), share, 0.0)
        return -len(rest) * np.log1p(-np.minimum(share, 1 - 1e-15))

    def _prune(self) -> None:
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
            self.terms = self.terms[:worst] + self.terms[worst + 1 :]
            self._design = np.delete(self._design, worst, axis=1)
            self._solve()

    def _columns(self, terms: list[Term]) -> Columns:
        return features(self._samples.masks, terms, basis=self.basis, keep=self._samples.keep)

    def _scan(self, largest: int) -> list[Term]:
        """The sets whose features correlate most with the residual, some of each order.

        Pairs are looked for among the Fourier features too: a product of the basis, with single
        units taken out of it, is a Fourier product.
        """
        white = (self._residual @ self._white).astype(np.float32)
        sets = dict.fromkeys(t for t in self._pool if len(t) <= largest)
        orders = (largest, min(2, largest))
        for factors, order in zip(self._factors, orders, strict=False):
            units = np.argsort(-factors.strengths(white), kind="stable")
            sets.update(dict.fromkeys((int(i),) for i in units[:BEAM]))
            base: list[Term] = [(int(i),) for i in np.sort(units[: factors.hubs])]
            for size in range(2, order + 1):
                base = factors.extend(base, white)
                sets.update(dict.fromkeys(base))
                base = list(dict.fromkeys(base + [t for t in self.terms if len(t) == size]))
        return list(sets)


def charged_r2(samples: Samples, answer: SetFunction) -> float:
    """R² on the training masks, each term charged what it costs to find it by the EBIC.

    1 − (RSS/TSS)·exp(Σ_S price(S)/N): a term that chance could have found lowers it.

    Args:
        samples: the training masks and values.
        answer: the function that was recovered from them.
    """
    n_masks, n_units = samples.n_masks, samples.n_units
    unexplained = 1 - r_squared(samples.values, answer.predict_outputs(samples.masks))
    prices = sum(
        math.log(n_masks) + 2 * math.log(math.comb(n_units, len(term))) for term in answer.terms
    )
    return 1 - unexplained * math.exp(min(prices / n_masks, 700.0))


def _principal(values: Float[np.ndarray, "mask output"]) -> Residuals:
    """The values along the principal directions of the outputs, without the negligible ones."""
    left, sizes, _ = np.linalg.svd(values, full_matrices=False)
    shares = sizes**2 / (sizes**2).sum()
    kept = 1 + int((np.cumsum(shares[::-1])[::-1][1:] > _REST).sum())
    return left[:, :kept] * sizes[:kept]


def _qr(
    design: Columns,
) -> tuple[Columns, Float[np.ndarray, "term term"]]:
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


def _explained(
    gram: Float[np.ndarray, "column column"], moment: Float[np.ndarray, "column direction"]
) -> Float[np.ndarray, "direction direction"]:
    """The part of the residual's covariance that columns with these products explain."""
    sizes, vectors = np.linalg.eigh(gram)
    along = vectors.T @ moment
    inverse = np.where(sizes > _NEW * max(sizes[-1], 1.0), 1 / np.maximum(sizes, 1e-300), 0.0)
    return (along.T * inverse) @ along


def _orthogonal(columns: Columns, basis: Float[np.ndarray, "mask direction"]) -> Columns:
    """The part of the columns outside an orthonormal basis; taken twice, against rounding."""
    rest = columns - basis @ (basis.T @ columns)
    return rest - basis @ (basis.T @ rest)
