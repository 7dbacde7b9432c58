"""Files of the MIB benchmark: graphs against the benchmark's own rules, round trips, bad files."""

import json
from dataclasses import replace

import numpy as np
import pytest

import mechspex as mx
from mechspex.circuits.faithfulness import MIB_SHARES
from mechspex.circuits.mib import MibGraph, read_mib
from mechspex.errors import MechspexError, Refused, UnknownUnitError

TINY = MibGraph(2, 4, 32, parallel_attn_mlp=False)


def all_edges(n_layers, n_heads, parallel):
    """Every edge of a model, by who has written to the residual stream when a node reads it."""
    stream, edges = ["input"], []
    for layer in range(n_layers):
        heads, mlp = [f"a{layer}.h{head}" for head in range(n_heads)], f"m{layer}"
        edges += [
            f"{one}->{head}<{letter}>" for one in stream for head in heads for letter in "qkv"
        ]
        read = stream if parallel else [*stream, *heads]
        edges += [f"{one}->{mlp}" for one in read]
        stream = [*stream, *heads, mlp]
    return [*edges, *(f"{one}->logits" for one in stream)]


def pruned(record):
    """The nodes that have an edge in and an edge out, again and again, as the benchmark prunes."""
    edges = [name.split("<")[0].split("->") for name, e in record["edges"].items() if e["in_graph"]]
    nodes = {name for name, node in record["nodes"].items() if node["in_graph"]}
    while True:
        edges = [edge for edge in edges if set(edge) <= nodes]
        sources, targets = ({edge[end] for edge in edges} for end in (0, 1))
        left = {
            n for n in nodes if (n in sources or n == "logits") and (n in targets or n == "input")
        }
        if left == nodes:
            return nodes
        nodes = left


@pytest.fixture
def circuit(tiny):
    return mx.Circuit(mx.heads(tiny), (1, 3, 6))


@pytest.mark.parametrize("parallel", [False, True])
def test_edges_of_a_whole_model_are_those_of_its_residual_stream(parallel):
    graph = MibGraph(3, 2, 8, parallel)
    every = all_edges(3, 2, parallel)
    assert sorted(graph.edges(graph.units)) == sorted(every)
    assert graph.n_edges(graph.units) == len(every) == len(set(every))
    some = graph.units["L0MLP", "L1H0", "L1MLP", "L2H1"]
    assert graph.n_edges(some) == len(list(graph.edges(some)))
    assert set(graph.edges(some)) < set(every)


def test_a_circuit_of_heads_comes_back_and_keeps_what_is_no_unit(circuit, tiny, tmp_path):
    circuit.to_mib(tmp_path / "a.json", tiny)
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["cfg"] == {
        "n_layers": 2, "n_heads": 4, "d_model": tiny.cfg.d_model, "parallel_attn_mlp": False,
    }  # fmt: skip
    nodes = record["nodes"]
    inside = {name for name, node in nodes.items() if node["in_graph"]}
    assert inside == {"input", "logits", "m0", "m1", "a0.h1", "a0.h3", "a1.h2"}
    assert {name for name, node in nodes.items() if "score" not in node} == {
        "input", "logits", "m0", "m1",
    }  # fmt: skip
    assert set(record["edges"]) < set(all_edges(2, 4, parallel=False))
    assert pruned(record) == inside, "the benchmark takes nothing away"
    back = mx.Circuit.from_mib(tmp_path / "a.json", mx.heads(tiny))
    assert (back.units, back.members) == (circuit.units, circuit.members)
    assert "some edges" not in back.method
    whole = mx.Circuit.from_mib(tmp_path / "a.json")
    assert set(whole.names) == {*circuit.names, "L0MLP", "L1MLP"}
    assert mx.Circuit.from_mib(tmp_path / "a.json", mx.heads(tiny), size=3).names == circuit.names


