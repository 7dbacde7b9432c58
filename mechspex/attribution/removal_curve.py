"""The removal curve: how far the value can be moved by ablating r units, by each method."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from mechspex.attribution.ablated_sets import AblatedSets, ablated, checked_sizes
from mechspex.attribution.predictions import as_functions, check_widths
from mechspex.core.checks import NUMBERS, SEED
from mechspex.core.doors import door
from mechspex.core.value_function import ValuesLike, as_value_function, as_values
from mechspex.runs.run import Run, as_run
from mechspex.set_functions.set_function import SetFunction
from mechspex.subsets.best_subset import front

# Seconds for all proofs of one method's sets and sign.
_SECONDS = 20.0


@dataclass(frozen=True, eq=False, repr=False)
class RemovalCurve(AblatedSets):
    """|f(all) − f(all but r units)|, in the units of the value.

    Attributes:
        methods: the names of the methods.
        at: the numbers r of units.
        outputs: the names of the value's columns.
        scores: how far the value moved, of each method, r and output.
        units: what the columns of a mask stand for.
        sets: the units that were ablated, by column; one tuple of sets a method.
    """

    schema: ClassVar[str] = "mechspex.removal_curve/1"
    called: ClassVar[str] = "removal curve"
    quantity: ClassVar[str] = "moved"
    against: ClassVar[str] = "removed"

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> RemovalCurve:
        return cls(**cls._fields(record))


@door(predictions=as_functions, values=as_values, sizes=NUMBERS, run=as_run, seed=SEED)
def removal_curve(
    predictions: Any,
    values: ValuesLike,
    sizes: Iterable[int] = range(1, 8),
    *,
    run: str | Path | Run | None = None,
    seed: int = 0,
    progress: bool = False,
) -> RemovalCurve:
    """How far the value moves, up or down, without the r units that move the prediction most.

    moved(r) = |f(all) − f(m*)| with m* = argmax_{|m| = n − r} |f̂(all) − f̂(m)|, the set of r units
    whose ablation moves the method's own prediction most in either direction (the removal task of
    Kang et al. 2025, Section 5, there over |f(all)|). Every m* is found by `front`, for both signs;
    for one score a unit it is the r highest scores or the r lowest.

    >>> import mechspex as mx
    >>> def soup(kept):  # salt alone is nothing, salt in water is soup
    ...     return 3.0 * (kept[:, 0] & kept[:, 1]) + 1.0 * kept[:, 2]
    >>> values = mx.FunctionValues(soup, mx.parts(["salt", "water", "bread"]))
    >>> curve = mx.removal_curve(mx.explain(values), values, [1, 2])
    >>> curve.scores[0, :, 0]
    array([3., 4.])

    Args:
        predictions: a `SetFunction`, what has one (an explanation, a recovery, an attribution), or
            one score a unit; or {method: one of these}. The mean over outputs chooses.
        values: what measures the masks.
        sizes: how many units are ablated, without those above n.
        run: name or folder in which every value is kept, so that no mask is measured twice.
        seed: the seed of the search for the sets.
        progress: a progress bar on stderr.

    Raises:
        Refused: a size below 1, or none up to n.
        ShapeError: a prediction of other units.
        FailedMasksError: a mask has no finite value.
    """
    function = as_value_function(values)
    check_widths(predictions, function.units)
    n_units = function.n_units
    wanted = checked_sizes("sizes", [size for size in sizes if size <= n_units], n_units)
    sets = {method: _farthest(one, wanted, seed) for method, one in predictions.items()}
    with Run.open(run, progress=progress) as opened:
        recorded = opened.record(function)
        recorded.stage = "removal curve"
        whole, without = ablated(recorded, sets)
    return RemovalCurve(
        methods=tuple(predictions),
        at=tuple(wanted),
        outputs=tuple(function.outputs),
        scores=abs(whole - without),
        units=function.units,
        sets=tuple(tuple(one) for one in sets.values()),
    )


def _farthest(function: SetFunction, sizes: list[int], seed: int) -> list[tuple[int, ...]]:
    """Of each size the set whose ablation moves f̂ most, up or down."""
    mean = replace(function, output_coefficients=function.coefficients)
    whole = float(mean.to_basis("kept").coefficients.sum())
    options: dict[str, Any] = {"time_limit": _SECONDS, "seed": seed}
    down = front(mean, sizes, "remove", **options)
    up = front(replace(mean, output_coefficients=-mean.coefficients), sizes, "remove", **options)
    return [
        down[size].columns
        if whole - down[size].value >= -up[size].value - whole
        else up[size].columns
        for size in sizes
    ]
