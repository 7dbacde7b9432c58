"""A figure of a paper, measured again: a table, a picture, and the paper's numbers beside ours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from matplotlib.figure import Figure

from mechspex.core.csv_tables import write_csv
from mechspex.core.errors import Refused
from mechspex.core.json_values import plain
from mechspex.experiments.paper_figure import Claim, PaperFigure, Published
from mechspex.figures.panels import PLACE, panels
from mechspex.runs.result import RunResult
from mechspex.runs.run import FIGURE

PICTURE, TABLE, NUMBERS = "figure", "table.csv", "numbers.txt"
# Letters of a line of a table, beyond which it is turned.
_WIDEST = 160
# Cells of a map that the text shows.
_SHOWN = 8


@dataclass(frozen=True)
class Axes:
    """What the axes of a figure are called.

    Attributes:
        x, y: the quantities, with their units.
        log: whether x grows by factors.
        kind: ``lines``, one a series; ``bars`` side by side; a ``map``, where x is the layer, a
            series a head, and y the colour; ``points``, with the diagonal on which y = x.
    """

    x: str
    y: str
    log: bool = False
    kind: str = "lines"


@dataclass(frozen=True, eq=False, repr=False)
class Reproduction(RunResult):
    """A figure of a paper as it comes out here.

    Attributes:
        figure: which figure of which paper.
        rows: what was measured: a row has ``panel``, ``series``, ``x``, ``y``, the interval ``low``
            to ``high`` (NaN where there is none), and what else belongs to it.
        axes: what the axes are called.
        published: the paper's numbers.
        claims: what the paper says, and whether it holds here.
        settings: what was asked for: model, task, full, seed.
        seconds: what measuring and decoding took, now and in earlier runs that are gone on with.
        panel_axes: {panel: what its axes are called, where that is something else}.
        left_out: what was not measured where it ran, such as what needs an optional package.
    """

    schema: ClassVar[str] = "mechspex.reproduction/1"
    called: ClassVar[str] = "figure of a paper"
    file: ClassVar[str] = FIGURE
    made_by: ClassVar[str] = "mechspex figure"

    figure: PaperFigure
    rows: tuple[Mapping[str, Any], ...]
    axes: Axes
    published: tuple[Published, ...]
    claims: tuple[Claim, ...]
    settings: Mapping[str, Any]
    seconds: float
    panel_axes: Mapping[str, Axes] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def to_pandas(self) -> pd.DataFrame:
        """A row a point: panel, series, x, y, low, high, and what else belongs to it."""
        return pd.DataFrame([dict(row) for row in self.rows])

    def to_dict(self) -> dict[str, Any]:
        """The figure, its table, the paper's numbers, the claims and the settings."""
        return {
            "figure": asdict(self.figure),
            "rows": plain(self.rows),
            "axes": asdict(self.axes),
            "panel_axes": {panel: asdict(axes) for panel, axes in self.panel_axes.items()},
            "published": [asdict(one) for one in self.published],
            "claims": [asdict(one) for one in self.claims],
            "left_out": list(self.left_out),
            "settings": dict(self.settings),
            "seconds": self.seconds,
        }

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Reproduction:
        figure = dict(record["figure"])
        for name in ("minutes", "tasks"):
            figure[name] = tuple(figure[name])
        return cls(
            figure=PaperFigure(**figure),
            rows=points(record["rows"]),
            axes=Axes(**record["axes"]),
            published=tuple(Published(**one) for one in record["published"]),
            claims=tuple(Claim(**one) for one in record["claims"]),
            # Tables of before have none.
            left_out=tuple(record.get("left_out", ())),
            settings=dict(record["settings"]),
            seconds=float(record["seconds"]),
            panel_axes={
                panel: Axes(**axes) for panel, axes in record.get("panel_axes", {}).items()
            },
        )

    @property
    def in_short(self) -> str:
        """Which figure, and how many of the paper's claims hold here."""
        told = f"{self.figure.name}: {self.figure.title}"
        if not self.claims:
            return told
        held = sum(claim.holds is True for claim in self.claims)
        return f"{told}; {held} of {len(self.claims)} claims hold here"

    def __str__(self) -> str:
        lines = [f"{self.figure.title}   [{self.figure.paper}]", self.figure.shows, ""]
        for panel in dict.fromkeys(row["panel"] for row in self.rows):
            own = [row for row in self.rows if row["panel"] == panel]
            lines += _table(panel, own, self.panel_axes.get(panel, self.axes).kind)
        if self.published:
            lines += ["", "in the paper"]
            lines += _published(self.published)
        if self.claims:
            lines += ["", "the paper says"]
        for claim in self.claims:
            holds = {True: "holds here", False: "does not hold here", None: "not decided here"}
            lines += [f"  {claim.says}: {holds[claim.holds]} ({claim.measured})"]
        lines += ["", *(f"left out: {one}" for one in self.left_out)] if self.left_out else []
        asked = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        lines += ["", f"differs: {self.figure.differs}", f"{asked}; {self.seconds:.0f} s"]
        return "\n".join(lines)

    def plot(self) -> Figure:
        """Small multiples: a panel a case, a line a method, the paper's own numbers hollow."""
        return panels(self, heading=f"{self.figure.title} ({self.figure.paper})")

    def write(self, folder: str | Path) -> None:
        """Write picture (PNG, SVG), table (CSV), numbers (text) and the whole (JSON) to a folder.

        Args:
            folder: made if it is not there.

        Raises:
            StoreError: the folder cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        picture = self.plot()
        for ending in ("png", "svg"):
            picture.savefig(folder / f"{PICTURE}.{ending}", dpi=150)
        write_csv(folder / TABLE, self.to_pandas())
        (folder / NUMBERS).write_text(f"{self}\n")
        self.save(folder / FIGURE)


def points(rows: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Rows of a table as `Reproduction` holds them: numbers that there are none of are NaN.

    Args:
        rows: what was measured, or JSON of it.

    Raises:
        Refused: a row without panel, series, x, y, low or high.
    """
    found = []
    for row in rows:
        if not {*PLACE, "low", "high"} <= set(row):
            raise Refused(f"a row lacks one of {', '.join(PLACE)}, low, high: {dict(row)}")
        numbers = {name: _number(row[name]) for name in ("y", "low", "high")}
        found.append(plain(row) | numbers)
    return tuple(found)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _table(panel: str, rows: Sequence[Mapping[str, Any]], kind: str) -> list[str]:
    """The block of a panel: a line a series, a column a place."""
    if kind in ("map", "points"):
        return _most(panel, rows, kind)
    places = list(dict.fromkeys(row["x"] for row in rows))
    cells = {(row["series"], row["x"]): _told(row) for row in rows}
    names = list(dict.fromkeys(row["series"] for row in rows))
    if len(names) == 1:
        # One series of many places reads better downwards.
        width = max(len(str(x)) for x in places)
        told = zip(places, map(_told, rows), strict=True)
        return [f"{panel}: {names[0]}", *(f"  {x!s:{width}}  {y}" for x, y in told)]
    frame = pd.DataFrame(
        [[cells.get((name, x), "") for x in places] for name in names],
        index=pd.Index(names),
        columns=pd.Index([f"{x:g}" if isinstance(x, float) else str(x) for x in places]),
    )
    # Many places with their intervals read better downwards too.
    told = frame.T if _width(frame) > _WIDEST > _width(frame.T) else frame
    return [panel, *(f"  {line}" for line in told.to_string().splitlines())]


