"""Values of edges, against the raw model with every contribution kept by itself."""

import numpy as np
import pytest
import torch
from architectures import (
    TASK,
    load_saved,
    rounding,
)
from edge_oracle import EIGHT, MORE, THOROUGH, EdgeOracle

import mechspex as mx
from mechspex.components.edge_proof import out_of
from mechspex.core.masks import all_masks
from mechspex.core.units import UnitSet
from mechspex.errors import AblationError, ModelError, UnknownUnitError

REFERENCES = ["zero", "mean", "corrupted", "resample"]
CASES = [(name, ablation) for name in THOROUGH for ablation in REFERENCES]
CASES += [(name, "mean") for name in (*EIGHT[3:], *MORE)]


def some_masks(n_edges):
    """All, none, random ones of three densities, and single edges ablated."""
    rng = np.random.default_rng(0)
    dense = rng.random((6, n_edges)) < np.array([[0.9], [0.5], [0.1]] * 2)
    alone = np.ones((6, n_edges), dtype=bool)
    alone[np.arange(6), rng.permutation(n_edges)[:6]] = False
    return np.concatenate([np.ones((1, n_edges), bool), np.zeros((1, n_edges), bool), dense, alone])


@pytest.mark.parametrize(("name", "ablation"), CASES)
def test_values_are_those_of_the_raw_model(name, ablation, build):
    folder, model = build(name)
    edges = mx.edges(model)
    masks = some_masks(len(edges))
    values = mx.ComponentValues(model, TASK, edges, ablation)
    assert values.through_bridge is None
    oracle = EdgeOracle(folder, TASK, edges.names)
    ways = [[1, 2, 0], [2, 0, 1]] if ablation == "resample" else [None]
    expected = [oracle.values(masks, ablation, others) for others in ways]
    off = [np.abs(values(masks) - one).max() for one in expected]
    assert min(off) < rounding(expected[0])
    apart = np.ptp(expected[int(np.argmin(off))][1:8], axis=0)
    assert apart.min() > 100 * rounding(expected[0])


@pytest.mark.parametrize("name", EIGHT)
def test_all_edges_out_of_a_part_ablated_are_that_part_ablated(name, build):
    """Of heads and MLPs alike, under every reference: what they make is replaced for all to see."""
    _, model = build(name)
    parts, edges = mx.heads(model) + mx.mlps(model), mx.edges(model)
    kept = np.random.default_rng(1).random((8, len(parts))) < 0.6
    masks = out_of(edges, parts, kept)
    for ablation in ("zero", "mean") if name in THOROUGH else ("mean",):
        whole = mx.ComponentValues(model, TASK, parts, ablation)(kept)
        by_edges = mx.ComponentValues(model, TASK, edges, ablation)(masks)
        assert np.abs(by_edges - whole).max() < rounding(whole)


def test_a_mask_has_one_value_alone_and_in_any_batch(build):
    _, model = build("llama")
    edges = mx.edges(model)
    masks = some_masks(len(edges))
    values = mx.ComponentValues(model, TASK, edges)
    together = values(masks)
    alone = np.concatenate([values(mask[None]) for mask in masks])
    assert np.abs(together - alone).max() < rounding(together)
    # Few edges alone are recorded and read by themselves.
    few = edges[["L0H1→L1H2.q", "embed→L0G1.v", "L1MLP→output"]]
    masks = np.ones((8, len(edges)), dtype=bool)
    masks[:, list(edges.columns(few.names))] = of_few = all_masks(3)
    assert np.abs(mx.ComponentValues(model, TASK, few)(of_few) - values(masks)).max() < rounding(
        together
    )


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2 short window", "gptj"])
def test_gradients_are_those_of_finite_differences(name, build):
    """In double precision, at soft masks: mixed where much is ablated and where little is."""
    folder, _ = build(name)
    model = load_saved(folder, dtype=torch.float64)
    edges = mx.edges(model)
    values = mx.ComponentValues(model, TASK, edges)
    rng = np.random.default_rng(2)
    masks = np.stack([np.ones(len(edges)), rng.random(len(edges))]).astype(np.float32)
    measured, gradients = values.value_and_gradient(masks)
    step = np.float32(2**-7)
    for row, mask in enumerate(masks):
        chosen = rng.permutation(len(edges))[:6]
        up, down = np.repeat(mask[None], 6, 0), np.repeat(mask[None], 6, 0)
        up[np.arange(6), chosen] += step
        down[np.arange(6), chosen] -= step
        slopes = (values.value_and_gradient(up)[0] - values.value_and_gradient(down)[0]) / (
            2 * step
        )
        found = gradients[row][:, chosen].T
        assert np.abs(found - slopes).max() < 2e-3 * np.abs(gradients[row]).max()
    assert np.abs(measured[0] - values(masks[:1] == 1)[0]).max() < 1e-5


