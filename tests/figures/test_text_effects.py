import re
import xml.etree.ElementTree as ElementTree
from html import unescape

import numpy as np
import pytest
from matplotlib.patches import Rectangle

import mechspex as mx
from mechspex.core.units import Unit, UnitSet, text_of
from mechspex.errors import Refused
from mechspex.figures import TextEffects
from mechspex.figures.style import INK, NEGATIVE, PAPER, POSITIVE
from mechspex.figures.text_effects import SHADE_DOWN, SHADE_UP, shade
from mechspex.figures.text_html import _DARK, _LIGHT
from mechspex.figures.text_layout import cells, lay_out, right_to_left

SIX = "Her acting never fails to impress"
HOSTILE = 'a <script>alert(1)</script> & "b" $x^2$ \\frac שלום 日本 👩‍👩‍👧 e\u0301 \r\n\tend\x00'
LONG = " ".join(f"word{number}" for number in range(200)) + " " + "x" * 250


def words(text):
    return tuple(found.span() for found in re.finditer(r"\S+", text))


def six():
    effects = {(2,): -0.4, (3,): -0.6, (5,): 0.3, (2, 3): 0.7, (2, 3, 5): 0.97, (2, 5): -0.5}
    return TextEffects(SIX, words(SIX), effects, "logits")


def every(text, **effects):
    rng = np.random.default_rng(0)
    n = len(words(text))
    singles = {(unit,): float(rng.normal()) for unit in range(n)}
    return TextEffects(text, words(text), singles | {(0, n - 1): 1.0, (1, 2): -0.5}, **effects)


@pytest.mark.parametrize("width", [20, 40, 88])
@pytest.mark.parametrize("text", [SIX, HOSTILE, LONG, LONG.replace(" ", "\n\n")])
def test_the_layout_keeps_every_letter_and_none_overlap(text, width):
    layout = lay_out(text, words(text), {(0, 2): 1.0}, width=width)
    written = "".join(fragment.text for fragment in layout.fragments)
    kept = "".join(text.replace("\x00", "�").split())
    assert "".join(written.split()) == kept
    ends = {}
    for fragment in layout.fragments:
        assert fragment.width == cells(fragment.text)
        for cell in range(fragment.column, fragment.column + fragment.width):
            assert ends.setdefault((fragment.line, cell), fragment) is fragment
            assert cell < layout.width


def test_wires_touch_their_units_and_no_two_the_same_cell():
    layout = six().layout()
    assert [wire.term for wire in layout.wires] == [(2, 3, 5), (2, 3), (2, 5)]
    own = {f.unit: range(f.column, f.column + f.width) for f in layout.fragments}
    touched = [end for wire in layout.wires for end in wire.ends]
    assert len(set(touched)) == len(touched) == 7
    for wire in layout.wires:
        assert wire.margin is None
        for unit, (line, column) in zip(wire.term, wire.ends, strict=True):
            assert line == 0
            assert column in own[unit]


def test_wires_between_lines_have_margins_of_their_own():
    layout = lay_out(LONG, words(LONG), {(0, 150): 2.0, (3, 160, 199): 1.0, (5, 6): 0.5})
    margins = [wire.margin for wire in layout.wires]
    assert margins[2] is None
    assert len({*margins[:2]}) == 2
    text = min(fragment.column for fragment in layout.fragments)
    assert all((margin or 0) < text for margin in margins[:2])


def test_letters_have_the_width_they_have():
    assert cells("a日é") == 4
    assert cells("e\u0301") == 1
    assert right_to_left("  שלום a")
    assert not right_to_left("a שלום")
    (fragment,) = lay_out("שלום", ((0, 4),), {}, width=10).fragments
    assert fragment.column == 6, "such a line begins at the right"


