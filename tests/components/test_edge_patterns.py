"""Edges into queries and keys, scored by attention patterns that are taken anew without each."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from architectures import TASK, load_saved
from edge_oracle import EIGHT, MORE, THOROUGH, EdgeOracle

import mechspex as mx
from mechspex.components.edge_ablation import EdgeAblation
from mechspex.core.backward_rules import ATP_STAR, RELP, BackwardRules
from mechspex.core.masks import single_ablations
from mechspex.errors import ModelError
from mechspex.forward.patterns import Patterns

ANEW = BackwardRules(pattern_recomputed=True)
# Joined queries, keys and values; groups; caps, windows and norms after the attention; a norm for
# each head's query, and one for those of all heads.
ORACLE = [("gpt2", "mean"), ("gpt2", "zero"), ("llama", "corrupted"), ("llama", "mean")]
ORACLE += [("gemma2 short window", "zero"), ("qwen3", "mean"), ("olmo2", "zero")]


def into_patterns(units):
    """Which units are edges into queries and keys."""
    return np.array([unit.label.split("@")[0].endswith((".q", ".k")) for unit in units])


def whole(values):
    return np.ones((1, values.n_units), dtype=np.float32)


@pytest.mark.parametrize(("name", "ablation"), ORACLE)
def test_slopes_are_those_of_the_raw_model_s_patterns(name, ablation, build):
    folder, model = build(name)
    values = mx.ComponentValues(model, TASK, mx.edges(model), ablation)
    expected = EdgeOracle(folder, TASK, values.units.names).recomputed(ablation)
    inside = into_patterns(values.units)
    assert np.isnan(expected[:, ~inside]).all()
    found = values.with_backward(ANEW).value_and_gradient(whole(values))[1][0]
    plain = values.value_and_gradient(whole(values))[1][0]
    size = np.abs(expected[:, inside]).max()
    assert np.abs(found - expected)[:, inside].max() < 1e-4 * size
    # Not what the chain rule says, and elsewhere nothing else.
    assert np.abs(plain - expected)[:, inside].max() > 0.05 * size
    assert np.abs(found - plain)[:, ~inside].max() < 1e-5 * np.abs(plain).max()


@pytest.mark.parametrize("name", [*EIGHT, *MORE])
def test_a_small_change_is_what_the_chain_rule_says(name, build):
    """On every architecture, at soft masks too, and with blocks left out; and all at once.

    The change is large against rounding: most models take the softmax in float32.
    """
    folder, _ = build(name)
    model = load_saved(folder, dtype=torch.float64)
    edges = mx.edges(model)
    draw = torch.Generator().manual_seed(0)
    forwards = mx.ComponentValues(model, TASK, edges, "zero")._proved.exact
    ablation = forwards.groups[0].plain.ablation
    assert isinstance(ablation, EdgeAblation)
    near = {
        hook: clean + 2e-4 * clean.std() * torch.randn(*clean.shape, generator=draw).to(clean)
        for hook, clean in ablation.clean.items()
    }
    values = mx.ComponentValues(model, TASK, edges, near)
    inside = into_patterns(edges)
    soft = np.random.default_rng(0).random((2, len(edges)), dtype=np.float32)
    soft[0], soft[1, ::5] = 1, 0
    for others in (BackwardRules(), BackwardRules(blocks_dropped=True))[: 1 + (name in THOROUGH)]:
        anew = replace(others, pattern_recomputed=True)
        expected = values.with_backward(others).value_and_gradient(soft)[1]
        found = values.with_backward(anew).value_and_gradient(soft)[1]
        for row in range(2):
            size = np.abs(expected[row][:, inside]).max()
            assert size > 0
            assert np.abs(found - expected)[row].max() < 0.01 * size
    # The edges into one query together are that query.
    reader = [unit.label.endswith("→L1H2.q") for unit in edges]
    one = values.with_backward(ANEW).value_and_gradient(soft[:1])[1][0][:, reader].sum(1)
    without = soft[:1].copy()
    without[:, reader] = 0
    ends = values.value_and_gradient(np.concatenate([soft[:1], without]))[0]
    assert np.allclose(one, ends[0] - ends[1], rtol=0.02, atol=0.02 * np.abs(one).max())


def test_edges_at_some_positions_alone_are_scored_there(build):
    """The last token's query is the one that reads: its edges there are its edges everywhere."""
    _, model = build("llama")
    placed = mx.edges(model, layers=1, positions=[6])
    values = mx.ComponentValues(model, TASK, placed, "mean").with_backward(ANEW)
    found = values.value_and_gradient(whole(values))[1][0]
    everywhere = mx.ComponentValues(model, TASK, mx.edges(model, layers=1), "mean")
    all_of = everywhere.with_backward(ANEW).value_and_gradient(whole(everywhere))[1][0]
    queries = np.array([unit.label.endswith(".q") for unit in everywhere.units])
    keys = np.array([unit.label.endswith(".k") for unit in everywhere.units])
    size = np.abs(all_of).max()
    # A later query reads nothing here: the metric is of the last token, in the last block.
    assert np.abs(found - all_of)[:, queries].max() < 1e-5 * size
    assert np.abs(found - all_of)[:, keys].max() > 1e-3 * size


