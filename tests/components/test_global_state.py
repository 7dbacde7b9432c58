"""What a user has set for the whole process is neither moved nor in the way."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from small_models import ANSWERS, DISTRACTORS, PROMPTS
from transformers import AutoModelForCausalLM

import mechspex as mx

TASK = mx.Task(PROMPTS, ANSWERS, DISTRACTORS)


def states():
    # Python's own generator is left out: the checks of types that tests run under draw from it.
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002 # pyright: ignore
        "dtype": torch.get_default_dtype(),
        "device": str(torch.get_default_device()),
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "onednn": torch.backends.mkldnn.flags is not None and torch.backends.mkldnn.enabled,
    }


def all_masks_of(values):
    return mx.sample_masks(len(values.units), 20, keep=0.5, seed=1)


def values_of(model):
    return mx.ComponentValues(model, TASK, mx.heads(model), "zero")


@pytest.fixture(scope="module")
def loaded(llama_folder):
    return mx.load_model(llama_folder)


ACTIONS = {
    "load a folder": lambda folder, model: mx.load_model(folder),
    "load the tiny model": lambda folder, model: mx.load_model("tiny"),
    "wrap a model in memory": lambda folder, model: mx.load_model(
        AutoModelForCausalLM.from_pretrained(folder)
    ),
    "prepare and measure": lambda folder, model: values_of(model)(all_masks_of(values_of(model))),
    "differentiate": lambda folder, model: values_of(model).value_and_gradient(
        all_masks_of(values_of(model))
    ),
    "explain": lambda folder, model: mx.explain(values_of(model), n_masks=256, seed=1),
    "screen": lambda folder, model: mx.screen(values_of(model), "first_order"),
    "cut a model short": lambda folder, model: values_of(model).early_exit(1),
}


@pytest.mark.parametrize(
    ("action", "mode"),
    [(action, nullcontext) for action in ACTIONS]
    + [(action, torch.inference_mode) for action in ACTIONS if action != "explain"],
)
def test_nothing_global_is_moved(action, mode, llama_folder, loaded):
    ACTIONS[action](llama_folder, loaded)  # whatever is imported once
    threads = torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(2)
    try:
        with mode():
            before = states()
            ACTIONS[action](llama_folder, loaded)
            assert states() == before
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(threads)


def test_the_probe_sees_a_state_that_moves():
    """The negative control: one draw, and the states differ."""
    before = states()
    torch.rand(1)
    assert {name for name, state in states().items() if state != before[name]} == {"torch"}


@pytest.mark.parametrize("ablation", ["zero", "mean"])
@pytest.mark.parametrize("where", ["prepared", "measured", "both", "loaded too"])
def test_values_and_gradients_are_the_same_in_inference_mode(ablation, where, llama_folder, loaded):
    units = mx.heads(loaded)
    masks = mx.sample_masks(len(units), 20, keep=0.5, seed=1)
    expected = mx.ComponentValues(loaded, TASK, units, ablation)

    def mode(*places):
        return torch.inference_mode() if where in places else nullcontext()

    with mode("loaded too"):
        model = mx.load_model(llama_folder)
    with mode("prepared", "both", "loaded too"):
        values = mx.ComponentValues(model, TASK, units, ablation)
    with mode("measured", "both", "loaded too"):
        measured, (ours, gradients) = values(masks), values.value_and_gradient(masks)
        short = values.early_exit(1)
        short_gradients = short.value_and_gradient(masks)[1]
    assert np.allclose(measured, expected(masks), atol=1e-5)
    whole, slopes = expected.value_and_gradient(masks)
    assert np.allclose(ours, whole, atol=1e-5)
    assert np.allclose(gradients, slopes, atol=1e-5)
    assert np.abs(slopes).max() > 0.01
    assert np.allclose(
        short_gradients, expected.early_exit(1).value_and_gradient(masks)[1], atol=1e-5
    )


def test_a_model_that_was_read_in_inference_mode_has_gradients(llama_folder, loaded):
    with torch.inference_mode():
        own = AutoModelForCausalLM.from_pretrained(llama_folder)
    values, expected = values_of(mx.load_model(own)), values_of(loaded)
    masks = all_masks_of(values)
    slopes = expected.value_and_gradient(masks)[1]
    assert np.allclose(values.value_and_gradient(masks)[1], slopes, atol=1e-5)


def test_a_default_dtype_of_the_users_changes_no_value(llama_folder, loaded):
    masks = all_masks_of(values_of(loaded))
    expected = values_of(loaded)(masks)
    torch.set_default_dtype(torch.float64)
    try:
        model = mx.load_model(llama_folder)
        assert model.cfg.dtype == torch.float32
        assert np.allclose(values_of(model)(masks), expected, atol=1e-5)
        assert np.allclose(values_of(loaded)(masks), expected, atol=1e-5)
    finally:
        torch.set_default_dtype(torch.float32)
