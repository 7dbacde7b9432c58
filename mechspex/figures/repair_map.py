"""The self-repair map: which heads make up for which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechspex.core.errors import Refused
from mechspex.core.statistics import Estimate
from mechspex.core.units import UnitSet
from mechspex.figures.style import (
    INK,
    MUTED,
    UNKNOWN,
    asked,
    bare,
    both_ways,
    colour_bar,
    entitle,
    in_ink,
    measured,
    sheet,
)


@runtime_checkable
class ConfirmedRepair(Protocol):
    """One unit that steps in for another; see `mechspex.effects.repair_map.Repair`."""

    @property
    def unit(self) -> int: ...
    @property
    def by(self) -> int: ...
    @property
    def loss(self) -> Estimate: ...
    @property
    def before(self) -> Estimate: ...
    @property
    def interaction(self) -> Estimate: ...
    @property
    def relation(self) -> str: ...


@runtime_checkable
class Repairs(Protocol):
    """Which units make up for which: what `mechspex.self_repair` answers."""

    @property
    def units(self) -> UnitSet: ...

    @property
    def confirmed(self) -> Sequence[ConfirmedRepair]:
        """The repairs that hold beyond the spread over outputs."""
        ...


def self_repair_map(found: Repairs, *, metric: str | None = None, ax: Axes | None = None) -> Figure:
    """Layers × heads: an arrow from every head to those that step in when it is ablated.

    Only confirmed repairs are drawn. Discs are coloured by the effect of ablating the head in the
    whole model. An arrow is as wide as the interaction is strong, solid where the backup takes over
    and dashed where it only opposes less. Two heads that repair each other are joined both ways.

    Args:
        found: the self-repair map to draw.
        metric: what is measured, in words; the value's metric if not given.
        ax: the axes to draw on; a new figure if not given.

    Raises:
        Refused: the units are not all heads.
    """
    units = found.units
    if any(unit.kind != "head" or unit.position is not None for unit in units):
        raise Refused("a map of self-repair needs units that are all heads, at all positions")
    layers = sorted({unit.layer for unit in units})
    n_heads = max(unit.number for unit in units) + 1
    width, height = max(0.45 * len(layers) + 2.2, 4.8), max(0.4 * n_heads + 1.6, 2.8)
    figure, axes = sheet(ax, width, height)
    place = {i: (layers.index(unit.layer), unit.number) for i, unit in enumerate(units)}
    axes.scatter(*zip(*place.values(), strict=True), s=12, color=UNKNOWN, zorder=1)
    effects = {r.unit: r.loss.value for r in found.confirmed}
    effects |= {r.by: r.before.value for r in found.confirmed}
    colours = both_ways(list(effects.values()))
    strongest = max((abs(r.interaction.value) for r in found.confirmed), default=1.0)
    for repair in found.confirmed:
        _draw_arrow(axes, repair, place, abs(repair.interaction.value) / strongest)
    axes.scatter(
        [place[i][0] for i in effects],
        [place[i][1] for i in effects],
        c=list(effects.values()),
        s=130,
        cmap=colours.cmap,
        norm=colours.norm,
        edgecolors=INK,
        linewidths=0.6,
        zorder=3,
    )
    step = max(1, len(layers) // 10)
    axes.set_xticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
    axes.set_yticks(range(0, n_heads, max(1, n_heads // 6)))
    axes.set(xlabel="layer", ylabel="head", xlim=(-0.7, len(layers) - 0.3))
    axes.set_ylim(-0.7, n_heads - 0.3)
    bare(axes)
    _name_the_discs(axes, {units.names[column]: place[column] for column in effects})
    heading = " · ".join(filter(None, ["Self-repair", asked(found)]))
    note = (
        "arrow: from an ablated head to one that repairs it, confirmed; dashed where that only "
        "opposes less"
    )
    entitle(figure, ax, axes, heading, note if effects else "no repair is confirmed")
    quantity = f"effect of ablation on {measured(found, metric)}"
    if effects:
        colour_bar(figure, [axes], colours, quantity)
    return in_ink(figure, ax)


def _name_the_discs(axes: Axes, places: Mapping[str, tuple[int, int]]) -> None:
    """The name of each head that is drawn, below its disc."""
    for name, place in places.items():
        axes.annotate(
            name, place, xytext=(0, -8), textcoords="offset points", ha="center", va="top",
            fontsize=5.5, color=INK,
        )  # fmt: skip


def _draw_arrow(
    axes: Axes, repair: ConfirmedRepair, place: Mapping[int, tuple[int, int]], strength: float
) -> None:
    """From the ablated head to its backup, as wide as `strength`, a share of the strongest."""
    axes.annotate(
        "",
        xy=place[repair.by],
        xytext=place[repair.unit],
        arrowprops={
            "arrowstyle": "-|>",
            "connectionstyle": "arc3,rad=0.18",
            "linewidth": 0.6 + 2.4 * strength,
            "linestyle": "solid" if repair.relation == "takes over" else "dashed",
            "color": MUTED,
            "shrinkA": 7,
            "shrinkB": 7,
        },
    )
