"""Answers of several tokens, prompts of several lengths, and what replaces their activations."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import PROMPTS, save_gpt2
from value_function_laws import check_laws

import mechspex as mx
from mechspex.core.masks import sample_masks
from mechspex.errors import AblationError, TaskError
from mechspex.runs.text import subject

# Lengths of four and six tokens, answers of one and of two; some begin alike.
TASK = mx.Task(
    ["apple bird boat apple", "moon lake key moon tree flag", "wood wall door wood", "cat dog cat"],
    [" bird tree", " lake", " wall key", " dog moon"],
    [" boat", " key", " wall apple", " bird lake"],
    ["flag bird boat apple", "tree lake key moon tree flag", "snow wall door wood", "key dog cat"],
)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return mx.load_model(save_gpt2(tmp_path_factory.mktemp("gpt2"), n_layers=2))


@pytest.mark.parametrize("metric", ["logit_difference", "answer_log_probability"])
@pytest.mark.parametrize("ablation", ["mean", "leave_one_out", "position_mean", "resample"])
def test_laws(gpt2, ablation, metric):
    """Soft masks and gradients included, where a prompt has several rows."""
    task = replace(TASK, metric=metric, answers=[[" bird tree", " tree flag"], *TASK.answers[1:]])
    units = mx.heads(gpt2) + mx.heads(gpt2, layers=1, positions=[-1])
    values = mx.ComponentValues(gpt2, task, units, ablation)
    check_laws(values, values(np.ones((1, len(units)), dtype=bool))[0])


def test_through_the_bridge_and_on_the_plain_model_they_are_the_same(gpt2):
    values = mx.ComponentValues(gpt2, TASK, mx.heads(gpt2))
    masks = sample_masks(6, 8, keep=0.6, seed=0)
    plain = values(masks)
    with (
        gpt2.hooks(fwd_hooks=[("blocks.0.hook_out", lambda out, hook: out)]),
        pytest.warns(UserWarning, match="carries hooks"),
    ):
        through = values(masks)
    assert np.abs(plain - through).max() < 1e-4


def reference(model, task, ablation, **options):
    """What layer 0's heads become on each prompt, from the values of the masked forward itself."""
    values = mx.ComponentValues(model, task, mx.heads(model, layers=0), ablation, **options)
    groups = values._proved.forwards.groups
    found = {}
    for group in groups:
        rows = group.plain.ablation.references["blocks.0.attn.hook_z"]
        for place, number in enumerate(group.prompts):
            found[number] = rows[place if len(rows) > 1 else 0]
    return [found[number] for number in range(len(task))]


def z_of(model, text):
    ids = torch.tensor([model.tokenizer(text).input_ids])
    return model.run_with_cache(ids)[1]["blocks.0.attn.hook_z"][0]


NEXT = mx.Task(["apple bird boat", "moon lake key tree", "wood"], [" bird", " lake", " wall"],
               [" boat", " key", " door"])  # fmt: skip


def test_the_mean_of_unequal_prompts_is_taken_piece_by_piece(gpt2):
    first, second, third = (z_of(gpt2, text) for text in NEXT.prompts)
    found = reference(gpt2, NEXT, "mean")
    end = torch.stack([z[-1] for z in (first, second, third)]).mean(0)
    begin = torch.stack([z[0] for z in (first, second, third)]).mean(0)
    between = torch.cat([first[1:-1], second[1:-1], third[1:-1]]).mean(0)
    for z, n in zip(found, (4, 5, 2), strict=True):
        assert len(z) == n
        assert torch.allclose(z, torch.stack([begin, *[between] * (n - 2), end]), atol=1e-6)


def test_a_reader_is_told_that_such_a_mean_keeps_a_share_of_each_prompt(gpt2):
    """By the text that the values themselves write of where the mean is taken from."""
    values = mx.ComponentValues(gpt2, NEXT, mx.heads(gpt2), "mean")
    assert values.configuration["ablation"] == "mean 90fb46d0410b0a8c", "as in runs that are kept"
    told = subject(values.configuration, values.units)
    assert "mean (1/3 or more of it the prompt's own)" in told


@pytest.mark.parametrize("name", ["subject", "first", "end"])
def test_named_spans_are_averaged_with_each_other(gpt2, name):
    task = replace(NEXT, spans=[{name: "bird"}, {name: "lake key"}, {name: "wood"}])
    first, second, third = (z_of(gpt2, text) for text in NEXT.prompts)
    found = reference(gpt2, task, "mean")
    subject = torch.cat([first[2:3], second[2:4], third[1:2]]).mean(0)
    assert torch.allclose(found[0][2], subject, atol=1e-6)
    assert torch.allclose(found[1][2], subject, atol=1e-6)
    assert torch.allclose(found[1][3], subject, atol=1e-6)
    # "wood" is the last token: the span, not the end.
    assert torch.allclose(found[2][1], subject, atol=1e-6)
    assert torch.allclose(found[0][3], torch.stack([first[3], second[4]]).mean(0), atol=1e-6)


