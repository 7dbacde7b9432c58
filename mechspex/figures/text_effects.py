"""A text with its effects: units shaded by their own effect, interactions as lines between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mechspex.core.errors import Refused
from mechspex.core.units import Term, UnitSet, text_of
from mechspex.figures.style import PAPER, measured
from mechspex.figures.text_layout import Span, TextLayout, lay_out, printable

# The strongest shades: ink on them has a contrast above 7 : 1, and they differ for all eyes.
SHADE_UP, SHADE_DOWN = "#8ec1ee", "#f4a58c"
# Interactions that are drawn where nothing else is asked for.
_MOST = 6


@runtime_checkable
class Tested(Protocol):
    """Terms that were tested."""

    @property
    def terms(self) -> tuple[Term, ...]: ...


@runtime_checkable
class ExplainedText(Protocol):
    """Exact and recovered effects of units that lie in a text: an explanation."""

    @property
    def units(self) -> UnitSet: ...

    @property
    def configuration(self) -> Mapping[str, str]: ...

    @property
    def validation(self) -> Tested: ...

    @property
    def in_contexts(self) -> Tested | None: ...

    @property
    def single_effects(self) -> Any:
        """The recovered effect of each unit alone."""
        ...

    def singles(self) -> pd.DataFrame:
        """A row a unit: units, effect, confirmed."""
        ...

    def interactions(self) -> pd.DataFrame:
        """A row a set of two and more: units, effect, low, confirmed."""
        ...


@dataclass(frozen=True)
class TextEffects:
    """What to paint: a text, its units, the effect of each, and the interactions among them.

    It is a picture in a notebook (`html`), in the terminal (`terminal`) and in print (`plot`).

    >>> from mechspex.figures import TextEffects
    >>> effects = {(0,): -0.2, (2,): 0.1, (0, 2): 1.5}
    >>> said = TextEffects("not so bad", ((0, 3), (4, 6), (7, 10)), effects, "logit difference")
    >>> print(said.terminal(color=False))
     ┌───1──┐
    not so bad
    not -0.200 · bad +0.100
    1  not × bad +1.500
    effect of ablating on logit difference

    Attributes:
        text: the text.
        spans: the characters of each unit, from one up to another, in order.
        effects: {units by column: effect}; singles shade, sets of two and more are joined.
        quantity: what is measured, in words.
        heading: what the picture is of; nothing if empty.
        most: how many interactions are drawn, the strongest.
        shaded: what a shade and a line say, in words.

    Raises:
        Refused: no units, spans that overlap or lie outside of the text, or a term of other units.
    """

    text: str
    spans: tuple[Span, ...]
    effects: Mapping[Term, float]
    quantity: str = "value"
    heading: str = ""
    most: int = _MOST
    shaded: str = field(default="effect of ablating on")

    def __post_init__(self) -> None:
        if not self.spans:
            raise Refused("a text without units has nothing to shade; give spans")
        for term in self.effects:
            if any(not 0 <= column < len(self.spans) for column in term):
                raise Refused(f"effect of {term}: the text has units 0 … {len(self.spans) - 1}")
        self.layout()

    @classmethod
    def of(
        cls, found: ExplainedText, *, text: str | None = None, metric: str | None = None,
        most: int = _MOST,
    ) -> TextEffects:  # fmt: skip
        """The effects that an explanation of a text found: exact ones where they were measured.

        Interactions that were tested on several outputs, or in contexts, and not confirmed are left
        out.

        Args:
            found: the explanation.
            text: the text of its units; the one that they, or the configuration, know if not given.
            metric: what is measured, in words; the values' metric if not given.
            most: how many interactions are drawn.

        Raises:
            Refused: units that lie in no text, or a text that is not known.
        """
        if text is None:
            text = text_of(found.units, found.configuration)
        if text is None:
            raise Refused("the text of these units is not known; give text=…")
        spans = tuple(unit.span for unit in found.units if unit.span is not None)
        if len(spans) != len(found.units):
            raise Refused("a unit has no place in a text; take units from mechspex.words")
        effects: dict[Term, float] = {
            (column,): float(effect) for column, effect in enumerate(found.single_effects)
        }
        term_of = {found.units.label(term): term for term in found.validation.terms}
        for row in found.singles().to_dict("records"):
            effects[term_of[row["units"]]] = row["effect"]
        frame = found.interactions()
        tested = found.in_contexts is not None or bool(frame["low"].notna().any())
        for row in frame.to_dict("records"):
            # Where nothing could be confirmed all that was measured is shown.
            if row["confirmed"] or not tested:
                effects[term_of[row["units"]]] = row["effect"]
        return cls(text, spans, effects, measured(found, metric), most=most)

    def layout(self, width: int = 88) -> TextLayout:
        """The text in lines of so many letters.

        Args:
            width: how many letters a line has.
        """
        return lay_out(self.text, self.spans, self.interactions, width=width)

    @property
    def interactions(self) -> dict[Term, float]:
        """The sets that are drawn, the strongest first."""
        sets = [(t, e) for t, e in self.effects.items() if len(t) > 1 and np.isfinite(e) and e]
        return dict(sorted(sets, key=lambda one: -abs(one[1]))[: self.most])

    @property
    def largest(self) -> float:
        """The largest |effect| of one unit: the strongest shade."""
        singles = [abs(e) for t, e in self.effects.items() if len(t) == 1 and np.isfinite(e)]
        return max(singles, default=0.0) or 1.0

    def effect(self, unit: int | None) -> float:
        """The effect of one unit; 0 of what is always kept, or not known."""
        value = self.effects.get((unit,), 0.0) if unit is not None else 0.0
        return value if np.isfinite(value) else 0.0

    def share(self, unit: int | None) -> float:
        """Its effect as a share of the largest, −1 … 1."""
        return self.effect(unit) / self.largest

    def label(self, unit: int, most: int = 28) -> str:
        """The letters of a unit in one line, its middle left out where they are many.

        Args:
            unit: the unit's column.
            most: how many letters.
        """
        begin, end = self.spans[unit]
        name = printable(" ".join(self.text[begin:end].split())) or "␣"
        half = (most - 1) // 2
        return name if len(name) <= most else f"{name[:half].rstrip()}…{name[-half:].lstrip()}"

    @property
    def said(self) -> str:
        """What shades and lines say."""
        return f"{self.shaded} {self.quantity}"

    def named(self, term: Sequence[int], most: int = 28) -> str:
        """The units of an interaction in words.

        Args:
            term: the units by column.
            most: how many letters each may have.
        """
        return " × ".join(self.label(unit, most) for unit in term)

    def plot(self) -> Figure:
        """The picture for print."""
        from mechspex.figures.text_picture import text_picture

        return text_picture(self)

    def html(self) -> str:
        """The picture for a page: inline, offline, readable on light and dark pages."""
        from mechspex.figures.text_html import text_html

        return text_html(self)

    def terminal(self, *, width: int = 88, color: bool = True) -> str:
        """The picture for a terminal.

        Args:
            width: how many letters a line has.
            color: whether the terminal shows colours; else only the numbers are told.
        """
        from mechspex.figures.text_terminal import text_terminal

        return text_terminal(self, width=width, color=color)

    def _repr_html_(self) -> str:
        return self.html()


def shade(share: int | float) -> str:
    """The colour of a share of the largest effect, −1 … 1: paper at 0."""
    end = SHADE_UP if share > 0 else SHADE_DOWN
    mixed = [
        round(a + min(1.0, abs(share)) * (b - a))
        for a, b in zip(_rgb(PAPER), _rgb(end), strict=True)
    ]
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5))
