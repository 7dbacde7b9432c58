"""Bars with names: coefficients, proposals of a screen, what members of a circuit add."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechspex.core.errors import ShapeError
from mechspex.figures.style import (
    INK,
    NEGATIVE,
    PALE,
    POSITIVE,
    entitle,
    finish,
    in_ink,
    nothing,
    sheet,
    short,
)


def bars(
    names: Sequence[str],
    values: Sequence[float] | Float[np.ndarray, " row"],
    *,
    intervals: Float[np.ndarray, "row 2"] | None = None,
    sure: Sequence[bool] | Bool[np.ndarray, " row"] | None = None,
    most: int = 20,
    quantity: str = "value",
    heading: str = "",
    note: str = "",
    ax: Axes | None = None,
) -> Figure:
    """A bar a name, in the order given: blue above 0, red below, grey where it is not sure.

    Args:
        names: what the bars are of.
        values: how long they are.
        intervals: both ends of the interval of each, NaN for none.
        sure: which of them are not to be grey; all if not given.
        most: how many are drawn, from the first.
        quantity: what the values are, with their unit.
        heading: the title.
        note: what the marks mean.
        ax: the axes to draw on; a new figure if not given.

    Raises:
        ShapeError: another number of names than of values.
    """
    lengths = np.asarray(values, dtype=float)
    if len(names) != len(lengths):
        raise ShapeError(f"{len(names)} names for {len(lengths)} values; give one a value")
    n = min(most, len(lengths))
    figure, axes = sheet(ax, 6.8, 0.24 * max(n, 3) + 1.5)
    if not n:
        return nothing(figure, ax, axes, heading, "nothing to show")
    shown, places = lengths[:n], np.arange(n)[::-1]
    known = np.ones(n, dtype=bool) if sure is None else np.asarray(sure)[:n]
    colours = [
        PALE if not holds else POSITIVE if value > 0 else NEGATIVE
        for value, holds in zip(shown, known, strict=True)
    ]
    axes.barh(places, shown, color=colours, height=0.7)
    if intervals is not None:
        reach = np.nan_to_num(np.abs(np.asarray(intervals)[:n].T - shown))
        axes.errorbar(shown, places, xerr=reach, fmt="none", ecolor=INK, elinewidth=0.8)
    finish(axes, [short(name, 56) for name in names[:n]][::-1], quantity)
    left_out = len(lengths) - n
    more = f"{left_out:,} more are not shown" if left_out else ""
    entitle(figure, ax, axes, heading, "; ".join(filter(None, [note, more])))
    return in_ink(figure, ax)