def test_importance_ranks_by_value_or_by_size(circuit, tiny, tmp_path):
    importance = np.array([0.1, -5.0, 0.3, 4.0, 0.0, 0.0, -1.0, 2.0])
    circuit.to_mib(tmp_path / "a.json", tiny, importance)
    of_heads = mx.heads(tiny)
    by_size = mx.Circuit.from_mib(tmp_path / "a.json", of_heads, size=2)
    by_value = mx.Circuit.from_mib(tmp_path / "a.json", of_heads, size=2, absolute=False)
    assert (by_size.members, by_value.members) == ((1, 3), (3, 7))
    assert by_size.method.endswith("the 2 nodes of the largest scores, beside 2 without one")
    assert by_value.method.endswith("the 2 nodes of the highest scores, beside 2 without one")
    assert len(mx.Circuit.from_mib(tmp_path / "a.json", of_heads, size=0)) == 0
    with pytest.raises(Refused, match="scores of 8 nodes"):
        mx.Circuit.from_mib(tmp_path / "a.json", of_heads, size=9)


def test_what_a_file_does_not_tell_is_not_shown(circuit, tiny, tmp_path):
    circuit.to_mib(tmp_path / "a.json", tiny)
    back = mx.Circuit.from_mib(tmp_path / "a.json", mx.heads(tiny))
    assert {"effect", "adds", "role"} <= set(back.to_pandas())
    for text in (str(back), back._repr_html_()):
        assert "L0H1" in text
        assert not any(word in text for word in ("NaN", "nan", "adds", "evidence"))
    assert str(replace(back, members=())).count("\n") == 0


def test_a_circuit_scores_the_same_before_and_after(circuit, tiny, tmp_path):
    values = mx.ComponentValues(tiny, "induction", "heads")
    circuit.to_mib(tmp_path / "a.json", tiny)
    back = mx.Circuit.from_mib(tmp_path / "a.json", values.units)
    np.testing.assert_array_equal(values(back.mask[None]), values(circuit.mask[None]))


def test_edges_left_out_are_told_and_nan_is_no_score(tmp_path):
    """As the benchmark writes a circuit of edges: every edge, and NaN where a node has no score."""
    record = whole_record()
    record["nodes"]["a0.h0"]["score"] = float("nan")
    record["edges"]["input->a0.h1<q>"]["in_graph"] = False
    found = mx.Circuit.from_mib(write(tmp_path, record))
    assert len(found) == 10
    assert "some edges" in found.method
    assert "L0H0" not in read_mib(write(tmp_path, record)).scores


