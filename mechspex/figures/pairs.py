"""The matrix of pairs: every unit against every other."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechspex.core.doors import door
from mechspex.core.units import UnitSet
from mechspex.figures.style import (
    INK,
    PAPER,
    RULE,
    SMALL,
    asked,
    both_ways,
    colour_bar,
    entitle,
    in_ink,
    measured,
    nothing,
    sheet,
    short,
)
from mechspex.figures.terms import MEASURED, MeasuredTerms, layered, strongest

# Units beyond which only layers are named.
_NAMED = 70


@door(found=MEASURED)
def pair_matrix(
    found: MeasuredTerms,
    *,
    most: int | None = None,
    metric: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Unit × unit, coloured by the exact interaction effect of each pair; grey is not measured.

    Units stand in the order of the masks, so layers lie together; those without a pair are left
    out. A dot is a confirmed pair, where there is room for dots.

    Args:
        found: exact effects of pairs: a sweep of order 2, an explanation, a validation.
        most: draw the strongest so many pairs alone; all if not given.
        metric: what is measured, in words; the value's metric if not given.
        ax: the axes to draw on; a new figure if not given.

    Raises:
        Refused: an answer of another kind.
    """
    pairs = strongest(found, most or len(found.terms), least=2, largest=2)
    columns = sorted({column for pair in pairs for column in pair.term})
    n = len(columns)
    # Rows are as high as the letters of their names.
    side = max(0.17 * n if n <= _NAMED else 7.5, 2.2)
    figure, axes = sheet(ax, side + 2.6, side + 1.8)
    heading = " · ".join(filter(None, ["Pairs", asked(found)]))
    if not pairs:
        return nothing(figure, ax, axes, heading, "no pair to show")
    place = {column: number for number, column in enumerate(columns)}
    grid, sure = np.full((n, n), np.nan), []
    for pair in pairs:
        i, j = (place[column] for column in pair.term)
        grid[i, j] = grid[j, i] = pair.effect
        sure += [(i, j), (j, i)] if pair.confirmed else []
    colours = both_ways(grid)
    axes.imshow(
        grid, cmap=colours.cmap, norm=colours.norm, origin="upper", interpolation="nearest",
        aspect="equal",
    )  # fmt: skip
    note = "grey: not measured"
    if n <= _NAMED:
        axes.plot(
            [i for i, _ in sure], [j for _, j in sure], linestyle="none", marker="o", markersize=3,
            color=INK, markeredgecolor=PAPER, markeredgewidth=0.5,
        )  # fmt: skip
        note += "; dot: the interval over outputs leaves out zero"
    _name_units(axes, found.units, columns)
    quantity = f"interaction effect on {measured(found, metric)}"
    colour_bar(figure, [axes], colours, quantity)
    entitle(figure, ax, axes, heading, note)
    return in_ink(figure, ax)


def _name_units(axes: Axes, units: UnitSet, columns: list[int]) -> None:
    """Names of few units; of many the layers, with a line where a layer begins."""
    n = len(columns)
    axes.tick_params(length=0)
    if n <= _NAMED:
        names = [short(units.names[column], 24) for column in columns]
        axes.set_yticks(range(n), names, fontsize=SMALL)
        axes.set_xticks(range(n), names, rotation=90)
        return
    axes.set_xticks([])
    axes.set_yticks([])
    if not layered(units):
        axes.set(xlabel=f"{n:,} units", ylabel=f"{n:,} units")
        return
    layers = [units[column].layer for column in columns]
    starts = {layer: layers.index(layer) for layer in sorted(set(layers))}
    for start in starts.values():
        axes.axhline(start - 0.5, color=RULE, linewidth=0.3)
        axes.axvline(start - 0.5, color=RULE, linewidth=0.3)
    # A layer is named where the one before it leaves room.
    shown, last = {}, -n
    for layer, start in starts.items():
        if start - last >= 0.04 * n:
            shown[layer], last = start, start
    axes.set_xticks(list(shown.values()), [str(layer) for layer in shown])
    axes.set_yticks(list(shown.values()), [str(layer) for layer in shown])
    axes.set(xlabel="layer", ylabel="layer")
