"""Attention as a score, against the maps of raw transformers models."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

import mechspex as mx
from mechspex.errors import Refused

CONTEXT, QUESTION, RESPONSE = "apple bird boat moon lake", " snow flag", " bird boat apple"


def values_of(model, **options):
    usual: dict[str, Any] = {"by": "word", "response": RESPONSE}
    return mx.PromptValues(model, CONTEXT, QUESTION, **usual | options)


def raw_attention(folder, text, response):
    """The mean map over layers and heads, and where each token of a word stands; by hand."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    read = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    before = read(text).input_ids
    ids = before + read(response, add_special_tokens=False).input_ids
    with torch.no_grad():
        maps = model(torch.tensor([ids]), output_attentions=True).attentions
    mean = torch.stack(maps).mean(dim=(0, 1, 2)).numpy()
    # The last token is scored and never read; the one before each scored token predicts it.
    return mean[len(before) - 1 : -1], before


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_it_is_the_mean_of_the_raw_maps(architecture, request):
    folder = request.getfixturevalue(f"{architecture}_folder")
    model = request.getfixturevalue(architecture)
    paid, before = raw_attention(folder, CONTEXT + QUESTION, RESPONSE)
    first = len(before) - 7  # five words of the context and two of the question, a token each
    found = mx.attention_scores(values_of(model))
    assert found.units.names == tuple(CONTEXT.split())
    assert found.scores == pytest.approx(paid.mean(0)[first : first + 5], abs=1e-5)
    assert 0 < found.scores.sum() < 1
    spans = mx.attention_scores(values_of(model, spans=[" bird", " boat apple"]))
    expected = np.stack([paid[0], paid[1:].mean(0)], axis=1)[first : first + 5]
    assert spans.output_scores == pytest.approx(expected, abs=1e-5)


def test_a_unit_of_several_tokens_is_paid_their_sum(gpt2):
    words = mx.attention_scores(values_of(gpt2))
    pairs = mx.words("{{apple bird}} boat {{moon lake}}", by="span")
    parts = mx.attention_scores(mx.PromptValues(gpt2, pairs, QUESTION, response=RESPONSE))
    expected = [words.scores[:2].sum(), words.scores[3:].sum()]
    assert parts.scores == pytest.approx(expected, abs=1e-6)


def test_questions_and_the_next_token(gpt2, gpt2_folder):
    found = mx.attention_scores(values_of(gpt2, metric="kl_divergence", response=None))
    paid, before = raw_attention(gpt2_folder, CONTEXT + QUESTION, " bird")
    first = len(before) - 7
    assert found.scores == pytest.approx(paid[0, first : first + 5], abs=1e-5)
    asked = mx.PromptValues(
        gpt2, CONTEXT, [QUESTION, " door"], by="word", response=[RESPONSE, " key"]
    )
    found = mx.attention_scores(asked)
    assert found.outputs == (QUESTION, " door")
    assert found.output_scores[:, 0] == pytest.approx(mx.attention_scores(values_of(gpt2)).scores)


def test_no_mask_is_measured_and_no_hook_stays(gpt2):
    values = values_of(gpt2)
    run, clean = values.tokens_run, values(np.ones((1, 5), bool))
    assert mx.attention_scores(values).n_masks == 1
    assert values.through_bridge is None, "a hook left behind would send values through the bridge"
    assert (values(np.ones((1, 5), bool)) == clean).all()
    assert values.tokens_run < 3 * run


def test_what_reads_without_attention_is_refused():
    text = mx.PromptValues(None, CONTEXT, by="word", metric=lambda texts: [len(t) for t in texts])
    with pytest.raises(Refused, match="pays no attention; give PromptValues a model"):
        mx.attention_scores(text)
    with pytest.raises(Refused, match="parts of a prompt"):
        mx.attention_scores(mx.FunctionValues(lambda m: m.sum(1), 3))  # pyright: ignore[reportArgumentType]
