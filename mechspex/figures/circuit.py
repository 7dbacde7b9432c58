"""A circuit as a graph: its members by layer, joined by what is confirmed between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from mechspex.core.units import Term, UnitSet
from mechspex.figures.network import bend, draw_units, name_units, place_units
from mechspex.figures.style import (
    asked,
    both_ways,
    colour_bar,
    entitle,
    in_ink,
    legend,
    measured,
    nothing,
    sheet,
)

# {relation: its colour and line}; told apart in print and by the colour-blind.
_RELATIONS = {
    "together": ("#0072B2", "solid"),
    "backup": ("#B35900", (0, (5, 2))),
    "opposed": ("#AA4499", (0, (1.5, 1.5))),
}


@runtime_checkable
class ConfirmedPair(Protocol):
    """Two members, and how they act together."""

    @property
    def members(self) -> tuple[int, int]: ...
    @property
    def effect(self) -> float: ...
    @property
    def relation(self) -> str: ...


@runtime_checkable
class Members(Protocol):
    """A circuit."""

    @property
    def units(self) -> UnitSet: ...
    @property
    def members(self) -> Term: ...
    @property
    def effects(self) -> Mapping[int, float]: ...
    @property
    def links(self) -> Sequence[ConfirmedPair]: ...
    @property
    def roles(self) -> Mapping[str, Term]: ...


def circuit_graph(found: Members, *, metric: str | None = None, ax: Axes | None = None) -> Figure:
    """The members of a circuit by layer, joined where a pair is confirmed; roles below names.

    A line is as wide as the interaction is strong: solid where both need each other, long dashes
    where each stands in for the other, dots where one undoes what the other writes. A unit has
    the colour of the exact effect of ablating it, grey where that was not measured.

    Args:
        found: the circuit to draw.
        metric: what is measured, in words; the value's metric if not given.
        ax: the axes to draw on; a new figure if not given.
    """
    heading = " · ".join(
        filter(None, [f"Circuit of {len(found.members)} of {len(found.units)} units", asked(found)])
    )
    roles = {c: role.replace("_", " ") for role, columns in found.roles.items() for c in columns}
    labels = {
        column: "\n".join(filter(None, [found.units.names[column], roles.get(column, "")]))
        for column in found.members
    }
    pairs = [link.members for link in found.links]
    places, (width, height) = place_units(found.units, found.members, pairs, labels)
    figure, axes = sheet(ax, max(width, 5.0), max(height, 3.0))
    if not found.members:
        return nothing(figure, ax, axes, heading, "a circuit of no units")
    largest = max((abs(link.effect) for link in found.links), default=1.0) or 1.0
    for link in found.links:
        colour, line = _RELATIONS[link.relation]
        start, end = (places[column] for column in link.members)
        axes.add_patch(
            FancyArrowPatch(
                start, end, arrowstyle="-", color=colour,
                connectionstyle=f"arc3,rad={bend(start, end)}", linestyle=line, shrinkA=0,
                shrinkB=0, linewidth=0.8 + 3 * abs(link.effect) / largest, alpha=0.85, zorder=1,
            )
        )  # fmt: skip
    effects = [found.effects.get(column, np.nan) for column in found.members]
    colours = both_ways(effects)
    draw_units(axes, places, effects, colours)
    name_units(axes, found.units, places, labels)
    quantity = f"effect of ablating a unit alone on {measured(found, metric)}"
    if np.isfinite(effects).any():
        colour_bar(figure, [axes], colours, quantity)
    there = {link.relation for link in found.links}
    handles = [
        Line2D([], [], color=colour, linestyle=line, linewidth=2, label=relation)
        for relation, (colour, line) in _RELATIONS.items()
        if relation in there
    ]
    legend(axes, ax, handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=3,
           borderaxespad=0.2)  # fmt: skip
    note = f"widest line: {largest:.3g}" if found.links else "no pair of members is confirmed"
    entitle(figure, ax, axes, heading, note)
    return in_ink(figure, ax)
