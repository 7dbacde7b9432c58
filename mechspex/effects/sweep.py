"""The sweep: every unit, or every pair of units, ablated exactly in the otherwise whole model."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import chain, combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from mechspex.core.json_values import plain, plain_rows, write_json
from mechspex.core.masks import ablate_sets
from mechspex.core.units import Term, UnitSet
from mechspex.core.value_function import ValuesLike, as_value_function
from mechspex.effects.validate import columns_of, exact_effects
from mechspex.effects.validation import Validation
from mechspex.errors import MeasurementError, Refused
from mechspex.runs.cost import Cost
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.run import CONFIGURATION, SWEEP, run_folder
from mechspex.runs.text import effect_tables, last_lines, strongest, subject

SCHEMA = "mechspex.sweep/1"

# Bytes of one block of masks: all 46,080 singles of a model's neurons at once would be 2 GB.
_BLOCK = 1 << 22
# More pairs than can be measured in days, or held as a table.
_MOST_SETS = 2_000_000
# Rows that the text shows of each table.
_SHOWN = 20


@dataclass(frozen=True)
class Sweep:
    """The exact effect of ablating every unit, or every pair, in the otherwise whole model.

    Attributes:
        units: what the terms' indices stand for.
        outputs: names of the value's columns (prompts).
        configuration: everything the values depend on but the mask.
        order: 1, singles; 2, singles and pairs.
        clean: the value with every unit kept.
        values: the value with each term ablated and every other unit kept.
        tested: the effects of the singles, then those of the pairs, with intervals over outputs;
            the false discovery rate holds in each of them on its own.
        cost: what it took.
        folder: the run's folder; None where values were kept in memory.
    """

    units: UnitSet
    outputs: tuple[str, ...]
    configuration: dict[str, str]
    order: int
    clean: Float[np.ndarray, " output"]
    values: Float[np.ndarray, "term output"]
    tested: tuple[Validation, ...]
    cost: Cost
    folder: Path | None = None

    @property
    def terms(self) -> tuple[Term, ...]:
        """The units that were ablated, by column, then the pairs of them."""
        return tuple(term for tested in self.tested for term in tested.terms)

    @property
    def output_effects(self) -> Float[np.ndarray, "term output"]:
        """ablated(i) = f(all but i) − f(all) and ablated(i, j) = f(all but i and j) − f(all but i)
        − f(all but j) + f(all), for every output."""
        return np.concatenate([tested.output_effects for tested in self.tested])

    @property
    def effects(self) -> Float[np.ndarray, " term"]:
        """The same, mean over outputs."""
        return self.output_effects.mean(axis=1)

    @property
    def failed(self) -> Bool[np.ndarray, " term"]:
        """Terms whose own mask has no finite value; a pair of such a unit has no effect either."""
        return ~np.isfinite(self.values.mean(axis=1))

    def ablated_effects(self) -> dict[Term, float]:
        """{term: its coefficient in the ``ablated`` basis, mean over outputs}."""
        return dict(zip(self.terms, self.effects.tolist(), strict=True))

    @property
    def single_effects(self) -> Float[np.ndarray, " unit"]:
        """The effect of ablating each unit alone, in the order of `units`; NaN if not measured."""
        effects = np.full(len(self.units), np.nan)
        singles = self.tested[0]
        effects[[column for (column,) in singles.terms]] = singles.effects
        return effects

    @property
    def confirmed_singles(self) -> tuple[int, ...]:
        """Columns of the units whose effect is confirmed: its interval leaves out zero."""
        return self.tested[0].confirmed_singles

    def to_pandas(self) -> pd.DataFrame:
        """A frame with one row a term, in the order of `terms`: the effect in the ``ablated`` basis
        (mean over outputs) with its interval, and the value under that ablation."""
        frame = pd.concat([tested.to_pandas() for tested in self.tested], ignore_index=True)
        return frame.assign(value=self.values.mean(axis=1))

    def singles(self) -> pd.DataFrame:
        """The single units, strongest first."""
        return strongest(self.to_pandas().query("order == 1"))

    def pairs(self) -> pd.DataFrame:
        """The pairs, strongest first; none in a sweep of order 1."""
        return strongest(self.to_pandas().query("order == 2"))

    def __str__(self) -> str:
        counts = [_count(len(tested.terms), order) for order, tested in enumerate(self.tested, 1)]
        lines = [
            subject(self.configuration, self.units),
            f"clean {self.clean.mean():+.3f}   (mean over {len(self.outputs)} outputs)",
            f"exact: {' and '.join(counts)} ablated, each alone",
        ]
        if self.failed.any():
            terms = [term for term, failed in zip(self.terms, self.failed, strict=True) if failed]
            named = ", ".join(self.units.label(term) for term in terms[:6])
            lines.append(
                f"{len(terms):,} of the masks have no finite value: {named}"
                f"{', …' if len(terms) > 6 else ''}"
            )
        lines += effect_tables(self.to_pandas(), beside="value", most=_SHOWN)
        lines += last_lines(
            self.cost,
            len(self.outputs),
            level=self.tested[0].level,
            tested=" and among the ".join(counts),
            folder=self.folder,
        )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        style = {"index": False, "float_format": "{:+.3f}".format, "max_rows": _SHOWN}
        return self.singles().to_html(**style) + self.pairs().to_html(**style)

    def to_dict(self) -> dict[str, Any]:
        """The sweep as plain numbers and lists, with a schema name; JSON can hold it."""
        return {
            "schema": SCHEMA,
            "units": [list(unit) for unit in self.units],
            "outputs": list(self.outputs),
            "configuration": self.configuration,
            "order": self.order,
            "clean": plain(self.clean),
            "terms": plain_rows(self.to_pandas()),
            "output_effects": plain(self.output_effects),
            "level": self.tested[0].level,
            "n_failed": int(self.failed.sum()),
            "cost": asdict(self.cost),
        }


def sweep(
    value_function: ValuesLike,
    *,
    units: UnitSet | None = None,
    order: int = 1,
    among: Iterable[int | str] | None = None,
    run: str | Path | None = None,
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
    start = time.perf_counter()
    function = as_value_function(value_function, units)
    columns = _chosen(function.units, order, among)
    folder = None if run is None else run_folder(run)
    with closing(RecordedValues(function, folder, progress=progress)) as recorded:
        if folder is not None:
            named = [function.units.names[column] for column in columns]
            settings = {"sweep": order, "among": None if among is None else named}
            write_json(
                folder / CONFIGURATION,
                {"values": recorded.configuration, "settings": settings},
            )
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
            cost=Cost(
                masks=recorded.used,
                measured=recorded.measured,
                seconds_measuring=recorded.seconds,
                seconds=time.perf_counter() - start,
            ),
            folder=folder,
        )
    if folder is not None:
        swept.to_pandas().to_csv(folder / SWEEP, index=False)
    return swept


def _chosen(units: UnitSet, order: int, among: Iterable[int | str] | None) -> tuple[int, ...]:
    """The columns to ablate."""
    if order not in (1, 2):
        raise Refused(
            f"order = {order}: sweep singles (1) or pairs (2); validate takes larger sets"
        )
    if isinstance(among, str):
        raise Refused(f"among = {among!r} is one name; give a list of names, [{among!r}]")
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


def _count(number: int, order: int) -> str:
    """``270 singles``, ``1 pair``."""
    return f"{number:,} {'single' if order == 1 else 'pair'}{'' if number == 1 else 's'}"
