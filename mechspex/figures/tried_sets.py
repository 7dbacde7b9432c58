"""Sets that were tried for a goal: what was predicted of each, and what was measured."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mechspex.figures.style import NEGATIVE, POSITIVE, Picture

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


def tried_sets(found: TriedSets) -> Figure:
    """A row a set: a diamond for the predicted value, a disc for the measured one, a line the goal.

    Args:
        found: the sets to draw.
    """
    rows = found.to_pandas().to_dict("records")
    figure = Picture(figsize=(6.4, 0.3 * max(len(rows), 2) + 1.2), layout="constrained")
    axes = figure.subplots()
    if not rows:
        axes.text(0.5, 0.5, "no set to show", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return figure
    places = np.arange(len(rows))[::-1]
    colors = [POSITIVE if row["reached"] else NEGATIVE for row in rows]
    axes.axvline(found.goal, color="#333333", linewidth=0.9, label="goal")
    axes.axvline(found.clean, color="#777777", linewidth=0.9, linestyle=":", label="all kept")
    axes.scatter(
        [row["predicted"] for row in rows], places, marker="D", s=24, facecolors="white",
        edgecolors="black", label="predicted", zorder=3,
    )  # fmt: skip
    axes.scatter([row["measured"] for row in rows], places, s=36, c=colors, zorder=4)
    axes.scatter([], [], s=36, c=POSITIVE, label="measured, reaches the goal")
    axes.scatter([], [], s=36, c=NEGATIVE, label="measured, does not")
    labels = [row["units"] or "nothing" for row in rows]
    short = [t if len(t) <= _LONGEST else t[: _LONGEST - 1] + "…" for t in labels]
    axes.set_yticks(places, short, fontsize=8, parse_math=False)
    axes.set(xlabel="value")
    axes.margins(y=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7, loc="best")
    return figure
