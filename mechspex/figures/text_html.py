"""A text with its effects as HTML: one inline drawing, no script, nothing fetched."""

from __future__ import annotations

from html import escape

from mechspex.figures.style import INK, MUTED, NEGATIVE, PAPER, POSITIVE
from mechspex.figures.text_effects import SHADE_DOWN, SHADE_UP, TextEffects, shade
from mechspex.figures.text_layout import Fragment, TextLayout, Wire, right_to_left

# Pixels: a letter, a line of text, a row of wires, the room between wires and text.
_LETTER, _LINE, _ROW, _ABOVE, _EDGE = 8.4, 26, 10, 6, 10
# Ink, what is always kept, shades and lines on a dark page, all above 4.5 : 1 to their ground.
_DARK = {
    "paper": "#0d1117", "ink": "#e6edf3", "muted": "#9da7b1",
    "up": "#1c5688", "down": "#8a3a28", "line-up": "#6cb6ff", "line-down": "#ff9a80",
}  # fmt: skip
_LIGHT = {
    "paper": PAPER, "ink": INK, "muted": MUTED, "up": SHADE_UP, "down": SHADE_DOWN,
    "line-up": POSITIVE, "line-down": NEGATIVE,
}  # fmt: skip


def text_html(said: TextEffects, *, width: int = 88) -> str:
    """The text as inline SVG in a ``div``: shades, lines between units, numbers on hover.

    It has its own paper, light or dark as the page is. Everything of the text is escaped.

    Args:
        said: the text and its effects.
        width: how many letters a line has.
    """
    layout = said.layout(width)
    tops, at = [], float(_EDGE)
    for above in layout.above:
        at += _ROW * len(above) + (_ABOVE if above else 0)
        tops.append(at)
        at += _LINE
    parts = [_fragment(said, one, tops[one.line], layout.width) for one in layout.fragments]
    strongest = max((abs(wire.effect) for wire in layout.wires), default=1.0)
    for number, wire in enumerate(layout.wires, start=1):
        parts.append(_wire(said, layout, wire, tops, number, abs(wire.effect) / strongest))
    wide, high = layout.width * _LETTER + 2 * _EDGE, at + _EDGE / 2
    drawing = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(said.said)}" '
        f'width="{wide:.0f}" height="{high:.0f}" viewBox="0 0 {wide:.0f} {high:.0f}" '
        'style="max-width:100%;height:auto" font-family="ui-monospace,DejaVu Sans Mono,Menlo,'
        f'Consolas,monospace" font-size="14">{"".join(parts)}</svg>'
    )
    heading = f"<p><b>{escape(said.heading)}</b></p>" if said.heading else ""
    return f'<div class="mechspex-text">{_STYLE}{heading}{drawing}{_legend(said)}</div>'


def _variables(colours: dict[str, str]) -> str:
    return ";".join(f"--mx-{name}:{colour}" for name, colour in colours.items())


_STYLE = (
    "<style>"
    f".mechspex-text{{{_variables(_LIGHT)};background:var(--mx-paper);color:var(--mx-ink);"
    "padding:4px 8px;font:13px system-ui,sans-serif;overflow-x:auto}"
    ".mechspex-text p{margin:3px 0;color:var(--mx-ink)}"
    "@media (prefers-color-scheme:dark){.mechspex-text{" + _variables(_DARK) + "}}"
    '[data-jp-theme-light="true"] .mechspex-text{' + _variables(_LIGHT) + "}"
    '[data-jp-theme-light="false"] .mechspex-text{' + _variables(_DARK) + "}"
    ".mechspex-text .u{fill:color-mix(in srgb,var(--mx-up) calc(var(--s)*100%),var(--mx-paper))}"
    ".mechspex-text .d{fill:color-mix(in srgb,var(--mx-down) calc(var(--s)*100%),var(--mx-paper))}"
    ".mechspex-text text{fill:var(--mx-ink);white-space:pre}"
    ".mechspex-text .k{fill:var(--mx-muted)}"
    ".mechspex-text .wu{stroke:var(--mx-line-up);fill:none}"
    ".mechspex-text .wd{stroke:var(--mx-line-down);fill:none;stroke-dasharray:5 3}"
    ".mechspex-text .nu{color:var(--mx-line-up);fill:var(--mx-line-up);font-weight:bold}"
    ".mechspex-text .nd{color:var(--mx-line-down);fill:var(--mx-line-down);font-weight:bold}"
    "</style>"
)


