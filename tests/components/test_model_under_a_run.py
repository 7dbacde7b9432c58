"""A model that is changed while a run is open does not write into it."""

import numpy as np
import pytest
import torch

import mechspex as mx
from mechspex.core.identity import Identity
from mechspex.errors import RunError
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.store import VALUES

HOOK = "blocks.0.attn.hook_z"
MASKS = mx.sample_masks(8, 20, keep=0.7, seed=3)

pytestmark = pytest.mark.filterwarnings("ignore:the model carries hooks")


def halve(activation, hook):
    return 0.5 * activation


def nothing(activation, hook):
    return activation


def values_of(model):
    return mx.ComponentValues(model, mx.load_task("induction", model, n_prompts=3), mx.heads(model))


def hooked(model):
    model.add_hook(HOOK, halve)


def mended(model):
    with torch.no_grad():
        model.original_model.state_dict()[next(iter(model.original_model.state_dict()))].mul_(1.5)


@pytest.mark.parametrize("change", [hooked, mended])
def test_what_is_measured_after_the_change_is_not_kept(change, tmp_path):
    model = mx.load_model("tiny")
    recorded = RecordedValues(values_of(model), tmp_path)
    before = recorded(MASKS[:8])
    change(model)
    with pytest.raises(RunError, match="changed while it was measured.*before.*now"):
        recorded(MASKS)
    assert len(recorded._store) == len(np.unique(MASKS[:8], axis=0))
    assert np.array_equal(recorded(MASKS[:8]), before), "what is kept is of the model before"


def test_a_run_of_a_hooked_model_is_not_one_of_the_free(tmp_path):
    model = mx.load_model("tiny")
    values = values_of(model)
    free = values(MASKS).copy()
    model.add_hook(HOOK, halve)
    swept = mx.sweep(values, run=tmp_path)
    assert np.abs(swept.clean - values(np.ones((1, 8), dtype=bool))[0]).max() < 1e-4
    assert "halve" in swept.configuration["hooks"]
    model.reset_hooks()
    with pytest.raises(RunError, match="another configuration"):
        mx.sweep(values, run=tmp_path)
    assert np.abs(values(MASKS) - free).max() < 1e-4
    assert (tmp_path / VALUES).exists()


def test_hooks_are_told_apart_even_where_the_ends_are_the_same(tmp_path):
    model = mx.load_model("tiny")
    mx.sweep(values_of(model), run=tmp_path)
    model.add_hook(HOOK, nothing)
    values = values_of(model)
    with pytest.raises(RunError, match="hooks: None there, .*nothing"):
        mx.sweep(values, run=tmp_path)


def test_a_model_in_a_function_is_held_by_measuring(tmp_path):
    layer = torch.nn.Linear(4, 1)
    with torch.no_grad():  # in eighths, so that the change below leaves the clean value as it is
        layer.weight.copy_(torch.tensor([[0.5, 1.0, -0.25, 0.125]]))
        layer.bias.fill_(0.25)

    def measure(masks):
        with torch.no_grad():
            return layer(torch.tensor(masks, dtype=torch.float32))

    first = mx.explain(measure, units=mx.parts("pqrs"), run=tmp_path)
    assert not Identity.of(measure).certain
    again = mx.explain(measure, units=mx.parts("pqrs"), run=tmp_path)
    assert again.to_pandas().equals(first.to_pandas())
    assert again.cost.measured == 0
    with torch.no_grad():
        layer.weight[0, 1:3] += layer.weight.new_tensor([-0.5, 0.5])
    with pytest.raises(RunError, match="another function"):
        mx.explain(measure, units=mx.parts("pqrs"), run=tmp_path)
