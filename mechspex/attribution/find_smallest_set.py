"""Finding the smallest set that suffices, or that flips the answer: a program, then the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mechspex.attribution.predictions import as_functions, check_widths
from mechspex.attribution.ranking_curves import ranking_of
from mechspex.attribution.smallest_set import Question, SmallestSet
from mechspex.core.checks import SEED, Between, Whole, as_number, told
from mechspex.core.doors import door
from mechspex.core.errors import MeasurementError, Refused
from mechspex.core.masks import ablate_sets, both_ends, keep_only
from mechspex.core.units import Term
from mechspex.core.value_function import ValueFunction, ValuesLike, as_value_function, as_values
from mechspex.runs.run import Run, as_run
from mechspex.set_functions.set_function import SetFunction
from mechspex.subsets.best_subset import SubsetObjective
from mechspex.subsets.smallest_subset import mean_of, smallest_subset

# Prefixes of the greedy ranking that are measured at a time, and how far beyond the found size.
_PREFIXES, _BEYOND = 16, 4
_SHARE = Between("a share of the behaviour strictly between 0 and 1")


def _as_function(name: str, given: object) -> SetFunction:
    """Reads one set function."""
    (function,) = as_functions(name, given).values()
    return function


def _as_output(name: str, given: object) -> int | str:
    """Reads an output: its column, or its name."""
    return given if isinstance(given, str) else Whole()(name, given)


_DOOR: dict[str, Any] = {
    "values": as_values,
    "function": _as_function,
    "output": _as_output,
    "tries": Whole(1, 1000),
    "run": as_run,
    "seed": SEED,
}


@door(**_DOOR, goal=as_number, share=_SHARE)
def sufficient_set(
    values: ValuesLike,
    function: Any,
    *,
    goal: float | None = None,
    share: float = 0.9,
    output: int | str | None = None,
    tries: int = 8,
    run: str | Path | Run | None = None,
    seed: int = 0,
    progress: bool = False,
) -> SmallestSet:
    """The fewest units that suffice: kept alone, they keep the value.

    min |S| with f(S kept, the rest ablated) ≥ goal. An integer program solves it for the recovered
    f̂ and proves how small a set can be there; the model is then asked about the set. Where it does
    not confirm it, the next best sets follow: first others that f̂ puts at the goal, then sets that
    f̂ puts above it by as much as it was too hopeful.

    >>> import mechspex as mx
    >>> def soup(kept):  # salt alone is nothing, salt in water is soup
    ...     return 3.0 * (kept[:, 0] & kept[:, 1]) + 1.0 * kept[:, 2]
    >>> values = mx.FunctionValues(soup, mx.parts(["salt", "water", "bread"]))
    >>> found = mx.sufficient_set(values, mx.explain(values), goal=3.0)
    >>> found.names, found.proven
    (('salt', 'water'), True)

    Args:
        values: what measures the masks.
        function: a function recovered of the same values: a `SetFunction`, or what has one (an
            explanation, a recovery, an attribution).
        goal: the value that is enough; that of `share` if not given.
        share: the share of the behaviour that is enough: goal = f(∅) + share · (f(all) − f(∅)).
        output: whose value it is, by column or name; the mean over outputs if not given.
        tries: how many sets are measured at most.
        run: name or folder in which every value is kept, so that no mask is measured twice.
        seed: the seed of local search.
        progress: a progress bar on stderr.

    Raises:
        Refused: an unknown output; `ShapeError`, a function of other units.
        MeasurementError: the value with everything kept or ablated is not finite.
    """
    with Run.open(run, progress=progress) as opened:
        asked = _Asked.of(opened.record(as_value_function(values)), function, output)
        if goal is None:
            goal = asked.ablated + share * (asked.clean - asked.ablated)
        rises = goal > asked.ablated
        return _search(asked, "suffices", goal, rises, tries, seed)


@door(**_DOOR, threshold=as_number)
def flipping_set(
    values: ValuesLike,
    function: Any,
    *,
    threshold: float = 0.0,
    output: int | str | None = None,
    tries: int = 8,
    run: str | Path | Run | None = None,
    seed: int = 0,
    progress: bool = False,
) -> SmallestSet:
    """The fewest units that flip the answer: without them the value is across the threshold.

    min |S| with f(all but S) ≤ threshold where f(all) is above it, and ≥ where it is below. An
    integer program solves it for the recovered f̂ and proves how small a set can be there; the model
    is then asked about the set. Where it does not confirm it, the next best sets follow: first
    others that f̂ puts at the threshold, then sets that f̂ puts beyond it by as much as it was too
    hopeful.

    >>> import mechspex as mx
    >>> def margin(kept):  # two backups: either is enough
    ...     return 2.0 * (kept[:, 0] | kept[:, 1]) + 0.5 * kept[:, 2] - 1.0
    >>> values = mx.FunctionValues(margin, mx.parts(["one", "other", "third"]))
    >>> found = mx.flipping_set(values, mx.explain(values))
    >>> found.names, found.proven
    (('one', 'other'), True)

    Args:
        values: what measures the masks; a margin, a logit difference, where the threshold is 0.
        function: a function recovered of the same values: a `SetFunction`, or what has one (an
            explanation, a recovery, an attribution).
        threshold: the value at which the answer changes.
        output: whose value it is, by column or name; the mean over outputs if not given.
        tries: how many sets are measured at most.
        run: name or folder in which every value is kept, so that no mask is measured twice.
        seed: the seed of local search.
        progress: a progress bar on stderr.

    Raises:
        Refused: an unknown output, a value that lies at the threshold; `ShapeError`, a function of
            other units.
        MeasurementError: the value with everything kept or ablated is not finite.
    """
    with Run.open(run, progress=progress) as opened:
        asked = _Asked.of(opened.record(as_value_function(values)), function, output)
        if asked.clean == threshold:
            raise Refused(
                f"with every unit kept the value is {threshold:g}, the threshold itself; give "
                "another threshold"
            )
        return _search(asked, "flips", threshold, threshold > asked.clean, tries, seed)


@dataclass(frozen=True)
class _Asked:
    """What is asked about: one number a mask, measured and predicted."""

    recorded: ValueFunction
    function: SetFunction
    column: int | None
    value_of: str
    clean: float
    ablated: float

    @classmethod
    def of(cls, recorded: Any, function: SetFunction, output: int | str | None) -> _Asked:
        check_widths({"function": function}, recorded.units)
        recorded.stage = "smallest set"
        column, outputs = None, tuple(recorded.outputs)
        if output is not None:
            column = outputs.index(output) if output in outputs else output
            if not isinstance(column, int) or not 0 <= column < len(outputs):
                raise Refused(
                    f"output = {told(output)}: give one of {', '.join(outputs[:6])}, or its column "
                    f"from 0 to {len(outputs) - 1}"
                )
        if column is not None:
            value_of = outputs[column]
        else:
            value_of = "the value" if len(outputs) == 1 else f"the mean over {len(outputs)} outputs"
        asked = cls(recorded, mean_of(function, column), column, value_of, 0.0, 0.0)
        clean, ablated = asked.measure(both_ends(recorded.n_units)).tolist()
        if not np.isfinite([clean, ablated]).all():
            raise MeasurementError(
                f"with every unit kept the value is {clean}, with every unit ablated {ablated}; "
                "mend the value function"
            )
        return replace(asked, clean=clean, ablated=ablated)

    def measure(self, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, " mask"]:
        values = self.recorded(masks).astype(np.float64)
        return values.mean(axis=1) if self.column is None else values[:, self.column]

    def masks(self, question: Question, sets: list[Term]) -> Bool[np.ndarray, "mask unit"]:
        make = keep_only if question == "suffices" else ablate_sets
        return make(self.recorded.n_units, sets)


def _search(
    asked: _Asked, question: Question, goal: float, rises: bool, tries: int, seed: int
) -> SmallestSet:
    """Sets by the program, one after another, until the model confirms one."""
    objective: SubsetObjective = "keep" if question == "suffices" else "remove"
    # The program keeps for a large value and removes for a small one.
    sign = 1.0 if rises == (objective == "keep") else -1.0
    function = asked.function
    turned = replace(function, output_coefficients=sign * function.coefficients)
    beyond = 1.0 if objective == "keep" else -1.0
    tried: list[Term] = []
    predicted: list[float] = []
    measured: list[float] = []
    least = None
    while len(tried) < tries:
        hopeful = 0.0
        if len(tried) >= (tries + 1) // 2:
            errors = sign * beyond * (np.array(predicted) - np.array(measured))
            hopeful = max(0.0, float(np.nanmedian(errors)))
        wanted = sign * goal + beyond * hopeful
        found = smallest_subset(turned, wanted, objective, excluding=tried, seed=seed)
        least = found.least if least is None else least
        if found.columns is None:
            break
        tried.append(found.columns)
        predicted.append(sign * found.value)
        measured.append(float(asked.measure(asked.masks(question, tried[-1:]))[0]))
        if (measured[-1] >= goal) if rises else (measured[-1] <= goal):
            break
    size = len(tried[-1]) if tried else 0
    return SmallestSet(
        question=question,
        units=asked.recorded.units,
        value_of=asked.value_of,
        clean=asked.clean,
        ablated=asked.ablated,
        goal=float(goal),
        tried=tuple(tried),
        predicted=np.array(predicted, dtype=np.float64),
        measured=np.array(measured, dtype=np.float64),
        least=0 if least is None else least,
        greedy=_greedy_size(asked, question, turned, goal, rises, size),
    )


def _greedy_size(
    asked: _Asked, question: Question, turned: SetFunction, goal: float, rises: bool, size: int
) -> int | None:
    """The first prefix of the greedy ranking that reaches the goal in the model."""
    n_units = turned.n_units
    order = ranking_of(turned, "keep" if question == "suffices" else "remove")
    most = min(n_units, _BEYOND * size + _PREFIXES)
    for start in range(0, most + 1, _PREFIXES):
        prefixes = [order[:k] for k in range(start, min(start + _PREFIXES, most + 1))]
        values = asked.measure(asked.masks(question, prefixes))
        reached = np.flatnonzero(values >= goal if rises else values <= goal)
        if len(reached):
            return start + int(reached[0])
    return None
