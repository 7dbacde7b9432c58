"""A text with its effects in the terminal: shades behind words, lines of box characters above."""

from __future__ import annotations

from rich.console import Console
from rich.style import Style
from rich.text import Text

from mechspex.figures.style import INK
from mechspex.figures.text_effects import TextEffects, shade
from mechspex.figures.text_layout import TextLayout, Wire

# Units whose numbers are told where there are no colours.
_TOLD = 12
# Which neighbours a cell is joined to, up 1, down 2, left 4, right 8: its character.
_BOX = {
    1: "│", 2: "│", 3: "│", 4: "─", 5: "┘", 6: "┐", 7: "┤", 8: "─", 9: "└", 10: "┌", 11: "├",
    12: "─", 13: "┴", 14: "┬", 15: "┼",
}  # fmt: skip
_UP, _DOWN, _LEFT, _RIGHT = 1, 2, 4, 8
# Lines that are read on light and on dark terminals.
_RAISES, _LOWERS = Style(color="blue", bold=True), Style(color="red", bold=True)


def text_terminal(said: TextEffects, *, width: int = 88, color: bool = True) -> str:
    """The text in lines, each unit shaded by its effect, interactions as lines above.

    Args:
        said: the text and its effects.
        width: how many letters a line has.
        color: whether the terminal shows colours; else only the numbers are told.
    """
    layout = said.layout(width)
    lines: list[Text] = []
    for line in range(layout.n_lines):
        lines += _rows_above(layout, line)
        lines.append(_line_of(said, layout, line))
    strongest = sorted(range(len(said.spans)), key=lambda unit: -abs(said.effect(unit)))
    told = [u for u in strongest[:_TOLD] if said.effect(u)]
    told = sorted(told) if not color else told[:3]
    if told:
        lines.append(Text(" · ".join(f"{said.label(u)} {said.effect(u):+.3f}" for u in told)))
    for number, (term, effect) in enumerate(said.interactions.items(), start=1):
        row = Text(f"{number}  ", style=_RAISES if effect > 0 else _LOWERS)
        lines.append(row.append(f"{said.named(term)} {effect:+.3f}", style=Style()))
    if color:
        lines.append(_scale(said))
    lines.append(Text(said.said))
    console = Console(
        width=max(layout.width, 200), force_terminal=color, no_color=not color,
        color_system="truecolor" if color else None, highlight=False, markup=False, emoji=False,
    )  # fmt: skip
    with console.capture() as caught:
        for line in lines:
            line.rstrip()
            console.print(line, soft_wrap=True)
    return caught.get().rstrip("\n")


def _line_of(said: TextEffects, layout: TextLayout, line: int) -> Text:
    row, at = Text(), 0
    through = [w for w in layout.wires if w.lines[0] <= line < w.lines[-1]]
    for wire in sorted(through, key=lambda one: one.margin or 0):
        row.append(" " * ((wire.margin or 0) - at))
        row.append("│", style=_RAISES if wire.effect > 0 else _LOWERS)
        at = (wire.margin or 0) + 1
    own = [fragment for fragment in layout.fragments if fragment.line == line]
    for fragment in sorted(own, key=lambda one: one.column):
        row.append(" " * (fragment.column - at))
        share = said.share(fragment.unit)
        style = Style()
        if fragment.unit is not None and abs(share) > 0.02:
            style = Style(color=INK, bgcolor=shade(share), underline=share < 0)
        row.append(fragment.text, style=style)
        at = fragment.column + fragment.width
    return row


def _rows_above(layout: TextLayout, line: int) -> list[Text]:
    """The rows of wires above a line, from the top down."""
    above = layout.above[line]
    joined = [[0] * layout.width for _ in above]
    owner: list[list[Wire | None]] = [[None] * layout.width for _ in above]
    for row, wire in enumerate(above):
        columns = wire.columns(line)
        for column in range(columns[0], columns[-1] + 1):
            joined[row][column] |= _LEFT * (column > columns[0]) | _RIGHT * (column < columns[-1])
            owner[row][column] = wire
        for at, column in wire.ends:
            if at == line:
                _down(joined, owner, wire, row, column)
    for wire in layout.wires:
        if wire.margin is not None and wire.lines[0] <= line <= wire.lines[-1]:
            _through_margin(joined, owner, wire, line, above)
    numbers = {wire.term: number for number, wire in enumerate(layout.wires, start=1)}
    rows = [
        _painted(joined[row], owner[row], above[row], line, numbers) for row in range(len(above))
    ]
    return rows[::-1]


def _down(
    joined: list[list[int]], owner: list[list[Wire | None]], wire: Wire, row: int, column: int
) -> None:
    """From a row of wires down to the text."""
    joined[row][column] |= _DOWN
    for below in range(row):
        joined[below][column] = _UP | _DOWN
        owner[below][column] = wire


def _through_margin(
    joined: list[list[int]],
    owner: list[list[Wire | None]],
    wire: Wire,
    line: int,
    above: tuple[Wire, ...],
) -> None:
    """Up and down in the margin, between the first and the last line of a wire."""
    assert wire.margin is not None
    own = above.index(wire) if wire in above else None
    for row in range(len(above)):
        from_above = line > wire.lines[0] and (own is None or row >= own)
        to_below = line < wire.lines[-1] and (own is None or row <= own)
        if row == own:
            joined[row][wire.margin] |= _UP * (line > wire.lines[0])
            joined[row][wire.margin] |= _DOWN * (line < wire.lines[-1])
        elif from_above or to_below:
            joined[row][wire.margin] = _UP | _DOWN
            owner[row][wire.margin] = wire


def _painted(
    joined: list[int],
    owner: list[Wire | None],
    wire: Wire,
    line: int,
    numbers: dict[tuple[int, ...], int],
) -> Text:
    row = Text()
    columns = wire.columns(line)
    middle = (columns[0] + columns[-1] + 1) // 2
    plain = [c for c, o in enumerate(owner) if o is wire and joined[c] == _LEFT | _RIGHT]
    label = min(plain, key=lambda column: abs(column - middle), default=-1)
    for column, (joins, own) in enumerate(zip(joined, owner, strict=True)):
        if own is None or not joins:
            row.append(" ")
            continue
        style = _RAISES if own.effect > 0 else _LOWERS
        tag = column == label and line == wire.lines[0]
        row.append(str(numbers[wire.term]) if tag else _BOX[joins], style=style)
    return row


def _scale(said: TextEffects) -> Text:
    row = Text(f"{-said.largest:+.2g} ")
    for step in range(-4, 5):
        row.append("  ", style=Style(bgcolor=shade(step / 4)))
    return row.append(f" {said.largest:+.2g}   underlined: below zero")
