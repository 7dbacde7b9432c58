"""Edges of compiled programs, against what their weights connect."""

import numpy as np
import pytest
from program_wires import connected

import mechspex as mx
from mechspex.core.masks import all_masks
from mechspex.truth import known_model
from mechspex.truth.brute_force import exact_terms


@pytest.mark.parametrize(
    ("name", "n_edges", "n_connected", "n_in_truth"),
    [("hist", 8, 6, 6), ("xproportion", 23, 5, 5), ("sort_unique", 23, 10, 9)],
)
def test_edges_matter_where_weights_connect_and_nowhere_else(
    name, n_edges, n_connected, n_in_truth
):
    known = known_model(name)
    edges = mx.edges(known.model)
    wires = connected(known.model, edges)
    assert (len(edges), wires.sum()) == (n_edges, n_connected)
    values = mx.ComponentValues(known.model, known.task, edges, "zero")
    clean = values(np.ones((1, n_edges), dtype=bool))
    # Whatever is ablated, edges that weights do not connect change nothing.
    among = np.random.default_rng(0).random((20, n_edges)) < 0.7
    assert np.array_equal(values(among), values(among | ~wires))
    assert np.array_equal(values(wires[None]), clean)
    on_wires = mx.ComponentValues(
        known.model, known.task, edges[np.array(edges.names)[wires].tolist()], "zero"
    )
    terms = exact_terms(on_wires(all_masks(n_connected)).astype(np.float64))
    in_truth = {unit for term in terms.terms for unit in term}
    assert len(in_truth) == n_in_truth
