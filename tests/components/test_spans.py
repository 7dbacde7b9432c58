"""Units at named spans of prompts of unequal length, against the raw model, prompt by prompt."""

from typing import Any

import numpy as np
import pytest
import torch
from small_models import device_of
from transformers import AutoModelForCausalLM
from value_function_laws import check_gradient_laws, check_laws

import mechspex as mx
from mechspex.core.masks import sample_masks
from mechspex.core.units import UnitSet
from mechspex.errors import AblationError, Refused
from mechspex.models.shape import Shape
from mechspex.tasks.tokens import tokenize

PROMPTS = ["apple bird boat tree apple", "moon lake key snow tree moon", "wood wall door wood lake"]
SUBJECTS = ["bird boat", "lake key snow", "wall"]
ANSWERS, DISTRACTORS = [" bird", " lake", " wall"], [" boat", " key", " door"]
TASK = mx.Task(PROMPTS, ANSWERS, DISTRACTORS, spans=[{"subject": s} for s in SUBJECTS])
# The words of each prompt that are its subject; what comes before the words is added below.
WORDS = [range(1, 3), range(1, 4), range(1, 2)]
# Each token of each prompt lies in one of them.
PIECES = ["(first token)", "(after (first token))", "subject", "(after subject)", "end"]


def pieces_of(model):
    """The pieces that every prompt has."""
    marked = len(tokenize(TASK, model.tokenizer).prompts[0]) > len(PROMPTS[0].split())
    return [piece for piece in PIECES if marked or piece != "(after (first token))"]


def by_hand(folder, model, units, masks):
    """Zeros before the output projections of the Hugging Face model, one mask and prompt a time."""
    raw: Any = AutoModelForCausalLM.from_pretrained(folder).eval().to(device_of(model))
    tokens = tokenize(TASK, model.tokenizer)
    values = np.empty((len(masks), len(PROMPTS)))
    for number, ids in enumerate(tokens.prompts):
        before = len(ids) - len(PROMPTS[number].split())
        at = {"subject": [before + word for word in WORDS[number]], "end": [len(ids) - 1]}
        for row, mask in enumerate(masks):
            handles = []
            for unit, kept in zip(units, mask, strict=True):
                if not kept:
                    block = raw.transformer.h[unit.layer]
                    module = block.attn.c_proj if unit.kind == "head" else block.mlp.c_proj
                    width = model.cfg.d_head if unit.kind == "head" else 1
                    features = slice(unit.number * width, (unit.number + 1) * width)

                    def zeros(_, inputs, positions=at[unit.position], features=features):
                        changed = inputs[0].clone()
                        changed[:, positions, features] = 0
                        return (changed,)

                    handles.append(module.register_forward_pre_hook(zeros))
            with torch.inference_mode():
                logits = raw(ids[None].to(device_of(model))).logits[0, -1]
            for handle in handles:
                handle.remove()
            right, wrong = tokens.answers[number][0][0], tokens.distractors[number][0][0]
            values[row, number] = float(logits[right] - logits[wrong])
    return values


def test_values_are_those_of_the_raw_model(gpt2, gpt2_folder):
    units = mx.heads(gpt2, spans=["subject", "end"]) + mx.neurons(gpt2, 1, spans="subject")[:5]
    values = mx.ComponentValues(gpt2, TASK, units, "zero")
    masks = sample_masks(len(units), 6, keep=0.5, seed=3)
    measured = values(masks)
    assert np.abs(measured - by_hand(gpt2_folder, gpt2, units, masks)).max() < 2e-4
    assert np.ptp(measured, axis=0).min() > 1e-2


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("ablation", ["mean", "zero", "resample"])
@pytest.mark.parametrize("kind", [mx.heads, mx.neurons, mx.mlps], ids=["heads", "neurons", "mlps"])
def test_all_pieces_together_are_the_unit_everywhere(architecture, kind, ablation, request):
    model = request.getfixturevalue(architecture)
    pieces = pieces_of(model)
    everywhere = mx.ComponentValues(model, TASK, kind(model), ablation)
    placed = mx.ComponentValues(model, TASK, kind(model, spans=pieces), ablation)
    masks = sample_masks(everywhere.n_units, 4, keep=0.5, seed=1)
    both = placed(masks.repeat(len(pieces), axis=1))
    assert np.allclose(both, everywhere(masks), atol=2e-4)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("ablation", ["mean", "zero"])
def test_an_edge_at_all_pieces_is_the_edge_everywhere(architecture, ablation, request):
    model = request.getfixturevalue(architecture)
    pieces = pieces_of(model)
    everywhere = mx.ComponentValues(model, TASK, mx.edges(model), ablation)
    placed = mx.ComponentValues(model, TASK, mx.edges(model, spans=pieces), ablation)
    masks = sample_masks(everywhere.n_units, 4, keep=0.6, seed=1)
    both = placed(masks.repeat(len(pieces), axis=1))
    assert np.allclose(both, everywhere(masks), atol=2e-4)
    assert np.ptp(both, axis=0).min() > 1e-2


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_all_edges_out_of_a_head_at_a_span_are_the_head_there(architecture, request):
    """The stream at a token is what is written there: all that read it read it there."""
    model = request.getfixturevalue(architecture)
    heads = mx.heads(model, spans=["subject", "end"]) + mx.heads(model)
    edges = mx.edges(model, spans=["subject", "end"]) + mx.edges(model)
    masks = sample_masks(len(heads), 5, keep=0.6, seed=2)
    writers = [unit.label.partition("→")[0] for unit in edges]
    at = ["" if unit.position is None else f"@{unit.position}" for unit in edges]
    columns = [
        heads.column_of.get(writer + place) for writer, place in zip(writers, at, strict=True)
    ]
    of_edges = np.array(
        [[True if c is None else mask[c] for c in columns] for mask in masks], dtype=bool
    )
    values = mx.ComponentValues(model, TASK, heads, "mean")(masks)
    assert np.abs(mx.ComponentValues(model, TASK, edges, "mean")(of_edges) - values).max() < 2e-4


