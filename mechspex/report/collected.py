"""One tidy table over many runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, get_type_hints

import numpy as np
import pandas as pd

from mechspex.core.counted import counted
from mechspex.core.errors import Refused
from mechspex.core.json_values import plain, read_number, read_text, read_whole
from mechspex.core.kinds import ARROW, KINDS
from mechspex.core.result import Result
from mechspex.core.units import Unit, UnitSet

if TYPE_CHECKING:
    import matplotlib.figure

# Rows that the text shows, and maps of the picture.
_SHOWN, _MAPS = 20, 36
# Half of the last digit that the text has.
_NOTHING = 0.0005
_WRITER = re.compile(rf"L(\d+)(?:H(\d+)|MLP){ARROW}", re.ASCII)


class CollectedRow(NamedTuple):
    """The exact effect of one set of units in one run; None where something is not known.

    Attributes:
        run: the name of the run, with the folders above it.
        answer: ``sweep``, ``explanation`` or ``validation``.
        task, model, ablation, metric: what the values depend on.
        seed: the seed of prompts, masks and ablation.
        density: the probability with which each other unit was kept; 1 where all were.
        prompts: how many prompts the effect is a mean over.
        clean: the value with every unit kept; of an explanation on the prompts that were searched.
        unit: the first unit of the set.
        kind, layer, head, position: where it is; a head or neuron is its number in the layer. An
            edge is where its writer is, that of the embedding in no layer.
        span: the name of the span at which it is ablated, where it is one.
        second_unit: the second unit of a pair; of larger sets all but the first.
        order: how many units the set has.
        output: the prompt, in a table by prompts.
        effect: in the ``ablated`` basis: of a pair the joint effect less the two single ones.
        value: the value with the set ablated, where it is known.
        se: the standard error of the effect over prompts, and over the masks of the other units
            where these were drawn.
    """

    run: str
    answer: str
    task: str | None
    model: str | None
    ablation: str | None
    metric: str | None
    seed: int | None
    density: float | None
    prompts: int
    clean: float | None
    unit: str
    kind: str
    layer: int | None
    head: int | None
    position: int | None
    span: str | None
    second_unit: str | None
    order: int
    output: str | None
    effect: float | None
    value: float | None
    se: float | None


@dataclass(frozen=True, eq=False, repr=False)
class Collected(Result):
    """The exact effects of many runs, a row each.

    Attributes:
        rows: the effects.
        n_answers: how many answers of runs were read.
        unread: runs that have an answer which cannot be read, with the reason.
        n_copies: how many answers were left out, as they are copies of others.
    """

    schema: ClassVar[str] = "mechspex.collected/1"
    called: ClassVar[str] = "collection of runs"

    rows: tuple[CollectedRow, ...]
    n_answers: int
    unread: tuple[str, ...]
    n_copies: int = 0

    def to_pandas(self) -> pd.DataFrame:
        """A frame with the columns of `CollectedRow`; whole numbers that may lack are ``Int64``."""
        frame = pd.DataFrame(self.rows, columns=list(CollectedRow._fields))
        return frame.astype(_DTYPES)

    @property
    def in_short(self) -> str:
        """How many runs, tasks and models there are."""
        names = [{getattr(row, name) for row in self.rows} - {None} for name in _COUNTED]
        told = [counted(len(some), name) for some, name in zip(names, _COUNTED, strict=True)]
        copies = {0: "", 1: " (a copy left out)"}
        left_out = copies.get(self.n_copies, f" ({self.n_copies:,} copies left out)")
        told = [counted(self.n_answers, "answer") + left_out, *told]
        return f"{', '.join(told)}; {counted(len(self.rows), 'effect')}"

    def __str__(self) -> str:
        frame = self.to_pandas()
        # What reads as 0 says nothing; what has no value says that it failed.
        seen = frame.loc[~(frame["effect"].abs() < _NOTHING)]
        strongest = seen.sort_values("effect", key=np.abs, ascending=False).head(_SHOWN)
        # Rows that would read alike are told apart by what differs between them.
        given = {name: {getattr(row, name) for row in self.rows} - {None} for name in _APART}
        apart = [name for name in _APART if len(given[name]) > 1]
        again = self._in_several_runs()
        if again:
            apart.insert(0, "run")
        named = ["task", "model", "ablation", *apart, "unit", "second_unit"]
        shown = strongest[[*named, "effect", "se"]]
        shown = shown.fillna({"second_unit": ""})
        lines = [self.in_short]
        if again:
            lines.append(
                f"{counted(again, 'effect')} of the same sets, task, model, ablation, metric, seed "
                "and number of prompts, at one density, in several runs: the column run tells "
                "these rows apart"
            )
        if len(shown):
            lines += ["", shown.to_string(index=False, na_rep="", float_format="%+.3f")]
        if len(frame) > len(shown):
            lines.append(f"… and {len(frame) - len(shown):,} weaker ones")
        return "\n".join([*lines, *(f"not read: {why}" for why in self.unread)])

    def _in_several_runs(self) -> int:
        """How many rows are what another run has too, as far as the table tells."""
        runs: dict[tuple[Any, ...], list[str]] = {}
        for row in self.rows:
            runs.setdefault(tuple(getattr(row, name) for name in _ASKED), []).append(row.run)
        return sum(len(found) for found in runs.values() if len(set(found)) > 1)

    def plot(self) -> "matplotlib.figure.Figure":
        """A map of single effects for each task, model, ablation, seed and density, on one scale.

        Raises:
            Refused: there are no single units with layers, or more maps than a page holds.
        """
        from mechspex.figures import unit_map

        singles = [row for row in self.rows if row.order == 1 and row.layer is not None]
        # A map has a cell a unit of a layer, and edges share their writer.
        singles = [row for row in singles if not KINDS[_kind(row)].labelled]
        singles = [row for row in singles if row.output is None]
        maps: dict[tuple[Any, ...], dict[str, float]] = {}
        for row in singles:
            density = None if row.density is None else f"density {row.density:g}"
            key = (row.task, row.model, row.ablation, row.seed, density, row.run)
            maps.setdefault(key, {})[row.unit] = np.nan if row.effect is None else row.effect
        if not maps:
            raise Refused("no run here has the effects of single units with layers; sweep some")
        if len(maps) > _MAPS:
            raise Refused(f"{len(maps)} runs are more than {_MAPS} maps; collect fewer at a time")
        alone = " alone" if {row.density for row in singles} <= {None, 1.0} else ""
        units = UnitSet(tuple(dict.fromkeys(_unit(row) for row in singles)))
        return unit_map(
            units,
            {
                title: [effect.get(name, np.nan) for name in units.names]
                for title, effect in zip(_titles(list(maps)), maps.values(), strict=True)
            },
            quantity=f"effect of ablating the unit{alone}",
        )

    def to_dict(self) -> dict[str, Any]:
        """The table by columns, with a schema name; JSON can hold it."""
        columns = zip(*self.rows, strict=True) if self.rows else [()] * len(CollectedRow._fields)
        return {
            "schema": self.schema,
            "columns": plain(dict(zip(CollectedRow._fields, columns, strict=True))),
            "n_answers": self.n_answers,
            "unread": list(self.unread),
            "n_copies": self.n_copies,
        }

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Collected:
        columns = record["columns"]
        # Earlier versions knew no spans and no densities.
        columns = {name: [None] * len(columns["unit"]) for name in ("span", "density")} | columns
        read = [_column(name, columns[name]) for name in CollectedRow._fields]
        rows = tuple(CollectedRow(*row) for row in zip(*read, strict=True))
        return cls(
            rows,
            read_whole(record["n_answers"]),
            tuple(read_text(why) for why in record["unread"]),
            read_whole(record.get("n_copies", 0)),
        )


_APART = ("metric", "seed", "density", "prompts", "output")
# What an effect is of: all but where it was measured, and what came out.
_ASKED = (
    "task", "model", "ablation", "metric", "seed", "density", "prompts", "unit", "second_unit",
    "output",
)  # fmt: skip
_COUNTED = ("run", "task", "model", "ablation")
_KINDS = {name: str(kind) for name, kind in get_type_hints(CollectedRow).items()}
_DTYPES = {
    name: "Int64" if "int" in kind else "float64" if "float" in kind else "object"
    for name, kind in _KINDS.items()
}


def _column(name: str, stored: Any) -> list[Any]:
    """A column out of a record; null where the kind of the column has None."""
    if not isinstance(stored, list):
        raise TypeError(f"{name} is no list")
    kind = _KINDS[name]
    read = read_whole if "int" in kind else read_number if "float" in kind else read_text
    if "None" not in kind:
        return [read(entry) for entry in stored]
    return [None if entry is None else read(entry) for entry in stored]


def _kind(row: CollectedRow) -> Any:
    return row.kind


def _unit(row: CollectedRow) -> Unit:
    return Unit(
        _kind(row), row.layer or 0, row.head or 0, row.position if row.span is None else row.span
    )


def _titles(keys: list[tuple[Any, ...]]) -> list[str]:
    """What tells each map from the others: the parts in which any two of them differ."""
    varying = [part for part in zip(*keys, strict=True) if len(set(part)) > 1]
    # The name of the run only where nothing else tells two apart.
    named = varying[:-1] if len(varying) > 1 else varying
    titles = [" · ".join(str(part) for part in parts) for parts in zip(*named, strict=True)]
    twice = Counter(titles)
    runs = [key[-1] for key in keys]
    if not titles:
        return [str(keys[0][0] or runs[0])]
    return [
        title if twice[title] == 1 else f"{title} · {run}"
        for title, run in zip(titles, runs, strict=True)
    ]


def unit_columns(units: UnitSet, term: Iterable[int]) -> dict[str, Any]:
    """The columns of a row that say which set of units it is about.

    Args:
        units: the units of the answer.
        term: the set, by column.
    """
    first, *others = term
    unit = units[first]
    layer, head = _place(unit)
    return {
        "unit": unit.name,
        "kind": unit.kind,
        "layer": layer,
        "head": head,
        "position": None if isinstance(unit.position, str) else unit.position,
        "span": unit.position if isinstance(unit.position, str) else None,
        "second_unit": units.label(others) if others else None,
        "order": 1 + len(others),
    }


def _place(unit: Unit) -> tuple[int | None, int | None]:
    """The layer and the number in it, of an edge those of its writer."""
    if unit.kind == "edge":
        writer = _WRITER.match(unit.label)
        if writer is None:
            return None, None
        layer, head = writer.groups()
        return int(layer), None if head is None else int(head)
    if KINDS[unit.kind].labelled:
        return None, None
    return unit.layer, None if unit.kind == "mlp" else unit.number
