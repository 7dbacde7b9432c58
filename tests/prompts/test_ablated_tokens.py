"""Units hidden from attention or replaced at their embeddings: prompts as tasks of one prompt."""

from typing import Any

import numpy as np
import pytest
import torch
from value_function_laws import check_gradient_laws, check_laws

import mechspex as mx
from mechspex.core.masks import sample_masks
from mechspex.errors import TaskError
from mechspex.models.tokenizer import own_tokenizer

CONTEXT, QUESTION, RESPONSE = "apple bird boat moon lake", " snow flag", " bird cat"
MASKS = np.concatenate([np.ones((1, 5), bool), sample_masks(5, 6, keep=0.5, seed=0)])


def values_of(model, **options):
    usual: dict[str, Any] = {"by": "word", "response": RESPONSE}
    return mx.PromptValues(model, CONTEXT, QUESTION, **usual | options)


@pytest.mark.parametrize("ablation", ["hide", "zero", "mean"])
def test_it_is_the_masked_forward_of_the_whole_prompt(gpt2, ablation):
    values = values_of(gpt2, ablation=ablation)
    task = mx.Task([CONTEXT + QUESTION], [RESPONSE], metric="answer_log_probability")
    words = mx.words(CONTEXT, hidden=ablation == "hide")
    by_hand = mx.ComponentValues(gpt2, task, words, "mean" if ablation == "mean" else "zero")
    assert np.abs(values(MASKS) - by_hand(MASKS)).max() < 1e-5
    assert values.ablated(MASKS[1]) == (CONTEXT + QUESTION,)
    check_laws(values, values_of(gpt2)(MASKS[:1])[0])
    assert len({unit.kind for unit in values.units}) == 1


def test_zero_embeddings_by_hand(gpt2, gpt2_folder):
    from transformers import AutoModelForCausalLM

    raw = AutoModelForCausalLM.from_pretrained(gpt2_folder)
    values = values_of(gpt2, ablation="zero")
    tokens = torch.tensor([gpt2.tokenizer(CONTEXT + QUESTION + RESPONSE).input_ids])
    embedded = raw.get_input_embeddings()(tokens).detach()
    for mask in MASKS:
        # BOS comes first.
        kept = torch.ones(1, tokens.shape[1], 1)
        kept[0, 1:6, 0] = torch.from_numpy(mask).float()
        with torch.inference_mode():
            log_p = raw(inputs_embeds=embedded * kept).logits[0].log_softmax(-1)
        expected = sum(log_p[at - 1, tokens[0, at]].item() for at in (-2, -1))
        assert values(mask[None])[0, 0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("metric", ["log_probability", "logit_probability"])
def test_gradients(gpt2, metric):
    check_gradient_laws(values_of(gpt2, ablation="hide", metric=metric, response=2))


def test_metrics_are_those_of_deletion_where_all_is_kept(gpt2):
    for options in (
        {"metric": "mean_log_probability"},
        {"metric": "logit_probability"},
        {"metric": "logit_difference", "distractor": " boat key"},
        {"metric": "kl_divergence"},
    ):
        hidden, deleted = (values_of(gpt2, ablation=a, **options) for a in ("hide", "delete"))
        assert np.allclose(hidden(MASKS[:1]), deleted(MASKS[:1]), atol=1e-4)


def test_questions_are_outputs(gpt2):
    both = mx.PromptValues(
        gpt2, CONTEXT, [" snow", QUESTION], by="word", response=[" cat", RESPONSE], ablation="hide"
    )
    alone = values_of(gpt2, ablation="hide")
    assert both(MASKS).shape == (7, 2)
    assert np.abs(both(MASKS)[:, 1] - alone(MASKS)[:, 0]).max() < 1e-5


def test_units_are_found_inside_a_chat_template(gpt2_folder):
    model = mx.load_model(gpt2_folder)
    own: Any = own_tokenizer(model.tokenizer)
    own.chat_template = "{% for m in messages %} key {{ m.content.strip() }}{% endfor %} door"
    values = values_of(model, ablation="hide", chat=True)
    assert values.prompts == (f" key {CONTEXT} {QUESTION} door".replace("  ", " "),)
    task = mx.Task(list(values.prompts), [RESPONSE], metric="answer_log_probability")
    words = mx.words(values.prompts[0], hidden=True)[1:6]
    by_hand = mx.ComponentValues(model, task, words, "zero")
    assert np.abs(values(MASKS) - by_hand(MASKS)).max() < 1e-5
    turns = [{"role": "user", "content": text} for text in ("bird", "bird boat", "moon")]
    said = mx.PromptValues(model, turns, " lake", by="turn", response=" cat", ablation="hide")
    task = mx.Task(list(said.prompts), [" cat"], metric="answer_log_probability")
    words = mx.words(said.prompts[0], hidden=True)
    by_word = mx.ComponentValues(model, task, words, "zero")
    mask = np.ones((1, len(words)), bool)
    mask[0, 3:5] = False
    turn = np.array([[True, False, True]])
    assert said(turn)[0, 0] == pytest.approx(by_word(mask)[0, 0], abs=1e-5)
    own.chat_template = "{% for m in messages %} {{ m.content.upper() }}{% endfor %}"
    with pytest.raises(TaskError):
        values_of(model, ablation="hide", chat=True)


@pytest.mark.parametrize("ablation", ["hide", "zero", "mean"])
def test_spans_of_a_response_are_its_parts(gpt2, ablation):
    """log p of the whole is the sum over its spans, each after those before it."""
    whole = values_of(gpt2, ablation=ablation)
    spans = values_of(gpt2, ablation=ablation, spans=[" bird", " cat"])
    assert [name.split(": ")[-1] for name in spans.outputs] == [" bird", " cat"]
    first = values_of(gpt2, ablation=ablation, response=" bird")
    assert np.abs(spans(MASKS)[:, 0] - first(MASKS)[:, 0]).max() < 1e-5
    assert np.abs(spans(MASKS).sum(1) - whole(MASKS)[:, 0]).max() < 2e-5
    deleted = values_of(gpt2, spans=[" bird", " cat"])
    assert spans(MASKS[:1]) == pytest.approx(deleted(MASKS[:1]), abs=1e-4), "where all is kept"
    if ablation == "hide":
        check_gradient_laws(spans)
