"""A text with its effects as a figure for print."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

from mechspex.figures.style import INK, MUTED, NEGATIVE, PAPER, POSITIVE, RULE, Picture
from mechspex.figures.text_effects import TextEffects, shade
from mechspex.figures.text_layout import Fragment, TextLayout, Wire, cells, right_to_left

_FONT = "DejaVu Sans Mono"
_POINTS = 9
# A letter of that font is this wide, in its size; lines and the rows of wires are this high.
_LETTER, _LINE, _ROW, _ABOVE = 0.602, 1.55, 0.7, 0.45
_LEGEND = 5
# From the middle of a line down to the feet of its letters.
_BASELINE = 0.28


def text_picture(said: TextEffects, *, width: int = 88) -> Figure:
    """The text in lines, each unit shaded by its effect, interactions as lines above.

    Blue raises and is underlined, red lowers and is underlined by dashes, so that a print without
    colours tells them apart. Letters that the font lacks are drawn as □; of scripts that run from
    right to left the letters are turned and not joined (the HTML has them as they are).

    Args:
        said: the text and its effects.
        width: how many letters a line has.
    """
    layout = said.layout(width)
    tops = list(_tops(layout, 2.4 if said.heading else 0.8))
    height = tops[-1] + _LINE + 1.6 * len(said.interactions) + _LEGEND
    inches = _POINTS / 72
    shown = max(layout.width, 60) + 2
    figure = Picture(figsize=(shown * _LETTER * inches, height * inches), facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-1, shown - 1), ylim=(height, 0))
    axes.set_axis_off()
    if said.heading:
        _write(axes, 0, 1.2, said.heading, INK)
    for fragment in layout.fragments:
        _draw_fragment(axes, said, fragment, tops[fragment.line])
    strongest = max((abs(wire.effect) for wire in layout.wires), default=1.0)
    for number, wire in enumerate(layout.wires, start=1):
        _draw_wire(axes, layout, wire, tops, number, abs(wire.effect) / strongest)
    _draw_legend(axes, said, tops[-1] + _LINE + 1.2)
    return figure


def _tops(layout: TextLayout, at: float) -> Iterator[float]:
    """The upper edge of each line of text, in heights of the font; the first begins at `at`."""
    for above in layout.above:
        at += _ROW * len(above) + (_ABOVE if above else 0)
        yield at
        at += _LINE


def _draw_fragment(axes: Axes, said: TextEffects, fragment: Fragment, top: float) -> None:
    share = said.share(fragment.unit)
    if fragment.unit is not None:
        box = (fragment.column, top), fragment.width, 1.3
        axes.add_patch(Rectangle(*box, facecolor=shade(share), edgecolor="none"))
        if abs(share) > 0.02:
            axes.plot(
                [fragment.column + 0.1, fragment.column + fragment.width - 0.1],
                [top + 1.3] * 2,
                color=POSITIVE if share > 0 else NEGATIVE,
                linewidth=0.4 + 1.4 * abs(share),
                linestyle="-" if share > 0 else (0, (2, 1.5)),
                solid_capstyle="butt",
            )
    _write(
        axes,
        fragment.column,
        top + 0.68,
        fragment.text,
        INK if fragment.unit is not None else MUTED,
    )


def _write(axes: Axes, column: int | float, middle: float, text: str, colour: str) -> None:
    """Letters in their cells, as outlines: the advance of hinted letters is rounded to pixels."""
    if not text.strip():
        return
    if right_to_left(text):
        text = text[::-1]
    outline = TextPath((0, 0), _drawable(text), size=1, prop=FontProperties(family=_FONT))
    in_cells = Affine2D().scale(1 / _LETTER, -1).translate(column, middle + _BASELINE)
    path = PathPatch(in_cells.transform_path(outline), facecolor=colour, edgecolor="none")
    path.set(gid=f"text: {text}", snap=False)
    axes.add_patch(path)


def _drawable(text: str) -> str:
    """The text with □ for each letter that the font lacks."""
    known = get_font(findfont(FontProperties(family=_FONT))).get_charmap()
    drawn = []
    for letter in text:
        wide = cells(letter)
        drawn.append(letter if ord(letter) in known or not wide else "□".ljust(wide))
    # A dollar sign would begin a formula.
    return "".join(one for one in drawn if cells(one)).replace("$", r"\$")


def _draw_wire(
    axes: Axes, layout: TextLayout, wire: Wire, tops: list[float], number: int, strength: float
) -> None:
    colour = POSITIVE if wire.effect > 0 else NEGATIVE
    style = {
        "color": colour,
        "linewidth": 0.8 + 1.6 * strength,
        "linestyle": "-" if wire.effect > 0 else (0, (3, 1.5)),
        "solid_joinstyle": "round",
        "dash_joinstyle": "round",
    }
    heights = {}
    for line in wire.lines:
        row = layout.above[line].index(wire)
        heights[line] = tops[line] - _ABOVE - _ROW * (row + 0.3)
        columns = [column + 0.5 for column in wire.columns(line)]
        axes.plot([columns[0], columns[-1]], [heights[line]] * 2, **style)
        for at, column in wire.ends:
            if at == line:
                foot = [heights[line], tops[line] - 0.05]
                axes.plot([column + 0.5] * 2, foot, **style)
    if wire.margin is not None:
        axes.plot([wire.margin + 0.5] * 2, [min(heights.values()), max(heights.values())], **style)
    line = wire.lines[0]
    columns = wire.columns(line)
    axes.text(
        (columns[0] + columns[-1] + 1) / 2, heights[line], str(number), fontsize=_POINTS - 3,
        color=colour, ha="center", va="center", fontweight="bold",
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.6},
    )  # fmt: skip


def _draw_legend(axes: Axes, said: TextEffects, top: float) -> None:
    for number, (term, effect) in enumerate(said.interactions.items(), start=1):
        colour = POSITIVE if effect > 0 else NEGATIVE
        _write(
            axes,
            0,
            top + 0.6,
            f"{number}  {effect:+.3f}  {said.named(term, 64 // len(term))}",
            colour,
        )
        top += 1.6
    axes.plot([0, 60], [top] * 2, color=RULE, linewidth=0.6)
    for step in range(-4, 5):
        box = (2 * (step + 4), top + 0.5), 2, 1.2
        axes.add_patch(Rectangle(*box, facecolor=shade(step / 4), edgecolor="none"))
    _write(axes, 0, top + 2.4, f"{-said.largest:+.2g}", INK)
    _write(axes, 8.6, top + 2.4, "0", INK)
    _write(axes, 14, top + 2.4, f"{said.largest:+.2g}", INK)
    _write(axes, 21, top + 1.1, said.said, INK)
    _write(axes, 21, top + 2.4, "grey: always kept; dashes: below zero", MUTED)
