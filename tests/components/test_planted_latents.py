"""Latents whose directions are planted in a model: what they do together is found, and no more."""

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

import mechspex as mx
from mechspex.models.shipped import TINY

# Directions of the stream. Each token carries what it is; GATE is read by one neuron.
CONSTANT, SALT, WATER, BREAD, UNUSED, SOUP, MEAL = range(0, 14, 2)
WIDTH, LARGE = 16, 100.0


def plus_and_minus(direction):
    """A direction whose numbers sum to zero, so that norms do not take its mean away."""
    one = torch.zeros(WIDTH)
    one[direction], one[direction + 1] = 1, -1
    return one / 2**0.5


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory):
    """A model that says *soup* where salt and water are in the stream together, bread or no bread.

    No attention, no MLP but in the second block, where one neuron is relu(salt + water − 1.5). A
    large constant in every embedding keeps the norms from mixing anything else.
    """
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    config = GPT2Config(
        vocab_size=206, n_positions=32, n_embd=WIDTH, n_layer=2, n_head=2, n_inner=2,
        activation_function="relu", bos_token_id=1, eos_token_id=1, tie_word_embeddings=False,
    )  # fmt: skip
    model: Any = GPT2LMHeadModel(config).eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.constant_(parameter, float("ln" in name and "weight" in name))
    # What a norm divides by: the root of the mean square, of which the constant is nearly all.
    norm = LARGE / WIDTH**0.5
    apple, bird = tokenizer(" apple bird", add_special_tokens=False).input_ids
    stream = LARGE * plus_and_minus(CONSTANT)
    with torch.no_grad():
        model.transformer.wte.weight[:] = stream
        mlp = model.transformer.h[1].mlp
        reads = plus_and_minus(SALT) + plus_and_minus(WATER)
        mlp.c_fc.weight[:, 0], mlp.c_fc.bias[0] = norm * reads, -1.5
        mlp.c_proj.weight[0] = 4 * plus_and_minus(SOUP)
        model.transformer.wte.weight[apple] += sum(map(plus_and_minus, (SALT, WATER, BREAD)))
        model.lm_head.weight[bird] = norm * (plus_and_minus(SOUP) + plus_and_minus(BREAD) / 2)
    bridge = mx.load_model(model, tokenizer=tokenizer)
    prompts = ["moon lake apple", "key tree apple", "wood wall apple", "lake door apple"]
    return bridge, mx.Task(prompts, [" bird"] * 4, [" boat"] * 4)


@pytest.fixture(scope="module")
def planted():
    """A dictionary of exactly those directions, and one that nothing reads."""
    directions = torch.stack([plus_and_minus(d) for d in (SALT, WATER, BREAD, UNUSED, MEAL)])
    hook = "blocks.0.hook_resid_post"
    return mx.Dictionary(hook, hook, directions.T.contiguous(), torch.tensor([0, 0, 0, 1.0, 0]),
                         directions, LARGE * plus_and_minus(CONSTANT))  # fmt: skip


def test_what_is_planted_is_found_and_nothing_else(kitchen, planted):
    model, task = kitchen
    units = mx.latents(model, planted)
    salt, water, bread, unused, meal, error = range(6)
    values = mx.ComponentValues(model, task, units, "zero")
    kept = np.ones((1, 6), dtype=bool)
    # relu(1 + 1 − 1.5) · 4 of soup, and half of the bread.
    assert values(kept).mean() == pytest.approx(2.5, rel=0.02)
    exact = mx.sweep(values, order=2)
    effects = dict(zip(exact.terms, exact.effects.tolist(), strict=True))
    assert effects[salt, water] == pytest.approx(2, rel=0.02)
    assert effects[(salt,)] == pytest.approx(-2, rel=0.02)
    assert effects[(bread,)] == pytest.approx(-0.5, rel=0.02)
    others = [abs(e) for term, e in effects.items() if len(term) == 2 and term != (salt, water)]
    assert max(others) < 0.02
    # A latent that fires and is read by nothing, one that never fires: not even alone.
    assert max(abs(effects[(unused,)]), abs(effects[(meal,)])) < 0.02
    assert effects[(error,)] == pytest.approx(0, abs=0.02), "nothing is left of the stream"
    # Gradients name the pair first: exact in one of both, a slope in the other.
    found = mx.screen(values, n_terms=3)
    assert found.to_pandas()["units"][0] == "L0.latent0 × L0.latent1"
    chosen = mx.latents(model, planted, task=task, n_latents=3, by="attribution", error=False)
    assert chosen.names == ("L0.latent0", "L0.latent1", "L0.latent2")


def test_where_latents_fire(kitchen, planted):
    model, task = kitchen
    words = mx.active_words(model, mx.latents(model, planted, [0, 4]), task.prompts)
    assert words[["unit", "token"]].to_numpy().tolist() == [["L0.latent0", " apple"]]
    assert words["activation"][0] == pytest.approx(1, rel=1e-3)
    assert str(words["around"][0]).endswith("⟦ apple⟧")


def test_a_dictionary_survives_its_file(kitchen, planted, tmp_path):
    model, task = kitchen
    planted.save(tmp_path)
    assert set(load_file(tmp_path / "sae_weights.safetensors")) == {
        "W_enc", "W_dec", "b_enc", "b_dec",
    }  # fmt: skip
    read = mx.latents(model, tmp_path)
    masks = np.random.default_rng(0).random((8, 6)) < 0.5
    values = [
        mx.ComponentValues(model, task, u, "zero") for u in (read, mx.latents(model, planted))
    ]
    assert np.array_equal(values[0](masks), values[1](masks))
    assert values[0].configuration == values[1].configuration


def test_the_shipped_dictionary_leaves_a_model_of_its_width_untouched():
    config = LlamaConfig(
        vocab_size=206, hidden_size=576, num_hidden_layers=16, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=32, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    torch.manual_seed(0)
    model = mx.load_model(LlamaForCausalLM(config).eval(), tokenizer=tokenizer)
    task = mx.Task(["moon lake apple", "key tree apple"], [" bird"] * 2, [" boat"] * 2)
    latents = mx.latents(model, "smollm2-135m-l15", range(40))
    values = mx.ComponentValues(model, task, latents + mx.heads(model, layers=[3]), "zero")
    kept = np.ones((2, values.n_units), dtype=bool)
    kept[1, 40] = False
    untouched = mx.ComponentValues(model, task, "heads", "zero")(np.ones((1, 32), bool))
    assert np.array_equal(values(kept[:1]), untouched)
    found = values(kept)
    # Two masks are another batch than one, and round otherwise.
    np.testing.assert_allclose(found[:1], untouched, rtol=1e-5)
    assert np.abs(found[1] - untouched).min() > 1e-3, "the error is ablated"
