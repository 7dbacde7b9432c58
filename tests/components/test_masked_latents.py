"""A model with some latents ablated, on any text."""

from typing import Any

import numpy as np
import pytest
import torch
from architectures import (
    ANSWERS,
    DISTRACTORS,
    PROMPTS,
    TASK,
    load_saved,
    save_architecture,
)
from latent_oracle import LatentOracle, random_dictionary, save_cross_layer

import mechspex as mx
from mechspex.errors import AblationError

POST = ("blocks.0.hook_resid_post",)
TRANSCODER = ("blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out")
LONGER = "apple bird boat apple moon lake"
CASES = [("llama", POST, "topk"), ("gpt2", TRANSCODER, "jumprelu"), ("gptj", POST, "relu")]


def tokens_of(model, *texts):
    device = next(model.original_model.parameters()).device
    return torch.tensor([model.tokenizer(text).input_ids for text in texts], device=device)


def measured_by(masked, model):
    """The logit difference of every prompt of the task."""
    logits = [masked.logits(tokens_of(model, prompt))[0] for prompt in TASK.prompts]
    ends = [
        [tokens_of(model, text.strip())[0, -1] for text in pair]
        for pair in zip(ANSWERS, DISTRACTORS, strict=True)
    ]
    pairs = zip(logits, ends, strict=True)
    return np.array([float(one[right] - one[wrong]) for one, (right, wrong) in pairs])


@pytest.mark.parametrize(("name", "hooks", "rule"), CASES)
def test_its_logits_are_those_of_the_raw_model(name, hooks, rule, tmp_path):
    folder = save_architecture(name, tmp_path)
    model: Any = load_saved(folder)
    dictionary = random_dictionary(*hooks, rule=rule)
    units = mx.heads(model, layers=[0]) + mx.latents(model, dictionary, [0, 3, 5, 11, 17])
    mask = np.random.default_rng(4).random((1, len(units))) < 0.4
    ablated = np.flatnonzero(~mask[0]).tolist()
    values = mx.ComponentValues(model, TASK, units, "zero")
    masked = values.masked_model(ablated)
    expected = LatentOracle(folder, TASK, units.units, dictionary).values(mask, "zero")[0]
    assert measured_by(masked, model) == pytest.approx(expected, abs=2e-4)
    assert np.abs(values(mask | True)[0] - expected).min() > 1e-2
    # Hooks give the same to TransformerLens, on one text after another, and are spent by none.
    for texts in ((f"{LONGER} {LONGER}",), (PROMPTS[0], PROMPTS[1]), (LONGER,)):
        tokens = tokens_of(model, *texts)
        logits = model.run_with_hooks(tokens, fwd_hooks=masked.hooks)[:, -1]
        assert torch.allclose(logits, masked.logits(tokens), atol=1e-4)
        assert not torch.allclose(model(tokens)[:, -1], logits, atol=1e-2)
    with pytest.raises(AblationError, match="no place for latents"):
        masked.save(tmp_path / "pruned")
    assert not (tmp_path / "pruned").exists()


def test_a_circuit_of_cross_layer_latents_is_a_model(tmp_path):
    model: Any = load_saved(save_architecture("llama", tmp_path / "model"))
    folder = save_cross_layer(tmp_path / "layers", 2)
    read = [mx.load_dictionary(folder, f"blocks.{n}.mlp.hook_in") for n in range(2)]
    units = mx.latents(model, read[0], [0, 3, 7]) + mx.latents(model, read[1], [2, 5])
    values = mx.ComponentValues(model, TASK, units, "position_mean")
    circuit = mx.Circuit(units, (1, 2, 5))
    masked = circuit.model(values)
    mask = np.isin(np.arange(len(units)), circuit.members)[None]
    assert masked.ablated == tuple(units.names[n] for n in range(len(units)) if not mask[0, n])
    assert measured_by(masked, model) == pytest.approx(values(mask)[0], abs=2e-4)
    assert np.abs(values(mask) - values(mask | True)).min() > 1e-3
    assert isinstance(masked.generate(LONGER, 3), str)
    # References differ by position, and hooks serve texts of any length.
    hooks = masked.hooks
    for text in (PROMPTS[0], f"{LONGER} {LONGER}", PROMPTS[0]):
        logits = model.run_with_hooks(tokens_of(model, text), fwd_hooks=hooks)[:, -1]
        assert torch.allclose(logits, masked.logits(tokens_of(model, text)), atol=1e-4)


def test_with_all_kept_it_is_the_model(tiny, tiny_task):
    dictionary = random_dictionary("blocks.0.hook_resid_post", d=tiny.cfg.d_model)
    values = mx.ComponentValues(tiny, tiny_task, mx.latents(tiny, dictionary, [1, 2]), "zero")
    tokens = tokens_of(tiny, tiny_task.prompts[0])
    same = values.masked_model([])
    assert torch.equal(same.logits(tokens), tiny(tokens)[:, -1])
    assert torch.equal(tiny.run_with_hooks(tokens, fwd_hooks=same.hooks), tiny(tokens))
