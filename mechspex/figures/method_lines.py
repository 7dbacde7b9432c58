"""Scores of several methods over sizes or densities: a line a method, with its intervals."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

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

    quantity: ClassVar[str]
    against: ClassVar[str]

    def to_pandas(self) -> pd.DataFrame:
        """A row a method and place: method, what it is against, the quantity, low and high."""
        ...


def method_lines(found: Scored) -> Figure:
    """A line a method over its places; bars are the intervals over outputs.

    Args:
        found: the scores to draw.
    """
    rows = found.to_pandas().to_dict("records")
    figure = Picture(figsize=(6.0, 3.8), layout="constrained")
    axes = figure.subplots()
    methods = list(dict.fromkeys(row["method"] for row in rows))
    places = np.unique([row[found.against] for row in rows])
    gap = np.diff(places).min() if len(places) > 1 else 1.0
    for number, method in enumerate(methods):
        own = [row for row in rows if row["method"] == method]
        at = np.array([row[found.against] for row in own], dtype=float)
        value = np.array([row[found.quantity] for row in own])
        spread = np.abs([[row[end] for row in own] for end in ("low", "high")] - value)
        # Side by side, so that intervals do not hide each other.
        beside = 0.25 * gap * (number - (len(methods) - 1) / 2) / len(methods)
        axes.errorbar(
            at + beside,
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
