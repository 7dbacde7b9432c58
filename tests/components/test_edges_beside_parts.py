"""Edges under one mask with heads, MLPs and neurons, against the raw model part by part."""

import numpy as np
import pytest
import torch
from architectures import (
    PROMPTS,
    TASK,
    load_saved,
    rounding,
)
from edge_oracle import EdgeOracle
from latent_oracle import random_dictionary

import mechspex as mx
from mechspex.components.edge_proof import out_of
from mechspex.errors import AblationError

CASES = [("llama", ablation) for ablation in ("zero", "mean", "corrupted")]
CASES += [("gpt2", "mean"), ("gemma2 short window", "corrupted"), ("gptj", "mean")]
CASES += [("gpt_neox parallel", "zero"), ("opt", "mean"), ("falcon", "mean"), ("olmo2", "mean")]


def parts_of(model):
    """All heads and MLPs, and every third neuron."""
    neurons = mx.neurons(model)
    return mx.heads(model) + mx.mlps(model) + neurons[[unit.name for unit in neurons][::3]]


def some_masks(n_parts, n_edges):
    """All, none, random ones of three densities of edges, and single units of each sort ablated."""
    rng = np.random.default_rng(0)
    n = n_parts + n_edges
    parts = rng.random((6, n_parts)) < 0.85
    edges = rng.random((6, n_edges)) < np.array([[0.95], [0.8], [0.5]] * 2)
    alone = np.ones((6, n), dtype=bool)
    alone[np.arange(6), [0, n_parts - 1, n_parts // 2, n_parts, n - 1, n - 2]] = False
    ends = np.ones((2, n), dtype=bool)
    ends[1] = False
    return np.concatenate([ends, np.concatenate([parts, edges], axis=1), alone])


@pytest.mark.parametrize(("name", "ablation"), CASES)
def test_values_are_those_of_the_raw_model(name, ablation, build):
    folder, model = build(name)
    parts, edges = parts_of(model), mx.edges(model)
    units = parts + edges
    masks = some_masks(len(parts), len(edges))
    values = mx.ComponentValues(model, TASK, units, ablation)
    assert values.through_bridge is None
    expected = EdgeOracle(folder, TASK, units.names).values(masks, ablation)
    assert np.abs(values(masks) - expected).max() < rounding(expected)
    for mask, one in zip(masks[2:5], expected[2:5], strict=True):
        assert np.abs(values(mask[None])[0] - one).max() < rounding(expected)
    # Neither sort of units alone makes these values.
    for columns in (slice(0, len(parts)), slice(len(parts), None)):
        without = masks.copy()
        without[:, columns] = True
        assert np.abs(values(without) - expected)[2:8].max() > 100 * rounding(expected)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2 short window"])
def test_a_part_is_all_edges_out_of_it(name, build):
    """Heads and MLPs beside edges are the masks of edges alone which ablate all that leave them."""
    _, model = build(name)
    parts, edges = mx.heads(model) + mx.mlps(model), mx.edges(model)
    rng = np.random.default_rng(3)
    kept = np.concatenate([rng.random((6, len(parts))) < 0.7, rng.random((6, len(edges))) < 0.9], 1)
    together = mx.ComponentValues(model, TASK, parts + edges)(kept)
    of_edges = kept[:, len(parts) :] & out_of(edges, parts, kept[:, : len(parts)])
    assert np.abs(mx.ComponentValues(model, TASK, edges)(of_edges) - together).max() < rounding(
        together
    )


def test_gradients_are_those_of_finite_differences(build):
    """In double precision, at soft masks, of every sort of unit."""
    folder, _ = build("llama")
    model = load_saved(folder, dtype=torch.float64)
    parts, edges = parts_of(model), mx.edges(model)
    values = mx.ComponentValues(model, TASK, edges + parts)
    rng = np.random.default_rng(2)
    mask = rng.uniform(0.3, 1, values.n_units).astype(np.float32)
    gradient = values.value_and_gradient(mask[None])[1][0]
    heads_and_mlps = len(edges) + np.arange(len(mx.heads(model) + mx.mlps(model)))
    chosen = np.concatenate([rng.permutation(len(edges))[:6], heads_and_mlps, [-1, -9]])
    step, n = np.float32(2**-7), len(chosen)
    up, down = np.repeat(mask[None], n, 0), np.repeat(mask[None], n, 0)
    up[np.arange(n), chosen] += step
    down[np.arange(n), chosen] -= step
    slopes = (values.value_and_gradient(up)[0] - values.value_and_gradient(down)[0]) / (2 * step)
    assert np.abs(gradient[:, chosen].T - slopes).max() < 2e-3 * np.abs(gradient).max()
    assert np.abs(slopes[:6]).max() > 0.01 * np.abs(gradient).max(), "edges among them"


def test_screens_and_exact_tests_pair_edges_with_heads():
    """An edge out of an ablated head does nothing more, so together they undo what it does."""
    model = mx.load_model("tiny")
    task = mx.load_task("induction", model, n_prompts=8)
    units, edge = mx.heads(model) + mx.edges(model), "L0H1→L1H3.k"
    values = mx.ComponentValues(model, task, units, "zero")
    masks = np.ones((4, len(units)), dtype=bool)
    masks[[1, 3], units.column_of["L0H1"]] = False
    masks[[2, 3], units.column_of[edge]] = False
    clean, head, alone, both = values(masks).mean(axis=1)
    assert both == pytest.approx(head, abs=1e-4)
    assert abs(clean - alone) > 1
    tested = mx.validate(values, [("L0H1", edge)])
    assert tested.effects[0] == pytest.approx(clean - alone, abs=1e-3)
    found = mx.screen(values, "second_order", n_terms=40).to_pandas()["units"]
    assert any("→" in units and " × L0H1" in f" × {units}" for units in found)


def test_heads_at_every_position_are_whole_heads_beside_edges(build):
    _, model = build("llama")
    edges, head = mx.edges(model), mx.heads(model, layers=[0])[["L0H1"]]
    n_positions = max(map(len, model.tokenizer(list(PROMPTS)).input_ids))
    placed = mx.heads(model, layers=[0], positions=range(n_positions))
    placed = placed[[unit.name for unit in placed if unit.number == 1]]
    kept = np.random.default_rng(1).random((4, len(edges))) < 0.8
    values = [
        mx.ComponentValues(model, TASK, units + edges)(
            np.concatenate([np.zeros((4, len(units)), dtype=bool), kept], axis=1)
        )
        for units in (head, placed)
    ]
    assert np.abs(values[0] - values[1]).max() < rounding(values[0])
    alone = mx.ComponentValues(model, TASK, edges)(kept)
    assert np.abs(values[0] - alone).max() > 100 * rounding(alone)


def test_what_changes_the_stream_elsewhere_is_refused_beside_edges(tiny):
    task = mx.load_task("induction", tiny, n_prompts=4)
    edges = mx.edges(tiny)
    for others in (
        mx.words(task.prompts[0])[:1],
        mx.latents(tiny, random_dictionary("blocks.0.hook_resid_post", d=64), [3], error=False),
    ):
        with pytest.raises(AblationError, match=f"'{others.names[0]}' cannot be ablated beside"):
            mx.ComponentValues(tiny, task, edges + others, "zero")
    with pytest.raises(AblationError, match="edges are not rescaled"):
        mx.ComponentValues(tiny, task, mx.heads(tiny) + edges, rescale=True)
