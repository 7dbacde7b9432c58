"""UpSet: sets of units as columns of dots, their effects as bars above."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechspex.core.doors import door
from mechspex.figures.style import (
    INK,
    NEGATIVE,
    PALE,
    PAPER,
    POSITIVE,
    RULE,
    SMALL,
    UNKNOWN,
    Picture,
    asked,
    bare,
    entitle,
    in_ink,
    measured,
    nothing,
    short,
    wrapped,
)
from mechspex.figures.terms import MEASURED, DrawnTerm, MeasuredTerms, strongest


@door(found=MEASURED)
def upset(
    found: MeasuredTerms, *, most: int = 16, least: int = 2, metric: str | None = None
) -> Figure:
    """The strongest sets of units as columns of dots, with their exact effects as bars above.

    After Lex et al. 2014 (UpSet). Bars have their intervals over outputs; grey ones are not
    confirmed.

    Args:
        found: exact effects: an explanation, a validation.
        most: how many sets are drawn, the strongest.
        least: the smallest sets that are drawn: 2 for pairs and larger, 3 for higher orders alone.
        metric: what is measured, in words; the value's metric if not given.

    Raises:
        Refused: an answer of another kind.
    """
    drawn = strongest(found, most, least=least)
    columns = sorted({column for one in drawn for column in one.term})
    names = [short(found.units.names[column], 40) for column in columns]
    width = 0.34 * max(len(drawn), 6) + 1.4 + 0.075 * max(map(len, names), default=0)
    below = 0.21 * max(len(columns), 2)
    figure = Picture(figsize=(max(width, 4.6), below + 3.2), layout="constrained", facecolor=PAPER)
    heading = " · ".join(filter(None, ["Sets that act together", asked(found)]))
    if not drawn:
        axes = figure.subplots()
        return nothing(figure, None, axes, heading, f"no set of {least} and more units to show")
    bars, dots = figure.subplots(2, 1, sharex=True, height_ratios=[2.0, below])
    _draw_bars(bars, drawn)
    bars.set_ylabel(wrapped(f"interaction effect on {measured(found, metric)}", 2.2))
    _draw_dots(dots, drawn, columns)
    dots.set_yticks(range(len(columns)), names, fontsize=SMALL)
    note = "bar: exact effect with its interval over outputs; grey: not confirmed"
    entitle(figure, None, bars, heading, note)
    return in_ink(figure, None)


def _draw_bars(axes: Axes, drawn: list[DrawnTerm]) -> None:
    colours = [
        PALE if not one.confirmed else POSITIVE if one.effect > 0 else NEGATIVE for one in drawn
    ]
    effects = [one.effect for one in drawn]
    axes.bar(range(len(drawn)), effects, color=colours, width=0.7)
    reach = np.transpose([one.reach for one in drawn])
    axes.errorbar(range(len(drawn)), effects, yerr=reach, fmt="none", ecolor=INK, elinewidth=0.8)
    axes.axhline(0, color=RULE, linewidth=0.8)
    axes.tick_params(axis="x", length=0, labelbottom=False)
    bare(axes)
    axes.spines["bottom"].set_visible(False)


def _draw_dots(axes: Axes, drawn: list[DrawnTerm], columns: list[int]) -> None:
    """A dot in the row of each member, the members of a set joined."""
    row = {column: number for number, column in enumerate(columns)}
    for number in range(0, len(columns), 2):
        axes.axhspan(number - 0.5, number + 0.5, color="#f3f4f6", zorder=0)
    every = [(x, y) for x in range(len(drawn)) for y in range(len(columns))]
    axes.scatter(*zip(*every, strict=True), s=14, color=UNKNOWN, zorder=1)
    for place, one in enumerate(drawn):
        rows = [row[column] for column in one.term]
        axes.plot([place, place], [min(rows), max(rows)], color=INK, linewidth=1.4, zorder=2)
        axes.scatter([place] * len(rows), rows, s=30, color=INK, zorder=3)
    axes.set(xlim=(-0.6, len(drawn) - 0.4), ylim=(len(columns) - 0.4, -0.6))
    axes.tick_params(length=0, labelbottom=False)
    axes.spines[["top", "right", "bottom", "left"]].set_visible(False)
