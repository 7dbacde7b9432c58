"""The real model, fetched once: indirect object identification on SmolLM2-135M."""

import numpy as np
import pytest
from small_models import device_of

import mechspex as mx
from mechspex.core.masks import ablate_sets, single_ablations
from mechspex.tasks.tokens import tokenize


@pytest.fixture(scope="module")
def model(device):
    return mx.load_model("smollm2-135m", device=device)


@pytest.fixture(scope="module")
def values(model):
    task = mx.load_task("ioi", model, n_prompts=4)
    return mx.ComponentValues(model, task, mx.heads(model))


def test_it_does_the_task_and_its_heads_carry_it(values):
    clean, ablated = values(np.repeat([[True], [False]], 270, axis=1))
    assert clean.min() > 1, "the indirect object is likelier on every prompt"
    assert clean.mean() > 3.5
    assert ablated.mean() < 0.3 * clean.mean()


def test_values_are_those_of_a_loop_over_single_prompts(model, values):
    """The loop a user would write with the bridge alone: one mask, one prompt, one hook a layer."""
    import torch

    masks = mx.sample_masks(270, 3, keep=0.9, seed=0)
    tokens = tokenize(values.task, model.tokenizer)
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(30)]
    with torch.inference_mode():
        prompts = torch.stack(tokens.prompts).to(device_of(model))
        _, cache = model.run_with_cache(prompts, names_filter=names)
        means = [cache[name].mean(0) for name in names]

        def ablate(layer, keep):
            def hook(z, hook):
                z[:, :, ~keep] = means[layer][:, ~keep]
                return z

            return hook

        for mask, measured in zip(masks, values(masks), strict=True):
            by_layer = torch.from_numpy(mask).reshape(30, 9).to(device_of(model))
            hooks = [(name, ablate(k, by_layer[k])) for k, name in enumerate(names)]
            for j, prompt in enumerate(prompts):
                logits = model.run_with_hooks(prompt[None], fwd_hooks=hooks)[0, -1]
                expected = logits[tokens.answers[j]] - logits[tokens.distractors[j]]
                assert measured[j] == pytest.approx(expected.item(), abs=2e-3)


def test_validated_effects_are_exact_ablations(values):
    """A few heads of the last layers, pair by pair, against the definition."""
    heads = [values.units.column_of[name] for name in ("L20H3", "L22H6", "L25H2")]
    whole = values(np.ones((1, 270), dtype=bool))[0]
    alone = values(single_ablations(270)[heads]) - whole
    joint = values(ablate_sets(270, [heads[:2]]))[0] - whole
    found = mx.validate(values, [(h,) for h in heads] + [tuple(heads[:2])])
    assert np.allclose(found.output_effects[:3], alone, atol=2e-3)
    assert np.allclose(found.output_effects[3], joint - alone[0] - alone[1], atol=4e-3)
