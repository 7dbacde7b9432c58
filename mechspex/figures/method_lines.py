"""Scores of several methods over sizes or densities: a line a method, with its intervals."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechspex.core.checks import Only
from mechspex.core.doors import door
from mechspex.figures.style import MARKS, SERIES, bare, in_ink, legend, sheet

# More methods than colours are told apart by dashes.
_DASHES = ("-", "--", ":")


@runtime_checkable
class Scored(Protocol):
    """Scores of methods: linear datamodelling scores, drops, curves."""

    quantity: ClassVar[str]
    against: ClassVar[str]

    def to_pandas(self) -> pd.DataFrame:
        """A row a method and place: method, what it is against, the quantity, low and high."""
        ...


@door(found=Only((Scored,), "scores of methods, as of mx.lds or mx.removal_curve"))
def method_lines(found: Scored, *, ax: Axes | None = None) -> Figure:
    """A line a method over its places; bars are the intervals over outputs.

    Args:
        found: the scores to draw.
        ax: the axes to draw on; a new figure if not given.

    Raises:
        Refused: an answer of another kind.
    """
    rows = found.to_pandas().to_dict("records")
    figure, axes = sheet(ax, 6.0, 3.8)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    places = np.unique([row[found.against] for row in rows])
    gap = np.diff(places).min() if len(places) > 1 else 1.0
    for number, method in enumerate(methods):
        own = [row for row in rows if row["method"] == method]
        at = np.array([row[found.against] for row in own], dtype=float)
        value = np.array([row[found.quantity] for row in own])
        spread = np.abs([[row[end] for row in own] for end in ("low", "high")] - value)
        # Side by side, so that intervals do not hide each other.
        beside = 0.15 * gap * (number - (len(methods) - 1) / 2) / len(methods)
        axes.errorbar(
            at + beside,
            value,
            yerr=np.nan_to_num(spread),
            color=SERIES[number % len(SERIES)],
            marker=MARKS[number % len(MARKS)],
            linestyle=_DASHES[number // len(SERIES) % len(_DASHES)],
            markersize=5,
            linewidth=1.2,
            elinewidth=0.8,
            capsize=2,
            label=method.replace("$", r"\$"),
        )
    step = -(-len(places) // 12)
    axes.set_xticks(places[::step], [f"{place:g}" for place in places[::step]])
    axes.set(xlabel=found.against, ylabel=found.quantity)
    bare(axes)
    legend(axes, ax)
    return in_ink(figure, ax)
