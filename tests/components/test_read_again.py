"""Proved once: the same prompts by another metric, the same components under another reference."""

from dataclasses import replace

import numpy as np
import pytest

import mechspex as mx
from mechspex.components import clean_pass, masked_forward, proof
from mechspex.components.few_masks import SharedPasses
from mechspex.components.forwards import Forwards
from mechspex.components.under_reference import under_reference
from mechspex.core.masks import sample_masks

# Lengths of four, six and three tokens; answers of one.
TASK = mx.Task(
    ["apple bird boat apple", "moon lake key moon tree flag", "wood wall door wood", "cat dog cat"],
    [" bird", " lake", " wall", " dog"],
    [" boat", " key", " apple", " tree"],
    ["flag bird boat apple", "tree lake key moon tree flag", "snow wall door wood", "key dog cat"],
)
MASKS = sample_masks(6, 6, keep=0.5, seed=0)


@pytest.fixture
def proofs(monkeypatch):
    """The tasks that forwards without the bridge are proved on."""
    shortened, seen = proof._shortened, []

    def counted(plain, rounding):
        seen.append(plain.task)
        return shortened(plain, rounding)

    monkeypatch.setattr(proof, "_shortened", counted)
    return seen


@pytest.mark.parametrize("ablation", ["zero", "mean", "corrupted"])
@pytest.mark.parametrize("metric", ["kl_divergence", "answer_probability"])
def test_by_another_metric_they_are_those_of_a_new_one_and_are_not_proved_again(
    gpt2, proofs, ablation, metric
):
    task = replace(TASK, metric=metric)
    new = mx.ComponentValues(gpt2, task, "heads", ablation)
    values = mx.ComponentValues(gpt2, TASK, "heads", ablation)
    proofs.clear()
    read = values.on(task)
    assert not proofs
    assert read.configuration == new.configuration
    np.testing.assert_allclose(read(MASKS), new(MASKS), rtol=1e-4, atol=1e-5)
    back = read.on(TASK)
    np.testing.assert_allclose(back(MASKS), values(MASKS), rtol=1e-4, atol=1e-5)
    assert not proofs


def test_other_prompts_and_other_answers_are_proved_anew(gpt2, proofs):
    values = mx.ComponentValues(gpt2, TASK, "heads", "zero")
    others = [
        replace(TASK[:3], metric="kl_divergence"),
        replace(TASK, answers=TASK.answers[::-1]),
        replace(TASK, prepend_bos=not TASK.prepend_bos),
    ]
    for task in others:
        proofs.clear()
        values.on(task)
        assert proofs == [task]


def test_a_metric_that_reads_other_rows_is_proved_anew(gpt2, proofs):
    """Answers of two tokens are forced after the prompts; the divergence reads prompts alone."""
    forced = replace(TASK, answers=[" bird tree", *TASK.answers[1:]])
    values = mx.ComponentValues(gpt2, forced, "heads", "zero")
    task = replace(forced, metric="kl_divergence")
    proofs.clear()
    read = values.on(task)
    assert proofs == [task]
    new = mx.ComponentValues(gpt2, task, "heads", "zero")
    np.testing.assert_allclose(read(MASKS), new(MASKS), rtol=1e-4, atol=1e-5)


def test_forwards_that_do_not_give_both_ends_are_proved_anew(gpt2, proofs, monkeypatch):
    values = mx.ComponentValues(gpt2, TASK, "heads", "zero")
    task = replace(TASK, metric="kl_divergence")
    monkeypatch.setattr(Forwards, "read_by", lambda self, _metric: self)
    proofs.clear()
    read = values.on(task)
    assert proofs == [task]
    new = mx.ComponentValues(gpt2, task, "heads", "zero")
    np.testing.assert_allclose(read(MASKS), new(MASKS), rtol=1e-4, atol=1e-5)


def test_in_another_precision_the_error_is_measured_in_the_new_metric(gpt2):
    coarse = mx.ComponentValues(gpt2, TASK, "heads", "zero", precision="bf16")
    task = replace(TASK, metric="kl_divergence")
    error = coarse.on(task).precision_error
    assert error is not None
    assert coarse.precision_error is not None
    assert error.rms != coarse.precision_error.rms


@pytest.mark.parametrize("reference", ["zero", "mean", "resample", "corrupted"])
def test_under_another_reference_they_are_those_of_a_new_one(gpt2, proofs, reference):
    values = mx.ComponentValues(gpt2, TASK, "heads", "position_mean")
    proofs.clear()
    few = under_reference(values, reference, seed=3)
    assert not proofs
    new = mx.ComponentValues(gpt2, TASK, "heads", reference, seed=3)
    assert few.configuration == new.configuration
    assert few.through_bridge == "few masks are measured"
    np.testing.assert_allclose(few(MASKS), new(MASKS), rtol=1e-4, atol=1e-5)
    task = replace(TASK, metric="kl_divergence")
    by_divergence = mx.ComponentValues(gpt2, task, "heads", reference, seed=3)
    np.testing.assert_allclose(few.on(task)(MASKS), by_divergence(MASKS), rtol=1e-4, atol=1e-5)


def test_under_their_own_reference_they_are_themselves(gpt2):
    def of(ablation, **options):
        return mx.ComponentValues(gpt2, TASK, "heads", ablation, **options)

    mean, drawn = of("mean"), of("resample", seed=1)
    assert under_reference(mean, "mean", seed=5) is mean
    assert under_reference(drawn, "resample", seed=1) is drawn
    assert under_reference(drawn, "resample", seed=2) is not drawn
    assert under_reference(of("mean", rescale=True), "mean", seed=0).rescale is False
    assert under_reference(mean.early_exit(1), "mean", seed=0).n_blocks is None
    assert under_reference(of("mean", precision="bf16"), "mean", seed=0).precision is None


def test_references_share_clean_passes_and_a_mask_runs_once_for_both_metrics(gpt2, monkeypatch):
    """Counted in rows: the prompts once in all, and once for each mask under each reference."""
    clean, masked = [], []
    for module, seen in ((clean_pass, clean), (masked_forward, masked)):
        monkeypatch.setattr(module, "edited_logits", _counting(module.edited_logits, seen))
    values = mx.ComponentValues(gpt2, TASK, "heads", "position_mean")
    by_divergence = replace(TASK, metric="kl_divergence")
    kept = np.concatenate([[[True] * 6, [False] * 6], MASKS[:1]])
    shared, read = SharedPasses(), {}
    clean.clear()
    for reference in ("zero", "mean"):
        masked.clear()
        few = under_reference(values, reference, seed=0, shared=shared)
        few(kept)
        read[reference] = few.on(by_divergence)(kept)
        assert sum(masked) == len(kept) * len(TASK)
    assert sum(clean) == len(TASK)
    for reference, divergences in read.items():
        new = mx.ComponentValues(gpt2, by_divergence, "heads", reference)
        np.testing.assert_allclose(divergences, new(kept), rtol=1e-4, atol=1e-5)


def _counting(forward, seen):
    def counted(model, tokens, *args, **options):
        seen.append(len(tokens))
        return forward(model, tokens, *args, **options)

    return counted
