"""Deletion and insertion: the value as a ranking's units are ablated or kept one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mechspex.attribution.method_scores import MethodScores
from mechspex.attribution.predictions import as_functions, check_widths
from mechspex.core.checks import Whole
from mechspex.core.doors import door
from mechspex.core.errors import Refused
from mechspex.core.finite import finite_values
from mechspex.core.json_values import read_term
from mechspex.core.masks import ablate_sets, keep_only
from mechspex.core.statistics import Estimate, mean_estimate
from mechspex.core.units import Term
from mechspex.core.value_function import ValuesLike, as_value_function, as_values
from mechspex.runs.run import Run, as_run
from mechspex.set_functions.set_function import SetFunction
from mechspex.subsets.best_subset import SubsetObjective, greedy


@dataclass(frozen=True, eq=False, repr=False)
class RankingCurve(MethodScores):
    """The value as the units of a ranking go, or come, one after another.

    Attributes:
        methods: the names of the methods.
        at: how many units were ablated (deletion) or kept (insertion), from 0 to all.
        outputs: the names of the value's columns.
        scores: the value of each method, number and output.
        rankings: all units by column, best first; one ranking a method.
    """

    quantity: ClassVar[str] = "value"

    rankings: tuple[Term, ...] = field(default=())

    def area(self, method: str) -> Estimate:
        """The mean height of the curve, ∫ value d(share of the units), by the trapezoidal rule.

        Args:
            method: the name of the method.

        Raises:
            Refused: no such method.
        """
        if method not in self.methods:
            raise Refused(f"no curve of {method!r}; there are {', '.join(self.methods)}")
        heights = self.scores[self.methods.index(method)]
        shares = np.array(self.at) / max(self.at)
        return mean_estimate(np.trapezoid(heights, shares, axis=0))

    @property
    def in_short(self) -> str:
        """The mean height of each method's curve."""
        areas = ", ".join(f"{method} {self.area(method)}" for method in self.methods)
        return f"area below the value by units {self.against}: {areas}"

    def to_dict(self) -> dict[str, Any]:
        """The scores as plain numbers and lists, with a schema name."""
        return super().to_dict() | {"rankings": [list(one) for one in self.rankings]}

    @classmethod
    def _fields(cls, record: dict[str, Any]) -> dict[str, Any]:
        rankings = tuple(read_term(one) for one in record["rankings"])
        return super()._fields(record) | {"rankings": rankings}


@dataclass(frozen=True, eq=False, repr=False)
class DeletionCurve(RankingCurve):
    """The value as the best units are ablated one after another; low where they were the best.

    Attributes:
        methods: the names of the methods.
        at: how many units were ablated, from 0 to all.
        outputs: the names of the value's columns.
        scores: the value of each method, number and output.
        rankings: all units by column, best first; one ranking a method.
    """

    schema: ClassVar[str] = "mechspex.deletion_curve/1"
    called: ClassVar[str] = "deletion curve"
    against: ClassVar[str] = "ablated"

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> DeletionCurve:
        return cls(**cls._fields(record))


@dataclass(frozen=True, eq=False, repr=False)
class InsertionCurve(RankingCurve):
    """The value as the best units are kept one after another; high where they were the best.

    Attributes:
        methods: the names of the methods.
        at: how many units were kept, from 0 to all.
        outputs: the names of the value's columns.
        scores: the value of each method, number and output.
        rankings: all units by column, best first; one ranking a method.
    """

    schema: ClassVar[str] = "mechspex.insertion_curve/1"
    called: ClassVar[str] = "insertion curve"
    against: ClassVar[str] = "kept"

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> InsertionCurve:
        return cls(**cls._fields(record))


_STEPS = Whole(1)


@door(predictions=as_functions, values=as_values, steps=_STEPS, run=as_run)
def deletion_curve(
    predictions: Any,
    values: ValuesLike,
    *,
    steps: int = 50,
    run: str | Path | Run | None = None,
    progress: bool = False,
) -> DeletionCurve:
    """The value without the best k units of a ranking, k = 0 … n (Petsiuk et al. 2018).

    One score a unit ranks by itself. A function with interactions ranks greedily: next comes the
    unit whose ablation makes the prediction smallest, those before it ablated.

    Args:
        predictions: a `SetFunction`, what has one (an explanation, a recovery, an attribution), or
            one score a unit; or {method: one of these}. The mean over outputs ranks.
        values: what measures the masks.
        steps: how many numbers k are measured besides 0; all where there are no more units.
        run: name or folder in which every value is kept, so that no mask is measured twice.
        progress: a progress bar on stderr.

    Raises:
        ShapeError: a prediction of other units.
        FailedMasksError: a mask has no finite value.
    """
    return DeletionCurve(**_measured(predictions, values, "remove", steps, run, progress))


@door(predictions=as_functions, values=as_values, steps=_STEPS, run=as_run)
def insertion_curve(
    predictions: Any,
    values: ValuesLike,
    *,
    steps: int = 50,
    run: str | Path | Run | None = None,
    progress: bool = False,
) -> InsertionCurve:
    """The value with the best k units of a ranking alone, k = 0 … n (Petsiuk et al. 2018).

    One score a unit ranks by itself. A function with interactions ranks greedily: next comes the
    unit which, kept together with those before it, makes the prediction largest.

    Args:
        predictions: a `SetFunction`, what has one (an explanation, a recovery, an attribution), or
            one score a unit; or {method: one of these}. The mean over outputs ranks.
        values: what measures the masks.
        steps: how many numbers k are measured besides 0; all where there are no more units.
        run: name or folder in which every value is kept, so that no mask is measured twice.
        progress: a progress bar on stderr.

    Raises:
        ShapeError: a prediction of other units.
        FailedMasksError: a mask has no finite value.
    """
    return InsertionCurve(**_measured(predictions, values, "keep", steps, run, progress))


def ranking_of(function: SetFunction, objective: SubsetObjective) -> Term:
    """All units, best first: by score where there are only singles, else by greedy choice.

    Args:
        function: the set function; the mean over its outputs counts.
        objective: ``keep`` or ``remove``: what is done with the units, one after another.
    """
    if function.max_order > 1:
        return greedy(function.predict, function.n_units, function.n_units, objective)
    effects = function.to_basis("kept").to_mapping()
    scores = [effects.get((column,), 0.0) for column in range(function.n_units)]
    return tuple(np.argsort(-np.array(scores), kind="stable").tolist())


def _measured(
    predictions: Mapping[str, SetFunction],
    values: ValuesLike,
    objective: SubsetObjective,
    steps: int,
    run: str | Path | Run | None,
    progress: bool,
) -> dict[str, Any]:
    """The fields of a curve."""
    function = as_value_function(values)
    check_widths(predictions, function.units)
    n_units = function.n_units
    numbers = np.unique(np.linspace(0, n_units, min(steps, n_units) + 1).round().astype(int))
    rankings = [ranking_of(one, objective) for one in predictions.values()]
    make = keep_only if objective == "keep" else ablate_sets
    sets = [order[:number] for order in rankings for number in numbers]
    with Run.open(run, progress=progress) as opened:
        recorded = opened.record(function)
        recorded.stage = "insertion" if objective == "keep" else "deletion"
        measured = finite_values(recorded, make(n_units, sets))
    return {
        "methods": tuple(predictions),
        "at": tuple(numbers.tolist()),
        "outputs": tuple(function.outputs),
        "scores": measured.reshape(len(rankings), len(numbers), -1),
        "rankings": tuple(rankings),
    }
