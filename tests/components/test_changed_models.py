"""A model that changes after its value function was made: values are those of the model of now."""

import numpy as np
import pytest
import torch
from small_models import ANSWERS, DISTRACTORS, PROMPTS, save_gpt2
from value_function_laws import check_laws

import mechspex as mx
from mechspex.core.masks import sample_masks
from mechspex.errors import ModelError

TASK = mx.Task(PROMPTS, ANSWERS, DISTRACTORS)


@pytest.fixture
def model(tmp_path):
    return mx.load_model(save_gpt2(tmp_path, n_layers=2))


def doubled(out, hook):
    return 2 * out


def change_weights(model):
    with torch.no_grad():
        model.original_model.transformer.h[0].mlp.c_fc.weight.mul_(1.5)


def add_a_hook(model):
    model.add_hook("blocks.0.hook_mlp_out", doubled)


@pytest.mark.parametrize("change", [change_weights, add_a_hook])
@pytest.mark.parametrize("ablation", ["mean", "resample"])
@pytest.mark.filterwarnings("ignore:the model carries hooks")
def test_values_are_those_of_a_new_value_function(model, change, ablation):
    values = mx.ComponentValues(model, TASK, mx.heads(model), ablation)
    masks = sample_masks(6, 5, keep=0.6, seed=0)
    before, configuration = values(masks), values.configuration
    change(model)
    new = mx.ComponentValues(model, TASK, mx.heads(model), ablation)
    assert np.abs(values(masks) - new(masks)).max() < 1e-5
    assert np.abs(before - new(masks)).max() > 1e-3
    assert values.configuration == new.configuration != configuration
    check_laws(values, values(np.ones((1, 6), dtype=bool))[0])


def test_a_hook_that_is_gone_leaves_no_trace(model):
    values = mx.ComponentValues(model, TASK, mx.heads(model))
    masks = sample_masks(6, 5, keep=0.6, seed=0)
    before, configuration = values(masks), values.configuration
    with model.hooks(fwd_hooks=[("blocks.0.hook_mlp_out", doubled)]):
        with pytest.warns(UserWarning, match="carries hooks"):
            hooked = values(masks)
        assert values.through_bridge is not None
    assert np.abs(hooked - before).max() > 1e-3
    assert np.array_equal(values(masks), before)
    assert values.configuration == configuration
    assert values.through_bridge is None


def test_an_early_exit_follows_new_weights_and_refuses_hooks(model):
    proxy = mx.ComponentValues(model, TASK, mx.heads(model, layers=0)).early_exit(1)
    whole = np.ones((1, 3), dtype=bool)
    before = proxy(whole)
    change_weights(model)
    new = mx.ComponentValues(model, TASK, mx.heads(model, layers=0)).early_exit(1)
    assert np.abs(proxy(whole) - new(whole)).max() < 1e-5
    assert np.abs(proxy(whole) - before).max() > 1e-3
    add_a_hook(model)
    with pytest.raises(ModelError, match="carries hooks now"):
        proxy(whole)
