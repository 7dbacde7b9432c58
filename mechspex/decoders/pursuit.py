"""Pursuit decoder: greedy search for few terms, in the basis where they are fewest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from mechspex.decoders.decoder import Decoder, Samples
from mechspex.set_function import Basis, SetFunction, Term, features

_LARGEST_ORDER = 5
# Candidates kept of each order in a scan.
_BEAM = 60
# Pairs are scanned with at least one member among this many of the strongest units.
_HUBS = 512
# A term must rest on this many masks: below it, single rows decide.
_SUPPORT = 8
# The fit is exact when the residual's share of the variance is below this.
_EXACT = 1e-18
# A column is new if this share of it lies outside what is there already.
_NEW = 1e-8
# Away from p = ½ a Fourier product takes its variance from a few rare masks.
_FOURIER_DENSITIES = (0.3, 0.7)


@dataclass(frozen=True)
class Pursuit(Decoder):
    """Stepwise regression on sets of units, chosen by the extended information criterion.

    Each round scans the residual's correlation with every single, every pair (one matrix product,
    Zᵀ diag(r) Z) and the extensions of the best sets by one unit, adds the terms that lower

        EBIC = N log(RSS/N) + Σ_S [log N + 2 log C(n, |S|)]

    most, and drops those that no longer pay. Adding a set that does nothing lowers the EBIC only
    if it is the luckiest of all C(n, |S|) by a margin of log N, so on pure noise the chance of
    reporting any interaction falls as 1/√N (Chen & Chen 2008, the criterion at γ = 1).
    An AND is one term in the `kept` basis, an OR one in `ablated`, a parity one in `fourier`; all
    that suit the design are tried, and the one with the lowest EBIC of leave-one-out residuals is
    the answer.
    """

    name: ClassVar[str] = "pursuit"

    def minimum_masks(self, n_units: int) -> int:
        return 20

    def fit(self, samples: Samples) -> SetFunction:
        bases: list[Basis] = ["ablated", "kept"]
        lowest, highest = _FOURIER_DENSITIES
        if lowest <= samples.keep <= highest:
            bases.append("fourier")
        searches = [_Search(samples, basis) for basis in bases]
        best = min(searches, key=lambda search: search.score)
        coefficients = dict(zip(best.terms, best.coefficients.tolist(), strict=True))
        coefficients[()] += float(samples.values.mean())
        note = f"pursuit: {len(best.terms) - 1} terms, fewest in the {best.basis} basis"
        return SetFunction.from_mapping(
            samples.n_units, coefficients, basis=best.basis, keep=samples.keep, notes=(note,)
        )


class _Search:
    """One greedy search in one basis; `terms`, `coefficients` and `score` are its result."""

    def __init__(self, samples: Samples, basis: Basis) -> None:
        self.basis: Basis = basis
        self._samples = samples
        self._values = samples.values - samples.values.mean()
        self._order = samples.order_up_to(_LARGEST_ORDER)
        singles = [(i,) for i in range(samples.n_units)]
        self._factors = [
            features(samples.masks, singles, basis=b, keep=samples.keep)
            for b in dict.fromkeys((basis, "fourier"))
        ]
        # Variances of products of two units, which do not change from scan to scan.
        self._pair_variances: dict[int, np.ndarray] = {}
        self.terms: list[Term] = [()]
        self._design = np.ones((samples.n_masks, 1))
        self._solve()
        for order in sorted({1, samples.order_up_to(_LARGEST_ORDER)}):
            self._climb(order)

    @property
    def score(self) -> float:
        """EBIC of leave-one-out residuals."""
        leverage = np.minimum((self._q**2).sum(axis=1), 1 - 1e-9)
        squares = ((self._residual / (1 - leverage)) ** 2).sum()
        floor = _EXACT * (self._values @ self._values)
        n_masks = self._samples.n_masks
        return n_masks * math.log(max(squares, floor) / n_masks) + self._prices(self.terms).sum()

    def _solve(self) -> None:
        """Least squares on the present terms."""
        q, r = np.linalg.qr(self._design)
        inverse = np.linalg.inv(r)
        self.coefficients = inverse @ (q.T @ self._values)
        self._q = q
        self._variances = (inverse**2).sum(axis=1)
        self._residual = self._values - self._design @ self.coefficients
        self._squares = float(self._residual @ self._residual)

    def _prices(self, terms: list[Term]) -> Float[np.ndarray, " term"]:
        n_masks, n_units = self._samples.n_masks, self._samples.n_units
        by_order = [
            math.log(n_masks) + 2 * math.log(math.comb(n_units, k)) for k in range(self._order + 1)
        ]
        return np.array([by_order[len(term)] for term in terms])

    def _climb(self, order: int) -> None:
        exact = _EXACT * (self._values @ self._values)
        seen: set[frozenset[Term]] = set()
        while self._squares > exact and frozenset(self.terms) not in seen:
            seen.add(frozenset(self.terms))
            candidates = [t for t in self._scan(order) if t not in set(self.terms)]
            columns = self._columns(candidates)
            gains = _gains(_orthogonal(columns, self._q), self._residual)
            gains -= self._prices(candidates)
            chosen = self._choose(candidates, columns, gains)
            if not chosen:
                return
            self.terms = self.terms + [candidates[j] for j in chosen]
            self._design = np.hstack([self._design, columns[:, chosen]])
            self._solve()
            self._prune(exact)

    def _choose(
        self,
        candidates: list[Term],
        columns: Float[np.ndarray, "mask term"],
        gains: Float[np.ndarray, " term"],
    ) -> list[int]:
        """The best candidates that pay, few enough that they do not stand in for each other.

        A product of two units correlates with each of them, so an interaction must also pay once
        its own units are free to act alone: an additive function has none.
        """
        most = min(1 + len(self.terms) // 8, self._samples.n_masks // 2 - len(self.terms))
        chosen: list[int] = []
        directions = np.empty((len(columns), 0))
        for j in np.argsort(-gains, kind="stable").tolist():
            least = 0.5 * gains[chosen[0]] if chosen else 0.0
            if gains[j] <= least or len(chosen) >= most:
                break
            rest = _orthogonal(_orthogonal(columns[:, [j]], self._q), directions)
            if (rest**2).sum() < _NEW * (columns[:, j] ** 2).sum():
                continue
            if len(candidates[j]) > 1 and not self._interacts(candidates[j], rest):
                continue
            chosen.append(j)
            directions = np.hstack([directions, rest / np.linalg.norm(rest)])
        return chosen

    def _interacts(self, term: Term, rest: Float[np.ndarray, "mask 1"]) -> bool:
        """Whether a term, the present ones taken out of it, pays beyond its own units."""
        alone = _orthogonal(self._columns([(i,) for i in term]), self._q)
        directions, sizes, _ = np.linalg.svd(alone, full_matrices=False)
        directions = directions[:, sizes**2 > _NEW * len(alone)]
        beyond = _gains(
            _orthogonal(rest, directions), _orthogonal(self._residual[:, None], directions)[:, 0]
        )
        return bool(beyond[0] > self._prices([term])[0])

    def _prune(self, exact: float) -> None:
        """Drop the terms, worst first, whose loss the criterion does not notice."""
        while len(self.terms) > 1:
            squares = max(self._squares, exact * 1e-3)
            increase = self.coefficients**2 / self._variances
            losses = self._samples.n_masks * np.log1p(increase / squares)
            losses -= self._prices(self.terms)
            losses[0] = np.inf
            worst = int(np.argmin(losses))
            if losses[worst] > 0:
                return
            self.terms = self.terms[:worst] + self.terms[worst + 1 :]
            self._design = np.delete(self._design, worst, axis=1)
            self._solve()

    def _columns(self, terms: list[Term]) -> Float[np.ndarray, "mask term"]:
        return features(self._samples.masks, terms, basis=self.basis, keep=self._samples.keep)

    def _scan(self, largest: int) -> list[Term]:
        """The sets whose features correlate most with the residual, some of each order.

        Pairs are looked for among the Fourier features too: those are what is left of the basis'
        own once single units are taken out.
        """
        found: dict[Term, None] = {}
        orders = (largest, min(2, largest))
        for which, (factors, order) in enumerate(zip(self._factors, orders, strict=False)):
            strength = _correlations(factors, self._residual)
            units = np.argsort(-strength, kind="stable")
            found.update(dict.fromkeys((int(i),) for i in units[:_BEAM]))
            base: list[Term] = [(int(i),) for i in np.sort(units[:_HUBS])]
            for size in range(2, order + 1):
                base = self._extend(which, base)
                found.update(dict.fromkeys(base))
                base = list(dict.fromkeys(base + [t for t in self.terms if len(t) == size]))
        return list(found)

    def _extend(self, which: int, base: list[Term]) -> list[Term]:
        """The best of all sets that are a set of `base` and one more unit."""
        factors = self._factors[which]
        products = np.ones((len(factors), len(base)))
        for j in range(len(base[0])):
            products *= factors[:, [term[j] for term in base]]
        slopes = (products.T * self._residual) @ factors / len(factors)
        all_pairs = len(base[0]) == 1 and len(base) == factors.shape[1]
        if all_pairs and which in self._pair_variances:
            variances = self._pair_variances[which]
        else:
            variances = _variances(products, factors)
        if all_pairs:
            self._pair_variances[which] = variances
        scores = slopes**2 / variances
        for row, term in enumerate(base):
            scores[row, list(term)] = 0.0
        # A set of k units is met up to k times.
        most = min(_BEAM * (len(base[0]) + 1), scores.size)
        order = np.argpartition(-scores.ravel(), most - 1)[:most]
        order = order[np.argsort(-scores.ravel()[order], kind="stable")]
        found: dict[Term, None] = {}
        for row, unit in zip(*np.unravel_index(order, scores.shape), strict=True):
            if scores[row, unit] > 0:
                found[tuple(sorted((*base[row], int(unit))))] = None
        return list(found)[:_BEAM]


def _variances(
    products: Float[np.ndarray, "mask set"], factors: Float[np.ndarray, "mask unit"]
) -> Float[np.ndarray, "set unit"]:
    """The variance of every product of a set and a unit; infinite where it is constant."""
    means = products.T @ factors / len(factors)
    variances = (products**2).T @ (factors**2) / len(factors) - means**2
    return np.where(variances > 1e-9, variances, np.inf)


def _gains(
    rest: Float[np.ndarray, "mask term"], residual: Float[np.ndarray, " mask"]
) -> Float[np.ndarray, " term"]:
    """How much each column, orthogonal to what is there, would lower N log RSS."""
    norms = (rest**2).sum(axis=0)
    # What is in the span already leaves rounding only.
    new = norms > _NEW
    norms = np.where(new, norms, 1.0)
    support = norms**2 / np.maximum((rest**4).sum(axis=0), np.finfo(float).tiny)
    squares = max(residual @ residual, np.finfo(float).tiny)
    share = (rest.T @ residual) ** 2 / norms / squares
    share = np.where(new & (support >= _SUPPORT), share, 0.0)
    return -len(rest) * np.log1p(-np.minimum(share, 1 - 1e-15))


def _orthogonal(
    columns: Float[np.ndarray, "mask term"], basis: Float[np.ndarray, "mask direction"]
) -> Float[np.ndarray, "mask term"]:
    """What of the columns lies outside an orthonormal basis; twice, against rounding."""
    rest = columns - basis @ (basis.T @ columns)
    return rest - basis @ (basis.T @ rest)


def _correlations(
    columns: Float[np.ndarray, "mask column"], residual: Float[np.ndarray, " mask"]
) -> Float[np.ndarray, " column"]:
    """Squared correlation, up to the factor that all columns share."""
    variances = columns.var(axis=0)
    slopes = residual @ columns / len(columns)
    return np.where(variances > 1e-9, slopes**2 / np.maximum(variances, 1e-9), 0.0)
