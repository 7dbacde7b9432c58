"""Units that know their text: which characters each of them is, and what lies between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from typing import overload

from mechspex.core.errors import Refused
from mechspex.core.kinds import Kind
from mechspex.core.units import Unit, UnitSet
from mechspex.prompts.partition import Span

# Characters of a label; a longer one is shortened in its middle.
_LONGEST = 40


class TextUnits(UnitSet):
    """The parts of one text that masks keep or ablate; what lies between them is always kept.

    Everything that a `UnitSet` can do; a part of them (``units[10:]``) leaves the others to what
    is always kept.

    Attributes:
        text: the text.
        by: what it was parted by.
        turns: the role of each turn of a conversation, and where it stands in the text.
        spans: where each unit lies in the text.

    Raises:
        Refused: a unit without a span, spans that overlap or are not in order, or two units of the
            same name.
    """

    text: str
    by: str
    turns: tuple[tuple[str, Span], ...] | None
    spans: tuple[Span, ...]

    def __init__(
        self,
        units: tuple[Unit, ...],
        text: str,
        by: str,
        turns: tuple[tuple[str, Span], ...] | None = None,
    ) -> None:
        super().__init__(units)
        self.__dict__ |= {"text": text, "by": by, "turns": turns}
        self.__dict__["spans"] = checked_spans(units, text)

    @property
    def pieces(self) -> tuple[str, ...]:
        """The text of each unit."""
        return tuple(self.text[begin:end] for begin, end in self.spans)

    def of_kind(self, kind: Kind) -> TextUnits:
        """The same parts as units of another kind.

        Args:
            kind: ``word`` or ``hidden_word``.
        """
        units = tuple(unit._replace(kind=kind) for unit in self.units)
        return TextUnits(units, self.text, self.by, self.turns)

    @property
    def between(self) -> tuple[str, ...]:
        """What lies before, between and after the units: protected, as it is never ablated."""
        ends = [0, *(end for _, end in self.spans)]
        begins = [*(begin for begin, _ in self.spans), len(self.text)]
        return tuple(self.text[a:b] for a, b in zip(ends, begins, strict=True))

    @overload
    def __getitem__(self, index: int) -> Unit: ...
    @overload
    def __getitem__(self, index: slice | str | Iterable[str]) -> TextUnits: ...

    def __getitem__(self, index: int | slice | str | Iterable[str]) -> Unit | TextUnits:
        found = super().__getitem__(index)
        if isinstance(found, Unit):
            return found
        units = sorted(found.units, key=lambda unit: unit.span or ())
        return TextUnits(tuple(units), self.text, self.by, self.turns)

    def __eq__(self, other: object) -> bool:
        # Units that were read from a file no longer know their text.
        return isinstance(other, UnitSet) and self.units == other.units

    __hash__ = UnitSet.__hash__


def text_units(
    text: str,
    spans: Sequence[Span],
    by: str,
    *,
    hidden: bool = False,
    turns: tuple[tuple[str, Span], ...] | None = None,
) -> TextUnits:
    """The units of a text that stand at some spans, labelled by what stands there.

    Args:
        text: the text.
        spans: where the units lie, in order.
        by: what it was parted by.
        hidden: units that are hidden from attention.
        turns: see `TextUnits`.
    """
    kind = "hidden_word" if hidden else "word"
    labels = _labels(text[begin:end] for begin, end in spans)
    units = (
        Unit(kind, 0, number, None, label, span)
        for number, (label, span) in enumerate(zip(labels, spans, strict=True))
    )
    return TextUnits(tuple(units), text, by, turns)


def label_of(piece: str) -> str:
    """A piece of a text as a label: in one line, and shortened where it is long."""
    shown = " ".join(piece.split())
    if not shown:
        return repr(piece)[1:-1] if piece != " " else "␣"
    if len(shown) <= _LONGEST:
        return shown
    half = _LONGEST // 2
    return f"{shown[: half + 8].rstrip()} … {shown[-half + 10 :].lstrip()}"


def checked_spans(units: Iterable[Unit], text: str) -> tuple[Span, ...]:
    """The spans of units of a text.

    Raises:
        Refused: a unit without one, or spans that overlap, are not in order or not in the text.
    """
    spans, last = [], 0
    for unit in units:
        if unit.span is None:
            raise Refused(f"unit {unit.name!r} has no span in a text; take units from mx.words")
        begin, end = unit.span
        if not last <= begin < end <= len(text):
            raise Refused(
                f"unit {unit.name!r} spans characters {begin} … {end}, after {last} of a text of "
                f"{len(text)}; give spans in order, none over another"
            )
        spans.append((begin, end))
        last = end
    return tuple(spans)


def _labels(pieces: Iterable[str]) -> list[str]:
    """A label for each piece, those that are alike numbered from the second on."""
    taken: set[str] = set()
    labels = []
    for piece in pieces:
        label = label_of(piece)
        if label in taken:
            numbered = (f"{label} ({number})" for number in count(2))
            label = next(one for one in numbered if one not in taken)
        taken.add(label)
        labels.append(label)
    return labels