@pytest.mark.parametrize("units", ["heads", "heads+edges"])
def test_what_is_no_edge_into_attention_keeps_its_gradient(units, build):
    _, model = build("llama")
    values = mx.ComponentValues(model, TASK, units, "mean")
    heads = np.array([unit.kind == "head" for unit in values.units])
    for with_it in (ATP_STAR, ANEW):
        without = replace(with_it, pattern_recomputed=False)
        found, plain = (
            values.with_backward(rules).value_and_gradient(whole(values))
            for rules in (with_it, without)
        )
        assert np.abs(found[0] - plain[0]).max() < 1e-5
        size = np.abs(plain[1]).max()
        assert np.abs(found[1] - plain[1])[..., heads].max() < 1e-5 * size


def test_frozen_patterns_are_recomputed_all_the_same(build):
    """RelP with it: elsewhere patterns stay constant, and edges into them are scored by theirs."""
    _, model = build("llama")
    values = mx.ComponentValues(model, TASK, "edges", "mean")
    inside = into_patterns(values.units)
    frozen, both = (
        values.with_backward(rules).value_and_gradient(whole(values))[1]
        for rules in (RELP, replace(RELP, pattern_recomputed=True))
    )
    assert not frozen[..., inside].any()
    assert (np.abs(both[..., inside]).max(axis=(0, 1)) > 0).all()
    assert np.array_equal(both[..., ~inside], frozen[..., ~inside])


def test_saturated_keys_are_told_to_a_fifth():
    """`backup`: two heads find the earlier letter by keys that two others write; the slope of their
    sharp softmax says half of what that does."""
    known = mx.truth.known_model("backup")
    values = mx.ComponentValues(known.model, known.task, "edges", "zero")
    keys = [f"L0H{writer}→L1H{reader}.k" for writer in (0, 3) for reader in (2, 3)]
    columns = list(values.units.columns(keys))
    clean = values(whole(values) == 1).mean()
    exact = (values(single_ablations(values.n_units)).mean(1) - clean)[columns]
    plain, anew = (
        mx.screen(values, mx.FirstOrder(parts=0, backward=rules), n_terms=1).single_scores[columns]
        for rules in (BackwardRules(), ANEW)
    )
    assert (exact < -2).all()
    assert np.allclose(anew, exact, rtol=0.2)
    assert (np.abs(plain - exact) > 0.4 * np.abs(exact)).all()


def test_a_softmax_of_another_shape_is_refused():
    attention = torch.nn.Softmax(-1)
    pattern = torch.rand(2, 12, 3)
    patterns = Patterns([attention], {0: pattern}, {0: pattern[None]})
    refused = pytest.raises(ModelError, match="'pattern_recomputed' does not apply")
    with refused, patterns.compared(2, 4):
        attention(torch.rand(2, 12, 3))
    # Its hooks are gone.
    assert torch.equal(attention(pattern), torch.softmax(pattern, -1))
