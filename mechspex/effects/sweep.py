"""The sweep: every unit, or every pair of units, ablated exactly in the otherwise whole model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, combinations
from math import comb
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.checks import WHOLE
from mechspex.core.doors import door
from mechspex.core.errors import MeasurementError, Refused
from mechspex.core.masks import ablate_sets
from mechspex.core.terms import as_chosen, columns_of
from mechspex.core.units import Term, UnitSet, as_parts
from mechspex.core.value_function import ValuesLike, as_value_function, as_values
from mechspex.effects.sweep_table import Sweep
from mechspex.effects.validate import exact_effects
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.run import CONFIGURATION, Run, as_run

# Bytes of one block of masks: all 46,080 singles of a model's neurons at once would be 2 GB.
_BLOCK = 1 << 22
# More pairs than can be measured in days, or held as a table.
_MOST_SETS = 2_000_000


@door(value_function=as_values, units=as_parts, order=WHOLE, among=as_chosen, run=as_run)
def sweep(
    value_function: ValuesLike,
    *,
    units: UnitSet | Iterable[object] | int | None = None,
    order: int = 1,
    among: str | Iterable[int | str] | None = None,
    run: str | Path | Run | None = None,
    progress: bool = False,
) -> Sweep:
    """Ablate every unit alone, or every pair alone as well, and measure what each costs.

    ablated(i) = f(all but i) − f(all) from n + 1 masks; with `order` 2 also ablated(i, j) =
    f(all but i and j) − f(all but i) − f(all but j) + f(all), from n(n − 1)/2 more. Nothing is
    estimated: the only spread is that over outputs, which the intervals are about (see `validate`).

    >>> import mechspex as mx
    >>> def soup(kept):  # salt alone is nothing, salt in water is soup
    ...     return 3.0 * (kept[:, 0] & kept[:, 1]) + 1.0 * kept[:, 2]
    >>> swept = mx.sweep(soup, units=mx.parts(["salt", "water", "bread"]), order=2)
    >>> swept.to_pandas()[["units", "effect", "value"]]
               units  effect  value
    0           salt    -3.0    1.0
    1          water    -3.0    1.0
    2          bread    -1.0    3.0
    3   salt × water     3.0    1.0
    4   salt × bread     0.0    0.0
    5  water × bread     0.0    0.0

    Args:
        value_function: `ComponentValues` or anything of its shape; or a plain function of Boolean
            masks, together with `units`.
        units: the units of a plain function.
        order: 1 for singles, 2 for singles and pairs.
        among: the units to ablate, by name or column; all if not given. The others are kept.
        run: name or folder in which every value is kept: no mask is measured twice, whatever the
            order, and the same call goes on where an earlier one was stopped. None keeps values
            in memory.
        progress: a progress bar on stderr.

    Raises:
        Refused: bad arguments, or too many pairs; nothing was measured then.
        UnknownUnitError: an unknown name in `among`.
        MeasurementError: the value with everything kept is not finite.
    """
    function = as_value_function(value_function, units)
    columns = _chosen(function.units, order, among)
    with Run.open(run, progress=progress) as run:
        recorded = run.record(function)
        named = [function.units.names[column] for column in columns]
        settings = {"sweep": order, "among": None if among is None else named}
        run.write(CONFIGURATION, {"values": recorded.configuration, "settings": settings})
        value = _measure(recorded, columns, order)
        families = [tuple(combinations(columns, size)) for size in range(1, order + 1)]
        swept = Sweep(
            units=function.units,
            outputs=function.outputs,
            configuration=recorded.configuration,
            order=order,
            clean=value[()],
            values=np.array([value[term] for terms in families for term in terms]),
            tested=tuple(exact_effects(function.units, terms, value) for terms in families),
            cost=run.cost,
            folder=run.folder,
        )
    run.keep(swept)
    return swept


def _chosen(units: UnitSet, order: int, among: str | Iterable[int | str] | None) -> tuple[int, ...]:
    """The columns to ablate."""
    if order not in (1, 2):
        raise Refused(
            f"order = {order}: sweep singles (1) or pairs (2); validate takes larger sets"
        )
    columns = tuple(range(len(units))) if among is None else columns_of(among, units)
    if len(columns) < order:
        raise Refused(
            f"among has {len(columns)} units, a sweep of order {order} needs {order}; name more"
        )
    n_pairs = comb(len(columns), 2)
    if order == 2 and n_pairs > _MOST_SETS:
        raise Refused(
            f"{len(columns):,} units have {n_pairs:,} pairs, more than {_MOST_SETS:,}; "
            "name fewer with among, or let explain find the pairs"
        )
    return columns


def _measure(
    recorded: RecordedValues, columns: tuple[int, ...], order: int
) -> dict[Term, Float[np.ndarray, " output"]]:
    """{what is ablated, by column: the value}, from all kept to the largest sets."""
    recorded.stage = "singles" if order == 1 else "singles and pairs"
    whole = np.ones((1, recorded.n_units), dtype=bool)
    sets = _sets_by_layer(recorded.units, columns, order)
    masks = chain([whole], _mask_blocks(recorded.n_units, sets))
    measured = (v.astype(np.float64) for v in recorded.in_blocks(masks, 1 + len(sets)))
    (clean,) = next(measured)
    if not np.isfinite(clean).all():
        raise MeasurementError(
            f"with every unit kept the value is {clean.mean()}; mend the value function first"
        )
    return {(): clean} | dict(zip(sets, chain.from_iterable(measured), strict=True))


def _sets_by_layer(units: UnitSet, columns: tuple[int, ...], order: int) -> list[Term]:
    """All sets of 1 … `order` of the columns, by the first layer they ablate.

    Sets that share their first ablated layer stand together, so that one batch can share all that
    comes before that layer.
    """
    by_layer = sorted(columns, key=lambda column: (units[column].layer, column))
    sets: list[Term] = []
    for place, first in enumerate(by_layer):
        sets.append((first,))
        if order == 2:
            sets += [(min(first, other), max(first, other)) for other in by_layer[place + 1 :]]
    return sets


def _mask_blocks(n_units: int, sets: list[Term]) -> Iterator[Bool[np.ndarray, "mask unit"]]:
    """The masks that ablate `sets`, a few MB at a time."""
    rows = max(1, _BLOCK // n_units)
    for start in range(0, len(sets), rows):
        yield ablate_sets(n_units, sets[start : start + rows])
