"""Effects prompt by prompt: a swarm a term, or a stack a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechspex.core.doors import door
from mechspex.figures.style import (
    INK,
    NEGATIVE,
    PALE,
    PAPER,
    POSITIVE,
    RULE,
    SERIES,
    SMALL,
    asked,
    entitle,
    finish,
    in_ink,
    legend,
    measured,
    nothing,
    sheet,
    short,
)
from mechspex.figures.terms import MEASURED, MeasuredTerms, named, strongest

# Prompts that one picture can name.
_MOST_PROMPTS = 40
# Dots of a swarm that count as being in one place, as a share of the axis; how far they move apart.
_NEAR, _APART = 0.012, 0.09


@runtime_checkable
class NamedOutputs(Protocol):
    """An answer that knows its prompts by name."""

    @property
    def outputs(self) -> tuple[str, ...]: ...


@door(found=MEASURED)
def beeswarm(
    found: MeasuredTerms,
    *,
    most: int = 14,
    least: int = 1,
    metric: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """The exact effect of the strongest terms on every prompt, a dot a prompt.

    The black mark is the mean, the line its interval over prompts. A term whose dots lie on both
    sides of zero helps on some prompts and harms on others.

    Args:
        found: exact effects: an explanation, a sweep, a validation.
        most: how many terms are drawn, the strongest.
        least: the smallest sets that are drawn: 1 for single units too, 2 for interactions alone.
        metric: what is measured, in words; the value's metric if not given.
        ax: the axes to draw on; a new figure if not given.

    Raises:
        Refused: an answer of another kind.
    """
    drawn = strongest(found, most, least=least)[::-1]
    figure, axes = sheet(ax, 7.0, 0.32 * max(len(drawn), 3) + 1.5)
    heading = " · ".join(filter(None, ["Effects prompt by prompt", asked(found)]))
    if not drawn:
        return nothing(figure, ax, axes, heading, "no effect to show")
    every = found.output_effects[[one.row for one in drawn]]
    extent = float(np.nanmax(every) - np.nanmin(every)) or 1.0
    for row, (one, effects) in enumerate(zip(drawn, every, strict=True)):
        colours = np.where(effects > 0, POSITIVE, NEGATIVE)
        axes.scatter(
            effects, row + _swarm(effects, extent), s=16, c=colours, edgecolors=PAPER,
            linewidths=0.4, zorder=2,
        )  # fmt: skip
        reach = np.array(one.reach)[:, None]
        axes.errorbar(
            one.effect, row, xerr=reach, fmt="|", color=INK, markersize=11, markeredgewidth=1.6,
            elinewidth=0.9, zorder=3,
        )  # fmt: skip
    quantity = f"effect on {measured(found, metric)}"
    finish(axes, [named(found.units, one.term) for one in drawn], quantity)
    axes.set_ylim(-0.6, len(drawn) - 0.4)
    note = "dot: a prompt; black: the mean with its interval over prompts"
    entitle(figure, ax, axes, heading, note)
    return in_ink(figure, ax)


def _swarm(effects: Float[np.ndarray, " output"], extent: float) -> Float[np.ndarray, " output"]:
    """How far each dot moves up or down so that those near each other are all seen."""
    moved = np.zeros(len(effects))
    order = np.argsort(effects)
    run: list[int] = []
    for index in order.tolist():
        if run and effects[index] - effects[run[0]] > _NEAR * extent:
            run = []
        run.append(index)
        # 0, 1, −1, 2, −2 …
        step = (len(run) // 2) * (1 if len(run) % 2 == 0 else -1)
        moved[index] = np.clip(step * _APART, -0.4, 0.4)
    return moved


@door(found=MEASURED)
def force(
    found: MeasuredTerms, *, most: int = 6, metric: str | None = None, ax: Axes | None = None
) -> Figure:
    """What the strongest terms do on each prompt: those that raise the value to the right, those
    that lower it to the left.

    Args:
        found: exact effects: an explanation, a sweep, a validation.
        most: how many terms have a colour, up to 6; the other measured ones are grey.
        metric: what is measured, in words; the value's metric if not given.
        ax: the axes to draw on; a new figure if not given.

    Raises:
        Refused: an answer of another kind.
    """
    drawn = strongest(found, min(most, len(SERIES) - 1))
    effects = np.nan_to_num(found.output_effects, posinf=0.0, neginf=0.0)
    order = np.argsort(effects.sum(axis=0), kind="stable")[-_MOST_PROMPTS:].tolist()
    figure, axes = sheet(ax, 7.6, 0.24 * max(len(order), 3) + 2.0)
    heading = " · ".join(filter(None, ["What acts on each prompt", asked(found)]))
    if not drawn:
        return nothing(figure, ax, axes, heading, "no effect to show")
    rows = [one.row for one in drawn]
    rest = np.delete(effects, rows, axis=0)
    parts = [(named(found.units, one.term, 34), effects[[one.row]]) for one in drawn]
    parts += [(f"{len(rest):,} other terms", rest)] if len(rest) else []
    below, above = np.zeros(len(order)), np.zeros(len(order))
    for number, (name, part) in enumerate(parts):
        colour = SERIES[number] if number < len(drawn) else PALE
        up = np.clip(part, 0, None).sum(axis=0)[order]
        down = np.clip(part, None, 0).sum(axis=0)[order]
        axes.barh(range(len(order)), up, left=above, color=colour, height=0.75, label=name)
        axes.barh(range(len(order)), down, left=below, color=colour, height=0.75)
        above, below = above + up, below + down
    total = effects.sum(axis=0)[order]
    axes.use_sticky_edges = False
    axes.plot(total, range(len(order)), linestyle="none", marker="|", markersize=10, color=INK,
              markeredgewidth=1.8)  # fmt: skip
    finish(axes, _prompts(found, order, effects.shape[1]), f"effect on {measured(found, metric)}")
    legend(
        axes, ax, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.3,
        fontsize=SMALL - 1,
    )  # fmt: skip
    note = "black: the sum of the measured terms"
    if len(order) < effects.shape[1]:
        note += f"; the {len(order)} prompts with the largest sums of {effects.shape[1]:,}"
    axes.axvline(0, color=RULE, linewidth=0.8)
    entitle(figure, ax, axes, heading, note)
    return in_ink(figure, ax)


def _prompts(found: object, order: Sequence[int], n_outputs: int) -> list[str]:
    """The names of some prompts, told apart by number where they are called alike."""
    if not isinstance(found, NamedOutputs) or len(found.outputs) != n_outputs:
        return [f"prompt {number}" for number in order]
    names = [short(found.outputs[number], 34) for number in order]
    if len(set(names)) == len(names):
        return names
    return [f"{number}: {name}" for number, name in zip(order, names, strict=True)]
