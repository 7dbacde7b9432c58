"""The screen: every unit and every pair scored cheaply, the best proposed for exact ablation."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from mechspex.core.masks import Stream
from mechspex.core.units import Term
from mechspex.core.value_function import ValuesLike
from mechspex.errors import Refused
from mechspex.runs.cost import Cost
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.run import run_folder
from mechspex.screening.attribution import extensions, first_order, pair_scores
from mechspex.screening.candidates import Candidates, Stratum
from mechspex.screening.coarse_to_fine import coarse_to_fine
from mechspex.screening.pair_scores import PairScores

Method = Literal["first_order", "second_order", "ablation"]

# Every stratum of rejected pairs reaches to ten times the rank of the one before it.
_STRATA, _GROWTH = 3, 10


def screen(
    value_function: ValuesLike,
    method: Method = "second_order",
    *,
    n_terms: int = 200,
    max_order: int = 2,
    parts: int = 30,
    keep: float | None = None,
    n_masks: int = 1_000,
    rows: int = 500,
    probes: int = 64,
    n_extended: int = 50,
    n_rejected: int = 40,
    run: str | Path | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Candidates:
    """Score every unit, or every pair of units and more, by gradients, and propose the best.

    First order: ablated(i) ≈ −g_i(m_i = ½), attribution patching at the midpoint. Second order:
    ablated(i, j) ≈ g_j(all) − g_j(all but i), exact in i and of first order in j; a whole row of
    pairs from one gradient, for as many units as `rows`, those that random probes show to
    interact most; all other pairs are estimated from the probes. Third order and up: the best
    sets of the order before, each extended by every unit in the same way.

    Without gradients: ``ablation`` ablates whole layers first, then what is in those that matter,
    down to single units, then pairs of the strongest (see `coarse_to_fine`).

    >>> import mechspex as mx
    >>> def soup(kept):  # salt alone is nothing, salt in water is soup
    ...     return 3.0 * (kept[:, 0] & kept[:, 1]) + 1.0 * kept[:, 2]
    >>> values = mx.FunctionValues(soup, mx.parts(["salt", "water", "bread"]))
    >>> mx.screen(values, "ablation", n_terms=1).ablated_effects()
    {(0,): -3.0, (1,): -3.0, (2,): -1.0, (0, 1): 3.0}

    Args:
        value_function: `ComponentValues`, or anything with its `value_and_gradient`; of a cheaper
            model (fewer prompts, ``bf16``, `ComponentValues.early_exit`) if that is to be the
            proxy; for ``ablation`` any value function.
        method: ``first_order`` proposes single units, ``second_order`` sets of two units and more,
            ``ablation`` single units and pairs.
        n_terms: how many sets of each order are proposed; none whose predicted effect is 0.
        max_order: the largest sets proposed by ``second_order``.
        parts: gradients of the first order; 0 for plain attribution patching from a single one.
        keep: the first order is that of each unit among random masks which keep so many of the
            others, not in the otherwise whole model.
        n_masks: of ``ablation``, half of them for pairs.
        rows: units whose pairs are scored by a gradient of their own.
        probes: random directions that choose those units, where there are more units than `rows`.
        n_extended: sets of each order that are extended to the next one.
        n_rejected: rejected pairs drawn from each stratum, to be tested by `missed`.
        run: name or folder in which every gradient is kept; the same call goes on where an earlier
            one was stopped.
        seed: of the parts, the probes and the rejected pairs.
        progress: a progress bar on stderr.

    Raises:
        Refused: bad arguments, or a value function without gradients.
    """
    start = time.perf_counter()
    if method not in get_args(Method):
        raise Refused(f"method = {method!r}: choose {', '.join(get_args(Method))}")
    for name, number, least in (
        ("n_terms", n_terms, 1),
        ("max_order", max_order, 2),
        ("parts", parts, 0 if keep is None else 1),
        ("n_masks", n_masks, 1),
        ("rows", rows, 1),
        ("probes", probes, 2),
        ("n_extended", n_extended, 1),
        ("n_rejected", n_rejected, 1),
    ):
        if number < least:
            raise Refused(f"{name} = {number}: give a whole number from {least} up")
    if keep is not None and not 0 < keep < 1:
        raise Refused(f"keep = {keep}: give a probability strictly between 0 and 1, or None")
    folder = None if run is None else run_folder(run)
    with closing(RecordedValues(value_function, folder, progress=progress)) as recorded:
        if method == "ablation":
            scored = _by_ablation(recorded, n_terms, n_masks)
        else:
            singles = first_order(recorded, parts, seed, keep)
            if method == "first_order":
                scored = _Scored.of_singles(singles, n_terms)
            else:
                pairs = pair_scores(recorded, rows, probes, seed)
                terms, scores, rejected = _propose(pairs, n_terms, n_rejected, seed)
                scored = _Scored(
                    singles, _reach(pairs), terms, scores, [len(singles), pairs.n_pairs], rejected
                )
                scored.extend(recorded, max_order, n_extended, n_terms)
        order = np.argsort(-np.abs(scored.scores), kind="stable").tolist()
        return Candidates(
            units=recorded.units,
            terms=tuple(scored.terms[row] for row in order),
            scores=np.asarray(scored.scores, dtype=np.float64)[order],
            method=method,
            considered=tuple(scored.considered),
            single_scores=scored.singles,
            reach=scored.reach,
            rejected=scored.rejected,
            configuration=recorded.configuration,
            cost=Cost(
                masks=recorded.used,
                measured=recorded.gradients + recorded.measured,
                seconds_measuring=recorded.seconds,
                seconds=time.perf_counter() - start,
            ),
        )


@dataclass
class _Scored:
    """What a method scored: see `Candidates`."""

    singles: Float[np.ndarray, " unit"]
    reach: Float[np.ndarray, " unit"]
    terms: list[Term]
    scores: Float[np.ndarray, " term"]
    considered: list[int]
    rejected: tuple[Stratum, ...] = ()

    @classmethod
    def of_singles(cls, singles: Float[np.ndarray, " unit"], n_terms: int) -> _Scored:
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


def _by_ablation(recorded: RecordedValues, n_terms: int, n_masks: int) -> _Scored:
    singles, pairs = coarse_to_fine(recorded, n_masks)
    scored = _Scored.of_singles(singles, n_terms)
    best = sorted(pairs, key=lambda pair: -abs(pairs[pair]))[:n_terms]
    scored.terms += best
    scored.scores = np.append(scored.scores, [pairs[pair] for pair in best])
    scored.considered.append(len(pairs))
    for pair, effect in pairs.items():
        scored.reach[list(pair)] = np.hypot(scored.reach[list(pair)], effect)
    return scored


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
