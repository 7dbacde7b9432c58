"""Scores of several methods over sizes or densities: a line a method, with its intervals."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mechspex.figures.style import Picture

# Told apart by colour-blind readers (Okabe & Ito 2008), each with a marker of its own for print.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#9a4f79", "#7a6a00", "#3b3b3b", "#56909e", "#a35a1e")
_MARKERS = "osD^vPX*"


@runtime_checkable
class Scored(Protocol):
    """Scores of methods: linear datamodelling scores, drops, curves."""

    @property
    def quantity(self) -> str: ...

    @property
    def against(self) -> str: ...

    def to_pandas(self) -> pd.DataFrame:
        """A row a method and place: method, what it is against, the quantity, low and high."""
        ...


def method_lines(found: Scored) -> Figure:
    """A line a method over its places; bars are the intervals over outputs.

    Args:
        found: the scores to draw.
    """
    frame = found.to_pandas()
    figure = Picture(figsize=(6.0, 3.8), layout="constrained")
    axes = figure.subplots()
    methods = list(dict.fromkeys(frame["method"]))
    places = np.sort(frame[found.against].unique())
    gap = np.diff(places).min() if len(places) > 1 else 1.0
    for number, method in enumerate(methods):
        rows = frame[frame["method"] == method]
        value = rows[found.quantity].to_numpy()
        spread = np.abs(rows[["low", "high"]].to_numpy().T - value)
        # Side by side, so that intervals do not hide each other.
        beside = 0.25 * gap * (number - (len(methods) - 1) / 2) / len(methods)
        axes.errorbar(
            rows[found.against] + beside,
            value,
            yerr=np.nan_to_num(spread),
            color=_COLORS[number % len(_COLORS)],
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=5,
            linewidth=1.2,
            elinewidth=0.8,
            capsize=2,
            label=method,
        )
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.set(xlabel=found.against, ylabel=found.quantity)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure
