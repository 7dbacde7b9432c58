"""What the figures share: colours, paper, titles that say task and model, and how they are shown.

A figure has its own paper and ink, so that it reads the same in print, on a dark page and under a
dark style of matplotlib. Axes that a user hands in keep the colours of that user's figure.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure

from mechspex.core.counted import counted
from mechspex.core.provenance import Provenance

# What text is written in has a contrast of at least 4.5 : 1 to the paper.
PAPER, INK, MUTED = "#ffffff", "#1f2328", "#57606a"
NEGATIVE, POSITIVE = "#b5403a", "#2b6ca3"
PALE, UNKNOWN, RULE = "#b9bec4", "#d5d8db", "#8c959f"
# Okabe & Ito 2008, without the yellow that paper swallows; each with a mark of its own.
SERIES = ("#0072B2", "#D55E00", "#009E73", "#AA4499", "#8C6D00", "#56B4E9", "#1f2328")
MARKS = ("o", "s", "^", "D", "v", "P", "X")

SMALL, NORMAL = 8, 9
_INCHES_A_LETTER = 0.075
# Maps side by side are no wider than this; the next lie below.
_WIDEST = 14
# {metric: its unit}; what has none is a probability or a user's own.
_UNITS = {
    "logit difference": "logits",
    "answer log probability": "nats",
    "kl divergence": "nats",
}


class Picture(Figure):
    """A figure that shows itself in a notebook, without pyplot and its global state."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()


@runtime_checkable
class Configured(Protocol):
    """Something that knows what its values depend on."""

    @property
    def configuration(self) -> Mapping[str, str]: ...


def sheet(ax: Axes | None, width: float, height: float) -> tuple[Figure, Axes]:
    """The axes to draw on and their figure: a new one, of so many inches, where none are given."""
    figure, (axes,) = sheets(ax, 1, width, height)
    return figure, axes