def luminance(colour):
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(one, other):
    high, low = sorted([luminance(one), luminance(other)], reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_every_shade_and_line_has_contrast():
    for share in np.linspace(-1, 1, 21):
        assert contrast(INK, shade(float(share))) > 7
    assert shade(0) == PAPER
    assert (shade(1), shade(-1), shade(5)) == (SHADE_UP, SHADE_DOWN, SHADE_UP)
    for colours in (_LIGHT, _DARK):
        for ground in ("paper", "up", "down"):
            assert contrast(colours["ink"], colours[ground]) > 4.5
        for line in ("muted", "line-up", "line-down"):
            assert contrast(colours[line], colours["paper"]) > 4.5
    assert min(contrast(colour, PAPER) for colour in (NEGATIVE, POSITIVE)) > 4.5


def drawn(figure):
    return [p.get_gid() or "" for p in figure.axes[0].patches]


def test_the_figure_shades_writes_and_joins():
    figure = six().plot()
    written = [gid.removeprefix("text: ") for gid in drawn(figure) if gid]
    assert set(SIX.split()) <= {text.strip() for text in written}
    assert "1  +0.970  never × fails × impress" in written
    assert "effect of ablating on logits" in written
    boxes = [p for p in figure.axes[0].patches if isinstance(p, Rectangle)]
    assert len(boxes) == 6 + 9, "one a word, nine of the scale"
    numbers = [text.get_text() for text in figure.axes[0].texts]
    assert numbers == ["1", "2", "3"]
    again = TextEffects(SIX, words(SIX), {}, heading="nothing").plot()
    assert "text: nothing" in drawn(again)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("text", [HOSTILE, LONG])
def test_any_text_can_be_drawn(text):
    figure = every(text, quantity="$value^", heading="<b>$h").plot()
    figure.canvas.draw()
    assert figure._repr_png_().startswith(b"\x89PNG")  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("text", [SIX, HOSTILE, LONG])
def test_html_is_well_formed_offline_and_escaped(text):
    html = every(text, quantity='<b>"value"</b>', heading="<script>heading</script>").html()
    assert "<script" not in html
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")
    assert "<b>&quot;" not in html
    tree = ElementTree.fromstring(html.replace("&ensp;", " "))
    space = "{http://www.w3.org/2000/svg}"
    letters = [t for t in tree.iter(f"{space}text") if t.get("textLength")]
    joined = "".join("".join(t.text or "" for t in letters).split())
    assert joined == "".join(text.replace("\x00", "�").split())
    assert f"{space}title" in {node.tag for node in tree.iter()}


def test_hovering_tells_numbers():
    titles = [unescape(t) for t in re.findall(r"<title>(.*?)</title>", six().html())]
    assert "never: -0.4000" in titles
    assert "never × fails × impress: +0.9700" in titles


def test_the_terminal_shows_letters_numbers_and_colours():
    plain = six().terminal(color=False)
    assert SIX in plain
    assert "1  never × fails × impress +0.970" in plain
    assert "\x1b" not in plain
    assert "never -0.400 · fails -0.600 · impress +0.300" in plain
    coloured = six().terminal()
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured).splitlines()[3] == SIX
    for text in (HOSTILE, LONG):
        assert all(cells(line) < 96 for line in every(text).terminal(color=False).splitlines()[:5])


def test_effects_that_are_not_finite_are_not_shown():
    said = TextEffects("a b", ((0, 1), (2, 3)), {(0,): np.nan, (1,): 2.0, (0, 1): np.nan})
    assert said.interactions == {}
    assert said.share(0) == 0
    assert said.largest == 2


def test_slips_are_named():
    with pytest.raises(Refused, match="without units"):
        TextEffects("a", (), {})
    with pytest.raises(Refused, match="has units 0 … 1"):
        TextEffects("a b", ((0, 1), (2, 3)), {(2,): 1.0})
    with pytest.raises(Refused, match="spans characters 1 … 3, after 2 of a text of 3"):
        TextEffects("a b", ((0, 2), (1, 3)), {})
    with pytest.raises(Refused, match="text of these units is not known"):
        TextEffects.of(mx.explain(lambda m: 1.0 * m[:, 0], units=mx.parts("ab")))


class Sentence(mx.FunctionValues):
    """A function of the words of a text, which knows the text."""

    def __init__(self, text):
        spans = words(text)
        units = (Unit("word", 0, k, None, text[a:b], (a, b)) for k, (a, b) in enumerate(spans))
        super().__init__(lambda m: 2.0 * m[:, 1] - 3.0 * (m[:, 2] & m[:, 3]), UnitSet(tuple(units)))
        self.text = text

    @property
    def configuration(self):
        return super().configuration | {"text": self.text}


def test_an_explanation_of_words_is_a_shaded_text(tmp_path):
    found = mx.explain(Sentence("it was not bad <i>"))
    said = TextEffects.of(found)
    assert said.effects[(1,)] == pytest.approx(-2)
    assert said.interactions == {(2, 3): pytest.approx(-3)}
    assert "text: 1  -3.000  not × bad" in drawn(found.plot())
    html = found._repr_html_()
    assert "mechspex-text" in html
    assert "<i>" not in html
    found.save(tmp_path / "e.json")
    assert mx.Explanation.load(tmp_path / "e.json")._repr_html_() == html
    assert text_of(found.units, {"text": "too short"}) is None
    around = mx.explain(Sentence("it was not bad"), tests=mx.ExactTests(contexts=8))
    sure = around.interactions().query("confirmed")["units"].tolist()
    assert [around.units.label(t) for t in TextEffects.of(around).interactions] == sure
    crossed = TextEffects.of(mx.explain(Sentence("it was a×b × c")))
    assert crossed.interactions == {(2, 3): pytest.approx(-3)}, "a sign of its own joins no units"
    assert text_of(mx.parts("ab"), {"text": "a b"}) is None
