"""A text laid out in cells of one letter: fragments of its units in lines, and wires between them.

Every picture of a text (figure, HTML, terminal) paints the same layout.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from mechspex.core.errors import Refused
from mechspex.core.units import Term

Span = tuple[int, int]

# Marks that take no cell of their own: accents, joiners, variation selectors.
_NO_CELL = {"Mn", "Me", "Cf"}
_TAB = "    "


@dataclass(frozen=True)
class Fragment:
    """A part of the text in one line, all of one unit or all protected.

    Attributes:
        text: its letters.
        unit: the column of its unit; None for what is always kept.
        line: the number of its line.
        column, width: where it begins, and how many cells it takes.
    """

    text: str
    unit: int | None
    line: int
    column: int
    width: int

    def cell(self, number: int, of: int) -> int:
        """One of several cells around its middle, next to one another as far as it has them.

        Args:
            number: which of them, from 0.
            of: how many there are.
        """
        wide = max(1, cells(self.text.strip()))
        step = 2 if wide >= 2 * of else 1
        first = (wide - 1) // 2 - step * (of - 1) // 2
        before = len(self.text) - len(self.text.lstrip())
        return self.column + before + min(max(0, first + step * number), wide - 1)


@dataclass(frozen=True)
class Wire:
    """The line that joins the units of one interaction, in the gaps above the lines of text.

    Attributes:
        term: the units by column.
        effect: the size of their interaction.
        ends: where it touches each unit: line and cell.
        margin: the cell in the left margin in which it runs from line to line; None where all its
            units are in one line.
    """

    term: Term
    effect: float
    ends: tuple[tuple[int, int], ...]
    margin: int | None

    @property
    def lines(self) -> tuple[int, ...]:
        """The lines above which it runs."""
        return tuple(sorted({line for line, _ in self.ends}))

    def columns(self, line: int) -> tuple[int, ...]:
        """The cells in which it goes down to its units, or to the margin, above a line."""
        own = [column for at, column in self.ends if at == line]
        return tuple(sorted([*own, *([] if self.margin is None else [self.margin])]))


@dataclass(frozen=True)
class TextLayout:
    """A text in lines, and the wires above them.

    Attributes:
        fragments: the parts of all lines, in the order of the text.
        wires: the wires, the strongest first.
        n_lines: how many lines there are.
        width: how many cells a line has, the margin included.
    """

    fragments: tuple[Fragment, ...]
    wires: tuple[Wire, ...]
    n_lines: int
    width: int

    @cached_property
    def above(self) -> tuple[tuple[Wire, ...], ...]:
        """The wires that run above each line, the one nearest to the text first."""
        found: list[list[Wire]] = [[] for _ in range(self.n_lines)]
        # Short ones lie below long ones, so that they cross less.
        for wire in sorted(self.wires, key=lambda wire: (wire.margin is not None, _reach(wire))):
            for line in wire.lines:
                found[line].append(wire)
        return tuple(map(tuple, found))


def _reach(wire: Wire) -> int:
    columns = [column for _, column in wire.ends]
    return max(columns) - min(columns)


def lay_out(
    text: str,
    spans: Sequence[Span],
    interactions: Mapping[Term, float],
    *,
    width: int = 88,
) -> TextLayout:
    """Lines of at most so many cells, broken between words, and a wire for each interaction.

    Args:
        text: the text.
        spans: the characters of each unit, in order.
        interactions: {units by column: size}, of two units and more; the strongest first.
        width: how many cells a line has.

    Raises:
        Refused: spans that overlap, are out of order or outside of the text.
    """
    _check(text, spans)
    fragments, n_lines = _broken(list(_pieces(text, spans)), width)
    fragments = _mirrored(fragments, width)
    first: dict[int, Fragment] = {}
    for fragment in fragments:
        # A unit of several lines is touched where most of it stands.
        best = first.get(fragment.unit) if fragment.unit is not None else None
        if fragment.unit is not None and (best is None or fragment.width > 2 * best.width):
            first[fragment.unit] = fragment
    drawn = [term for term in interactions if all(unit in first for unit in term)]
    ends = {
        term: tuple(_touched(first[unit], unit, term, drawn) for unit in term) for term in drawn
    }
    across = [term for term, at in ends.items() if len({line for line, _ in at}) > 1]
    left = 2 * len(across) + 1 if across else 0
    wires = []
    for term, at in ends.items():
        margin = 2 * (len(across) - 1 - across.index(term)) if term in across else None
        moved = tuple((line, column + left) for line, column in at)
        wires.append(Wire(term, interactions[term], moved, margin))
    shifted = [replace(fragment, column=fragment.column + left) for fragment in fragments]
    return TextLayout(tuple(shifted), tuple(wires), n_lines, width + left)


def _touched(fragment: Fragment, unit: int, term: Term, drawn: Sequence[Term]) -> tuple[int, int]:
    """Where the wire of a term touches one of its units; each wire has a cell of its own there."""
    own = [other for other in drawn if unit in other]
    return fragment.line, fragment.cell(own.index(term), len(own))


def cells(text: str) -> int:
    """How many cells a text takes: two for wide letters and emoji, none for accents."""
    return sum(map(_cells_of, text))


def _cells_of(letter: str) -> int:
    if unicodedata.category(letter) in _NO_CELL:
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def right_to_left(text: str) -> bool:
    """Whether a text is written from right to left, by its first letter that says so."""
    for letter in text:
        direction = unicodedata.bidirectional(letter)
        if direction in ("L", "R", "AL"):
            return direction != "L"
    return False


def _check(text: str, spans: Iterable[Span]) -> None:
    last = 0
    for begin, end in spans:
        if not last <= begin < end <= len(text):
            raise Refused(
                f"a unit spans characters {begin} … {end}, after {last} of a text of {len(text)}; "
                "give spans in order, none over another"
            )
        last = end


def _pieces(text: str, spans: Sequence[Span]) -> Iterator[tuple[str, int | None]]:
    """Words, blanks and ends of lines, each with its unit."""
    last = 0
    parts: list[tuple[int, int, int | None]] = []
    for unit, (begin, end) in enumerate(spans):
        parts += [(last, begin, None), (begin, end, unit)]
        last = end
    parts.append((last, len(text), None))
    for begin, end, unit in parts:
        for word in _words(text[begin:end]):
            yield word, unit


def _words(text: str) -> Iterator[str]:
    """Runs of letters, runs of blanks, and single ends of lines, written as a newline."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", _TAB)
    run = ""
    for letter in text:
        shown = letter if letter == "\n" else printable(letter)
        if run and (shown == "\n" or run == "\n" or shown.isspace() != run[-1].isspace()):
            yield run
            run = ""
        run += shown
    if run:
        yield run


