"""The smallest set of units that brings a set function to a goal, with a proof."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool

from mechspex.core.units import Term
from mechspex.set_functions.set_function import SetFunction
from mechspex.subsets.best_subset import best_subset, greedy, score_of_choice
from mechspex.subsets.front import SubsetObjective
from mechspex.subsets.integer_program import SubsetProgram

# A value this share of Σ|c| below a goal still reaches it: the solver cannot tell them apart.
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Smallest:
    """A set that reaches a goal, and how small another could be.

    Attributes:
        columns: the units by column, ascending; None if none was found.
        value: f of the mask that the set makes, in the units of the value; NaN without a set.
        least: no set of fewer units reaches the goal; n + 1 if no set at all does.
    """

    columns: Term | None
    value: float
    least: int

    @property
    def proven(self) -> bool:
        """Whether no set of fewer units reaches the goal, or, without a set, none at all."""
        return self.columns is not None and len(self.columns) <= self.least


def smallest_subset(
    function: SetFunction,
    goal: float,
    objective: SubsetObjective = "keep",
    *,
    excluding: Sequence[Term] = (),
    time_limit: float = 30.0,
    seed: int = 0,
) -> Smallest:
    """The fewest units that bring a set function to a goal; among as few the best.

    ``keep``: min |S| with f(S kept, the rest ablated) ≥ goal. ``remove``: min |S| with
    f(S ablated, the rest kept) ≤ goal. An integer program minimises |S|, and what it proves is a
    bound on every set; of all sets of that size `best_subset` then takes the one that goes farthest
    beyond the goal. Without a program (see `SubsetProgram.of`), or where its time ends, the set is
    what greedy choice and local search find.

    Args:
        function: the set function, in any basis; the mean over its outputs counts.
        goal: the value to reach.
        objective: ``keep`` or ``remove``: what is done with the units.
        excluding: sets that do not count, by column.
        time_limit: seconds for the program.
        seed: the seed of local search.
    """
    score = score_of_choice(function, objective)
    sign = 1.0 if objective == "keep" else -1.0
    tolerance = _TOLERANCE * float(np.abs(score.coefficients).sum())
    wanted = sign * goal - tolerance
    program = SubsetProgram.of(score, max(1, function.n_units // 2), time_limit)
    chosen, least = None, 0
    if program is not None:
        chosen, least = program.smallest(wanted, excluding=excluding, time_limit=time_limit)
    if chosen is None and least <= function.n_units:
        chosen = _without_program(score, wanted, excluding, seed)
    if chosen is None:
        return Smallest(None, float("nan"), least)
    columns = tuple(np.flatnonzero(chosen).tolist())
    if columns:
        best = best_subset(function, len(columns), objective, time_limit=time_limit, seed=seed)
        if best.columns not in excluding and sign * best.value >= wanted:
            return Smallest(best.columns, best.value, least)
    value = sign * float(score.predict(chosen[None])[0])
    return Smallest(columns, value, least)


def _without_program(
    score: SetFunction, wanted: float, excluding: Sequence[Term], seed: int
) -> Bool[np.ndarray, " unit"] | None:
    """A small set by greedy choice, and as far below its size as local search still succeeds."""
    n_units = score.n_units
    order = greedy(score.predict, n_units, n_units)
    found = None
    for size in range(n_units + 1):
        candidate = np.isin(np.arange(n_units), order[:size])
        taken = tuple(sorted(order[:size])) in excluding
        if not taken and score.predict(candidate[None])[0] >= wanted:
            found = candidate
            break
    while found is not None and found.sum() > 1:
        best = best_subset(score, int(found.sum()) - 1, time_limit=0.0, seed=seed)
        if best.columns in excluding or best.value < wanted:
            break
        found = best.mask
    return found


def mean_of(function: SetFunction, output: int | None) -> SetFunction:
    """The function of one output, or the mean over all.

    Args:
        function: the set function.
        output: the output's column; the mean if not given, or if there is one for all.
    """
    if output is not None and function.n_outputs > 1:
        return function.output(output)
    return replace(function, output_coefficients=function.coefficients)
