"""What a model says next under ablation, against forwards with hooks of our own."""

import pytest
import torch
from small_models import ANSWERS, DISTRACTORS, PROMPTS, device_of

import mechspex as mx
from mechspex.errors import Refused, UnknownUnitError


@pytest.fixture(scope="module")
def task():
    return mx.Task(PROMPTS, ANSWERS, DISTRACTORS, prepend_bos=False)


def by_hook(model, prompt, layer, head):
    """Probabilities of the next token with one head zeroed by hand."""
    tokens = model.tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids

    def zero(activation, hook):
        activation[:, :, head] = 0
        return activation

    with torch.no_grad(), model.hooks(fwd_hooks=[(f"blocks.{layer}.attn.hook_z", zero)]):
        return model(tokens.to(device_of(model)))[0, -1].float().softmax(-1).cpu()


def test_tokens_are_those_of_the_model_with_the_head_ablated(tiny, task):
    values = mx.ComponentValues(tiny, task, "heads", ablation="zero")
    found = values.next_tokens("L1H3", 4)
    assert found["prompt"].tolist() == [prompt for prompt in PROMPTS for _ in range(4)]
    assert found["rank"].tolist() == [1, 2, 3, 4] * len(PROMPTS)
    for prompt, rows in found.groupby("prompt"):
        best = by_hook(tiny, prompt, 1, 3).topk(4)
        assert rows["token"].tolist() == [tiny.tokenizer.decode([i]) for i in best.indices]
        assert rows["probability"].tolist() == pytest.approx(best.values.tolist(), abs=1e-5)


def test_without_the_induction_head_the_answer_is_gone(tiny, task):
    values = mx.ComponentValues(tiny, task, "heads")
    assert values.next_tokens(n_tokens=1)["token"].tolist() == ANSWERS
    assert values.next_tokens(["L1H3"], n_tokens=1)["token"].tolist() != ANSWERS


def test_lengths_forced_answers_and_hooks_change_nothing(tiny, task):
    prompts, answers = ["apple bird", *PROMPTS], [" boat key", *ANSWERS]
    mixed = mx.Task(prompts, answers, metric="answer_log_probability", prepend_bos=False)
    values = mx.ComponentValues(tiny, mixed, "heads", ablation="zero")
    alone = mx.ComponentValues(tiny, task, "heads", ablation="zero")
    expected = alone.next_tokens("L0H1")
    assert values.next_tokens("L0H1")[3:].reset_index(drop=True).round(5).equals(expected.round(5))
    with (
        pytest.warns(UserWarning, match="hooks"),
        tiny.hooks(fwd_hooks=[("blocks.0.attn.hook_z", lambda z, hook: z)]),
    ):
        assert alone.next_tokens("L0H1").round(5).equals(expected.round(5))


def test_what_is_no_unit_or_number_is_refused(tiny, task):
    values = mx.ComponentValues(tiny, task, "heads", ablation="zero")
    with pytest.raises(UnknownUnitError, match="L9H9"):
        values.next_tokens("L9H9")
    for wrong in (0, 10**6):
        with pytest.raises(Refused, match="whole number from 1 to"):
            values.next_tokens(n_tokens=wrong)
