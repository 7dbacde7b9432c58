"""What is left of a behaviour when few units are kept: curves over sizes, with controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mechspex.core.statistics import Estimate
from mechspex.figures.style import (
    INK,
    MARKS,
    MUTED,
    NORMAL,
    PALE,
    RULE,
    SERIES,
    bare,
    entitle,
    in_ink,
    legend,
    nothing,
    sheet,
)

# Sizes that differ by more than this are drawn on a logarithmic axis.
_WIDE = 12


@runtime_checkable
class SizedScores(Protocol):
    """Scores of circuits of growing size."""

    @property
    def sizes(self) -> tuple[int, ...]: ...

    @property
    def scores(self) -> tuple[Estimate, ...]:
        """The faithfulness at each size."""
        ...


def faithfulness_by_size(
    curves: Mapping[str, SizedScores],
    *,
    controls: Mapping[int, Sequence[float] | Float[np.ndarray, " circuit"]] | None = None,
    chosen: tuple[int, Estimate] | None = None,
    heading: str = "Faithfulness of circuits of growing size",
    ax: Axes | None = None,
) -> Figure:
    """Faithfulness against the number of units kept: a line with its 95% band a curve.

    0 is the behaviour with all units ablated, 1 that of the whole model.

    Args:
        curves: {name: scores over sizes}.
        controls: {size: faithfulness of random circuits of that size}, drawn as grey dots.
        chosen: size and faithfulness of one circuit, drawn as a star.
        heading: the title.
        ax: the axes to draw on; a new figure if not given.
    """
    figure, axes = sheet(ax, 6.4, 4.0)
    for level in (0, 1):
        axes.axhline(level, color=RULE, linewidth=0.8, linestyle=(0, (4, 3)))
    sizes: list[int] = []
    for number, (name, curve) in enumerate(curves.items()):
        colour, mark = SERIES[number % len(SERIES)], MARKS[number % len(MARKS)]
        low, high = ([getattr(s, end) for s in curve.scores] for end in ("low", "high"))
        axes.fill_between(curve.sizes, low, high, color=colour, alpha=0.18, linewidth=0)
        value = [score.value for score in curve.scores]
        axes.plot(curve.sizes, value, color=colour, marker=mark, markersize=4.5, linewidth=1.4,
                  label=name)  # fmt: skip
        sizes += curve.sizes
    label = "random circuits of that size"
    for size, values in (controls or {}).items():
        axes.plot([size] * len(values), list(values), linestyle="none", marker="_", markersize=9,
                  color=MUTED, label=label)  # fmt: skip
        label = "_nolegend_"
        sizes.append(size)
    if chosen is not None:
        size, score = chosen
        reach = [[score.value - score.low], [score.high - score.value]]
        axes.errorbar(
            size, score.value, yerr=reach, marker="*", markersize=13, color=INK, elinewidth=1,
            linestyle="none", label=f"the circuit, {size} units",
        )  # fmt: skip
        sizes.append(size)
    if sizes and max(sizes) > _WIDE * max(1, min(sizes)):
        axes.set_xscale("log")
        ticks = sorted({size for size in sizes if size})
        axes.set_xticks(_apart(ticks), [str(size) for size in _apart(ticks)])
        axes.minorticks_off()
    axes.set_xlabel("units kept, the others ablated")
    axes.set_ylabel("faithfulness (share of the behaviour)", fontsize=NORMAL)
    bare(axes)
    legend(axes, ax)
    note = "bands and bars: 95% over prompts; 0: all ablated, 1: the whole model"
    entitle(figure, ax, axes, heading, note)
    return in_ink(figure, ax)


def _apart(sizes: list[int]) -> list[int]:
    """Those of the sizes whose names have room on a logarithmic axis."""
    shown: list[int] = []
    span = np.log(max(sizes) / min(sizes))
    for size in sizes:
        if not shown or np.log(size / shown[-1]) > 0.07 * span:
            shown.append(size)
    return shown


@runtime_checkable
class KeptUnits(Protocol):
    """The units that one method keeps, and the values with them alone."""

    @property
    def method(self) -> str: ...
    @property
    def size(self) -> int: ...

    @property
    def values(self) -> Float[np.ndarray, "subset output"]: ...


def values_by_size(
    choices: Sequence[KeptUnits],
    *,
    clean: float,
    ablated: float,
    quantity: str = "value",
    heading: str = "",
    ax: Axes | None = None,
) -> Figure:
    """The value against the number of units kept: a line a method, between all and none.

    Args:
        choices: what each method keeps at each size.
        clean, ablated: the value with all units, and with none.
        quantity: what the value is, with its unit.
        heading: the title.
        ax: the axes to draw on; a new figure if not given.
    """
    figure, axes = sheet(ax, 6.4, 4.0)
    for level, name in ((clean, "all units kept"), (ablated, "all units ablated")):
        style = "solid" if level == clean else (0, (4, 3))
        axes.axhline(level, color=MUTED, linewidth=0.9, linestyle=style, label=name)
    methods = list(dict.fromkeys(choice.method for choice in choices))
    sizes = sorted({choice.size for choice in choices})
    for number, method in enumerate(methods):
        own = sorted((c for c in choices if c.method == method), key=lambda c: c.size)
        means = [float(choice.values.mean()) for choice in own]
        spread = [_error(choice.values.mean(axis=0)) for choice in own]
        axes.errorbar(
            [choice.size for choice in own], means, yerr=spread, label=method, linewidth=1.4,
            color=SERIES[number % len(SERIES)], marker=MARKS[number % len(MARKS)], markersize=5,
            elinewidth=0.9,
        )  # fmt: skip
    axes.set_xticks(sizes)
    axes.set(xlabel="units kept, the others ablated", ylabel=quantity)
    bare(axes)
    legend(axes, ax)
    entitle(figure, ax, axes, heading, "bars: one standard error over prompts")
    return in_ink(figure, ax)


def _error(values: Float[np.ndarray, " output"]) -> float:
    n = len(values)
    return float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0


@runtime_checkable
class SizedSubset(Protocol):
    """The best subset found of one size, and how much better another could be."""

    @property
    def size(self) -> int: ...
    @property
    def value(self) -> float: ...
    @property
    def bound(self) -> float: ...


def subset_front(
    subsets: Sequence[SizedSubset],
    *,
    quantity: str = "predicted value",
    heading: str = "Best subset of each size",
    ax: Axes | None = None,
) -> Figure:
    """The predicted value of the best subset of each size, and the bound on all others.

    Args:
        subsets: one a size.
        quantity: what the value is, with its unit.
        heading: the title.
        ax: the axes to draw on; a new figure if not given.
    """
    figure, axes = sheet(ax, 6.0, 3.8)
    if not subsets:
        return nothing(figure, ax, axes, heading, "no sizes")
    sizes = [subset.size for subset in subsets]
    values, bounds = ([getattr(s, name) for s in subsets] for name in ("value", "bound"))
    axes.fill_between(sizes, values, bounds, color=PALE, alpha=0.6, linewidth=0,
                      label="where a better one could lie")  # fmt: skip
    axes.plot(sizes, values, color=SERIES[0], marker="o", markersize=4.5, linewidth=1.4,
              label="best found")  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="units in the subset", ylabel=quantity)
    bare(axes)
    legend(axes, ax)
    entitle(figure, ax, axes, heading)
    return in_ink(figure, ax)