def test_the_mean_of_the_others_leaves_each_prompt_out(gpt2):
    task = mx.Task(PROMPTS, [" bird", " lake", " wall"], [" boat", " key", " door"])
    z = [z_of(gpt2, text) for text in PROMPTS]
    found = reference(gpt2, task, "leave_one_out")
    assert torch.allclose(found[0], (z[1] + z[2]) / 2, atol=1e-6)
    assert torch.allclose(found[2], (z[0] + z[1]) / 2, atol=1e-6)


def test_means_over_positions_and_over_calibration_prompts(gpt2):
    one = NEXT[:1]
    z, other = z_of(gpt2, NEXT.prompts[0]), [z_of(gpt2, text) for text in ("tree flag", "key cat")]
    found = reference(gpt2, one, "position_mean")[0]
    assert torch.allclose(found, torch.stack([z[0], *[z[1:].mean(0)] * 3]), atol=1e-6)
    found = reference(gpt2, one, "mean", calibration=["tree flag", "key cat"])[0]
    means = [torch.stack([a[i] for a in other]).mean(0) for i in range(3)]
    assert torch.allclose(found, torch.stack([means[0], means[1], means[1], means[2]]), atol=1e-6)
    drawn = reference(gpt2, one, "resample", calibration=["tree flag", "key cat"])[0]
    assert any(torch.allclose(drawn, a[[0, 1, 1, 2]], atol=1e-6) for a in other)


def test_a_corrupted_prompt_of_another_length_is_matched_at_its_ends(gpt2):
    task = replace(NEXT[:1], corrupted=["apple moon lake boat"])
    z = z_of(gpt2, task.corrupted[0])
    assert torch.allclose(reference(gpt2, task, "corrupted")[0], z[[0, 1, 2, 4]], atol=1e-6)
    spans = {"spans": [{"a": "bird"}], "corrupted_spans": [{"a": "lake"}]}
    found = reference(gpt2, replace(task, **spans), "corrupted")[0]
    assert torch.allclose(found, z[[0, 1, 3, 4]], atol=1e-6)


def test_one_prompt_is_told_which_references_need_no_others(gpt2):
    for ablation in ("mean", "resample", "leave_one_out"):
        with pytest.raises(AblationError, match="single prompt.*calibration.*'position_mean'"):
            mx.ComponentValues(gpt2, NEXT[:1], mx.heads(gpt2), ablation)
    with pytest.raises(AblationError, match="over calibration prompts choose 'mean'"):
        mx.ComponentValues(gpt2, NEXT[:1], mx.heads(gpt2), "leave_one_out", calibration=["key cat"])


def test_a_metric_that_sees_every_position(gpt2):
    def mean_entropy(logits, prompts):
        return torch.distributions.Categorical(logits=logits).entropy().mean(1)

    task = replace(NEXT, metric=mx.AllPositions(mean_entropy))
    values = mx.ComponentValues(gpt2, task, mx.heads(gpt2), "zero")
    whole = values(np.ones((1, 6), dtype=bool))[0]
    for j, text in enumerate(NEXT.prompts):
        ids = torch.tensor([gpt2.tokenizer(text).input_ids])
        p = torch.distributions.Categorical(logits=gpt2(ids, return_type="logits")[0])
        assert whole[j] == pytest.approx(p.entropy().mean().item(), abs=1e-4)
    check_laws(values, whole)


def test_what_a_model_cannot_read_is_refused_with_its_numbers(gpt2):
    long = mx.Task([" ".join(["apple bird"] * 40)] * 3, [" apple"] * 3, [" bird"] * 3)
    with pytest.raises(
        TaskError, match="prompt 0 has 81 tokens, and .* has 32 positions: 'apple bird"
    ):
        mx.ComponentValues(gpt2, long, mx.heads(gpt2), "zero")
    fits = mx.Task(["apple bird " * 15 + "apple"], [" bird boat"], metric="answer_log_probability")
    mx.ComponentValues(gpt2, replace(fits, metric="kl_divergence"), mx.heads(gpt2), "zero")
    with pytest.raises(TaskError, match="prompt 0 has 33 tokens with its answer"):
        mx.ComponentValues(gpt2, fits, mx.heads(gpt2), "zero")
    tiny = mx.load_model("tiny")
    with pytest.raises(TaskError, match="prompt 0 has 81 tokens.*tiny has 64 positions"):
        mx.ComponentValues(tiny, long, mx.heads(tiny), "zero")
    gpt2.tokenizer.add_tokens(["zebra"])
    other = replace(NEXT, prompts=["apple", "zebra", "wood"])
    with pytest.raises(TaskError, match="prompt 1 or its answers have token 206.*tokens 0 … 205"):
        mx.ComponentValues(gpt2, other, mx.heads(gpt2), "zero")