def _width(frame: pd.DataFrame) -> int:
    return max(map(len, frame.to_string().splitlines()))


def _most(panel: str, rows: Sequence[Mapping[str, Any]], kind: str) -> list[str]:
    """The strongest cells of a map; of points, how far each series lies off the diagonal."""
    if kind == "map":
        strongest = sorted(rows, key=lambda row: -abs(row["y"]))[:_SHOWN]
        told = [f"  layer {row['x']}, {row['series']}: {_told(row)}" for row in strongest]
        return [f"{panel}: the strongest of {len(rows)}", *told]
    lines = [panel]
    for name in dict.fromkeys(row["series"] for row in rows):
        own = [row for row in rows if row["series"] == name]
        far = max(own, key=lambda row: abs(row["y"] - row["x"]))
        mean = sum(abs(row["y"] - row["x"]) for row in own) / len(own)
        lines.append(
            f"  {name}: {len(own)} points, |y − x| {mean:.2f} in the mean, farthest at "
            f"x {far['x']:.2f}, y {far['y']:.2f}"
        )
    return lines


def _told(row: Mapping[str, Any]) -> str:
    """A number with its interval."""
    if math.isnan(row["y"]):
        return ""
    ends = "" if math.isnan(row["low"]) else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['y']:.2f}{ends}"


def _published(numbers: tuple[Published, ...]) -> list[str]:
    """A line a series of the paper."""
    lines: dict[tuple[str, str, str], list[str]] = {}
    for one in numbers:
        value = one.value if isinstance(one.value, str) else f"{one.value:g}"
        at = "" if one.x is None else f" at {one.x:g}" if isinstance(one.x, float) else f" {one.x}"
        lines.setdefault((one.panel, one.what, one.origin), []).append(f"{value}{at}")
    return [
        f"  {f'{panel}, ' if panel else ''}{what}: {', '.join(values)}   [{origin}]"
        for (panel, what, origin), values in lines.items()
    ]
