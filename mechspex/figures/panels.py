"""Small multiples of a tidy table: a panel a case, a series a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechspex.core.units import Unit, UnitSet
from mechspex.figures.heads import paint
from mechspex.figures.style import (
    INK,
    MARKS,
    MUTED,
    NORMAL,
    RULE,
    SERIES,
    SMALL,
    bare,
    colour_bar,
    in_ink,
    legend,
    scale,
    sheets,
    short,
    wrapped,
)

# What every row of the table has, beside the interval low … high.
PLACE = ("panel", "series", "x", "y")
_DASHES = ("-", "--", ":")
# Characters and ticks that an axis has room for.
_CHARACTERS = 44
_TICKS = 11


@runtime_checkable
class _Axes(Protocol):
    @property
    def x(self) -> str: ...
    @property
    def y(self) -> str: ...
    @property
    def log(self) -> bool: ...
    @property
    def kind(self) -> str: ...


@runtime_checkable
class _Published(Protocol):
    @property
    def what(self) -> str: ...
    @property
    def value(self) -> float | str: ...
    @property
    def panel(self) -> str: ...
    @property
    def x(self) -> float | str | None: ...


@runtime_checkable
class Tabled(Protocol):
    """A table of points, what its axes are called, and what others published."""

    def to_pandas(self) -> pd.DataFrame:
        """A row a point: panel, series, x, y, low, high."""
        ...

    @property
    def axes(self) -> _Axes: ...

    @property
    def panel_axes(self) -> Mapping[str, _Axes]:
        """{panel: what its axes are called, where that is something else}."""
        ...

    @property
    def published(self) -> Sequence[_Published]: ...


def panels(found: Tabled, *, heading: str = "") -> Figure:
    """A panel a case of the table, with the intervals; what was published is hollow and dashed.

    A series has one colour and mark in all panels.

    Args:
        found: the table.
        heading: the title.
    """
    rows = found.to_pandas().to_dict("records")
    drawn = [one for one in found.published if one.x is not None and not isinstance(one.value, str)]
    names = list(dict.fromkeys([*(row["panel"] for row in rows), *(one.panel for one in drawn)]))
    mapped = {name for name in names if found.panel_axes.get(name, found.axes).kind == "map"}
    told = (row["series"] for row in rows if row["panel"] not in mapped)
    series = list(dict.fromkeys([*told, *(one.what for one in drawn)]))
    width = 4.4 if len(names) > 1 else 6.4
    figure, every = sheets(None, len(names), width, 3.4)
    maps: dict[str, list[tuple[Axes, list[Any]]]] = {}
    for axes, name in zip(every, names, strict=True):
        own = [row for row in rows if row["panel"] == name]
        theirs = [one for one in drawn if one.panel == name]
        called = found.panel_axes.get(name, found.axes)
        axes.set_title(wrapped(name, width), fontsize=SMALL, loc="left", color=INK)
        if called.kind == "map":
            maps.setdefault(called.y, []).append((axes, own))
            continue
        places = _places(own, theirs)
        for number, one in enumerate(series):
            of_it = [row for row in own if row["series"] == one]
            look = _look(number)
            if of_it and called.kind == "points":
                _points(axes, of_it, look, one)
            elif of_it and called.kind == "bars":
                beside = list(dict.fromkeys(row["series"] for row in own))
                _bars(axes, of_it, places, look["color"], beside.index(one), len(beside), one)
            elif of_it:
                _line(axes, of_it, places, look, one)
            points = [point for point in theirs if point.what == one]
            if points:
                joined = called.kind != "points"
                _hollow(axes, points, places, look, f"{one}, published", joined=joined)
        if called.kind == "points":
            _diagonal(axes)
        else:
            _ends(axes, places, called.log)
        axes.set(xlabel=called.x, ylabel=called.y)
        bare(axes)
    for quantity, of_it in maps.items():
        _maps(figure, quantity, of_it)
    _one_legend(figure, every)
    if heading:
        text = wrapped(heading, figure.get_figwidth())
        figure.suptitle(text, x=0.01, ha="left", fontsize=NORMAL, color=INK)
    return in_ink(figure, None)


def _look(number: int) -> dict[str, Any]:
    # Where colours begin again, marks are one further on.
    return {
        "color": SERIES[number % len(SERIES)],
        "marker": MARKS[(number + number // len(SERIES)) % len(MARKS)],
        "linestyle": _DASHES[number // len(SERIES) % len(_DASHES)],
    }


def _places(own: Sequence[Any], theirs: Sequence[_Published]) -> dict[Any, float]:
    """Where each x lies: numbers where they are, names one beside the other."""
    every = list(dict.fromkeys([*(row["x"] for row in own), *(one.x for one in theirs)]))
    numbers = [float(x) for x in every if isinstance(x, int | float)]
    if len(numbers) == len(every):
        return {x: x for x in sorted(numbers)}
    return {x: float(place) for place, x in enumerate(every)}


def _spread(rows: Sequence[Any]) -> np.ndarray:
    """How far the interval reaches below and above each value; NaN, not drawn, where is none."""
    value = np.array([row["y"] for row in rows], dtype=float)
    ends = np.array([[row[end] for row in rows] for end in ("low", "high")], dtype=float)
    return np.abs(ends - value)


def _line(axes: Axes, rows: Sequence[Any], places: dict[Any, float], look: Any, name: str) -> None:
    rows = sorted(rows, key=lambda row: places[row["x"]])
    at = [places[row["x"]] for row in rows]
    axes.errorbar(
        at, [row["y"] for row in rows], yerr=_spread(rows), label=short(name), markersize=4.5,
        linewidth=1.2, elinewidth=0.8, capsize=2, **look,
    )  # fmt: skip


def _bars(
    axes: Axes,
    rows: Sequence[Any],
    places: dict[Any, float],
    colour: str,
    number: int,
    n_series: int,
    name: str,
) -> None:
    wide = 0.8 / n_series
    at = [places[row["x"]] + wide * (number - (n_series - 1) / 2) for row in rows]
    axes.bar(
        at, [row["y"] for row in rows], wide, color=colour, yerr=_spread(rows), label=short(name),
        error_kw={"elinewidth": 0.8, "capsize": 2, "ecolor": INK},
    )  # fmt: skip
    axes.axhline(0, color=RULE, linewidth=0.8)


def _points(axes: Axes, rows: Sequence[Any], look: Any, name: str) -> None:
    axes.plot(
        [row["x"] for row in rows], [row["y"] for row in rows], linestyle="none", alpha=0.8,
        color=look["color"], marker=look["marker"], markersize=4.5, label=short(name),
    )  # fmt: skip


def _diagonal(axes: Axes) -> None:
    """The line on which both quantities are alike."""
    ends = [*axes.get_xlim(), *axes.get_ylim()]
    both = min(ends), max(ends)
    axes.plot(both, both, color=RULE, linewidth=0.8, zorder=0)


def _maps(figure: Figure, quantity: str, of_it: Sequence[tuple[Axes, Sequence[Any]]]) -> None:
    """Layers across and heads up, on one scale of colours for all maps of a quantity."""
    colours = scale(*([row["y"] for row in rows] for _, rows in of_it))
    # A head that one map lacks keeps its row.
    heads = list(dict.fromkeys(row["series"] for _, rows in of_it for row in rows))
    for axes, rows in of_it:
        units = UnitSet(
            tuple(Unit("head", int(row["x"]), heads.index(row["series"])) for row in rows)
        )
        paint(axes, units, np.array([row["y"] for row in rows], dtype=float), colours)
    colour_bar(figure, [axes for axes, _ in of_it], colours, quantity)


def _hollow(
    axes: Axes,
    points: Sequence[_Published],
    places: dict[Any, float],
    look: Any,
    name: str,
    *,
    joined: bool,
) -> None:
    at = [places[point.x] for point in points]
    # A line leads from number to number; between names there is nothing.
    numbers = joined and all(isinstance(point.x, int | float) for point in points)
    axes.plot(
        at, [float(point.value) for point in points], color=look["color"],
        linestyle=(0, (2, 2)) if numbers else "none",
        marker=look["marker"], markerfacecolor="none", markersize=5, linewidth=1, label=short(name),
    )  # fmt: skip


def _ends(axes: Axes, places: dict[Any, float], log: bool) -> None:
    """Ticks where there are points, as far as they do not stand on each other."""
    names = list(places)
    if not names:
        return
    if all(isinstance(x, int | float) for x in names):
        if log and min(places.values()) > 0:
            axes.set_xscale("log")
            axes.minorticks_off()
        at = _apart(names, log and min(names) > 0)
        axes.set_xticks(at, [f"{x:g}" for x in at])
        return
    long = max(len(str(x)) for x in names) * len(names) > 40
    turned: dict[str, Any] = {"rotation": 30, "ha": "right"} if long else {}
    axes.set_xticks(list(places.values()), [short(str(x), 24) for x in names], **turned)


def _apart(places: Sequence[float], log: bool) -> list[float]:
    """Numbers in order, without those that lie too near the one before."""
    scaled = np.log(places) if log else np.array(places, dtype=float)
    longest = max(len(f"{place:g}") for place in places)
    least = (scaled[-1] - scaled[0]) / min(_TICKS, _CHARACTERS / longest)
    kept = [0]
    for number in range(1, len(places)):
        if scaled[number] - scaled[kept[-1]] >= least:
            kept.append(number)
    return [places[number] for number in kept]


def _one_legend(figure: Figure, every: Sequence[Axes]) -> None:
    """The series of all panels, once, below them."""
    entries: dict[str, Any] = {}
    for axes in every:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, handle)
    if len(every) == 1:
        legend(every[0])
    elif entries:
        figure.legend(
            list(entries.values()), list(entries), loc="outside lower left", frameon=False,
            ncols=max(1, int(figure.get_figwidth() / 2.2)), fontsize=SMALL, labelcolor=MUTED,
        )  # fmt: skip
