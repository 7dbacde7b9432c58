"""Latents of cross-layer transcoders, against the raw model with each latent written by itself."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from architectures import (
    TASK,
    load_saved,
    rounding,
    save_architecture,
)
from latent_oracle import CrossLayerOracle, save_cross_layer
from safetensors.torch import load_file, save_file

import mechspex as mx
from mechspex.errors import AblationError, DictionaryError

N_LAYERS = 3
LAYERS = {"gpt2": "n_layer", "gptj": "n_layer"}
CASES = [("llama", "relu", ablation) for ablation in ("zero", "mean", "corrupted", "resample")]
CASES += [
    ("gpt2", "jumprelu", "mean"),
    ("gptj", "relu", "corrupted"),
    ("gemma2 long window", "jumprelu", "mean"),
    ("qwen3", "relu", "zero"),
]


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    @functools.cache
    def build(name, rule="relu"):
        folder = tmp_path_factory.mktemp("cross")
        deep = {LAYERS.get(name, "num_hidden_layers"): N_LAYERS}
        save_architecture(name, folder / "model", **deep)
        transcoder = save_cross_layer(folder / "clt", N_LAYERS, rule=rule)
        layers = [
            mx.load_dictionary(transcoder, f"blocks.{layer}.mlp.hook_in")
            for layer in range(N_LAYERS)
        ]
        return folder / "model", load_saved(folder / "model"), layers

    return build


def every(model, layers, **options):
    """All latents and errors of all layers."""
    units = [mx.latents(model, one, **options) for one in layers]
    return sum(units[1:], units[0])


def some_masks(n_units, seed=0):
    """All, none, random ones of three densities, and each of the last three alone ablated."""
    rng = np.random.default_rng(seed)
    dense = rng.random((6, n_units)) < np.array([[0.9], [0.5], [0.1]] * 2)
    ends = np.ones((1, n_units), bool), np.zeros((1, n_units), bool)
    return np.concatenate([*ends, dense, ~np.eye(n_units, dtype=bool)[-3:]])


@pytest.mark.parametrize(("name", "rule", "ablation"), CASES)
def test_values_are_those_of_the_raw_model(name, rule, ablation, build):
    folder, model, layers = build(name, rule)
    units = mx.latents(model, layers[0], [0, 3, 5]) + mx.latents(model, layers[2], [1, 2])
    units = units + mx.latents(model, layers[1], [4, 6, 9], error=False)
    units = units + mx.latents(model, layers[1], [7], positions=[-1, 2])
    masks = some_masks(len(units))
    values = mx.ComponentValues(model, TASK, units, ablation)
    assert values.through_bridge is None
    oracle = CrossLayerOracle(folder, TASK, units.units, layers)
    ways = [[1, 2, 0], [2, 0, 1]] if ablation == "resample" else [None]
    expected = [oracle.values(masks, ablation, others) for others in ways]
    off = [np.abs(values(masks) - one).max() for one in expected]
    assert min(off) < rounding(expected[0])
    assert np.ptp(expected[int(np.argmin(off))], axis=0).min() > 100 * rounding(expected[0])
    alone = np.concatenate([values(mask[None]) for mask in masks])
    assert np.abs(alone - expected[int(np.argmin(off))]).max() < rounding(expected[0])


def test_what_is_ablated_before_the_first_unit_kept_is_missed_after_it(build):
    """Where all of the first block is ablated a forward could begin after it, and must not."""
    folder, model, layers = build("llama")
    units = mx.latents(model, layers[0], [0, 3, 5], error=False)
    units = units + mx.latents(model, layers[2], [1, 2], error=False)
    mask = np.array([[False, False, False, True, True]])
    found = mx.ComponentValues(model, TASK, units)(mask)
    expected = CrossLayerOracle(folder, TASK, units.units, layers).values(mask, "mean")
    assert np.abs(found - expected).max() < rounding(expected)


def test_everything_kept_is_the_model_to_the_bit(build):
    _, model, layers = build("llama")
    units = every(model, layers)
    untouched = mx.ComponentValues(model, TASK, "heads")(np.ones((1, 12), dtype=bool))
    values = mx.ComponentValues(model, TASK, units)
    assert np.array_equal(values(np.ones((1, len(units)), dtype=bool)), untouched)


@pytest.mark.parametrize("ablation", ["mean", "corrupted", "resample"])
def test_all_latents_and_errors_are_the_mlps(build, ablation):
    """Whatever they write to each other; beside any heads."""
    _, model, layers = build("gptj")
    heads, mlps, parts = mx.heads(model), mx.mlps(model), every(model, layers)
    kept = np.random.default_rng(0).random((5, len(heads))) < 0.6
    whole = np.concatenate([kept, np.zeros((5, len(mlps)), bool)], axis=1)
    split = np.concatenate([kept, np.zeros((5, len(parts)), bool)], axis=1)
    expected = mx.ComponentValues(model, TASK, heads + mlps, ablation)(whole)
    found = mx.ComponentValues(model, TASK, heads + parts, ablation)(split)
    assert np.abs(found - expected).max() < rounding(expected)


def test_without_later_layers_it_is_a_transcoder(build):
    """Directions of zero write nothing, so errors and latents are those of one layer."""
    _, model, layers = build("llama")
    silent = tuple(torch.zeros_like(one) for one in layers[0].later)
    first = replace(layers[0], later=silent)
    second = replace(layers[1], earlier=(first,), later=())
    alone = replace(layers[1], earlier=(), later=())
    masks = some_masks(6)
    values = [
        mx.ComponentValues(model, TASK, mx.latents(model, one, range(5)))(masks)
        for one in (second, alone)
    ]
    assert np.abs(values[0] - values[1]).max() < rounding(values[1])
    loud = mx.ComponentValues(
        model, TASK, mx.latents(model, replace(layers[1], later=()), range(5))
    )
    assert np.abs(loud(masks) - values[1]).max() > 1e-3


def test_gradients_are_those_of_finite_differences(build):
    folder, _, layers = build("llama")
    model = load_saved(folder, dtype=torch.float64)
    units = mx.latents(model, layers[0], [0, 3, 5]) + mx.latents(model, layers[2], [1, 2])
    values = mx.ComponentValues(model, TASK, units)
    mask = np.random.default_rng(1).uniform(0.3, 0.9, len(units)).astype(np.float32)
    step = np.float32(2**-9)
    masks = np.concatenate([mask + step * sign * np.eye(len(units)) for sign in (1, -1)])
    up, down = np.split(values.value_and_gradient(masks)[0], 2)
    slopes, gradient = (up - down) / (2 * step), values.value_and_gradient(mask[None])[1][0].T
    assert np.abs(slopes - gradient).max() < 3e-3 * np.abs(gradient).max()
    assert (np.abs(gradient).max(1) > 0).sum() >= len(units) - 2


def test_another_process_reads_them_from_their_folder(build):
    _, model, layers = build("llama")
    units = mx.heads(model, layers=[1]) + mx.latents(model, layers[1], [1, 9])
    values = mx.ComponentValues(model, TASK, units)
    made = values.recipe.make()
    masks = some_masks(values.n_units)
    assert made.configuration == values.configuration
    assert np.array_equal(made(masks), values(masks))


def test_latents_are_chosen_by_all_that_they_write(build):
    _, model, layers = build("llama")
    first = layers[0]
    long = torch.cat([first.w_dec, *first.later], dim=1).norm(dim=1)
    assert torch.allclose(first.sizes, long)
    chosen = mx.latents(model, first, task=TASK, n_latents=4)
    assert len(chosen) == 5


def test_layers_are_read_once_while_they_are_in_use(tmp_path):
    folder = save_cross_layer(tmp_path / "clt", 4, reads="hook_resid_mid")
    layers = [mx.load_dictionary(folder, f"blocks.{n}.hook_resid_mid") for n in range(4)]
    assert layers[3].earlier[0] is layers[2].earlier[0] is layers[0]
    assert layers[3].earlier[1] is layers[2].earlier[1]
    assert [len(one.earlier) for one in layers] == [0, 1, 2, 3]
    assert [len(one.later) for one in layers] == [3, 2, 1, 0]
    # Other files in the same place are other layers.
    save_cross_layer(folder, 4, reads="hook_resid_mid", seed=1)
    again = mx.load_dictionary(folder, "blocks.1.hook_resid_mid")
    assert again.digest != layers[1].digest
    assert again.earlier[0].digest != layers[0].digest


def test_what_does_not_fit_is_refused(build, tmp_path):
    _, model, layers = build("llama")
    units = mx.latents(model, layers[0], [1])
    with pytest.raises(AblationError, match="the mlp of layer 2 is a unit beside latents"):
        mx.ComponentValues(model, TASK, mx.mlps(model, layers=[2]) + units)
    with pytest.raises(DictionaryError, match="one layer of a cross-layer transcoder"):
        layers[0].save(tmp_path / "saved")
    folder = save_cross_layer(tmp_path / "clt", 4, reads="hook_resid_mid")
    with pytest.raises(DictionaryError, match=r"of 4 layers; .* hook='blocks.0.hook_resid_mid'"):
        mx.load_dictionary(folder)
    with pytest.raises(DictionaryError, match="not of blocks.1.mlp.hook_in"):
        mx.load_dictionary(folder, "blocks.1.mlp.hook_in")
    with pytest.raises(DictionaryError, match="layers 0 … 3, not of blocks.9"):
        mx.load_dictionary(folder, "blocks.9.hook_resid_mid")
    deep = mx.load_dictionary(folder, "blocks.0.hook_resid_mid")
    with pytest.raises(DictionaryError, match="lies at blocks.3.* has layers 0 … 2"):
        mx.ComponentValues(model, TASK, mx.latents(model, deep, [1]))
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("hook_mlp_out", "mlp.hook_out"))
    assert mx.load_dictionary(folder, "blocks.1.hook_resid_mid").writes == "blocks.1.mlp.hook_out"
    (folder / "config.yaml").write_text(config.replace("hook_mlp_out", "hook_resid_post"))
    with pytest.raises(DictionaryError, match="neither an autoencoder"):
        mx.load_dictionary(folder, "blocks.1.hook_resid_mid")
    (folder / "config.yaml").write_text(config)
    file = folder / "W_enc_0.safetensors"
    whole = load_file(file)
    save_file(whole | {"threshold_0": -torch.ones(16)}, file)
    with pytest.raises(DictionaryError, match="threshold_0 in .* has numbers below 0"):
        mx.load_dictionary(folder, "blocks.0.hook_resid_mid")
    save_file(whole, file)
    save_file({"W_skip_1": torch.eye(32)}, folder / "W_skip_1.safetensors")
    with pytest.raises(DictionaryError, match="W_skip_1.safetensors: what is written past"):
        mx.load_dictionary(folder, "blocks.1.hook_resid_mid")
    (folder / "W_skip_1.safetensors").unlink()
    file = folder / "W_dec_1.safetensors"
    save_file({"W_dec_1": load_file(file)["W_dec_1"][:, :2].contiguous()}, file)
    with pytest.raises(DictionaryError, match=r"W_dec_1 of shape \[latent, 3, d_out\]"):
        mx.load_dictionary(folder, "blocks.2.hook_resid_mid")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DictionaryError, match="no whole safetensors file"):
        mx.load_dictionary(folder, "blocks.2.hook_resid_mid")
    file.unlink()
    with pytest.raises(DictionaryError, match=r"no W_dec_1.safetensors"):
        mx.load_dictionary(folder, "blocks.2.hook_resid_mid")
