"""Ablated components made anew by their recipe: the same values, and no other model's."""

import os

import numpy as np
import pandas as pd
import pytest
import torch
from small_models import ANSWERS, CORRUPTED, DISTRACTORS, PROMPTS, save_gpt2
from thread_workers import Threads
from typer.testing import CliRunner

import mechspex as mx
from mechspex.cli import app
from mechspex.core.masks import sample_masks
from mechspex.core.restricted import RestrictedValues
from mechspex.errors import Refused, WorkerError
from mechspex.executors.pool import Pool


def first_logit(logits, prompts):
    return logits[:, 0]


def failing(logits, prompts):
    if failing.now:  # pyright: ignore[reportFunctionMemberAccess]
        raise ArithmeticError("no metric")
    return logits[:, 0]


failing.now = False  # pyright: ignore[reportFunctionMemberAccess]


@pytest.fixture(scope="module")
def pool():
    opened = Pool(Threads(1))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def model():
    return mx.load_model("tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_gpt2(tmp_path_factory.mktemp("gpt2"), 2)


def task(**others):
    return mx.Task(PROMPTS, ANSWERS, DISTRACTORS, CORRUPTED, **others)


CASES = {
    "mean": lambda model: mx.ComponentValues(model, task(), "heads"),
    "zero, rescaled": lambda model: mx.ComponentValues(
        model, task(answer_tokens="first"), "L0H1,L1H0,L1H3", "zero", rescale=True
    ),
    "resample": lambda model: mx.ComponentValues(model, task(), "heads", "resample", seed=3),
    "corrupted": lambda model: mx.ComponentValues(model, task(), "heads", "corrupted"),
    "calibrated": lambda model: mx.ComponentValues(
        model, task()[:1], "heads", calibration=["moon lake key moon", "wood wall door wood"]
    ),
    "spans": lambda model: mx.ComponentValues(
        model, task(spans=[{"second": (6, 10)}, {"second": "lake"}, {"second": "wall"}]), "heads"
    ),
    "own activations": lambda model: mx.ComponentValues(
        model, task(), "heads",
        {f"blocks.{n}.attn.hook_z": torch.full((1, 1, 4, model.cfg.d_head), 0.5) for n in range(2)},
    ),
    "some units": lambda model: RestrictedValues(
        mx.ComponentValues(model, task(), "heads"), [5, 0, 2]
    ),
    "words": lambda model: mx.PromptValues(
        model, "apple bird boat apple", by="word", response=" bird"
    ),
    "replaced words": lambda model: mx.PromptValues(
        model, "apple bird boat apple", by="word", response=" bird",
        distractor=" wall", metric="logit_difference", ablation=("replace", "door"),
    ),
    "spans of what is said": lambda model: mx.PromptValues(
        model, "apple bird boat apple", by="word", response=" bird boat", spans=["bird", (6, 10)]
    ),
    "hidden words": lambda model: mx.PromptValues(
        model, "apple bird boat apple", by="word", response=" bird", ablation="hide"
    ),
}  # fmt: skip


def assert_close(theirs, own):
    """Up to rounding: products of another number of rows may sum in another order."""
    np.testing.assert_allclose(theirs, own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_recipe_makes_the_same_values(case, model, pool):
    values = CASES[case](model)
    spread = pool.on(values)
    masks = sample_masks(values.n_units, 12, seed=0)
    assert_close(spread(masks), values(masks))
    assert spread.outputs == values.outputs
    assert spread.differentiable == values.differentiable
    if values.differentiable:
        soft = np.random.default_rng(0).random((3, values.n_units), dtype=np.float32)
        for ask in ("value_and_gradient", "value_and_mean_gradient"):
            pairs = zip(getattr(spread, ask)(soft), getattr(values, ask)(soft), strict=True)
            for theirs, own in pairs:
                assert_close(theirs, own)


def test_a_folder_a_shorter_model_and_its_own_dtype(folder, pool):
    model = mx.load_model(folder)
    whole = mx.ComponentValues(model, task(), "heads")
    masks = sample_masks(whole.n_units, 8, seed=0)
    for values in (whole, whole.early_exit(1)):
        assert_close(pool.on(values)(masks), values(masks))
    spread = pool.on(whole)
    assert spread.in_own_dtype is spread


def test_screens_and_pairs_are_those_of_one_process(model, tmp_path):
    values = mx.ComponentValues(model, task(), "heads")

    def answers(folder):
        screens = [
            mx.screen(values, name, run=folder / name) for name in ("second_order", "ablation")
        ]
        return *screens, mx.sweep(values, run=folder)

    serial = answers(tmp_path / "serial")
    with Pool(Threads(1)):
        spread = answers(tmp_path / "spread")
    for theirs, own in zip(spread, serial, strict=True):
        pd.testing.assert_frame_equal(theirs.to_pandas(), own.to_pandas())


def test_an_error_in_a_forward_leaves_no_hook(model, pool):
    values = mx.ComponentValues(model, task(metric=failing), "heads")
    spread, masks = pool.on(values), sample_masks(8, 4, seed=0)
    right = spread(masks)
    try:
        failing.now = True  # pyright: ignore[reportFunctionMemberAccess]
        with pytest.raises(ArithmeticError, match="no metric"):
            spread(masks)
    finally:
        failing.now = False  # pyright: ignore[reportFunctionMemberAccess]
    assert np.array_equal(spread(masks), right)
    from mechspex.models.named import _LOADED

    (theirs,) = _LOADED.values()
    assert theirs is not model
    for bridge in (theirs, model):
        assert not any(point.fwd_hooks for point in bridge.hook_dict.values())


def test_a_model_that_was_changed_in_memory_is_refused(pool):
    model = mx.load_model("tiny")
    with torch.no_grad():
        next(model.original_model.parameters()).mul_(1.5)
    values = mx.ComponentValues(model, task(), "heads")
    with pytest.raises(
        WorkerError, match=r"model: tiny \w+ asked, tiny \w+ made.*saved to a folder"
    ):
        pool.on(values)(sample_masks(8, 2, seed=0))


def test_ready_trainings(pool):
    task = mx.training_task("iris", n_examples=12, seed=2)
    for values in (task.values(), task.held_out()):
        masks = sample_masks(values.n_units, 6, seed=0)
        assert_close(pool.on(values)(masks), values(masks))
    with pytest.raises(Refused, match="does not say how a worker makes it"):
        pool.on(task.values().with_seeds([5]))


def test_a_metric_that_cannot_be_imported_is_refused(model, pool):
    assert pool.on(mx.ComponentValues(model, task(metric=first_logit), "heads"))
    with pytest.raises(Refused, match="lambda.* cannot be imported by a worker"):
        pool.on(mx.ComponentValues(model, task(metric=lambda logits, _: logits[:, 0]), "heads"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_none_is_asked():
    with pytest.raises(Refused, match="0 CUDA devices here, 2 asked for; take processes:N"):
        mx.executor("gpus:2")


def test_the_shell_gives_the_same_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("MECHSPEX_RUNS", str(tmp_path))
    shell = ["sweep", "induction", "--model", "tiny", "--prompts", "4"]
    tables = []
    for name, options in (("one", []), ("two", ["--executor", "processes:1"])):
        file = tmp_path / f"{name}.csv"
        done = CliRunner().invoke(app, [*shell, "--run", name, "--csv", str(file), *options])
        assert not done.exit_code, done.output
        tables.append(pd.read_csv(file))
    pd.testing.assert_frame_equal(*tables)
    refused = CliRunner().invoke(app, [*shell, "--executor", "processes:9999"])
    assert isinstance(refused.exception, Refused)
    assert f"{len(os.sched_getaffinity(0))}" in str(refused.exception)
