"""Sets of examples that act together, shown as what they are: images, or texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechspex.core.checks import told
from mechspex.core.doors import door
from mechspex.core.errors import Refused, ShapeError
from mechspex.core.units import Term
from mechspex.figures.style import (
    INK,
    MUTED,
    NEGATIVE,
    NORMAL,
    PAPER,
    POSITIVE,
    RULE,
    SMALL,
    Picture,
    asked,
    entitle,
    in_ink,
    measured,
    nothing,
    short,
    wrapped,
)
from mechspex.figures.terms import MEASURED, DrawnTerm, MeasuredTerms, strongest

# Inches of an image, of a text, of the numbers beside them, and of a row.
_IMAGE, _TEXT, _NUMBERS, _HEIGHT = 0.95, 1.7, 1.45, 1.15
_LETTERS, _MEMBERS = 90, 4
# Of the strongest effect: what is less is nothing.
_FAINT = 1e-3
_WORDS = {
    "synergy": "synergy: less than the sum",
    "redundancy": "redundancy: more than the sum",
}


@door(found=MEASURED)
def gallery(
    found: MeasuredTerms, shown: Iterable[Any], *, most: int = 5, metric: str | None = None
) -> Figure:
    """The strongest sets of units that act together, each member shown as what it is.

    A set is redundancy where leaving out all of it changes the value by more than its members do
    one by one, |f(all∖S) − f(all)| > |Σ_i f(all∖i) − f(all)|, as of two that back each other up;
    synergy where by less, as of two that are nothing without each other.

    Args:
        found: exact effects: an explanation, a sweep, a validation.
        shown: what each unit is, in their order: a text, or an image ``[row, column]`` or ``[row,
            column, colour]``; of a group of examples a list of these, of which the first is drawn.
        most: how many sets of each kind are drawn, the strongest.
        metric: what is measured, in words; the value's metric if not given.

    Raises:
        Refused: an answer of another kind; something that is no text and no image; `ShapeError`,
            not one for each unit.
    """
    pictures = [_first(one) for one in shown]
    if len(pictures) != len(found.units):
        raise ShapeError(
            f"{len(pictures)} are shown of {len(found.units)} units; give one for each"
        )
    heading = " · ".join(filter(None, ["Examples that act together", asked(found)]))
    note = (
        f"numbers: interaction effect on {measured(found, metric)}, with its interval over "
        "outputs, grey: not confirmed; sum: of what leaving out each member alone changes"
    )
    blocks = _blocks(found, most)
    drawn = [one for sets in blocks.values() for one in sets]
    across = min(_MEMBERS, max((len(one.term) for one in drawn), default=2))
    texts = any(isinstance(pictures[column], str) for one in drawn for column in one.term)
    widths = [_NUMBERS, *[_TEXT if texts else _IMAGE] * across]
    down = max((len(sets) for sets in blocks.values()), default=2)
    size = (max(1, len(blocks)) * (sum(widths) + 0.3), _HEIGHT * down + 1.3)
    figure = Picture(figsize=size, layout="constrained", facecolor=PAPER)
    if not blocks:
        axes = figure.subplots()
        return nothing(figure, None, axes, heading, "no set of 2 and more units to show")
    columns = [*widths, 0.3] * len(blocks)
    grid = figure.add_gridspec(
        down + 1, len(columns), width_ratios=columns, height_ratios=[0.25, *[1] * down]
    )
    for place, (kind, sets) in enumerate(blocks.items()):
        left = place * (len(widths) + 1)
        title = figure.add_subplot(grid[0, left : left + len(widths)])
        title.text(0, 0.5, _WORDS[kind], va="center", color=INK, fontsize=NORMAL)
        title.set_axis_off()
        for row, one in enumerate(sets, start=1):
            cells = [figure.add_subplot(grid[row, left + cell]) for cell in range(len(widths))]
            _draw(cells, one, found, pictures)
    entitle(figure, None, figure.axes[0], heading, note)
    return in_ink(figure, None)


def _blocks(found: MeasuredTerms, most: int) -> dict[str, list[DrawnTerm]]:
    """{kind: its strongest sets}, of kinds of which there are any."""
    sets = strongest(found, len(found.terms), least=2)
    sets = [one for one in sets if abs(one.effect) > _FAINT * abs(sets[0].effect)]
    blocks = {kind: [one for one in sets if _kind(found, one.term) == kind] for kind in _WORDS}
    return {kind: these[:most] for kind, these in blocks.items() if these}


def _first(one: Any) -> str | np.ndarray:
    """A text, or an image; of several the first."""
    if isinstance(one, str):
        return one
    if isinstance(one, Sequence) and len(one) and isinstance(one[0], str | np.ndarray):
        one = one[0]
    image = one if isinstance(one, str) else np.asarray(one)
    if not isinstance(image, str) and (image.ndim not in (2, 3) or image.dtype.kind not in "fiub"):
        raise Refused(f"{told(one)} is no text and no image; give a text, or numbers [row, column]")
    return image


def _kind(found: MeasuredTerms, term: Term) -> str:
    """Whether leaving out all of a set does more or less than its members one by one."""
    rows = {one: row for row, one in enumerate(found.terms)}
    effects = found.output_effects.mean(axis=1)

    def summed(sizes: Iterable[int]) -> float:
        # A set that was not worth a test has no effect to speak of.
        subsets = (subset for size in sizes for subset in combinations(term, size))
        return float(sum(effects[rows[subset]] for subset in subsets if subset in rows))

    whole, singles = summed(range(1, len(term) + 1)), summed([1])
    return "redundancy" if abs(whole) > abs(singles) else "synergy"


def _draw(
    cells: Sequence[Axes],
    one: DrawnTerm,
    found: MeasuredTerms,
    pictures: Sequence[str | np.ndarray],
) -> None:
    """The numbers of a set and its members in a row."""
    for axes in cells:
        axes.set_axis_off()
    colour = MUTED if not one.confirmed else POSITIVE if one.effect > 0 else NEGATIVE
    cells[0].text(0, 0.62, f"{one.effect:+.3g}", va="center", color=colour, fontsize=NORMAL + 2)
    if any(one.reach):
        interval = f"{one.low:+.3g} … {one.high:+.3g}"
        cells[0].text(0, 0.32, interval, va="center", color=MUTED, fontsize=SMALL)
    hidden = len(one.term) - (len(cells) - 1)
    for axes, column in zip(cells[1:], one.term, strict=False):
        axes.set_title(short(found.units.names[column], 18), fontsize=SMALL, color=INK, pad=3)
        _show(axes, pictures[column])
    if hidden > 0:
        cells[-1].text(1.0, 0.5, f" +{hidden}", transform=cells[-1].transAxes, color=MUTED)


def _show(axes: Axes, picture: str | np.ndarray) -> None:
    if isinstance(picture, str):
        text = wrapped(short(picture, _LETTERS), _TEXT)
        axes.text(0.5, 0.5, text, ha="center", va="center", color=INK, fontsize=SMALL)
    else:
        axes.imshow(picture, cmap="gray_r", interpolation="nearest")
    axes.set_axis_on()
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_color(RULE)
