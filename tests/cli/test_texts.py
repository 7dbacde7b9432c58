"""Texts of one's own in the shell: their parts are the units."""

import json

import pandas as pd
import pytest

import mechspex as mx
from mechspex.errors import Refused

TINY = ("--model", "tiny", "--by", "word")
CONTEXT = "apple bird boat moon"


@pytest.fixture
def file(tmp_path):
    (tmp_path / "own.txt").write_text(CONTEXT + "\n")
    return "own.txt"


def effects(answer):
    return {term["units"]: term["effect"] for term in answer["terms"]}


def test_a_text_is_explained_as_in_python_and_kept(run, tiny):
    ask = ("explain", "--text", CONTEXT, "--question", " apple", "--response", " bird", *TINY)
    code, out, err = run(*ask)
    assert code == 0, err
    assert "read: [<bos>][ apple][ bird][ boat][ moon][ apple] → [ bird]" in out
    assert "4 words" in out
    code, out, _ = run(*ask, "--json")
    again = json.loads(out)
    assert again["cost"]["measured"] == 0
    values = mx.PromptValues(tiny, CONTEXT, " apple", by="word", response=" bird")
    assert effects(again) == pytest.approx(effects(mx.explain(values).to_dict()), abs=1e-4)
    code, out, _ = run(*ask, "--remove", "hide", "--json")
    assert json.loads(out)["configuration"]["ablation"] == "hide"
    assert effects(json.loads(out)) != pytest.approx(effects(again))


def test_a_table_of_contexts_is_explained_row_by_row(run, tmp_path):
    rows = [
        {"context": CONTEXT, "question": " apple", "response": " bird"},
        {"context": "key cow door", "question": " key"},
    ]
    (tmp_path / "many.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ask = ("explain", "--context", "many.jsonl", *TINY, "--response", "2", "--run", "both")
    code, out, err = run(*ask, "--json", "--csv", "many.csv")
    assert code == 0, err
    first, second = json.loads(out)
    assert first["configuration"]["response"] == " bird"
    assert [unit[4] for unit in second["units"]] == ["key", "cow", "door"]
    assert set(pd.read_csv("many.csv")["context"]) == {0, 1}
    code, out, _ = run(*ask)
    assert out.count("read: [<bos>]") == 2
    assert out.count(", 0 masks measured now") == 2


def test_units_within_coarser_parts(run, monkeypatch):
    """The vocabulary of `tiny` ends no sentence: what the library is asked is looked at here."""

    def asked(values, screen, **options):
        raise Refused(f"{values.units} within {screen.units}, {screen.responses}")

    monkeypatch.setattr(mx, "explain", asked)
    ask = ("explain", "--text", CONTEXT, "--question", " apple", *TINY[:2], "--by", "token")
    code, _, err = run(*ask, "--response", " bird", "--within", "word")
    assert code == 2
    assert "UnitSet(4: apple, bird, boat, moon) within UnitSet(4: apple" in err
    assert "(' bird',)" in err


def test_the_parts_of_a_text_are_swept(run, tiny, tmp_path):
    ask = ("sweep", "--text", CONTEXT, "--question", " apple", "--response", " bird", *TINY)
    code, out, err = run(*ask, "--order", "2", "--json")
    assert code == 0, err
    values = mx.PromptValues(tiny, CONTEXT, " apple", by="word", response=" bird")
    expected = mx.sweep(values, order=2)
    found = [term["effect"] for term in json.loads(out)["terms"]]
    assert found == pytest.approx(expected.effects.tolist(), abs=1e-4)
    code, out, err = run(*ask, "--among", "bird,boat", "--order", "2", "--csv", "two.csv")
    assert code == 0, err
    assert pd.read_csv("two.csv")["units"].tolist() == ["bird", "boat", "bird × boat"]
    code, out, err = run(*ask, "--among", "zebra")
    assert code == 2
    assert "zebra" in err
    code, out, err = run("sweep", "induction", "--text", CONTEXT, *TINY)
    assert code == 2
    assert "choose one" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--text", "a b", "--context", "own.txt"), "choose one"),
        (("--context", "missing.txt"), "cannot be read"),
        (("--context", "bad.jsonl"), "line 1 has no context; name its column"),
        (("induction", "--text", "a b"), "choose one"),
        (("--text", "a b", "--prompt", "c"), "--prompt and a text of your own"),
        (("--text", "a b", "--replacement", "c"), "goes with --remove replace"),
        (("induction", "--question", "why?"), "--question goes with --context"),
        (("induction", "--within", "sentence"), "--within goes with --context FILE"),
        (("--text", "a b", "--within", "word", "--screen", "ablation"), "without --screen"),
        (("--text", "  "), "is empty"),
        (("--text", "apple"), "1 unit"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(run, file, tmp_path, options, message):
    (tmp_path / "bad.jsonl").write_text('{"text": "a b"}\n')
    code, out, err = run("explain", *options, *TINY)
    assert (code, out) == (2, "")
    assert message in err