def test_gradients_of_edges_at_spans_are_slopes(gpt2):
    check_gradient_laws(
        mx.ComponentValues(gpt2, TASK, mx.edges(gpt2, layers=1, spans="subject") + mx.edges(gpt2))
    )


def test_laws(gpt2):
    units = mx.heads(gpt2, spans=["subject", "end"]) + mx.mlps(gpt2)
    values = mx.ComponentValues(gpt2, TASK, units)
    check_laws(values, values(np.ones((1, len(units)), dtype=bool))[0])


def test_gradients_are_slopes(gpt2):
    check_gradient_laws(mx.ComponentValues(gpt2, TASK, mx.heads(gpt2, spans=["subject", "end"])))


@pytest.mark.parametrize("answers", [ANSWERS, [" bird key", " lake", " wall door"]])
def test_the_end_is_the_last_token_of_the_prompt(gpt2, answers):
    """Also where answers of several tokens are forced after it."""
    task = mx.Task(PROMPTS, answers, metric="answer_log_probability", spans=TASK.spans)
    masks = sample_masks(6, 5, keep=0.5, seed=0)
    end, last = (
        mx.ComponentValues(gpt2, task, units, "zero")(masks)
        for units in (mx.heads(gpt2, spans="end"), mx.heads(gpt2, positions=-1))
    )
    assert np.abs(end - last).max() < 1e-5
    assert np.ptp(end, axis=0).min() > 1e-3


def test_a_prompt_is_ablated_at_its_own_tokens_alone(gpt2):
    """As if it were measured by itself, with its positions by number."""
    values = mx.ComponentValues(gpt2, TASK, mx.heads(gpt2, spans="subject"), "zero")
    masks = sample_masks(6, 5, keep=0.5, seed=0)
    measured = values(masks)
    for number, words in enumerate(WORDS):
        ids = tokenize(TASK, gpt2.tokenizer).prompts[number]
        before = len(ids) - len(PROMPTS[number].split())
        positions = [before + word for word in words]
        alone = mx.ComponentValues(
            gpt2, TASK[number : number + 1], mx.heads(gpt2, positions=positions), "zero"
        )
        expected = alone(masks.repeat(len(positions), axis=1))[:, 0]
        assert np.abs(measured[:, number] - expected).max() < 1e-5


def test_names_of_units_at_spans():
    shape = Shape("some", n_layers=2, n_heads=2, d_mlp=3)
    units = shape.units("heads@S2+mlps@end+heads@-1")
    assert units.names[:2] == ("L0H0@S2", "L0H1@S2")
    assert units.names[4:6] == ("L0MLP@end", "L1MLP@end")
    assert shape.units("l0h1@S2, L1MLP@(after S2), L1N2").names == (
        "L0H1@S2", "L1MLP@(after S2)", "L1N2",
    )  # fmt: skip
    assert units["l0h1@S2"].units[0].position == "S2"
    assert UnitSet.from_list(units.to_list()) == units
    edge = shape.units("l0h1->L1H0.Q@S2")
    assert edge.names == ("L0H1→L1H0.q@S2",)
    assert edge == shape.of_kind("edge", positions=["S2"])[edge.names]
    assert units.named_spans
    assert not shape.units("heads@-1").named_spans


def test_what_the_prompts_do_not_have_is_refused(gpt2):
    with pytest.raises(AblationError, match=r"prompt 0 has no span 'S2'.*it has end, .*subject"):
        mx.ComponentValues(gpt2, TASK, mx.heads(gpt2, spans="S2"))
    unnamed = mx.Task(PROMPTS, ANSWERS, DISTRACTORS)
    with pytest.raises(AblationError, match="no span 'subject'.*load_task"):
        mx.ComponentValues(gpt2, unnamed, mx.heads(gpt2, spans="subject"))
    with pytest.raises(AblationError, match="L0H0@-1 stands twice at position"):
        mx.ComponentValues(gpt2, TASK, mx.heads(gpt2, spans="end") + mx.heads(gpt2, positions=-1))
    with pytest.raises(Refused, match="positions and spans are both given"):
        mx.heads(gpt2, positions=-1, spans="end")
    with pytest.raises(Refused, match="spans = 3: give a name"):
        mx.heads(gpt2, spans=3)  # pyright: ignore[reportArgumentType]


def test_where_spans_lie_is_part_of_what_values_depend_on(gpt2):
    other = mx.Task(
        PROMPTS, ANSWERS, DISTRACTORS, spans=[{"subject": s.split()[0]} for s in SUBJECTS]
    )
    units = mx.heads(gpt2, spans="subject")
    one, two = (mx.ComponentValues(gpt2, task, units, "zero") for task in (TASK, other))
    assert one.configuration != two.configuration


def test_a_task_by_name_is_drawn_with_its_spans(tiny):
    values = mx.ComponentValues(tiny, "induction", "heads@end")
    assert values.task.spans is not None
    assert values.on("induction").task.spans is not None