def printable(text: str) -> str:
    """The text with � for each letter that no picture can show; what joins letters stays."""
    shown = (t if t.isprintable() or unicodedata.category(t) == "Cf" else "�" for t in text)
    return "".join(shown)


def _broken(pieces: list[tuple[str, int | None]], width: int) -> tuple[list[Fragment], int]:
    """Fragments in lines: words that do not fit begin a new line, longer ones are cut."""
    fragments: list[Fragment] = []
    line = column = 0
    for piece, unit in pieces:
        if piece == "\n":
            line, column = line + 1, 0
            continue
        if piece.isspace() and (column == 0 or column + cells(piece) > width):
            continue
        if column and column + cells(piece) > width:
            line, column = line + 1, 0
        for part in _cut(piece, width):
            if column + cells(part) > width:
                line, column = line + 1, 0
            last = fragments[-1] if fragments else None
            # One fragment as long as unit and line stay the same.
            if (
                last
                and (last.unit, last.line) == (unit, line)
                and last.column + last.width == column
            ):
                joined = last.text + part
                fragments[-1] = Fragment(joined, unit, line, last.column, cells(joined))
            else:
                fragments.append(Fragment(part, unit, line, column, cells(part)))
            column += cells(part)
    return [_without_last_blanks(*pair) for pair in pairwise([*fragments, None])], line + 1


def _mirrored(fragments: list[Fragment], width: int) -> list[Fragment]:
    """The same with lines of scripts that run from right to left beginning at the right."""
    lines: dict[int, str] = {}
    for fragment in fragments:
        lines[fragment.line] = lines.get(fragment.line, "") + fragment.text
    turned = {line for line, text in lines.items() if right_to_left(text)}
    return [
        replace(one, column=width - one.column - one.width) if one.line in turned else one
        for one in fragments
    ]


def _without_last_blanks(fragment: Fragment | None, following: Fragment | None) -> Fragment:
    """The fragment; at the end of a line without the blanks there."""
    assert fragment is not None
    if following is not None and following.line == fragment.line:
        return fragment
    text = fragment.text.rstrip() or fragment.text
    return replace(fragment, text=text, width=cells(text))


def _cut(piece: str, width: int) -> list[str]:
    if cells(piece) <= width:
        return [piece]
    parts, run = [], ""
    for letter in piece:
        if run and cells(run + letter) > width:
            parts.append(run)
            run = ""
        run += letter
    return [*parts, run]