def sheets(ax: Axes | None, n_axes: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """The same for several axes of that size: side by side as far as they fit, then below."""
    if ax is not None:
        figure = ax.get_figure(root=True)
        assert isinstance(figure, Figure)
        return figure, [ax]
    across = max(1, min(n_axes, int(_WIDEST / width)))
    down = -(-n_axes // across)
    figure = Picture(figsize=(across * width, down * height), layout="constrained", facecolor=PAPER)
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for empty in axes[n_axes:]:
        empty.remove()
    return figure, axes[:n_axes]


def measured(found: object, metric: str | None) -> str:
    """What is measured, with its unit: what the caller says, else the metric of the values."""
    if metric is not None:
        return metric
    name = Provenance.of(found.configuration).metric_name if isinstance(found, Configured) else None
    if name is None:
        return "value"
    words = name.replace("_", " ")
    return f"{words} ({_UNITS[words]})" if words in _UNITS else words


def asked(found: object) -> str:
    """Task, number of prompts, model and ablation in one line; empty where they are not known."""
    if not isinstance(found, Configured):
        return ""
    told = Provenance.of(found.configuration)
    prompts = None if told.n_prompts is None else counted(told.n_prompts, "prompt")
    ablation = None if told.ablation is None else f"{told.ablation} ablation"
    return " · ".join(one for one in (told.task, told.model, ablation, prompts) if one)


def entitle(figure: Figure, ax: Axes | None, axes: Axes, heading: str, note: str = "") -> None:
    """The heading above all and the note below; both above the axes where those were given.

    Args:
        figure: the figure.
        ax: the axes that the caller was given, if any.
        axes: the axes drawn on.
        heading: what is drawn, of which task and model.
        note: what the marks mean.
    """
    width = figure.get_figwidth()
    if ax is not None:
        width *= axes.get_position().width
        text = "\n".join(filter(None, [heading, note]))
        axes.set_title(wrapped(text, width), loc="left", fontsize=SMALL)
        return
    left = {"x": 0.01, "ha": "left"}
    figure.suptitle(wrapped(heading, width), fontsize=NORMAL, color=INK, **left)
    if note:
        figure.supxlabel(wrapped(note, width), fontsize=SMALL, color=MUTED, **left)


def nothing(figure: Figure, ax: Axes | None, axes: Axes, heading: str, why: str) -> Figure:
    """A figure that says why there is nothing in it."""
    axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes, color=INK)
    axes.set_axis_off()
    entitle(figure, ax, axes, heading)
    return in_ink(figure, ax)


def wrapped(text: str, width: float) -> str:
    """The text in lines that fit so many inches."""
    letters = max(24, int(width / _INCHES_A_LETTER))
    return "\n".join(line for part in text.split("\n") for line in textwrap.wrap(part, letters))


def short(name: str, most: int = 30) -> str:
    """A name of at most so many letters, its middle left out; never markup of matplotlib."""
    name = " ".join(name.replace(r"\$", "$").split())
    half = (most - 1) // 2
    if len(name) > most:
        name = f"{name[:half].rstrip()}…{name[-half:].lstrip()}"
    return name.replace("$", r"\$")


def in_ink(figure: Figure, ax: Axes | None) -> Figure:
    """The figure with all its lines and labels in ink on paper, whatever the user's style says.

    Axes that were given are left in the colours that they have.
    """
    if ax is not None:
        return figure
    for axes in figure.axes:
        axes.set_facecolor(PAPER)
        axes.tick_params(colors=INK, which="both", labelsize=SMALL)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set(color=INK, fontsize=NORMAL)
        for spine in axes.spines.values():
            spine.set_color(RULE)
        axes.grid(False)
    return figure


def bare(axes: Axes) -> None:
    """No line above and to the right."""
    axes.spines[["top", "right"]].set_visible(False)


def legend(axes: Axes, given: Axes | None = None, **options: Any) -> None:
    """A legend without a frame, in ink; none without entries."""
    if axes.get_legend_handles_labels()[1] or "handles" in options:
        colour = {} if given is not None else {"labelcolor": INK}
        axes.legend(**({"frameon": False, "fontsize": SMALL, "loc": "best"} | colour | options))


@dataclass(frozen=True)
class Colours:
    """Which number has which colour."""

    norm: Normalize
    cmap: Colormap

    def of(self, number: float) -> Any:
        """The colour of one number."""
        return UNKNOWN if np.isnan(number) else self.cmap(self.norm(number))


def both_ways(*numbers: Any) -> Colours:
    """Colours that are white at 0 and reach equally far to both sides; unknown is grey."""
    largest = max([*(float(np.nanmax(np.abs(row), initial=0.0)) for row in numbers), 1e-9])
    return Colours(TwoSlopeNorm(0, -largest, largest), _palette("RdBu"))


def scale(*numbers: Any) -> Colours:
    """Colours for any numbers: both ways where some lie below 0, else from 0 up."""
    if any((np.asarray(row) < 0).any() for row in numbers):
        return both_ways(*numbers)
    largest = max([*(float(np.nanmax(row, initial=0.0)) for row in numbers), 1e-9])
    return Colours(Normalize(0, largest), _palette("Blues"))


def _palette(name: str) -> Colormap:
    return colormaps[name].with_extremes(bad=UNKNOWN)


def colour_bar(figure: Figure, panels: Sequence[Axes], colours: Colours, quantity: str) -> None:
    """The scale of colours right of the axes; its label in lines that fit their height."""
    height = figure.get_figheight() * panels[0].get_position().height
    mapped = ScalarMappable(colours.norm, colours.cmap)
    bar = figure.colorbar(mapped, ax=list(panels), shrink=0.95, pad=0.02, fraction=0.08)
    bar.set_label(wrapped(quantity, height))


def finish(axes: Axes, labels: list[str], quantity: str) -> None:
    """A line at zero, a label a row, the quantity below."""
    axes.axvline(0, color=RULE, linewidth=0.8)
    axes.set_yticks(range(len(labels)), labels, fontsize=SMALL)
    axes.set_xlabel(quantity)
    bare(axes)
