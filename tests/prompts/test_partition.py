"""Partitions of texts: what counts as a part, and the law that parts and the rest give the text."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import mechspex as mx
from mechspex.core.units import UnitSet
from mechspex.errors import Refused
from mechspex.prompts.partition import RULES
from mechspex.prompts.sentences import sentence_ends

WILD = "  ‏שלום עולם.\r\n\r\n👩‍👩‍👧 said: “não!”\tOk?  \n今日は。晴れ！ ที่นี่ e.g. 3.5 {x}\r"


def joined(units):
    return "".join(a + b for a, b in zip(units.between, [*units.pieces, ""], strict=True))


def pieces(text, by):
    return list(mx.words(text, by=by).pieces)


@pytest.mark.parametrize("by", RULES)
@given(
    text=st.text(alphabet=st.characters(codec="utf-8"), max_size=60)
    | st.text(' .\r\n"aB今。é', max_size=30)
)
@example(text=WILD)
def test_parts_and_what_lies_between_them_give_the_text(by, text):
    spans = RULES[by](text)
    if not text.strip():
        assert spans == []
        return
    units = mx.words(text, by=by)
    assert [unit.span for unit in units] == spans
    assert all(a < b for a, b in spans)
    assert all(one[1] <= two[0] for one, two in pairwise(spans))
    between = units.between
    assert joined(units) == text
    assert not "".join(between).strip(), "nothing but blanks is protected"
    assert [unit.number for unit in units] == list(range(len(units)))
    assert len(set(units.names)) == len(units)


def test_words():
    assert pieces("It never\tfails,\r\ndoes  it?", "word") == [
        "It",
        "never",
        "fails,",
        "does",
        "it?",
    ]
    assert pieces("שלום עולם", "word") == ["שלום", "עולם"]
    assert pieces("👩‍👩‍👧 ok 👍🏽!", "word") == ["👩‍👩‍👧", "ok", "👍🏽!"]
    # No blanks: a character each, punctuation and signs with theirs.
    assert pieces("「今日は」晴れ。iPhoneが", "word") == [
        "「今", "日", "は」", "晴", "れ。", "iPhone", "が"
    ]  # fmt: skip


def test_sentences():
    text = (
        'Dr. Smith paid $3.50 in the U.S. for it, e.g. a pie. "Why?" she asked. J. Doe left… '
        "He works at Acme Inc. She does not. Really?! (Yes.) See Fig. 3. so what.\n\nHeading\n\n"
        "Last one i.e. this"
    )
    assert pieces(text, "sentence") == [
        "Dr. Smith paid $3.50 in the U.S. for it, e.g. a pie.",
        '"Why?" she asked.',
        "J. Doe left…",
        "He works at Acme Inc.",
        "She does not.",
        "Really?!",
        "(Yes.)",
        "See Fig. 3. so what.",
        "Heading",
        "Last one i.e. this",
    ]
    assert pieces("今日は晴れ。「本当？」はい！", "sentence") == [
        "今日は晴れ。",
        "「本当？」",
        "はい！",
    ]
    assert pieces("It was he and I. We left.", "sentence") == ["It was he and I.", "We left."]
    assert sentence_ends("no end") == [6]


def test_lines_keep_their_indentation_and_paragraphs_lose_it():
    code = "def f():\r\n    if x:\r\n\r\n        y\n    z\r"
    assert pieces(code, "line") == ["def f():", "    if x:", "        y", "    z"]
    assert pieces("  one\r\ntwo \r\n \r\n\r\n three\n\n", "paragraph") == ["one\r\ntwo", "three"]


def test_documents_and_their_sentences():
    documents = ["One. Two", "Three."]
    units = mx.words(documents, by="document")
    assert (units.text, list(units.pieces)) == ("One. Two\n\nThree.", documents)
    assert pieces(documents, "sentence") == ["One.", "Two", "Three."]


def test_turns_without_the_system():
    turns = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hi. You?"},
        {"role": "assistant", "content": "Yes."},
    ]
    units = mx.words(turns, by="turn")
    assert list(units.pieces) == ["Hi. You?", "Yes."]
    assert units.between[0] == "Be short.\n\n"
    assert [role for role, _ in units.turns] == ["system", "user", "assistant"]


def test_marked_pieces():
    units = mx.words("The {{quick}} fox, {{the\nlazy}} dog.", by="span")
    assert units.text == "The quick fox, the\nlazy dog."
    assert list(units.pieces) == ["quick", "the\nlazy"]
    assert units.between == ("The ", " fox, ", " dog.")
    assert units.names == ("quick", "the lazy")


def test_tokens_that_share_a_character_are_one_unit(gpt2):
    text = "apple bird boat"
    units = mx.words(text, by="token", tokenizer=gpt2)
    assert joined(units) == text
    assert units.names == ("apple", "bird", "boat")


def test_labels_are_short_and_differ():
    units = mx.words("a b a (2) a " + "x" * 90 + " " + "x" * 91)
    assert units.names[:5] == ("a", "b", "a (2)", "(2)", "a (3)")
    assert len(units.names[5]) < 45
    assert units.names[6] == units.names[5] + " (2)"


def test_a_part_of_the_units_protects_the_others():
    units = mx.words("one two three four")
    assert units[2:].between == ("one two ", " ", "")
    assert units[["four", "one"]].names == ("one", "four")
    assert units[1].label == "two"
    # Kept and read again they are the same units.
    again = UnitSet.from_list(units.to_list())
    assert again == units
    assert units == again
    assert hash(again) == hash(units)
    assert units != units[1:]


@pytest.mark.parametrize(
    ("text", "by", "message"),
    [
        ("", "word", "is empty"),
        (" \n", "word", "is empty"),
        (["one", ""], "document", r"text\[1\].* is empty"),
        ("one", "letter", "choose token, word, sentence"),
        ("one", "document", "give a list of texts"),
        ("one", "turn", "needs a conversation"),
        ([{"role": "user", "content": "one"}], "word", "parted by 'turn'"),
        ([{"role": "system", "content": "one"}], "turn", "every turn is an instruction"),
        ("none here", "span", "write {{…}} around each"),
        ("a {{b", "span", "is not closed"),
        ("a {{}} b", "span", "is empty"),
        ("one", "token", "needs the model"),
        (7, "word", "give a text"),
        ([], "word", "give a text"),
        ([1], "word", "give a text"),
    ],
)  # fmt: skip
def test_what_cannot_be_parted_is_refused(text, by, message):
    with pytest.raises(Refused, match=message):
        mx.words(text, by=by)


def test_spans_over_one_another_are_refused():
    from mechspex.prompts.text_units import TextUnits

    units = mx.words("one two three")
    with pytest.raises(Refused, match="give spans in order"):
        TextUnits((units[1], units[0]), units.text, "word")
    with pytest.raises(Refused, match="give spans in order"):
        TextUnits(units.units, "one", "word")
    with pytest.raises(Refused, match="take units from mx.words"):
        TextUnits(tuple(mx.parts(["one"])), "one", "word")
