"""The strongest interactions, as bars with their intervals."""

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
    PALE,
    PAPER,
    POSITIVE,
    asked,
    entitle,
    finish,
    in_ink,
    measured,
    nothing,
    sheet,
    short,
)


@runtime_checkable
class Interactions(Protocol):
    """Sets of two and more units with exact and recovered effects: an explanation."""

    def interactions(self) -> pd.DataFrame:
        """A row a set, strongest first: units, effect, low, high, confirmed, recovered."""
        ...


def interactions(
    explanation: Interactions, *, most: int = 15, metric: str | None = None, ax: Axes | None = None
) -> Figure:
    """The strongest validated interactions: exact joint effect less what smaller sets predict.

    Bars are exact effects in the ``ablated`` basis with their intervals over outputs: blue above 0,
    red below. Diamonds are the effects that the decoder recovered. Pale bars are not confirmed.
    Effects on a single output have no interval, and none of them is pale.

    Args:
        explanation: the explanation to draw.
        most: how many interactions are drawn.
        metric: what is measured, in words; the value's metric if not given.
        ax: the axes to draw on; a new figure if not given.
    """
    frame = explanation.interactions().head(most).iloc[::-1]
    figure, axes = sheet(ax, 6.8, 0.26 * max(len(frame), 3) + 1.5)
    heading = " · ".join(filter(None, ["Strongest interactions", asked(explanation)]))
    if not len(frame):
        return nothing(figure, ax, axes, heading, "no interaction to show")
    effect = frame["effect"].to_numpy()
    confirmed = frame["confirmed"].to_numpy(dtype=bool)
    # Of a single output, without contexts, there is nothing to confirm.
    alone = bool(frame[["low", "high"]].isna().all(axis=None)) and not confirmed.any()
    colors = [
        PALE if not (holds or alone) else POSITIVE if value > 0 else NEGATIVE
        for value, holds in zip(effect, confirmed, strict=True)
    ]
    places = np.arange(len(frame))
    spread = np.abs(frame[["low", "high"]].to_numpy().T - effect)
    axes.barh(places, effect, color=colors, height=0.7)
    axes.errorbar(effect, places, xerr=spread, fmt="none", ecolor=INK, elinewidth=0.8)
    axes.plot(
        frame["recovered"], places, linestyle="none", marker="D", markersize=4, color=MUTED,
        markerfacecolor=PAPER,
    )  # fmt: skip
    names = [short(units, 64) for units in frame["units"]]
    finish(axes, names, f"interaction effect on {measured(explanation, metric)}")
    told = "of one output: no interval" if alone else "with its interval over outputs"
    pale = "" if alone else "grey: not confirmed; "
    note = (
        f"bar: exact joint effect less what smaller sets predict, {told}; {pale}diamond: recovered"
    )
    entitle(figure, ax, axes, heading, note)
    return in_ink(figure, ax)
