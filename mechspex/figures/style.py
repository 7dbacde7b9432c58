"""What the figures share: colours, how a notebook shows them, and the frame of a table of bars."""

from __future__ import annotations

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure

NEGATIVE, POSITIVE, PALE = "#b5403a", "#2b6ca3", "#b9bec4"

UNKNOWN = "#d5d8db"


class Picture(Figure):
    """A figure that shows itself in a notebook, without pyplot and its global state."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()


def finish(axes: Axes, labels: list[str], quantity: str) -> None:
    """A line at zero, a label a row, the quantity below."""
    axes.axvline(0, color="#333333", linewidth=0.8)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_xlabel(quantity)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="best")
