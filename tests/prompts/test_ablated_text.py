"""What is left of a text without some of its units."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mechspex as mx
from mechspex.prompts.ablated_text import deleted, replaced


def without(text, by, *gone):
    units = mx.words(text, by=by)
    kept = [number not in gone for number in range(len(units))]
    return deleted(units.between, units.pieces, kept)


@pytest.mark.parametrize(
    ("text", "by", "gone", "left"),
    [
        ("The movie was not bad.", "word", [3], "The movie was bad."),
        ("The movie was not bad.", "word", [0], "movie was not bad."),
        ("The movie was not bad.", "word", [4], "The movie was not"),
        ("The movie was not bad.", "word", [0, 1, 2, 3, 4], ""),
        (" One.  Two. Three. ", "sentence", [1], " One.  Three. "),
        (" One.  Two. Three. ", "sentence", [0], " Two. Three. "),
        (" One.  Two. Three. ", "sentence", [1, 2], " One. "),
        # A paragraph still ends where its last sentence is gone, and where the next one's first is.
        ("Aa. Bb.\n\nCc. Dd.", "sentence", [1], "Aa.\n\nCc. Dd."),
        ("Aa. Bb.\n\nCc. Dd.", "sentence", [2], "Aa. Bb.\n\nDd."),
        ("Aa. Bb.\r\n\r\nCc. Dd.", "sentence", [1, 2], "Aa.\r\n\r\nDd."),
        ("if x:\n        y\n    z", "line", [1], "if x:\n    z"),
        ("one\n\ntwo\n\n\nthree\n", "paragraph", [1], "one\n\n\nthree\n"),
        ("The {{quick}}, brown ({{old}}) fox {{ran}}.", "span", [0, 1, 2], "The, brown () fox."),
        ("Say ({{yes}} or no)", "span", [0], "Say (or no)"),
        ("{{Q:}} what? {{A:}}", "span", [0, 1], "what?"),
        ("今日は。晴れ。", "sentence", [0], "晴れ。"),
        ("שלום עולם טוב", "word", [1], "שלום טוב"),
    ],
)  # fmt: skip
def test_deleted(text, by, gone, left):
    assert without(text, by, *gone) == left


@given(st.text(" \nab.", min_size=1, max_size=20), st.data())
def test_what_is_kept_stays_in_order_and_all_kept_is_the_text(text, data):
    if not text.strip():
        return
    units = mx.words(text)
    kept = data.draw(st.lists(st.booleans(), min_size=len(units), max_size=len(units)))
    left = deleted(units.between, units.pieces, kept)
    chosen = [piece for piece, keep in zip(units.pieces, kept, strict=True) if keep]
    assert left.split() == chosen
    assert deleted(units.between, units.pieces, [True] * len(units)) == text
    words = replaced(units.between, units.pieces, kept, "_").split()
    assert [w == p for w, p in zip(words, units.pieces, strict=True)] == [
        k or p == "_" for k, p in zip(kept, units.pieces, strict=True)
    ]


def test_blanks_of_units_that_stay_are_not_touched():
    assert deleted(["", "", ""], ["a\n", " b"], [True, False]) == "a\n"
    assert deleted(["", "", ""], ["a ", " b"], [False, True]) == " b"
