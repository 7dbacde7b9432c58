"""Sets of two units and more by gradients: rows of the Hessian, and beyond."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from mechspex.core.masks import Stream
from mechspex.core.units import Term
from mechspex.runs.recorded import RecordedValues
from mechspex.screening.attribution import extensions, pair_scores
from mechspex.screening.candidates import Stratum
from mechspex.screening.gradient_attribution import FirstOrder
from mechspex.screening.pair_scores import PairScores
from mechspex.screening.screen_method import Scored, at_least

# Every stratum of rejected pairs reaches to ten times the rank of the one before it.
_STRATA, _GROWTH = 3, 10


@dataclass(frozen=True)
class SecondOrder(FirstOrder):
    """Sets of two units and more by gradients.

    ablated(i, j) ≈ g_j(all) − g_j(all but i), exact in i and of first order in j; a whole row of
    pairs from one gradient, for as many units as `rows`, those that random probes show to
    interact most; all other pairs are estimated from the probes. Third order and up: the best
    sets of the order before, each extended by every unit in the same way.

    Attributes:
        max_order: the largest sets proposed.
        rows: how many units have their pairs scored by a gradient of their own.
        probes: random directions that choose those units, where there are more units than `rows`.
        n_extended: how many sets of each order are extended to the next one.
        n_rejected: how many rejected pairs are drawn from each stratum, to be tested by `missed`.
        at: see `FirstOrder`; the midpoint, which tells sizes better: single scores are a prior.

    Raises:
        Refused: a number that is too small.
    """

    name: ClassVar[str] = "second_order"

    max_order: int = 2
    rows: int = 500
    probes: int = 64
    n_extended: int = 50
    n_rejected: int = 40
    at: float | tuple[float, ...] = field(default=0.5, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, max_order=2, rows=1, probes=2, n_extended=1, n_rejected=1)

    def scored(self, recorded: RecordedValues, n_terms: int, seed: int) -> Scored:
        singles = self.singles(recorded, seed)
        pairs = pair_scores(recorded, self.rows, self.probes, seed)
        terms, scores, rejected = _propose(pairs, n_terms, self.n_rejected, seed)
        considered = [len(singles), pairs.n_pairs]
        found = Scored(singles, _reach(pairs), terms, scores, considered, rejected)
        _add_higher_orders(found, recorded, self.max_order, self.n_extended, n_terms)
        return found


def _reach(pairs: PairScores) -> Float[np.ndarray, " unit"]:
    """The root of the sum of squares of each unit's pairs."""
    reach = np.zeros(pairs.n_units)
    if len(pairs.images):
        reach = np.sqrt((pairs.images.astype(np.float64) ** 2).mean(axis=0))
    reach[pairs.columns] = np.sqrt((pairs.rows.astype(np.float64) ** 2).sum(axis=1))
    return reach


def _propose(
    pairs: PairScores, n_terms: int, n_rejected: int, seed: int
) -> tuple[list[Term], np.ndarray, tuple[Stratum, ...]]:
    """The best pairs, and samples of the others, stratum by stratum of their rank."""
    ranked, scores = pairs.best(n_terms * _GROWTH**_STRATA)
    rng = np.random.default_rng((seed, Stream.REJECTED))
    strata = []
    for number in range(_STRATA):
        first, last = n_terms * _GROWTH**number, n_terms * _GROWTH ** (number + 1)
        inside = ranked[first:last]
        if len(inside):
            drawn = rng.permutation(len(inside))[:n_rejected]
            strata.append(Stratum(first, len(inside), _terms(inside[drawn])))
    left = pairs.n_pairs - len(ranked)
    if left:
        seen = set(_terms(ranked))
        drawn = []
        while len(drawn) < min(n_rejected, left):
            i, j = rng.integers(pairs.n_units, size=2).tolist()
            pair = (min(i, j), max(i, j))
            if i != j and pair not in seen:
                seen.add(pair)
                drawn.append(pair)
        strata.append(Stratum(len(ranked), left, tuple(drawn)))
    return list(_terms(ranked[:n_terms])), scores[:n_terms], tuple(strata)


def _terms(pairs: np.ndarray) -> tuple[Term, ...]:
    return tuple((i, j) for i, j in pairs.tolist())


def _add_higher_orders(
    found: Scored, recorded: RecordedValues, max_order: int, n_extended: int, n_terms: int
) -> None:
    """Adds the best sets of every order up to `max_order`, each order from the one before."""
    extended = found.terms
    for order in range(3, max_order + 1):
        recorded.stage = f"order {order}"
        extended, scores, number = _extend(recorded, extended[:n_extended], n_terms)
        found.terms, found.scores = found.terms + extended, np.append(found.scores, scores)
        found.considered.append(number)


def _extend(
    recorded: RecordedValues, sets: list[Term], n_terms: int
) -> tuple[list[Term], np.ndarray, int]:
    """The best sets of one unit more, their scores, and how many were scored.

    A set that is reached from several smaller ones has the mean of their predictions.
    """
    if not sets:
        return [], np.empty(0), 0
    predicted = extensions(recorded, sets)
    found: dict[Term, list[float]] = {}
    for term, row in zip(sets, predicted, strict=True):
        # Rows are cut where no proposal can come from: twice as many as are wanted.
        for k in np.argsort(-np.abs(row), kind="stable")[: 2 * n_terms].tolist():
            if k not in term:
                found.setdefault(tuple(sorted((*term, k))), []).append(float(row[k]))
    terms = list(found)
    scores = np.array([np.mean(found[term]) for term in terms])
    order = np.argsort(-np.abs(scores), kind="stable")[:n_terms]
    return [terms[row] for row in order], scores[order], len(sets) * recorded.n_units
