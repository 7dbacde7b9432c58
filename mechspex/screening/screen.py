"""The screen: every unit and every pair scored cheaply, the best proposed for exact ablation."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from mechspex.answers import Cost
from mechspex.errors import Refused
from mechspex.executors.local import RecordedValues
from mechspex.runs import run_folder
from mechspex.screening.all_pairs import PairScores
from mechspex.screening.attribution import extensions, first_order, pair_scores
from mechspex.screening.candidates import Candidates, Stratum
from mechspex.set_function import Term
from mechspex.values import ValueFunction

Method = Literal["first_order", "second_order"]

# Every stratum of rejected pairs reaches to ten times the rank of the one before it.
_STRATA, _GROWTH = 3, 10


def screen(
    value_function: ValueFunction,
    method: Method = "second_order",
    *,
    n_terms: int = 200,
    max_order: int = 2,
    parts: int = 30,
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

    Args:
        value_function: `ComponentValues`, or anything with its `value_and_gradient`.
        method: ``first_order`` proposes single units, ``second_order`` sets of two units and more.
        n_terms: how many sets of each order are proposed; none whose predicted effect is 0.
        max_order: the largest sets proposed by ``second_order``.
        parts: gradients of the first order; 0 for plain attribution patching from a single one.
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
        ("parts", parts, 0),
        ("rows", rows, 1),
        ("probes", probes, 2),
        ("n_extended", n_extended, 1),
        ("n_rejected", n_rejected, 1),
    ):
        if number < least:
            raise Refused(f"{name} = {number}: give a whole number from {least} up")
    folder = None if run is None else run_folder(run)
    with closing(RecordedValues(value_function, folder, progress=progress)) as recorded:
        n_units = recorded.n_units
        singles = first_order(recorded, min(parts, n_units), seed)
        reach = np.zeros(n_units)
        terms: list[Term] = [(int(i),) for i in np.argsort(-np.abs(singles), kind="stable")]
        terms = terms[:n_terms]
        scores, considered = singles[[term[0] for term in terms]], [n_units]
        rejected: tuple[Stratum, ...] = ()
        if method == "second_order":
            pairs = pair_scores(recorded, rows, probes, seed)
            reach = _reach(pairs)
            terms, scores, rejected = _propose(pairs, n_terms, n_rejected, seed)
            considered.append(pairs.n_pairs)
            extended = terms
            for _ in range(2, max_order):
                recorded.stage = f"order {len(extended[0]) + 1}" if extended else "extensions"
                extended, more, number = _extend(recorded, extended[:n_extended], n_terms)
                terms, scores = [*terms, *extended], np.concatenate([scores, more])
                considered.append(number)
            order = np.argsort(-np.abs(scores), kind="stable")
            terms, scores = [terms[row] for row in order], scores[order]
        return Candidates(
            units=recorded.units,
            terms=tuple(terms),
            scores=np.asarray(scores, dtype=np.float64),
            method=method,
            considered=tuple(considered),
            single_scores=singles,
            reach=reach,
            rejected=rejected,
            configuration=recorded.configuration,
            cost=Cost(
                masks=recorded.gradients,
                measured=recorded.gradients,
                seconds_measuring=recorded.seconds,
                seconds=time.perf_counter() - start,
            ),
        )


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
    rng = np.random.default_rng((seed, 2))
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
