"""The waterfall: a behaviour taken apart into what singles, pairs and larger sets do."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechspex.core.units import Term, UnitSet
from mechspex.figures.style import (
    INK,
    MUTED,
    NEGATIVE,
    PALE,
    POSITIVE,
    RULE,
    SMALL,
    asked,
    bare,
    entitle,
    in_ink,
    measured,
    sheet,
)
from mechspex.figures.terms import named


@runtime_checkable
class Behaviour(Protocol):
    """A recovered function and the values between which it runs: an explanation."""

    @property
    def units(self) -> UnitSet: ...
    @property
    def clean(self) -> float: ...
    @property
    def ablated(self) -> float: ...

    def ablated_effects(self) -> dict[Term, float]:
        """{term: its coefficient in the ``ablated`` basis, mean over outputs}."""
        ...


def waterfall(
    explanation: Behaviour, *, most: int = 6, metric: str | None = None, ax: Axes | None = None
) -> Figure:
    """From all units ablated to all kept, term by term of the recovered function.

    In the ``ablated`` basis f(∅) = f(all) + Σ_T a_T over all sets T of units. So the behaviour
    f(all) − f(∅) = −Σ_T a_T is a sum of steps −a_T: what each unit does by itself in the whole
    model, then what pairs add, then larger sets. The strongest are drawn by name. What the
    function does not account for, between its own ends and the measured ones, is a step of its own.

    Args:
        explanation: the explanation to draw.
        most: how many singles and how many pairs are drawn by name.
        metric: what is measured, in words; the value's metric if not given.
        ax: the axes to draw on; a new figure if not given.
    """
    steps = _steps(explanation, most)
    left = (explanation.clean - explanation.ablated) - sum(step for _, step in steps)
    steps.append(("not in the recovered function", left))
    figure, axes = sheet(ax, 7.4, 0.27 * (len(steps) + 2) + 1.5)
    level = explanation.ablated
    axes.barh(0, level, color=MUTED, height=0.62)
    values = [("all ablated", level)]
    for row, (name, step) in enumerate(steps, 1):
        colour = PALE if row == len(steps) else POSITIVE if step > 0 else NEGATIVE
        axes.barh(row, step, left=level, color=colour, height=0.62)
        axes.plot([level, level], [row - 1, row], color=RULE, linewidth=0.7, zorder=0)
        level += step
        values.append((name, step))
    axes.barh(len(steps) + 1, explanation.clean, color=INK, height=0.62)
    values.append(("all kept (clean)", explanation.clean))
    axes.set_yticks(range(len(values)), [name for name, _ in values], fontsize=SMALL)
    axes.invert_yaxis()
    axes.use_sticky_edges = False
    axes.axvline(0, color=RULE, linewidth=0.8)
    axes.set_xlabel(measured(explanation, metric))
    bare(axes)
    _write_numbers(axes, ax, [value for _, value in values])
    heading = " · ".join(filter(None, ["What makes up the behaviour", asked(explanation)]))
    note = (
        "steps: minus the terms of the recovered function in the ablated basis; blue: keeping "
        "these units raises the value, red: lowers it"
    )
    entitle(figure, ax, axes, heading, note)
    return in_ink(figure, ax)


def _steps(explanation: Behaviour, most: int) -> list[tuple[str, float]]:
    """(name, −a_T): the strongest singles, the others, the same of pairs, all larger sets."""
    by_order: dict[int, dict[Term, float]] = {1: {}, 2: {}, 3: {}}
    for term, effect in explanation.ablated_effects().items():
        if term:
            by_order[min(len(term), 3)][term] = -effect
    steps = []
    for order, words in ((1, "singles"), (2, "pairs")):
        terms = sorted(by_order[order].items(), key=lambda one: -abs(one[1]))
        steps += [(named(explanation.units, term), step) for term, step in terms[:most]]
        if rest := terms[most:]:
            others = f"{len(rest):,} other {words.removesuffix('s') if len(rest) == 1 else words}"
            steps.append((others, sum(step for _, step in rest)))
    if larger := by_order[3]:
        words = "set" if len(larger) == 1 else "sets"
        steps.append((f"{len(larger):,} larger {words}", sum(larger.values())))
    return steps


def _write_numbers(axes: Axes, given: Axes | None, values: list[float]) -> None:
    """Each step as a number, in a column right of the bars."""
    colour: dict[str, Any] = {} if given is not None else {"color": INK}
    for row, value in enumerate(values):
        first_or_last = row in (0, len(values) - 1)
        axes.text(
            1.01, row, f"{value:.2f}" if first_or_last else f"{value:+.2f}", va="center",
            fontsize=SMALL - 1, transform=axes.get_yaxis_transform(), **colour,
        )  # fmt: skip