def test_edges_that_are_not_there_are_refused(build):
    _, model = build("gpt2")
    edges = mx.edges(model)
    with pytest.raises(AblationError, match="edges are not rescaled"):
        mx.ComponentValues(model, TASK, edges, rescale=True)
    with pytest.raises(UnknownUnitError, match="no edge 'L0H0→L7MLP'"):
        mx.ComponentValues(model, TASK, UnitSet((mx.Unit("edge", 7, 0, None, "L0H0→L7MLP"),)))
    with pytest.raises(UnknownUnitError, match="reads before"):
        mx.ComponentValues(model, TASK, UnitSet((mx.Unit("edge", 0, 0, None, "L1H0→L0MLP"),)))
    with pytest.raises(ModelError, match="edges are read up to the output"):
        mx.ComponentValues(model, TASK, edges).early_exit(1)


@pytest.mark.parametrize("name", ["openai-gpt", "opt norms after"])
def test_a_stream_that_is_no_sum_is_refused(name, build):
    _, model = build(name)
    with pytest.raises(ModelError, match="no sum of what is written"):
        mx.ComponentValues(model, TASK, mx.edges(model))


def test_a_stream_that_is_put_together_otherwise_is_told(build):
    """A negative control of the proof: an MLP that also adds what it read."""
    _, model = build("llama")
    edges = mx.edges(model)
    model.original_model.config.residual_multiplier = 0.5
    try:
        with pytest.raises(ModelError, match="not known how its residual stream is put together"):
            mx.ComponentValues(model, TASK, edges)
    finally:
        del model.original_model.config.residual_multiplier


def test_values_of_edges_are_kept_in_a_run(build, tmp_path):
    _, model = build("llama")
    values = mx.ComponentValues(model, TASK, mx.edges(model, layers=1), "zero")
    other = mx.ComponentValues(model, TASK, mx.edges(model, layers=1)[1:], "zero")
    assert values.configuration["units"].startswith("58 edges")
    assert values.configuration["units"] != other.configuration["units"]
    first = mx.screen(values, "second_order", n_terms=20, run=tmp_path / "run")
    assert first.terms == mx.screen(values, "second_order", n_terms=20, run=tmp_path / "run").terms
    loaded = mx.load(tmp_path / "run")
    assert isinstance(loaded, mx.Candidates)
    assert loaded.units == values.units


def test_six_edges_of_tiny_are_the_induction_circuit():
    """L0H1 tells each position what stood before it, L1H3 looks for that: K-composition."""
    model = mx.load_model("tiny")
    values = mx.ComponentValues(
        model, mx.load_task("induction", model, n_prompts=8, seed=1), "edges"
    )
    circuit = (
        "embed→L0H1.v", "L0H1→L1H3.k", "embed→L1H3.q", "embed→L1H3.v", "L1H3→output",
        "embed→output",
    )  # fmt: skip
    masks = np.zeros((3, values.n_units), dtype=bool)
    masks[0] = True
    masks[1:, list(values.units.columns(circuit))] = True
    masks[2, values.units.columns(["L0H1→L1H3.k"])] = False
    clean, kept, without = values(masks).mean(axis=1)
    empty = values(~masks[:1]).mean()
    assert 0.9 < (kept - empty) / (clean - empty) < 1.1
    assert (without - empty) / (clean - empty) < 0.3
    scores = mx.screen(values, "first_order", n_terms=10)
    assert set(values.units.columns(circuit[:5])) <= {term[0] for term in scores.terms}
