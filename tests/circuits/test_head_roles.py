"""Roles of heads: the tiny model's are known, and patterns are held against sums written out."""

import numpy as np
import pandas as pd
import pytest
import torch
from small_models import device_of

import mechspex as mx
from mechspex.circuits import head_roles
from mechspex.errors import Refused


def test_the_heads_of_the_tiny_model_have_the_roles_they_were_trained_for(tiny):
    task = mx.load_task("induction", tiny, n_prompts=16, seed=3)
    frame = mx.head_roles(tiny, task, mx.heads(tiny)).set_index("unit")
    assert frame.loc["L0H1", "role"] == "previous_token"
    assert "from each token to the one before" in frame.loc["L0H1", "evidence"]
    # The last token repeats, so what followed its first occurrence is the answer itself.
    assert frame.loc["L1H3", "role"] == "induction"
    assert frame.loc["L1H3", "to_answer"] > 0.9
    assert frame.loc["L1H3", "to_following"] > 0.5


def test_shares_are_those_of_the_pattern(llama):
    task = mx.Task(
        prompts=["apple bird boat apple bird", "moon lake key lamp key"],
        answers=[" boat", " lake"],
        distractors=[" apple", " wood"],
        prepend_bos=False,
    )
    heads = mx.heads(llama)[:4]
    seen = []
    hook = "blocks.0.attn.hook_pattern"
    for prompt in task.prompts:
        tokens = llama.tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
        point = llama.hook_dict[hook]
        grab = point.register_forward_hook(lambda _m, _i, output: seen.append(output[0]))
        with torch.no_grad():
            llama.original_model(tokens.to(device_of(llama)))
        grab.remove()
    first, second = (pattern.float().cpu().numpy() for pattern in seen)
    assert first.shape[1] == 5
    frame = mx.head_roles(llama, task, heads)
    previous = [(p[:, 2, 1] + p[:, 3, 2] + p[:, 4, 3]) / 3 for p in (first, second)]
    assert np.allclose(frame["to_previous"], np.mean(previous, axis=0), atol=1e-5)
    duplicate = [(first[:, 3, 0] + first[:, 4, 1]) / 2, second[:, 4, 2]]
    assert np.allclose(frame["to_duplicate"], np.mean(duplicate, axis=0), atol=1e-5)
    following = [(first[:, 3, 1] + first[:, 4, 2]) / 2, second[:, 4, 3]]
    assert np.allclose(frame["to_following"], np.mean(following, axis=0), atol=1e-5)
    answer = [first[:, 4, 2], second[:, 4, 1]]
    assert np.allclose(frame["to_answer"], np.mean(answer, axis=0), atol=1e-5)
    # The second prompt does not hold its distractor.
    assert np.allclose(frame["to_distractor"], first[:, 4, 0] + first[:, 4, 3], atol=1e-5)


def test_the_sign_of_the_effect_tells_movers_apart(tiny):
    # No word repeats, and L1H3 looks at one of them: that is the answer here.
    task = mx.Task(["bird road spoon moon key"], [" spoon"], [" boat"], prepend_bos=True)
    plain = mx.head_roles(tiny, task, mx.heads(tiny)).set_index("unit")
    movers = plain.query("role == 'name_mover'").index
    assert "L1H3" in movers
    effects = dict.fromkeys(movers, 0.5)
    turned = mx.head_roles(tiny, task, mx.heads(tiny), effects).set_index("unit")
    assert (turned.loc[movers, "role"] == "negative_name_mover").all()
    others = turned.index.difference(movers)
    assert (turned.loc[others, "role"] == plain.loc[others, "role"]).all()


def test_prompts_without_repeats_have_no_such_shares(llama):
    task = mx.Task(prompts=["apple bird boat"], answers=[" moon"])
    frame = mx.head_roles(llama, task, mx.heads(llama), None)
    columns = ["to_duplicate", "to_following", "to_answer", "to_distractor"]
    assert frame[columns].isna().to_numpy().all()
    assert frame["to_previous"].notna().all()


def test_only_heads_have_roles(llama):
    task = mx.Task(prompts=["apple bird boat"], answers=[" moon"])
    for units in (mx.mlps(llama), mx.heads(llama)[:0]):
        with pytest.raises(Refused, match="roles are those of heads"):
            mx.head_roles(llama, task, units)


def test_prompts_of_one_length_are_looked_at_together_as_far_as_there_is_room(llama, monkeypatch):
    prompts = ["apple bird boat apple bird", "moon lake key lamp key", "road tree road",
               "lake moon bird moon apple", "key lamp key"]  # fmt: skip
    answers = [" boat", " lamp", " tree", " bird", " lamp"]
    task = mx.Task(prompts, answers, [" apple"] * 5, prepend_bos=False)
    rows, plain = [], head_roles.record

    def counted(model, hooks, tokens):
        rows.append(tuple(tokens.shape))
        return plain(model, hooks, tokens)

    monkeypatch.setattr(head_roles, "record", counted)
    heads = mx.heads(llama)
    together = mx.head_roles(llama, task, heads)
    assert rows == [(3, 5), (2, 3)]
    # As many numbers as the patterns of two prompts of five tokens have.
    monkeypatch.setattr(head_roles, "_NUMBERS", 2 * len(heads) * 25)
    rows.clear()
    again = mx.head_roles(llama, task, heads)
    assert rows == [(2, 5), (1, 5), (2, 3)]
    monkeypatch.setattr(head_roles, "_NUMBERS", 1)
    rows.clear()
    alone = mx.head_roles(llama, task, heads)
    assert [n for n, _ in rows] == [1] * 5
    for other in (again, alone):
        pd.testing.assert_frame_equal(together, other, atol=1e-5)
