"""The sweep: every unit, or every pair of units, ablated exactly in the otherwise whole model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, combinations, islice
from math import comb
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.checks import CONTEXTS, PROBABILITY, SEED, WHOLE
from mechspex.core.doors import door
from mechspex.core.errors import MeasurementError, Refused
from mechspex.core.masks import sample_masks, turn_sets
from mechspex.core.terms import as_chosen, columns_of
from mechspex.core.units import Term, UnitSet, as_parts
from mechspex.core.value_function import ValuesLike, as_value_function, as_values
from mechspex.effects.sweep_table import Sweep
from mechspex.effects.validate import effects_around, exact_effects
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.run import CONFIGURATION, Run, as_run

# Bytes of one block of masks: all 46,080 singles of a model's neurons at once would be 2 GB.
_BLOCK = 1 << 22
# More pairs than can be measured in days, or held as a table.
_MOST_SETS = 2_000_000
# Bytes of masks among which those that are there twice are found.
_MOST_COUNTED = 1 << 26


@door(
    value_function=as_values,
    units=as_parts,
    order=WHOLE,
    among=as_chosen,
    contexts=CONTEXTS,
    keep=PROBABILITY,
    run=as_run,
    seed=SEED,
)
def sweep(
    value_function: ValuesLike,
    *,
    units: UnitSet | Iterable[object] | int | None = None,
    order: int = 1,
    among: str | Iterable[int | str] | None = None,
    contexts: int = 0,
    keep: float = 0.9,
    run: str | Path | Run | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Sweep:
    """Ablate every unit alone, or every pair alone as well, and measure what each costs.

    ablated(i) = f(all but i) − f(all) from n + 1 masks; with `order` 2 also ablated(i, j) =
    f(all but i and j) − f(all but i) − f(all but j) + f(all), from n(n − 1)/2 more. Nothing is
    estimated: the only spread is that over outputs, which the intervals are about (see `validate`).

    With `contexts` the other units are not all kept but drawn at random, as in `validate`: what a
    unit, or a pair, does in a model of that density. Around each of m contexts z the masks are z
    itself and z with every unit, or every pair, turned over, m(n + 1) or m(n + 1 + n(n − 1)/2).
    The means over contexts estimate E_z[ablated_z(T)], which is (−1)^{|T|} times the p-biased
    Fourier coefficient of T over (p(1 − p))^{|T|/2}; intervals allow for the contexts drawn.

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
    >>> around = mx.sweep(soup, units=swept.units, contexts=2000, keep=0.5)
    >>> around.effects.round(1)  # water is there in half of the contexts
    array([-1.5, -1.5, -1. ])

    Args:
        value_function: `ComponentValues` or anything of its shape; or a plain function of Boolean
            masks, together with `units`.
        units: the units of a plain function.
        order: 1 for singles, 2 for singles and pairs.
        among: the units to ablate, by name or column; all if not given. The others are kept, or
            set by the contexts.
        contexts: random masks of the other units, at least 2, the same for every set; 0 keeps
            them all.
        keep: the probability with which a context keeps a unit.
        run: name or folder in which every value is kept: no mask is measured twice, whatever the
            order, and the same call goes on where an earlier one was stopped. None keeps values
            in memory.
        seed: the seed of the contexts.
        progress: a progress bar on stderr.

    Raises:
        Refused: bad arguments, or too many pairs; nothing was measured then.
        UnknownUnitError: an unknown name in `among`.
        MeasurementError: the value with everything kept is not finite.
    """
    function = as_value_function(value_function, units)
    columns = _chosen(function.units, order, among, contexts)
    with Run.open(run, progress=progress) as run:
        recorded = run.record(function)
        named = [function.units.names[column] for column in columns]
        settings = {"sweep": order, "among": None if among is None else named}
        if contexts:
            settings |= {"contexts": contexts, "keep": keep, "seed": seed}
        run.write(CONFIGURATION, {"values": recorded.configuration, "settings": settings})
        around = contexts_of(recorded.n_units, contexts, keep, seed)
        clean, around_each = _measure(recorded, columns, order, around)
        families = [tuple(combinations(columns, size)) for size in range(1, order + 1)]
        if contexts:
            found = [
                effects_around(function.units, terms, around, around_each, keep=keep)
                for terms in families
            ]
            tested, values = zip(*found, strict=True)
        else:
            (value,) = around_each
            tested = tuple(exact_effects(function.units, terms, value) for terms in families)
            values = [np.array([value[term] for term in terms]) for terms in families]
        swept = Sweep(
            units=function.units,
            outputs=function.outputs,
            configuration=recorded.configuration,
            order=order,
            clean=clean,
            values=np.concatenate(values),
            tested=tested,
            cost=run.cost,
            folder=run.folder,
        )
    run.keep(swept)
    return swept


def contexts_of(
    n_units: int, contexts: int, keep: float = 0.9, seed: int = 0
) -> Bool[np.ndarray, "context unit"]:
    """The contexts of a sweep: random masks, or the one that keeps all units.

    Args:
        n_units: the width of a mask.
        contexts: how many are drawn; 0 for the one.
        keep: the probability with which a context keeps a unit.
        seed: what they are drawn by.
    """
    if not contexts:
        return np.ones((1, n_units), dtype=bool)
    return sample_masks(n_units, contexts, keep=keep, seed=seed)


def n_sweep_masks(
    n_units: int, order: int, contexts: int = 0, keep: float = 0.9, seed: int = 0
) -> int:
    """How many masks a sweep of all units measures, the one that keeps all of them included.

    Contexts of few units, or of high density, have masks in common; these count once.

    Args:
        n_units: the width of a mask.
        order: the largest sets.
        contexts: how many contexts there are.
        keep: the probability with which a context keeps a unit.
        seed: the seed of the contexts.
    """
    n_sets = 1 + sum(comb(n_units, size) for size in range(1, order + 1))
    if not contexts:
        return n_sets
    around = contexts_of(n_units, contexts, keep, seed)
    whole = np.ones((1, n_units), dtype=bool)
    # How many units set two of them apart, at the least: beyond twice the order they share none.
    apart = [int((one != other).sum()) for one, other in combinations([*around, *whole], 2)]
    if min(apart) > 2 * order or n_sets * n_units * contexts > _MOST_COUNTED:
        return 1 + contexts * n_sets
    sets = [term for size in range(order + 1) for term in combinations(range(n_units), size)]
    masks = np.concatenate([whole, *(turn_sets(context, sets) for context in around)])
    return len(np.unique(np.packbits(masks, axis=1), axis=0))


def _chosen(
    units: UnitSet, order: int, among: str | Iterable[int | str] | None, contexts: int
) -> tuple[int, ...]:
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
    if order == 2 and n_pairs * max(1, contexts) > _MOST_SETS:
        times = f" in {contexts:,} contexts" if contexts else ""
        raise Refused(
            f"{len(columns):,} units have {n_pairs:,} pairs{times}, more than {_MOST_SETS:,}; "
            "name fewer with among, or let explain find the pairs"
        )
    return columns


def _measure(
    recorded: RecordedValues,
    columns: tuple[int, ...],
    order: int,
    around: Bool[np.ndarray, "context unit"],
) -> tuple[Float[np.ndarray, " output"], list[Mapping[Term, Float[np.ndarray, " output"]]]]:
    """The value with all units kept, and for each context {what is turned over, by column: the
    value}, up to the largest sets."""
    contexts = len(around) > 1
    recorded.stage = "singles" if order == 1 else "singles and pairs"
    whole = np.ones(recorded.n_units, dtype=bool)
    sets = _sets_by_layer(recorded.units, columns, order)
    if contexts:
        sets.insert(0, ())
    masks = chain([whole[None]], *(_mask_blocks(context, sets) for context in around))
    measured = recorded.in_blocks(masks, 1 + len(around) * len(sets))
    rows = chain.from_iterable(values.astype(np.float64) for values in measured)
    clean = next(rows)
    if not np.isfinite(clean).all():
        raise MeasurementError(
            f"with every unit kept the value is {clean.mean()}; mend the value function first"
        )
    start = {} if contexts else {(): clean}
    return clean, [start | dict(zip(sets, islice(rows, len(sets)), strict=True)) for _ in around]


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


def _mask_blocks(
    context: Bool[np.ndarray, " unit"], sets: list[Term]
) -> Iterator[Bool[np.ndarray, "mask unit"]]:
    """The masks that turn `sets` over in a context, a few MB at a time."""
    rows = max(1, _BLOCK // len(context))
    for start in range(0, len(sets), rows):
        yield turn_sets(context, sets[start : start + rows])
