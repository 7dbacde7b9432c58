"""R² against masks: how fast each decoder learns."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechspex.core.checks import told
from mechspex.core.doors import door
from mechspex.core.errors import Refused
from mechspex.figures.style import (
    INK,
    MARKS,
    RULE,
    SERIES,
    bare,
    entitle,
    in_ink,
    legend,
    nothing,
    sheet,
)

# What is below is no prediction; the axis ends there.
_LOWEST = -0.1
_COLUMNS = ("decoder", "masks", "r2", "low", "high")


@runtime_checkable
class Scores(Protocol):
    """R² of decoders from growing numbers of masks."""

    def to_pandas(self) -> pd.DataFrame:
        """A row a decoder and number of masks: decoder, masks, r2, low, high."""
        ...


def _as_scores(name: str, given: object) -> Scores:
    # Every answer has a table; only that of learning curves has these columns.
    if not isinstance(given, Scores) or not set(_COLUMNS) <= set(given.to_pandas().columns):
        raise Refused(f"{name} = {told(given)}: give learning curves, see mx.learning_curves")
    return given


@door(found=_as_scores)
def r2_by_masks(
    found: Scores, *, heading: str = "R² on held-out masks", ax: Axes | None = None
) -> Figure:
    """R² against the number of masks, on a logarithmic axis; a line a decoder with its 95% band.

    The additive decoder is the black dashed line: what lies above it is what interactions explain.

    Args:
        found: the scores to draw.
        heading: the title.
        ax: the axes to draw on; a new figure if not given.

    Raises:
        Refused: an answer of another kind.
    """
    frame = found.to_pandas()
    figure, axes = sheet(ax, 6.4, 4.0)
    if not len(frame):
        return nothing(figure, ax, axes, heading, "no decoder had enough masks")
    names = list(dict.fromkeys(frame["decoder"]))
    others = [name for name in names if name != "additive"]
    for name in names:
        own = np.flatnonzero((frame["decoder"] == name).to_numpy())
        columns = (frame[column].to_numpy()[own] for column in _COLUMNS[1:])
        masks, r2, low, high = columns
        additive = name == "additive"
        number = 0 if additive else others.index(name)
        colour = INK if additive else SERIES[number % len(SERIES)]
        axes.fill_between(masks, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(
            masks, r2, color=colour, label=name, linewidth=1.4, markersize=5,
            linestyle=(0, (4, 2)) if additive else "solid",
            marker="." if additive else MARKS[number % len(MARKS)],
        )  # fmt: skip
    axes.axhline(1, color=RULE, linewidth=0.8)
    places = np.unique(frame["masks"])
    axes.set_xscale("log")
    axes.set_xticks(places, [f"{place:,}" for place in places])
    axes.minorticks_off()
    axes.set_ylim(max(_LOWEST, float(np.nanmin(frame["low"])) - 0.05), 1.03)
    axes.set(xlabel="masks decoded", ylabel="R² on held-out masks")
    bare(axes)
    legend(axes, ax, loc="lower right")
    entitle(figure, ax, axes, heading, "bands: 95% over held-out masks")
    return in_ink(figure, ax)
