"""Two models: planted changes are found and nothing else; equal weights differ by nothing."""

from typing import Any

import numpy as np
import pytest
import torch
from result_laws import check_laws

import mechspex as mx
from mechspex.core.masks import all_masks
from mechspex.core.units import subsets_of
from mechspex.errors import BudgetError, Refused, TaskError, UnknownUnitError
from mechspex.explanation.compare_models import _masks
from mechspex.truth import known_model
from mechspex.truth.known_model import LogitOf
from mechspex.truth.letter_models import VOCABULARY, draw_sequences

QUICK: Any = {"n_masks": 100, "decoder": "pursuit"}


def scaled(model, head, layer, factor):
    """The model with the output weights of one head multiplied."""
    end = (
        f"layers.{layer}._original_component.attn._original_component.o._original_component.weight"
    )
    weight = next(w for name, w in model.original_model.named_parameters() if name.endswith(end))
    width = weight.shape[1] // model.cfg.n_heads
    with torch.no_grad():
        weight[:, head * width : (head + 1) * width] *= factor
    return model


def letters(n_prompts):
    """Random letters, and the logit of one of them: no head's mean effect on it is zero."""
    rows = draw_sequences(n_prompts, torch.Generator().manual_seed(2)).tolist()
    prompts = [" ".join(VOCABULARY[token] for token in row[:-1]) for row in rows]
    answers = [f" {VOCABULARY[row[-1]]}" for row in rows]
    return mx.Task(prompts, answers, metric=LogitOf(5), prepend_bos=False)


@pytest.fixture(scope="module")
def control():
    return known_model("additive")


@pytest.fixture(scope="module")
def task(tiny):
    return mx.load_task("induction", tiny, n_prompts=24)


@pytest.fixture(scope="module")
def halved(tiny, task):
    """The second half of the induction circuit writes half as much."""
    other = scaled(mx.load_model("tiny"), 3, 1, 0.5)
    return other, mx.compare_models(tiny, other, task, **QUICK)


@pytest.mark.parametrize("head", [3, 5])
def test_the_head_that_was_scaled_is_found_and_no_other(control, head):
    other = scaled(known_model("additive").model, head, 0, 1.5)
    found = mx.compare_models(control.model, other, letters(40), "heads", "zero", **QUICK)
    assert found.changed_units == (f"L0H{head}",)
    assert found.changed_interactions == ()


def test_equal_weights_differ_by_exactly_nothing(tiny, task):
    same = mx.compare_models(tiny, tiny, task, **QUICK)
    assert not same.changed
    assert not same.changes.output_effects.any()
    assert same.clean.to_list() == [0, 0, 0]
    assert same.clean.p_value == 1
    assert len(same.recovery.function) == 1
    assert "same under every mask" in str(same)


def test_changes_are_those_of_all_masks(tiny, task, halved):
    other, found = halved
    fresh = task[12:]
    heads = mx.heads(tiny)
    every = all_masks(len(heads))
    values = [mx.ComponentValues(model, fresh, heads)(every) for model in (tiny, other)]
    value = {
        tuple(np.flatnonzero(~mask).tolist()): after.astype(float) - before
        for mask, before, after in zip(every, *values, strict=True)
    }
    for term, change in zip(found.changes.terms, found.changes.output_effects, strict=True):
        exact = sum(
            (-1) ** (len(term) - len(subset)) * value[subset] for subset in subsets_of(term)
        )
        assert change == pytest.approx(exact, abs=2e-4)
    assert found.clean.value == pytest.approx(value[()].mean(), abs=1e-4)


def test_the_circuit_whose_second_half_was_halved_is_found_with_its_interaction(halved):
    _, found = halved
    assert set(found.changed_units) == {"L0H1", "L1H3"}
    assert found.changed_interactions[0] == "L0H1 × L1H3"
    assert found.recovery.r2 > 0.99 > 0.9 > found.recovery.additive_r2


def test_a_difference_is_a_result(halved, tmp_path):
    check_laws(halved[1], tmp_path)


def test_a_run_keeps_it_and_measures_nothing_again(tiny, task, halved, tmp_path, monkeypatch):
    monkeypatch.setenv("MECHSPEX_RUNS", str(tmp_path))
    other, found = halved
    kept = mx.compare_models(tiny, other, task, **QUICK, run="two")
    assert kept.changed == found.changed
    assert mx.load("two") == kept
    monkeypatch.setattr(mx.ComponentValues, "__call__", None)
    assert mx.compare_models(tiny, other, task, **QUICK, run="two") == kept


def test_no_mask_that_is_decoded_scores_the_difference():
    """Of ten units kept at 0.8 two random masks are often the same."""
    masks, others, _ = _masks(10, 500, seed=0)
    assert len(others) == 100
    assert not (masks[:, None] == others).all(axis=2).any()


@pytest.mark.parametrize("decoder", ["automatic", "pursuit", "exhaustive"])
@pytest.mark.parametrize("n_units", [1, 2, 4])
def test_few_units_are_compared_under_all_masks(tiny, task, halved, n_units, decoder):
    """Two units have four masks, four units sixteen: fewer than any random search needs."""
    names = ("L1H3", "L0H1", "L0H0", "L1H0")[:n_units]
    found = mx.compare_models(tiny, halved[0], task, names, n_masks=50, decoder=decoder)
    every = all_masks(n_units)
    before, after = (
        mx.ComponentValues(model, task[:12], names)(every).astype(float)
        for model in (tiny, halved[0])
    )
    assert found.recovery.function.predict(every) == pytest.approx(
        (after - before).mean(axis=1), abs=2e-4
    )
    assert found.recovery.exact
    assert found.recovery.n_train == 2**n_units
    assert found.recovery.r2 == pytest.approx(1)
    assert f"under all {2**n_units} masks: exact" in str(found)


def test_few_units_that_are_equal_differ_by_nothing(tiny, task):
    same = mx.compare_models(tiny, tiny, task, ["L0H1", "L1H3"])
    assert not same.changed
    assert "same under every mask" in str(same)


def test_too_few_masks_for_a_decoder_are_told_before_any_is_measured(tiny, task, monkeypatch):
    monkeypatch.setattr(mx.ComponentValues, "__call__", None)
    with pytest.raises(BudgetError, match="n_masks = 50: decoder 'exhaustive' needs at least 256"):
        mx.compare_models(tiny, tiny, task, n_masks=50, decoder="exhaustive")


def test_models_of_another_shape_are_refused_with_what_differs(tiny, task, gpt2):
    with pytest.raises(UnknownUnitError, match="tiny 8, .* 6, and only one of them L0H3"):
        mx.compare_models(tiny, gpt2, task)
    with pytest.raises(UnknownUnitError, match="L1H3"):
        mx.compare_models(tiny, gpt2, task, ["L1H3"])
    with pytest.raises(TaskError, match="3 prompts: two are searched"):
        mx.compare_models(tiny, tiny, task[:3])
    with pytest.raises(Refused, match="n_masks = 20: give at least 50"):
        mx.compare_models(tiny, tiny, task, n_masks=20)
