"""Top-k drop: how far the value falls without the k units that a method calls best."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mechspex.attribution.ablated_sets import AblatedSets, ablated, checked_sizes
from mechspex.attribution.predictions import as_functions, check_widths
from mechspex.core.checks import NUMBERS, SEED
from mechspex.core.doors import door
from mechspex.core.value_function import ValuesLike, as_value_function, as_values
from mechspex.runs.run import Run, as_run
from mechspex.subsets.best_subset import best_subset

# Seconds for the proof that a set is the best of its size.
_SECONDS = 5.0


@dataclass(frozen=True, eq=False, repr=False)
class TopKDrop(AblatedSets):
    """f(all) − f(all but the k best units), in the units of the value.

    Attributes:
        methods: the names of the methods.
        at: the numbers k of units.
        outputs: the names of the value's columns.
        scores: the drop of each method, k and output.
        units: what the columns of a mask stand for.
        sets: the k best units by column, one tuple of sets a method.
    """

    schema: ClassVar[str] = "mechspex.top_k_drop/1"
    called: ClassVar[str] = "top-k drop"
    quantity: ClassVar[str] = "drop"
    against: ClassVar[str] = "k"

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> TopKDrop:
        return cls(**cls._fields(record))


@door(predictions=as_functions, values=as_values, k=NUMBERS, run=as_run, seed=SEED)
def top_k_drop(
    predictions: Any,
    values: ValuesLike,
    *,
    k: Iterable[int] | int = (1, 3, 5),
    run: str | Path | Run | None = None,
    seed: int = 0,
    progress: bool = False,
) -> TopKDrop:
    """How far the value falls without the k units that matter most, by each method.

    drop(k) = f(all) − f(all without S_k). Of a log-probability f it is the score of Cohen-Wang et
    al. 2024 (Section 4). S_k is the set of k units whose ablation makes the method's own prediction
    smallest (`best_subset`, ``remove``). For one score a unit these are the k highest scores; for a
    function with interactions they may be another set at every k.

    >>> import mechspex as mx
    >>> def soup(kept):  # salt alone is nothing, salt in water is soup
    ...     return 3.0 * (kept[:, 0] & kept[:, 1]) + 1.0 * kept[:, 2]
    >>> values = mx.FunctionValues(soup, mx.parts(["salt", "water", "bread"]))
    >>> methods = {"explain": mx.explain(values), "leave one out": mx.leave_one_out(values)}
    >>> drops = mx.top_k_drop(methods, values, k=[1, 2])
    >>> print(drops.to_pandas()[["method", "k", "drop", "units"]])
              method  k  drop          units
    0        explain  1   3.0           salt
    1        explain  2   4.0  water × bread
    2  leave one out  1   3.0           salt
    3  leave one out  2   3.0   salt × water

    Args:
        predictions: a `SetFunction`, what has one (an explanation, a recovery, an attribution), or
            one score a unit; or {method: one of these}. The mean over outputs chooses.
        values: what measures the masks.
        k: how many units are ablated; one number or several, without those above n.
        run: name or folder in which every value is kept, so that no mask is measured twice.
        seed: the seed of the search for the best sets.
        progress: a progress bar on stderr.

    Raises:
        Refused: a k below 1, or none up to n.
        ShapeError: a prediction of other units.
        FailedMasksError: a mask has no finite value.
    """
    function = as_value_function(values)
    check_widths(predictions, function.units)
    wanted = [k] if isinstance(k, int) else list(k)
    n_units = function.n_units
    sizes = checked_sizes("k", [size for size in wanted if size <= n_units], n_units)
    sets = {
        method: [
            best_subset(one, size, "remove", time_limit=_SECONDS, seed=seed).columns
            for size in sizes
        ]
        for method, one in predictions.items()
    }
    with Run.open(run, progress=progress) as opened:
        recorded = opened.record(function)
        recorded.stage = "top-k drop"
        whole, without = ablated(recorded, sets)
    return TopKDrop(
        methods=tuple(predictions),
        at=tuple(sizes),
        outputs=tuple(function.outputs),
        scores=whole - without,
        units=function.units,
        sets=tuple(tuple(one) for one in sets.values()),
    )
