"""Sets that were tried for a goal: what was predicted of each, and what was measured."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechspex.figures.style import (
    INK,
    MUTED,
    NEGATIVE,
    PAPER,
    POSITIVE,
    SMALL,
    bare,
    in_ink,
    legend,
    nothing,
    sheet,
    short,
)

_LONGEST = 60


@runtime_checkable
class TriedSets(Protocol):
    """Sets of units and a goal that they are to reach: a smallest set."""

    @property
    def goal(self) -> float: ...

    @property
    def clean(self) -> float: ...

    def to_pandas(self) -> pd.DataFrame:
        """A row a set: units, predicted and measured value, whether it reached the goal."""
        ...


def tried_sets(found: TriedSets, *, ax: Axes | None = None) -> Figure:
    """A row a set: a diamond for the predicted value, a disc for the measured one, a line the goal.

    Args:
        found: the sets to draw.
        ax: the axes to draw on; a new figure if not given.
    """
    rows = found.to_pandas().to_dict("records")
    figure, axes = sheet(ax, 7.2, 0.3 * max(len(rows), 4) + 1.2)
    if not rows:
        return nothing(figure, ax, axes, "sets that reach the goal", "no set to show")
    places = np.arange(len(rows))[::-1]
    axes.axvline(found.goal, color=INK, linewidth=0.9, label="goal")
    axes.axvline(found.clean, color=MUTED, linewidth=0.9, linestyle=":", label="all kept")
    axes.plot(
        [row["predicted"] for row in rows], places, linestyle="none", marker="D", markersize=5,
        markerfacecolor=PAPER, markeredgecolor=INK, label="predicted", zorder=3,
    )  # fmt: skip
    for reached, colour, mark, label in (
        (True, POSITIVE, "o", "measured: reaches the goal"),
        (False, NEGATIVE, "X", "measured: does not"),
    ):
        own = [(row["measured"], p) for row, p in zip(rows, places, strict=True)
               if row["reached"] == reached]  # fmt: skip
        if own:
            at, height = zip(*own, strict=True)
            axes.plot(at, height, mark, color=colour, markersize=6, label=label, zorder=4)
    axes.set_yticks(places, [short(row["units"], _LONGEST) or "nothing" for row in rows])
    axes.set_xlabel("value")
    axes.margins(y=0.2)
    bare(axes)
    legend(axes, ax, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=SMALL)
    return in_ink(figure, ax)