def _fragment(said: TextEffects, fragment: Fragment, top: float, across: int) -> str:
    rtl = right_to_left(fragment.text)
    left = _EDGE + fragment.column * _LETTER
    wide = fragment.width * _LETTER
    place = f'x="{left + (wide if rtl else 0):.1f}" y="{top + 16:.1f}" textLength="{wide:.1f}"'
    way = ' direction="rtl"' if rtl else ""
    kind = ' class="k"' if fragment.unit is None else ""
    letters = (
        f'<text {place} lengthAdjust="spacingAndGlyphs" xml:space="preserve"{way}{kind}>'
        f"{escape(fragment.text)}</text>"
    )
    if fragment.unit is None:
        return letters
    effect, share = said.effect(fragment.unit), said.share(fragment.unit)
    hover = f"<title>{escape(said.label(fragment.unit, 60))}: {effect:+.4f}</title>"
    sign = "u" if share > 0 else "d"
    box = (
        f'<rect class="{sign}" style="--s:{abs(share):.3f}" fill="{shade(share)}" x="{left:.1f}" '
        f'y="{top:.1f}" width="{wide:.1f}" height="21"/>'
    )
    line = ""
    if abs(share) > 0.02:
        line = (
            f'<path class="w{sign}" stroke-width="{0.6 + 1.6 * abs(share):.1f}" '
            f'd="M{left + 1:.1f} {top + 21:.1f}h{wide - 2:.1f}"/>'
        )
    return f"<g>{hover}{box}{letters}{line}</g>"


def _wire(
    said: TextEffects,
    layout: TextLayout,
    wire: Wire,
    tops: list[float],
    number: int,
    strength: float,
) -> str:
    def across(column: int) -> float:
        return _EDGE + (column + 0.5) * _LETTER

    heights, path = {}, []
    for line in wire.lines:
        row = layout.above[line].index(wire)
        heights[line] = tops[line] - _ABOVE - _ROW * (row + 0.2)
        columns = wire.columns(line)
        path.append(f"M{across(columns[0]):.1f} {heights[line]:.1f}H{across(columns[-1]):.1f}")
        path += [
            f"M{across(column):.1f} {heights[line]:.1f}V{tops[line] - 1:.1f}"
            for at, column in wire.ends
            if at == line
        ]
    if wire.margin is not None:
        first, last = min(heights.values()), max(heights.values())
        path.append(f"M{across(wire.margin):.1f} {first:.1f}V{last:.1f}")
    sign = "u" if wire.effect > 0 else "d"
    columns = wire.columns(wire.lines[0])
    middle = (across(columns[0]) + across(columns[-1])) / 2
    hover = f"<title>{escape(said.named(wire.term, 60))}: {wire.effect:+.4f}</title>"
    return (
        f'<g>{hover}<path class="w{sign}" stroke-width="{1 + 2 * strength:.1f}" '
        f'stroke-linejoin="round" d="{"".join(path)}"/><text class="n{sign}" font-size="9" '
        f'text-anchor="middle" x="{middle:.1f}" y="{heights[wire.lines[0]] + 3:.1f}" '
        'style="paint-order:stroke;stroke:var(--mx-paper);stroke-width:4px">'
        f"{number}</text></g>"
    )


def _legend(said: TextEffects) -> str:
    rows = [
        f'<p><span class="n{"u" if effect > 0 else "d"}">{number}&ensp;{effect:+.3f}</span>&ensp;'
        f"{escape(said.named(term, 60))}</p>"
        for number, (term, effect) in enumerate(said.interactions.items(), start=1)
    ]
    ends = f"{-said.largest:+.3g} … {said.largest:+.3g}"
    rows.append(
        f"<p>shade and line: {escape(said.said)}, {ends}; dashes: below zero; grey: always kept</p>"
    )
    return "".join(rows)
