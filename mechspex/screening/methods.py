"""The methods of a screen, each with its options: what they score, and by what."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Float

from mechspex.core.backward_rules import ATP_STAR, CHAIN, RELP, BackwardRules
from mechspex.core.backward_rules import GIM as _GIM
from mechspex.core.checks import Only, Several, number_in, told
from mechspex.core.errors import Refused
from mechspex.core.masks import Stream
from mechspex.core.units import Term
from mechspex.runs.recorded import RecordedValues
from mechspex.screening.attribution import (
    along_the_line,
    extensions,
    first_order,
    pair_scores,
)
from mechspex.screening.candidates import Stratum
from mechspex.screening.coarse_to_fine import coarse_to_fine
from mechspex.screening.pair_scores import PairScores

MethodName = Literal[
    "first_order", "second_order", "ablation", "integrated", "gim", "relp", "atp_star"
]

# Every stratum of rejected pairs reaches to ten times the rank of the one before it.
_STRATA, _GROWTH = 3, 10


@dataclass
class Scored:
    """What a method scored: see `Candidates`.

    Attributes:
        singles: predicted effect of every unit.
        reach: root of the sum of squares of each unit's predicted pairs.
        terms: the sets proposed.
        scores: their predicted effects.
        considered: how many sets of order 1, 2, … were scored.
        rejected: pairs that were not proposed, by rank.
    """

    singles: Float[np.ndarray, " unit"]
    reach: Float[np.ndarray, " unit"]
    terms: list[Term]
    scores: Float[np.ndarray, " term"]
    considered: list[int]
    rejected: tuple[Stratum, ...] = ()

    @classmethod
    def of_singles(cls, singles: Float[np.ndarray, " unit"], n_terms: int) -> Scored:
        """The strongest single units."""
        order = np.argsort(-np.abs(singles), kind="stable")[:n_terms]
        order = order[singles[order] != 0]
        terms: list[Term] = [(int(i),) for i in order]
        return cls(singles, np.zeros(len(singles)), terms, singles[order], [len(singles)])

    def extend(
        self, recorded: RecordedValues, max_order: int, n_extended: int, n_terms: int
    ) -> None:
        """Add the best sets of every order up to `max_order`, each order from the one before."""
        extended = self.terms
        for order in range(3, max_order + 1):
            recorded.stage = f"order {order}"
            extended, scores, number = _extend(recorded, extended[:n_extended], n_terms)
            self.terms, self.scores = self.terms + extended, np.append(self.scores, scores)
            self.considered.append(number)


class ScreenMethod(ABC):
    """A way to score units and sets of them cheaply.

    Attributes:
        name: the method's name in a call and in an answer.
    """

    name: ClassVar[str]

    @property
    def rules(self) -> BackwardRules:
        """By which its gradients are made."""
        return CHAIN

    @abstractmethod
    def scored(self, recorded: RecordedValues, n_terms: int, seed: int) -> Scored:
        """The best sets of each order.

        Args:
            recorded: the value function.
            n_terms: how many sets of each order.
            seed: the only source of randomness.
        """


@dataclass(frozen=True)
class FirstOrder(ScreenMethod):
    """Single units by gradients: ablated(i) ≈ −½ g_i(m_i = ½) − ½ g_i(m_i = 1).

    Attribution patching, half of it at the midpoint and half plain. The midpoint alone, ``at=0.5``,
    is exact where f is quadratic in m_i, but units halved together disturb each other.

    Attributes:
        parts: into how many parts units are dealt, each with a gradient; 0 for the plain one alone.
        keep: the effect of each unit among random masks which keep so many of the others, not in
            the otherwise whole model.
        backward: by which rules gradients are made, where not by the chain rule.
        at: how much of a unit is kept where its gradient is taken, or several such shares, to be
            averaged; 1 takes one gradient for all units. Nothing with `keep`, or with 0 `parts`.

    Raises:
        Refused: a number below 0, a density outside (0, 1), or a share of a unit outside (0, 1].
    """

    name: ClassVar[str] = "first_order"

    parts: int = 30
    keep: float | None = None
    backward: BackwardRules = CHAIN
    at: float | tuple[float, ...] = field(default=(0.5, 1.0), kw_only=True)

    @property
    def rules(self) -> BackwardRules:
        return self.backward

    def __post_init__(self) -> None:
        _at_least(self, parts=0 if self.keep is None else 1)
        if self.keep is not None and not 0 < self.keep < 1:
            raise Refused(
                f"keep = {self.keep}: give a probability strictly between 0 and 1, or None"
            )
        _shares(self.at)

    def singles(self, recorded: RecordedValues, seed: int) -> Float[np.ndarray, " unit"]:
        """The predicted effect of every unit.

        Args:
            recorded: the value function, with gradients.
            seed: the only source of randomness.
        """
        return first_order(recorded, self.parts, _shares(self.at), seed, self.keep)

    def scored(self, recorded: RecordedValues, n_terms: int, seed: int) -> Scored:
        return Scored.of_singles(self.singles(recorded, seed), n_terms)


@dataclass(frozen=True)
class Integrated(ScreenMethod):
    """Single units by gradients along the line on which all units go from kept to ablated.

    ablated(i) ≈ −(1 / n) Σ_k g_i(m = (k − ½) / n · 1), k = 1 … n. All scores together add up to
    what ablating everything changes, up to the error of the sum (integrated gradients; over
    activations as in EAP-IG, Hanna et al. 2024).

    Attributes:
        steps: how many gradients are taken.
        backward: by which rules, where not by the chain rule.

    Raises:
        Refused: fewer than one step.
    """

    name: ClassVar[str] = "integrated"

    steps: int = 10
    backward: BackwardRules = CHAIN

    def __post_init__(self) -> None:
        _at_least(self, steps=1)

    @property
    def rules(self) -> BackwardRules:
        return self.backward

    def scored(self, recorded: RecordedValues, n_terms: int, seed: int) -> Scored:
        return Scored.of_singles(along_the_line(recorded, self.steps), n_terms)


@dataclass(frozen=True)
class GIM(FirstOrder):
    """Single units by one gradient that sees through saturated attention and norms.

    ablated(i) ≈ −g_i(1) with the softmax of attention differentiated at temperature 2, norms
    frozen, and shares of ¼ for queries and keys and ½ for values (Edin et al. 2025).

    Attributes:
        parts, keep, at: see `FirstOrder`; one gradient at the whole model.
        backward: the rules.
    """

    name: ClassVar[str] = "gim"

    parts: int = 0
    backward: BackwardRules = _GIM


@dataclass(frozen=True)
class RelP(FirstOrder):
    """Single units by one gradient with the rules of relevance propagation.

    ablated(i) ≈ −g_i(1) with attention patterns and norms frozen, activations as gains, and half of
    the gradient for each factor of a gate (Jafari et al. 2025).

    Attributes:
        parts, keep, at: see `FirstOrder`; one gradient at the whole model.
        backward: the rules.
    """

    name: ClassVar[str] = "relp"

    parts: int = 0
    backward: BackwardRules = RELP


@dataclass(frozen=True)
class AtPStar(FirstOrder):
    """Single units by gradients that leave out one block each, so that paths do not cancel.

    |ablated(i)| ≈ Σ_l |g_i without block l| / (L − 1), with the sign of the whole gradient
    (GradDrop of Kramár et al. 2024, whose other part concerns ablated queries and keys).

    Attributes:
        parts, keep, at: see `FirstOrder`; one gradient at the whole model.
        backward: the rules.
    """

    name: ClassVar[str] = "atp_star"

    parts: int = 0
    backward: BackwardRules = ATP_STAR


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
        _at_least(self, max_order=2, rows=1, probes=2, n_extended=1, n_rejected=1)

    def scored(self, recorded: RecordedValues, n_terms: int, seed: int) -> Scored:
        singles = self.singles(recorded, seed)
        pairs = pair_scores(recorded, self.rows, self.probes, seed)
        terms, scores, rejected = _propose(pairs, n_terms, self.n_rejected, seed)
        considered = [len(singles), pairs.n_pairs]
        found = Scored(singles, _reach(pairs), terms, scores, considered, rejected)
        found.extend(recorded, self.max_order, self.n_extended, n_terms)
        return found


@dataclass(frozen=True)
class CoarseToFine(ScreenMethod):
    """Single units and pairs without gradients: whole layers are ablated first, then what is in
    those that matter, down to single units, then pairs of the strongest.

    Attributes:
        n_masks: how many masks are measured, half of them for pairs.

    Raises:
        Refused: fewer than one mask.
    """

    name: ClassVar[str] = "ablation"

    n_masks: int = 1_000

    def __post_init__(self) -> None:
        _at_least(self, n_masks=1)

    def scored(self, recorded: RecordedValues, n_terms: int, seed: int) -> Scored:
        singles, pairs = coarse_to_fine(recorded, self.n_masks)
        found = Scored.of_singles(singles, n_terms)
        best = sorted(pairs, key=lambda pair: -abs(pairs[pair]))[:n_terms]
        found.terms += best
        found.scores = np.append(found.scores, [pairs[pair] for pair in best])
        found.considered.append(len(pairs))
        for pair, effect in pairs.items():
            found.reach[list(pair)] = np.hypot(found.reach[list(pair)], effect)
        return found


METHODS: dict[str, type[ScreenMethod]] = {
    method.name: method
    for method in (FirstOrder, SecondOrder, CoarseToFine, Integrated, GIM, RelP, AtPStar)
}


def as_method(name: str, given: object) -> Any:
    """Reads a method of screening, or the name of one; Refused: something else."""
    wanted = f"{', '.join(get_args(MethodName))}, or a method such as SecondOrder(max_order=3)"
    return Only((str, ScreenMethod), wanted)(name, given)


def find_method(method: str | ScreenMethod) -> ScreenMethod:
    """The method of that name; a method is returned as it is.

    Raises:
        Refused: an unknown name.
    """
    if isinstance(method, ScreenMethod):
        return method
    if method not in METHODS:
        raise Refused(f"method = {method!r}: choose {', '.join(get_args(MethodName))}")
    return METHODS[method]()


def _share(name: str, given: object) -> float:
    """Reads how much of a unit is kept."""
    number = number_in(given)
    if number is None or not 0 < number <= 1:
        raise Refused(f"{name} = {told(given)}: give shares of a unit, above 0 and up to 1")
    return float(number)


def _shares(at: object) -> list[float]:
    shares = Several(_share, "a share of a unit, or a tuple of them")("at", at)
    if not shares:
        raise Refused(f"at = {at}: give at least one share of a unit, such as 0.5")
    return shares


def _at_least(method: ScreenMethod, **least: int) -> None:
    for name, smallest in least.items():
        number = getattr(method, name)
        if number < smallest:
            raise Refused(f"{name} = {number}: give a whole number from {smallest} up")


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
