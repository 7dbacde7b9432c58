"""Where the variance of a function lies: energy by order, of one answer or of several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechspex.figures.style import (
    INK,
    MARKS,
    SERIES,
    SMALL,
    bare,
    entitle,
    in_ink,
    legend,
    nothing,
    sheet,
)

# Shares below this are not told from none.
_LEAST = 1e-6


@runtime_checkable
class Energies(Protocol):
    """A function whose variance is taken apart by order."""

    @property
    def energy_by_order(self) -> tuple[float, ...]:
        """Shares of the variance of orders 1, 2, …"""
        ...


def energy_by_order(
    found: Energies | Mapping[str, Energies],
    *,
    heading: str = "Energy by order",
    ax: Axes | None = None,
) -> Figure:
    """The share of the variance that lies in singles, pairs, triples …, on a logarithmic axis.

    Energies are squared fourier(p) coefficients under the design's own masks.

    Args:
        found: a structure; or {name: structure} of several answers.
        heading: the title.
        ax: the axes to draw on; a new figure if not given.
    """
    every = found if isinstance(found, Mapping) else {"": found}
    figure, axes = sheet(ax, 5.6, 3.4)
    highest = max((len(one.energy_by_order) for one in every.values()), default=0)
    if not highest:
        return nothing(figure, ax, axes, heading, "a constant function has no variance")
    floor = min(
        (share for one in every.values() for share in one.energy_by_order if share > _LEAST),
        default=_LEAST,
    )
    floor = 10 ** np.floor(np.log10(floor) - 0.3)
    width = 0.8 / len(every)
    colour: dict[str, Any] = {} if ax is not None else {"color": INK}
    for number, (name, one) in enumerate(every.items()):
        shares = np.array([*one.energy_by_order, *[0.0] * (highest - len(one.energy_by_order))])
        at = np.arange(1, highest + 1) + width * (number - (len(every) - 1) / 2)
        drawn = np.where(shares > _LEAST, shares, np.nan)
        axes.vlines(at, floor, drawn, color=SERIES[number % len(SERIES)], linewidth=2.5)
        axes.plot(at, drawn, linestyle="none", marker=MARKS[number % len(MARKS)], markersize=7,
                  color=SERIES[number % len(SERIES)], label=name or "_nolegend_")  # fmt: skip
        if len(every) <= 2:
            for x, share in zip(at.tolist(), shares.tolist(), strict=True):
                axes.annotate(
                    f"{share:.1%}" if share >= 0.001 else f"{100 * share:.1g}%",
                    (x, max(share, floor)), xytext=(0, 6), textcoords="offset points",
                    ha="center", fontsize=SMALL, **colour,
                )  # fmt: skip
    names = {1: "singles", 2: "pairs", 3: "triples"}
    orders = range(1, highest + 1)
    axes.set_xticks(orders, [names.get(order, str(order)) for order in orders])
    axes.set_yscale("log")
    axes.set(
        xlabel="order", ylabel="share of the variance", ylim=(floor, 3.0),
        xlim=(0.5, highest + 0.5),
    )  # fmt: skip
    bare(axes)
    legend(axes, ax)
    entitle(figure, ax, axes, heading, "energy: squared fourier coefficient, under the design")
    return in_ink(figure, ax)
