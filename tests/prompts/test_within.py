"""Sentences first, then the words of those that matter; and other models of the same text."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import mechspex as mx
from mechspex.errors import Refused

NAMES = "abcdefghijkl"
TEXT = " ".join(f"Here {name}1 stands by {name}2 alone." for name in NAMES)


def planted(texts):
    """Words of the sentences of d and h: two alone, and a pair across both."""
    kept = [set(text.split()) for text in texts]
    return [
        2.0 * ("d1" in k) - 1.5 * ("h2" in k) + 3.0 * ({"d2", "h1"} <= k) + 0.01 * ("b1" in k)
        for k in kept
    ]


def of(by, text=TEXT, metric=planted):
    return mx.PromptValues(None, text, by=by, metric=metric)


def test_words_within_the_sentences_that_matter_are_found(tmp_path):
    words = of("word")
    search = {"screen": words.parted("sentence"), "decoder": "pursuit", "n_masks": 300}
    answer = mx.explain(words, **search, run=tmp_path / "run")
    assert answer.units.names == tuple(w for w in words.units.names if w in inside("d", "h"))
    assert answer.screening is not None
    assert answer.screening.method == "coarser parts"
    assert answer.screening.n_units == 72
    assert answer.screening.explained > 0.99
    exact = {"d1": -2.0, "h2": 1.5, "d2": -3.0, "h1": -3.0, "d2 × h1": 3.0}
    found = answer.to_pandas().set_index("units")["effect"].to_dict()
    assert found == pytest.approx(exact, abs=1e-5)
    assert answer.cost.masks < 500, "2,556 pairs of words were never looked at"
    agrees = answer.screening.agrees
    assert agrees is not None
    assert agrees.exact == pytest.approx([-5.0, -1.5, -3.5], abs=1e-5), "d, h, and both"
    assert agrees.predicted == pytest.approx(agrees.exact, abs=1e-3)
    assert "agree on 3 sets: rank correlation 1.00" in str(answer)
    assert mx.Explanation.load(tmp_path / "run") == answer


def inside(*names):
    spans = [u.span for u in of("sentence").units if any(f"{n}1" in u.label for n in names)]
    return {u.name for u in of("word").units if any(a <= u.span[0] < b for a, b in spans)}


def test_more_sentences_are_taken_until_they_explain_the_whole():
    def every(texts):
        return [float(sum(f"{name}1" in text for name in NAMES)) for text in texts]

    words = of("word", metric=every)
    answer = mx.explain(words, screen=words.parted("sentence"), decoder="additive", n_masks=160)
    assert len(answer.units) == 72
    assert answer.screening is not None
    assert answer.screening.explained == pytest.approx(1)


def test_the_prediction_of_whole_sentences_can_be_wrong():
    """Any word of the sentence will do, so no mask that keeps most words shows what it is worth."""

    def redundant(texts):
        return [
            3.0 * ("d1" in t or "d2" in t) + 1.0 * ("h1" in t) + 0.5 * ("b1" in t) for t in texts
        ]

    words = of("word", metric=redundant)
    answer = mx.explain(words, screen=words.parted("sentence"), decoder="additive", n_masks=160)
    assert answer.screening is not None
    agrees = answer.screening.agrees
    assert agrees is not None
    assert agrees.exact.min() < -2.9
    assert np.abs(agrees.predicted - agrees.exact).max() > 1


def test_what_are_no_coarser_parts_is_refused():
    words = of("word")
    with pytest.raises(Refused, match="give both the same text"):
        mx.explain(words, screen=of("sentence", text=TEXT[:-7] + "."))
    text = "A cat sat. A dog ran. A cow ate."
    marked = mx.words("{{A cat}} {{sat. A dog}} {{ran.}} A {{cow}} {{ate.}}", by="span")
    across = mx.PromptValues(None, marked, metric=lambda texts: [len(t) for t in texts])
    with pytest.raises(Refused, match=r"'sat. A dog' lies in no single part"):
        mx.explain(across, screen=of("sentence", text, lambda texts: [len(t) for t in texts]))
    with pytest.raises(Refused, match="give both the same units"):
        mx.explain(of("sentence"), screen=words)


def test_other_parts_of_the_same_prompt(tiny):
    asked = mx.PromptValues(
        tiny, "apple bird boat apple", [" moon", " lake"], by="word", response=[" bird", " cat"],
        ablation=("replace", "door"), metric="logit_difference", distractor=[" cat", " bird"],
    )  # fmt: skip
    whole = asked.parted("word")
    masks = np.array([[True] * 4, [True, False, True, True]])
    assert np.array_equal(whole(masks), asked(masks))
    assert whole.outputs == asked.outputs
    hidden = mx.PromptValues(tiny, "apple bird boat apple", by="word", ablation="hide")
    assert hidden.parted("token").responses == hidden.responses
    turns = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    said: Any = SimpleNamespace(_asked=SimpleNamespace(units=mx.words(turns, by="turn")))
    with pytest.raises(Refused, match="no other parts than its turns"):
        mx.PromptValues.parted(said, "sentence")


def test_a_smaller_model_of_the_same_text_is_a_proxy(tiny, gpt2):
    """Two models that share nothing but their words: the proxy is measured, and not trusted."""
    ask = ("apple bird boat moon lake key apple", " wood")
    large, small = (
        mx.PromptValues(model, *ask, by="word", response=" bird") for model in (tiny, gpt2)
    )
    agrees = mx.agreement(small, large)
    assert len(agrees.terms) == 7
    exact = mx.sweep(large).to_pandas()["effect"].to_numpy()
    assert np.sort(agrees.exact) == pytest.approx(np.sort(exact), abs=1e-4)
    answer = mx.explain(large, screen=small, decoder="additive", n_masks=90)
    assert "the proxy agrees with the model on" in str(answer)
