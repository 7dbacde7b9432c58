"""Figures of what was found; each returns a matplotlib figure and touches no global state."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from mechspex.ablation_sweep import Sweep
from mechspex.errors import Refused
from mechspex.explanation import Explanation
from mechspex.repair_map import SelfRepair

_NEGATIVE, _POSITIVE, _PALE = "#b5403a", "#2b6ca3", "#b9bec4"
_UNKNOWN = "#d5d8db"


def head_map(found: Explanation | Sweep, *, metric: str = "value") -> Figure:
    """Layers × heads, coloured by the effect of ablating each head alone; unmeasured heads grey.

    The effects are the recovered ones of an explanation, the exact ones of a sweep. A head whose
    exact effect is confirmed (its interval over outputs leaves out zero) carries a dot.

    Raises:
        Refused: the units are not all heads.
    """
    units = found.units
    if any(unit.kind != "head" or unit.position is not None for unit in units):
        raise Refused("a head map needs units that are all heads, at all positions")
    layers = sorted({unit.layer for unit in units})
    grid = np.full((max(unit.number for unit in units) + 1, len(layers)), np.nan)
    for unit, effect in zip(units, found.single_effects, strict=True):
        grid[unit.number, layers.index(unit.layer)] = effect
    figure = Figure(
        figsize=(0.28 * len(layers) + 2.2, 0.28 * len(grid) + 1.4), layout="constrained"
    )
    axes = figure.subplots()
    largest = max(np.nanmax(np.abs(grid), initial=0.0), 1e-9)
    image = axes.imshow(
        grid,
        cmap=colormaps["RdBu"].with_extremes(bad=_UNKNOWN),
        norm=TwoSlopeNorm(0, -largest, largest),
        origin="lower",
        aspect="equal",
    )
    confirmed = [units[column] for column in found.confirmed_singles]
    axes.plot(
        [layers.index(unit.layer) for unit in confirmed],
        [unit.number for unit in confirmed],
        linestyle="none",
        marker="o",
        markersize=4,
        color="black",
        markeredgecolor="white",
        markeredgewidth=0.5,
    )
    step = max(1, len(layers) // 10)
    axes.set_xticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
    axes.set_yticks(range(0, len(grid), max(1, len(grid) // 6)))
    axes.set(xlabel="layer", ylabel="head")
    axes.set_title("dot: the interval over outputs leaves out zero", loc="left", fontsize=8)
    figure.colorbar(image, ax=axes, label=f"effect of ablation on {metric}", shrink=0.9)
    return figure


def interactions(explanation: Explanation, *, most: int = 15, metric: str = "value") -> Figure:
    """The strongest validated interactions: exact joint effect less what smaller sets predict.

    Bars are exact effects in the ``ablated`` basis with their intervals over outputs, diamonds
    what the decoder had recovered; pale bars are not confirmed.
    """
    frame = explanation.interactions().head(most).iloc[::-1]
    figure = Figure(figsize=(6.4, 0.3 * max(len(frame), 2) + 1.2), layout="constrained")
    axes = figure.subplots()
    if not len(frame):
        axes.text(0.5, 0.5, "no interaction to show", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return figure
    effect = frame["effect"].to_numpy()
    colors = [
        _PALE if not holds else _POSITIVE if value > 0 else _NEGATIVE
        for value, holds in zip(effect, frame["confirmed"], strict=True)
    ]
    places = np.arange(len(frame))
    spread = np.abs(frame[["low", "high"]].to_numpy().T - effect)
    axes.barh(places, effect, color=colors, height=0.7)
    axes.errorbar(effect, places, xerr=spread, fmt="none", ecolor="#333333", elinewidth=0.8)
    axes.plot(
        frame["recovered"],
        places,
        linestyle="none",
        marker="D",
        markersize=4,
        color="black",
        markerfacecolor="white",
        label="recovered",
    )
    _finish(axes, list(frame["units"]), f"interaction effect on {metric}")
    return figure


def self_repair_map(found: SelfRepair, *, metric: str = "value") -> Figure:
    """Layers × heads: an arrow from every head to those that step in when it is ablated.

    Only confirmed repairs. Discs are coloured by the effect of ablating the head in the whole
    model; an arrow is as wide as the interaction is strong, solid where the backup takes over and
    dashed where it only opposes less. Two heads that repair each other are joined both ways.

    Raises:
        Refused: the units are not all heads.
    """
    units = found.units
    if any(unit.kind != "head" or unit.position is not None for unit in units):
        raise Refused("a map of self-repair needs units that are all heads, at all positions")
    layers = sorted({unit.layer for unit in units})
    n_heads = max(unit.number for unit in units) + 1
    figure = Figure(
        figsize=(max(0.45 * len(layers) + 2.2, 4.6), 0.4 * n_heads + 1.4), layout="constrained"
    )
    axes = figure.subplots()
    place = {i: (layers.index(unit.layer), unit.number) for i, unit in enumerate(units)}
    axes.scatter(*zip(*place.values(), strict=True), s=12, color=_UNKNOWN, zorder=1)
    effects = {r.unit: r.loss.value for r in found.confirmed}
    effects |= {r.by: r.before.value for r in found.confirmed}
    largest = max((abs(effect) for effect in effects.values()), default=1.0) or 1.0
    strongest = max((abs(r.interaction.value) for r in found.confirmed), default=1.0)
    for repair in found.confirmed:
        axes.annotate(
            "",
            xy=place[repair.by],
            xytext=place[repair.unit],
            arrowprops={
                "arrowstyle": "-|>",
                "connectionstyle": "arc3,rad=0.18",
                "linewidth": 0.6 + 2.4 * abs(repair.interaction.value) / strongest,
                "linestyle": "solid" if repair.relation == "takes over" else "dashed",
                "color": "#555b61",
                "shrinkA": 7,
                "shrinkB": 7,
            },
        )
    discs = axes.scatter(
        [place[i][0] for i in effects],
        [place[i][1] for i in effects],
        c=list(effects.values()),
        s=130,
        cmap="RdBu",
        norm=TwoSlopeNorm(0, -largest, largest),
        edgecolors="#333333",
        linewidths=0.6,
        zorder=3,
    )
    step = max(1, len(layers) // 10)
    axes.set_xticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
    axes.set_yticks(range(0, n_heads, max(1, n_heads // 6)))
    axes.set(xlabel="layer", ylabel="head", xlim=(-0.7, len(layers) - 0.3))
    axes.set_ylim(-0.7, n_heads - 0.3)
    axes.spines[["top", "right"]].set_visible(False)
    title = (
        "arrow: from an ablated head to one that repairs it, confirmed; dashed where that only "
        "opposes less"
    )
    axes.set_title(title if effects else "no repair is confirmed", loc="left", fontsize=8)
    figure.colorbar(discs, ax=axes, label=f"effect of ablation on {metric}", shrink=0.9)
    return figure


def _finish(axes: Axes, labels: list[str], quantity: str) -> None:
    axes.axvline(0, color="#333333", linewidth=0.8)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_xlabel(quantity)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="best")
