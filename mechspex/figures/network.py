"""The network of interactions: units by layer, joined where they act together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.patheffects import withStroke

from mechspex.core.doors import door
from mechspex.core.units import Term, UnitSet
from mechspex.figures.style import (
    INK,
    NEGATIVE,
    PAPER,
    POSITIVE,
    SMALL,
    Colours,
    asked,
    both_ways,
    colour_bar,
    entitle,
    in_ink,
    legend,
    measured,
    nothing,
    sheet,
    short,
)
from mechspex.figures.terms import MEASURED, DrawnTerm, MeasuredTerms, layered, strongest

Places = Mapping[int, tuple[float, float]]
"""{column: inches across, inches up}."""

# Inches: between the units of a layer, of a letter of a name, of a row of the list of units.
_UP, _LETTER, _ROW = 0.5, 0.072, 0.22


@door(found=MEASURED)
def network(
    found: MeasuredTerms, *, most: int = 25, metric: str | None = None, ax: Axes | None = None
) -> Figure:
    """The units of the strongest interactions by layer, joined where they act together.

    A line is a pair, as wide as its exact effect is strong, blue above 0 and red below, dashed
    where it is not confirmed. A square joins the members of a larger set. A unit has the colour of
    the exact effect of ablating it alone, grey where that was not measured. Units without layers
    (words, parts) stand in a list, with arcs between them.

    Args:
        found: exact effects: an explanation, a sweep of pairs, a validation.
        most: how many interactions are drawn.
        metric: what is measured, in words; the value's metric if not given.
        ax: the axes to draw on; a new figure if not given.

    Raises:
        Refused: an answer of another kind.
    """
    drawn = strongest(found, most, least=2)
    columns = sorted({column for one in drawn for column in one.term})
    by_layer = layered(found.units)
    labels = {column: found.units.names[column] for column in columns}
    places, size = place_units(found.units, columns, [one.term for one in drawn], labels)
    figure, axes = sheet(ax, *size)
    heading = " · ".join(filter(None, ["Interactions", asked(found)]))
    if not drawn:
        return nothing(figure, ax, axes, heading, "no interaction to show")
    largest = max(abs(one.effect) for one in drawn)
    for one in drawn:
        _join(axes, one, places, abs(one.effect) / (largest or 1.0), by_layer)
    alone = {one.term[0]: one.effect for one in strongest(found, len(found.units), largest=1)}
    effects = [alone.get(column, np.nan) for column in columns]
    colours = both_ways(effects)
    draw_units(axes, places, effects, colours)
    name_units(axes, found.units, places, labels)
    words = measured(found, metric)
    if np.isfinite(effects).any():
        colour_bar(figure, [axes], colours, f"effect of ablating a unit alone on {words}")
    _explain(axes, ax, drawn)
    note = f"widest line: {largest:.3g}, the interaction effect on {words}"
    entitle(figure, ax, axes, heading, note)
    return in_ink(figure, ax)


def place_units(
    units: UnitSet, columns: Sequence[int], groups: Iterable[Term], labels: Mapping[int, str]
) -> tuple[Places, tuple[float, float]]:
    """Where each unit is drawn, and how many inches the picture takes.

    Args:
        units: all units.
        columns: the units that are drawn.
        groups: the sets of them that act together.
        labels: their names.
    """
    by_layer = layered(units)
    places = _by_layer(units, columns, groups, labels) if by_layer else _listed(columns)
    across = [x for x, _ in places.values()] or [0.0]
    up = [y for _, y in places.values()] or [0.0]
    width = max(across) - min(across) + (2.6 if by_layer else 6.0)
    return places, (max(width, 5.0), max(max(up) - min(up) + 2.0, 3.0))


def _by_layer(
    units: UnitSet, columns: Sequence[int], groups: Iterable[Term], labels: Mapping[int, str]
) -> dict[int, tuple[float, float]]:
    """A column a layer, as wide as its longest name; units near those that they act with."""
    graph = nx.Graph()
    graph.add_nodes_from(columns)
    for term in groups:
        graph.add_edges_from(combinations(term, 2))
    places: dict[int, tuple[float, float]] = {}
    edge = 0.0
    for number, layer in enumerate(sorted({units[column].layer for column in columns})):
        members = [column for column in columns if units[column].layer == layer]
        longest = max(len(line) for c in members for line in _label(labels[c]).split("\n"))
        half = max(0.6, longest * _LETTER + 0.2) / 2
        heights = {column: _mean_height(graph[column], places) for column in members}
        members.sort(key=heights.__getitem__)
        # Neighbours are out of line, so that a line past one of them is seen.
        middle = (len(members) - 1) / 2 + 0.55 * (number % 3 - 1)
        places |= {c: (edge + half, _UP * (row - middle)) for row, c in enumerate(members)}
        edge += 2 * half
    return places


def _mean_height(neighbours: Iterable[int], places: Places) -> float:
    """The mean height of the neighbours that have a place already."""
    near = [places[other][1] for other in neighbours if other in places]
    return float(np.mean(near)) if near else 0.0


def _listed(columns: Sequence[int]) -> dict[int, tuple[float, float]]:
    """One below the other, in their order."""
    return {column: (0.0, -_ROW * row) for row, column in enumerate(columns)}


def _join(axes: Axes, one: DrawnTerm, places: Places, strength: float, by_layer: bool) -> None:
    """A line between two units, or from each of several to a square."""
    points = [places[column] for column in one.term]
    style = {
        "color": POSITIVE if one.effect > 0 else NEGATIVE,
        "linewidth": 0.7 + 3.3 * strength,
        "linestyle": "solid" if one.confirmed else (0, (3, 2)),
        "alpha": 0.8,
    }
    if len(points) == 2:
        _line(axes, points[0], points[1], bend(points[0], points[1]), style)
        return
    x, y = np.mean(points, axis=0)
    hub = (x + 0.12, y + 0.2) if by_layer else (0.35 + 0.12 * abs(points[0][1] - points[-1][1]), y)
    for point in points:
        _line(axes, point, hub, 0.05, style)
    axes.plot(*hub, marker="s", markersize=5, color=style["color"], zorder=3)


def bend(start: tuple[float, float], end: tuple[float, float]) -> float:
    """How far a line is bent: a little between layers; to the right between units of one layer, or
    of a list."""
    if start[0] != end[0]:
        return 0.12
    return -0.45 if start[1] > end[1] else 0.45


def _line(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], curve: float, style: dict
) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-", connectionstyle=f"arc3,rad={curve}", shrinkA=0, shrinkB=0,
            zorder=1, **style,
        )
    )  # fmt: skip


def draw_units(axes: Axes, places: Places, effects: Sequence[float], colours: Colours) -> None:
    """A disc a unit, in the colour of its effect."""
    axes.scatter(
        [x for x, _ in places.values()],
        [y for _, y in places.values()],
        c=[colours.of(effect) for effect in effects],
        s=90, edgecolors=INK, linewidths=0.7, zorder=4,
    )  # fmt: skip


def name_units(axes: Axes, units: UnitSet, places: Places, labels: Mapping[int, str]) -> None:
    """Names below units that lie in layers, else left of the list."""
    if layered(units):
        _name_by_layer(axes, units, places, labels)
    else:
        _name_the_list(axes, places, labels)


def _name_by_layer(axes: Axes, units: UnitSet, places: Places, labels: Mapping[int, str]) -> None:
    """Each name below its unit; a layer has the width for it."""
    for column, (x, y) in places.items():
        axes.text(
            x, y - 0.13, _label(labels[column]), ha="center", va="top", fontsize=SMALL - 1,
            color=INK, zorder=5, path_effects=[withStroke(linewidth=2, foreground=PAPER)],
        )  # fmt: skip
    ticks = {units[column].layer: x for column, (x, _) in places.items()}
    axes.set_xticks(list(ticks.values()), [str(layer) for layer in ticks])
    axes.set_yticks([])
    across, up = [x for x, _ in places.values()], [y for _, y in places.values()]
    axes.set(
        xlabel="layer",
        xlim=(min(across) - 0.6, max(across) + 0.6),
        ylim=(min(up) - 0.55, max(up) + 0.4),
    )
    axes.spines[["top", "right", "left"]].set_visible(False)


def _name_the_list(axes: Axes, places: Places, labels: Mapping[int, str]) -> None:
    names = [short(labels[column].replace("\n", " · "), 40) for column in places]
    axes.set_yticks([y for _, y in places.values()], names)
    axes.tick_params(axis="y", length=0)
    axes.set_xticks([])
    down = [y for _, y in places.values()]
    axes.set(xlim=(-0.1, 0.5 + 0.3 * (max(down) - min(down))), ylim=(min(down) - 0.2, 0.2))
    axes.spines[["top", "right", "bottom", "left"]].set_visible(False)


def _label(text: str) -> str:
    """Each line of a label, short."""
    return "\n".join(short(line) for line in text.split("\n"))


def _explain(axes: Axes, given: Axes | None, drawn: Sequence[DrawnTerm]) -> None:
    """What colours, dashes and squares mean, as far as they occur."""
    handles = []
    if any(one.effect > 0 for one in drawn):
        handles.append(Line2D([], [], color=POSITIVE, linewidth=2, label="above 0"))
    if any(one.effect < 0 for one in drawn):
        handles.append(Line2D([], [], color=NEGATIVE, linewidth=2, label="below 0"))
    if not all(one.confirmed for one in drawn):
        handles.append(Line2D([], [], color=INK, linestyle=(0, (3, 2)), label="not confirmed"))
    if any(len(one.term) > 2 for one in drawn):
        square = {"linestyle": "none", "marker": "s", "markersize": 5, "color": INK}
        handles.append(Line2D([], [], label="three and more units", **square))
    legend(
        axes, given, handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(handles),
        columnspacing=1.2, borderaxespad=0.2,
    )  # fmt: skip
