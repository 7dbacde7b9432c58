"""The hash of a model's weights: taken once, and anew when they have changed."""

import numpy as np
import pytest
import torch

import mechspex as mx
from mechspex.models import weights
from mechspex.models.weights import weights_hash


@pytest.fixture
def counted(monkeypatch):
    taken, take = [], weights._hash
    monkeypatch.setattr(weights, "_hash", lambda model: taken.append(model) or take(model))
    return taken


def test_a_model_is_hashed_once_a_process(gpt2_folder, counted):
    model = mx.load_model(gpt2_folder)
    task = mx.load_task("induction", model, n_prompts=6)
    values = mx.ComponentValues(model, task[:3], mx.mlps(model))
    others = [mx.ComponentValues(model, task[3:], mx.mlps(model)), values.on(task[3:])]
    mx.explain(values, held_out=others[0])
    assert others[0].configuration == others[1].configuration
    assert counted == [model]
    again = mx.load_model(gpt2_folder)
    assert weights_hash(again) == weights_hash(model)
    assert counted == [model, again]


def replaced(parameter):
    parameter.data = parameter.data + 1


def through_numpy(parameter):
    parameter.detach().numpy()[...] = 0


CHANGES = {
    "in place": lambda p: torch.nn.init.zeros_(p),
    "one number": lambda p: p.detach().view(-1)[1:2].mul_(2),
    "around autograd": lambda p: p.data.mul_(2),
    "another tensor": replaced,
    "through numpy": through_numpy,
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_hashed_anew(gpt2_folder, counted, change):
    model = mx.load_model(gpt2_folder)
    before = weights_hash(model)
    parameter = max(model.original_model.parameters(), key=lambda p: p.numel())
    kept = parameter.detach().clone()
    CHANGES[change](parameter)
    assert weights_hash(model) != before
    with torch.no_grad():
        parameter.copy_(kept)
    assert weights_hash(model) == before
    assert len(counted) == 3


def test_weights_made_in_inference_mode_have_a_hash(gpt2_folder):
    model = mx.load_model(gpt2_folder)
    before = weights_hash(model)
    parameter = max(model.original_model.parameters(), key=lambda p: p.numel())
    with torch.inference_mode():
        parameter.data = parameter.data * 2
    assert weights_hash(model) != before
    assert np.isfinite(parameter.detach().numpy()).all()


def test_every_tensor_is_looked_at_under_one_name_and_no_module_twice(gpt2_folder):
    model = mx.load_model(gpt2_folder)
    own = model.original_model
    own.register_buffer("kept", torch.zeros(3))
    own.register_buffer("made_anew", torch.zeros(3), persistent=False)
    named = list(weights._each_once(model))
    state = weights._state(model)
    assert {id(t) for t in state.values()} == {id(t) for _, t in named}
    assert len(named) == len({id(t) for t in state.values()}) < len(state)
    before = weights.weights_of(model)
    own.get_buffer("made_anew").add_(1)
    assert weights.weights_of(model) == before
    own.get_buffer("kept").add_(1)
    assert weights.weights_of(model) != before
    for _, tensor in named:
        before = weights.weights_of(model)
        with torch.no_grad():
            tensor.add_(1)
        assert weights.weights_of(model) != before