def test_units_that_are_no_nodes_are_refused(tiny, tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(Refused, match="whole heads and MLPs"):
        mx.Circuit(mx.neurons("smollm2-135m", layers=0), (1,)).to_mib(path, tiny)
    with pytest.raises(Refused, match="whole heads and MLPs"):
        mx.Circuit(mx.heads(tiny, positions=[-1]), (1,)).to_mib(path, tiny)
    with pytest.raises(Refused, match=r"(?s)L0H0→L1H0.q: graphs of edges are read .* not written"):
        mx.Circuit(mx.edges(tiny)["L0H0→L1H0.q"], (0,)).to_mib(path, tiny)
    other = mx.heads("smollm2-135m")
    with pytest.raises(Refused, match=r"which .* lacks"):
        mx.Circuit(other, (1,)).to_mib(path, tiny)
    with pytest.raises(Refused, match="a finite number for each of 8"):
        mx.Circuit(mx.heads(tiny), (1,)).to_mib(path, tiny, [1.0, 2.0])
    assert not path.exists()
    with pytest.raises(UnknownUnitError):
        mx.Circuit.from_mib(write(tmp_path, whole_record()), other)


def whole_record():
    edges = all_edges(2, 4, parallel=False)
    names = [f"a{layer}.h{head}" for layer in (0, 1) for head in range(4)] + ["m0", "m1"]
    return {
        "cfg": {"n_layers": 2, "n_heads": 4, "d_model": 32, "parallel_attn_mlp": False},
        "nodes": {name: {"in_graph": True, "score": 0.5} for name in ["input", *names, "logits"]},
        "edges": {edge: {"in_graph": True, "score": 0.1} for edge in edges},
    }


def write(folder, record):
    path = folder / "b.json"
    path.write_text(record if isinstance(record, str) else json.dumps(record))
    return path


BAD = {
    "no JSON": ("{", "not JSON"),
    "a list": ([], "lacks one of cfg"),
    "no nodes": ({"cfg": {}, "edges": {}}, "lacks one of cfg"),
    "nodes as a list": (("nodes", []), "nodes is"),
    "no layers": (("cfg", "n_layers", 0), "n_layers = 0"),
    "layers as a truth": (("cfg", "n_layers", True), "n_layers = True"),
    "heads without end": (("cfg", "n_heads", 10**9), "n_heads = 1000000000"),
    "more nodes than any": (
        ("cfg", {"n_layers": 10**5, "n_heads": 10**5, "d_model": 1}), "no model",
    ),
    "parallel as text": (("cfg", "parallel_attn_mlp", "no"), "true or false"),
    "a node of another model": (("nodes", "a7.h0", {"in_graph": True}), "a7.h0"),
    "a node that is none": (("nodes", "x", {"in_graph": True}), "'x'"),
    "a node as a number": (("nodes", "m0", 3), "node m0 is 3"),
    "a node without membership": (("nodes", "m0", {"score": 1.0}), "in_graph is None"),
    "membership as a number": (("nodes", "m0", {"in_graph": 1}), "in_graph is 1"),
    "a score as text": (("nodes", "m0", {"in_graph": True, "score": "high"}), "score is 'high'"),
    "a score without end": (("nodes", "m0", {"in_graph": True, "score": 1e999}), "score is inf"),
    "part of the neurons": (
        ("nodes", "m0", {"in_graph": True, "neurons": [True, False]}), "a part of its neurons",
    ),
    "an edge of no nodes": (("edges", "a0.h0->x", {"in_graph": True}), "joins no two nodes"),
    "an edge backwards": (("edges", "m1->a0.h0<q>", {"in_graph": True}), "joins no two nodes"),
    "an edge within a layer": (("edges", "a0.h0->a0.h1<q>", {"in_graph": True}), "joins no two"),
    "a head's edge as nothing": (("edges", "input->a0.h0", {"in_graph": True}), "joins no two"),
    "an MLP's edge as a query": (("edges", "input->m0<q>", {"in_graph": True}), "joins no two"),
    "an edge without membership": (("edges", "input->m0", {}), "in_graph is None"),
}  # fmt: skip


@pytest.mark.parametrize("slip", BAD)
def test_a_bad_file_is_refused_with_its_name(slip, tmp_path):
    wrong, says = BAD[slip]
    record = wrong
    if isinstance(wrong, tuple):
        record = whole_record()
        *path, last, given = wrong
        place = record
        for key in path:
            place = place[key]
        place[last] = given
    with pytest.raises(Refused, match=says) as refused:
        mx.Circuit.from_mib(write(tmp_path, record))
    assert "b.json" in str(refused.value)


def test_what_is_left_out_must_be_a_unit(tiny, tmp_path):
    record = whole_record()
    record["nodes"]["m0"]["in_graph"] = False
    with pytest.raises(Refused, match="leaves out L0MLP"):
        mx.Circuit.from_mib(write(tmp_path, record), mx.heads(tiny))
    assert "L0MLP" not in mx.Circuit.from_mib(write(tmp_path, record)).names


def test_nine_sizes_of_a_discovery_each_within_its_share(tiny, tiny_task, tmp_path):
    values = mx.ComponentValues(tiny, tiny_task, "heads")
    found = mx.find_circuit(values, values, n_masks=50)
    found.to_mib(tmp_path / "match", tiny)
    found.to_mib(tmp_path / "best", tiny, "best")
    for objective, sets in (("match", found.matching), ("best", found.best)):
        read = {
            float(file.stem): mx.Circuit.from_mib(file, values.units)
            for file in (tmp_path / objective).iterdir()
        }
        assert sorted(read) == list(MIB_SHARES[:-1])
        assert {share: len(one) for share, one in read.items() if len(one)} == {0.2: 1, 0.5: 4}
        assert read[0.5].members == sets[4]
    with pytest.raises(Refused, match="choose match, best"):
        found.to_mib(tmp_path, tiny, "largest")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("path", ["circuit.pt", "nowhere.json", None, 3])
def test_a_pickle_and_no_file_at_all_are_refused(path, tmp_path):
    with pytest.raises(MechspexError):
        mx.Circuit.from_mib(tmp_path / path if isinstance(path, str) else path)
