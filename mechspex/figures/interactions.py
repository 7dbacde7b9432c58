"""The strongest interactions, as bars with their intervals."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mechspex.figures.style import NEGATIVE, PALE, POSITIVE, Picture, finish


@runtime_checkable
class Interactions(Protocol):
    """Sets of two and more units with exact and recovered effects: an explanation."""

    def interactions(self) -> pd.DataFrame:
        """A row a set, strongest first: units, effect, low, high, confirmed, recovered."""
        ...


def interactions(explanation: Interactions, *, most: int = 15, metric: str = "value") -> Figure:
    """The strongest validated interactions: exact joint effect less what smaller sets predict.

    Bars are exact effects in the ``ablated`` basis with their intervals over outputs. Diamonds are
    the effects that the decoder recovered. Pale bars are not confirmed.

    Args:
        explanation: the explanation to draw.
        most: how many interactions are drawn.
        metric: the metric's name, for the axis.
    """
    frame = explanation.interactions().head(most).iloc[::-1]
    figure = Picture(figsize=(6.4, 0.3 * max(len(frame), 2) + 1.2), layout="constrained")
    axes = figure.subplots()
    if not len(frame):
        axes.text(0.5, 0.5, "no interaction to show", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return figure
    effect = frame["effect"].to_numpy()
    colors = [
        PALE if not holds else POSITIVE if value > 0 else NEGATIVE
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
    finish(axes, list(frame["units"]), f"interaction effect on {metric}")
    return figure
