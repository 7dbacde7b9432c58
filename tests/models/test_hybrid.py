"""Models whose layers are not all of one kind: the units there are, and no others."""

import numpy as np
import pytest
import torch
from small_models import ANSWERS, DISTRACTORS, PROMPTS, save_random
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import mechspex as mx
from mechspex.errors import UnknownUnitError
from mechspex.models.shipped import TINY

TASK = mx.Task(PROMPTS, ANSWERS, DISTRACTORS)


def save_lfm2(folder, kinds):
    config = AutoConfig.for_model(
        "lfm2", vocab_size=206, hidden_size=32, intermediate_size=24, num_hidden_layers=len(kinds),
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32, block_ff_dim=24,
        layer_types=kinds, bos_token_id=1, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    return save_random(AutoModelForCausalLM.from_config, config, folder)


ATTENTION, CONVOLUTION = "full_attention", "conv"


@pytest.mark.parametrize(
    "kinds",
    [
        [ATTENTION, CONVOLUTION, ATTENTION],
        [CONVOLUTION, CONVOLUTION, ATTENTION],
        [CONVOLUTION, ATTENTION, CONVOLUTION],
        [ATTENTION, ATTENTION, ATTENTION],
    ],
)
def test_heads_are_those_of_the_layers_with_attention(kinds, tmp_path):
    model = mx.load_model(save_lfm2(tmp_path, kinds))
    layers = [number for number, kind in enumerate(kinds) if kind == ATTENTION]
    units = mx.heads(model)
    assert units.names == tuple(f"L{layer}H{head}" for layer in layers for head in range(4))
    assert [unit.layer for unit in mx.mlps(model)] == [0, 1, 2]
    values = mx.ComponentValues(model, TASK, "heads+mlps", "zero")
    assert len(values.units) == 4 * len(layers) + 3
    whole, empty = values(np.array([[True], [False]]) & np.ones((1, len(values.units)), bool))
    assert not np.allclose(whole, empty)
    for layer in range(3):
        if layer in layers:
            assert mx.heads(model, layers=layer) == units[[f"L{layer}H{h}" for h in range(4)]]
            continue
        said = f"layer {layer} of .* has no heads; layers with heads: {layers[0]}"
        with pytest.raises(UnknownUnitError, match=said):
            mx.heads(model, layers=[layer])
        with pytest.raises(UnknownUnitError, match=f"no unit 'L{layer}H0'"):
            mx.ComponentValues(model, TASK, [f"L{layer}H0"], "zero")


@pytest.mark.parametrize("shared", [0, 1, 2])
def test_layers_that_share_keys_and_values_are_measured_alone_as_beside_others(shared, tmp_path):
    """A late layer reads keys that an early one made, which must then not be skipped."""
    config = AutoConfig.for_model(
        "gemma4_text", vocab_size=206, hidden_size=32, intermediate_size=24, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, global_head_dim=8,
        layer_types=["sliding_attention", "full_attention"] * 2, sliding_window=3,
        hidden_size_per_layer_input=8, vocab_size_per_layer_input=206, num_kv_shared_layers=shared,
        max_position_embeddings=32, pad_token_id=0, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        own = AutoModelForCausalLM.from_config(config)
        for parameter in own.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    own.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(TINY).save_pretrained(tmp_path)
    model = mx.load_model(tmp_path)
    values = mx.ComponentValues(model, TASK, mx.heads(model), "zero")
    assert (values.through_bridge is None) == (shared == 0)
    n_units = len(values.units)
    for first in (4, 8, 12, 15):  # nothing below this unit is ablated
        late = np.ones((2, n_units), bool)
        late[0, first:], late[1, first] = False, False
        everything = np.zeros((1, n_units), bool)
        beside = values(np.concatenate([late, everything]))[:2]
        assert np.allclose(values(late), beside, atol=2e-5 * np.abs(beside).max())
