"""What was predicted against what was measured, a dot a set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechspex.core.units import Term
from mechspex.figures.style import (
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


@runtime_checkable
class Predicted(Protocol):
    """Effects of some sets as predicted, and as measured."""

    @property
    def terms(self) -> tuple[Term, ...]: ...
    @property
    def predicted(self) -> Float[np.ndarray, " term"]: ...
    @property
    def exact(self) -> Float[np.ndarray, " term"]: ...


def predicted_and_exact(
    found: Predicted,
    *,
    quantity: str = "effect",
    heading: str = "Predicted and exact effects",
    ax: Axes | None = None,
) -> Figure:
    """A dot a set: across what was predicted, up what was measured; on the line both are equal.

    Args:
        found: the effects to draw.
        quantity: what they are, with their unit.
        heading: the title.
        ax: the axes to draw on; a new figure if not given.
    """
    figure, axes = sheet(ax, 4.6, 4.6)
    there = np.isfinite(found.predicted) & np.isfinite(found.exact)
    if not there.any():
        return nothing(figure, ax, axes, heading, "nothing was measured")
    orders = np.array([len(term) for term in found.terms])
    for number, order in enumerate(sorted(set(orders[there].tolist()))):
        chosen = there & (orders == order)
        axes.scatter(
            found.predicted[chosen], found.exact[chosen], s=22, alpha=0.8,
            color=SERIES[number % len(SERIES)], marker=MARKS[number % len(MARKS)],
            label=_called(order, int(chosen.sum())),
        )  # fmt: skip
    both = np.concatenate([found.predicted[there], found.exact[there], [0.0]])
    room = 0.05 * float(np.ptp(both)) or 1.0
    limits = (float(both.min()) - room, float(both.max()) + room)
    axes.plot(limits, limits, color=RULE, linewidth=0.9, zorder=0)
    axes.axhline(0, color=RULE, linewidth=0.5, zorder=0)
    axes.axvline(0, color=RULE, linewidth=0.5, zorder=0)
    axes.set(xlim=limits, ylim=limits, xlabel=f"predicted {quantity}", ylabel=f"exact {quantity}")
    axes.set_aspect("equal")
    bare(axes)
    legend(axes, ax)
    entitle(figure, ax, axes, heading, "on the line both are equal")
    return in_ink(figure, ax)


def _called(order: int, number: int) -> str:
    names: Sequence[str] = ("", "single", "pair", "triple")
    name = names[order] if order < len(names) else f"set of {order}"
    return f"{number:,} {name if number == 1 else name.replace('set', 'sets') + 's' * (order < 4)}"
