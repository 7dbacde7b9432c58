"""The auditor: planted circuits with a wrong member and a missing one; files of other tools."""

import json
from dataclasses import replace

import numpy as np
import pytest
from result_laws import check_laws

import mechspex as mx
from mechspex.circuits.circuit_file import circuit_of_file
from mechspex.circuits.gains import gains
from mechspex.core.masks import keep_only
from mechspex.errors import Refused, TaskError
from mechspex.models.units import shape_of
from mechspex.truth import known_model


@pytest.fixture(scope="module")
def task(tiny):
    return mx.load_task("induction", tiny, n_prompts=16)


@pytest.fixture(scope="module")
def heads(tiny):
    return mx.heads(tiny)


def circuit_of(heads, *names):
    return mx.Circuit(heads, tuple(sorted(heads.columns(names))))


@pytest.fixture(scope="module")
def audited(tiny, task, heads):
    """The two heads of induction and an idle one."""
    return mx.audit(tiny, task, circuit_of(heads, "L0H1", "L1H3", "L0H0"))


def test_a_wrong_member_is_told_from_those_that_are_needed(audited):
    assert audited.needed == ("L0H1", "L1H3")
    assert audited.verdicts["L0H0"] == "not shown"
    assert audited.missing == ()
    assert audited.gates == {("L0H1", "L1H3"): "AND"}
    assert "L0H1 × L1H3: AND" in str(audited)
    within = audited.scores.equivalent_within
    assert (
        audited.to_dict()["equivalent_within"]
        == within
        == audited.circuit.scores["equivalent_within"]
    )
    assert "equivalent to the model within" in str(audited)


def test_a_missing_member_is_named(tiny, task, heads):
    found = mx.audit(tiny, task, circuit_of(heads, "L1H3"))
    assert found.missing == ("L0H1",)
    assert found.verdicts["L1H3"] == "not shown", "alone it is of no use"


def test_gains_are_those_of_masks_written_out(tiny, task, heads, audited):
    values = mx.ComponentValues(tiny, task, heads)
    members = set(audited.circuit.members)
    for column, gain in zip(audited.gains.columns, audited.gains.outputs, strict=True):
        with_it, without = values(keep_only(8, [members | {column}, members - {column}]))
        assert gain == pytest.approx(with_it.astype(float) - without, abs=1e-4)


def test_backups_are_an_or_and_none_is_called_idle():
    """Two heads of `backup` stand in for each other: without one the other does its work."""
    known = known_model("backup")
    values = known.values("zero")
    whole = mx.Circuit(known.units, tuple(range(len(known.units) - 1)))
    found = mx.audit(known.model, known.task, whole, "zero")
    assert "OR" in found.gates.values()
    pair = next(pair for pair, gate in found.gates.items() if gate == "OR")
    assert {found.verdicts[name] for name in pair} <= {"backed up", "needed"}
    assert values.units == found.circuit.units


def test_units_that_were_not_measured_count_in_the_family(heads):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 400))
    values = mx.FunctionValues(
        lambda masks: 3.0 * masks[:, :1] + 0.16 * masks[:, 1:2] + noise[0] * masks[:, 1:2], 400
    )
    few = gains(values, (0,), (1,), level=0.05)
    assert few.n_tests == 400
    alone = mx.FunctionValues(
        lambda masks: 3.0 * masks[:, :1] + 0.16 * masks[:, 1:2] + noise[0] * masks[:, 1:2], 2
    )
    assert gains(alone, (0,), (1,), level=0.05).sure.tolist() == [True, True]
    assert few.sure.tolist() == [True, False]


def test_an_audit_is_a_result(audited, tmp_path):
    check_laws(audited, tmp_path)


def edge_record(kept):
    """A graph as EAP-IG writes it, of which only some edges are in."""
    nodes = ["input", *(f"a{layer}.h{head}" for layer in (0, 1) for head in range(4)), "m0", "m1"]
    streams = {0: ["input"], 1: nodes[:5]}
    edges = [
        f"{writer}->a{layer}.h{head}<{letter}>"
        for layer in (0, 1)
        for writer in streams[layer]
        for head in range(4)
        for letter in "qkv"
    ]
    edges += [f"{writer}->logits" for writer in nodes[:9]]
    return {
        "cfg": {"n_layers": 2, "n_heads": 4, "d_model": 32, "parallel_attn_mlp": False},
        "nodes": {node: {"in_graph": not node.startswith("m")} for node in [*nodes, "logits"]},
        "edges": {edge: {"in_graph": edge in kept, "score": 0.5} for edge in edges},
    }


KEPT = {
    "input->a0.h1<q>", "input->a0.h1<k>", "input->a0.h1<v>", "a0.h1->a1.h3<k>",
    "input->a1.h3<q>", "input->a1.h3<k>", "input->a1.h3<v>", "a1.h3->logits", "input->logits",
}  # fmt: skip


def test_edges_of_eap_ig_are_tested_edge_by_edge(tiny, task, tmp_path):
    file = tmp_path / "graph.json"
    file.write_text(json.dumps(edge_record(KEPT)))
    found = mx.audit(tiny, task, file, "zero", n_others=5)
    assert found.circuit.units == mx.edges(tiny)
    assert len(found.circuit) == len(KEPT)
    assert {"L0H1→L1H3.k", "L1H3→output", "embed→L1H3.q"} <= set(found.needed)
    assert len(found.gains.columns) == len(KEPT) + 5


def test_nodes_of_eap_ig_may_be_true_or_false_alone(tiny, tmp_path):
    """What its `Graph.to_json` wrote of nodes before they had scores."""
    record, files = edge_record(KEPT), [tmp_path / "new.json", tmp_path / "old.json"]
    files[0].write_text(json.dumps(record))
    record["nodes"] = {node: entry["in_graph"] for node, entry in record["nodes"].items()}
    files[1].write_text(json.dumps(record))
    one, other = (circuit_of_file(file, shape_of(tiny)) for file in files)
    assert one == other
    assert len(one) == len(KEPT)


def test_heads_that_share_their_keys_share_the_edge(llama, tmp_path):
    record = edge_record({"a0.h1->a1.h3<k>", "a0.h1->a1.h2<k>", "a0.h0->a1.h1<q>"})
    file = tmp_path / "graph.json"
    file.write_text(json.dumps(record))
    found = circuit_of_file(file, shape_of(llama))
    assert found.names == ("L0H0→L1H1.q", "L0H1→L1G1.k")


def test_nodes_of_mib_and_our_own_files(tiny, task, heads, tmp_path, audited):
    circuit = audited.circuit
    circuit.to_mib(tmp_path / "mib.json", tiny)
    circuit.save(tmp_path / "ours.json")
    for name in ("mib.json", "ours.json"):
        found = mx.audit(tiny, task, tmp_path / name)
        assert found.verdicts == audited.verdicts


def attribution_graph(*nodes):
    return {
        "metadata": {"prompt_tokens": []},
        "nodes": [
            {"node_id": "E_1_0", "feature_type": "embedding", "layer": "E", "feature": 0},
            *nodes,
            {"node_id": "3_1_0", "feature_type": "logit", "layer": "3", "feature": 1},
        ],
        "links": [],
    }


def test_attribution_graphs_of_heads_are_read_and_of_features_refused(tiny, tmp_path):
    file = tmp_path / "graph.json"
    head = {"feature_type": "attention", "layer": "1", "feature": 3, "ctx_idx": 4}
    file.write_text(json.dumps(attribution_graph(head, head | {"ctx_idx": 5})))
    assert circuit_of_file(file, shape_of(tiny)).names == ("L1H3",)
    no_head = {key: entry for key, entry in head.items() if key != "feature"}
    for node, says in (
        (no_head, "feature of a node of type 'attention' is missing; give the number of the head"),
        (head | {"feature": "3"}, "feature of a node of type 'attention' is '3'; give the number"),
        (head | {"feature": None}, "feature of a node of type 'attention' is None; give"),
    ):
        file.write_text(json.dumps(attribution_graph(node)))
        with pytest.raises(Refused, match=says):
            circuit_of_file(file, shape_of(tiny))
    feature = head | {"feature_type": "cross layer transcoder"}
    file.write_text(json.dumps(attribution_graph(feature)))
    with pytest.raises(Refused, match="'cross layer transcoder', which is no whole head or MLP"):
        circuit_of_file(file, shape_of(tiny))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not JSON"),
        ("[]", "which is no circuit"),
        ('{"nodes": [], "links": []}', "0 of 8 units"),
        ('{"nodes": 3, "links": []}', "nodes is 3"),
        ('{"nodes": [3], "links": []}', "the layer of a node is None"),
        ('{"nodes": [{"layer": 0}], "links": []}', "no feature_type; give each node one of embed"),
        ('{"schema": "mechspex.sweep/1"}', "schema"),
    ],
)
def test_other_files_are_refused_with_the_next_step(tiny, task, tmp_path, content, says):
    file = tmp_path / "a.json"
    file.write_text(content)
    with pytest.raises(Refused, match=says):
        mx.audit(tiny, task, file)


def test_what_cannot_be_tested_is_refused(tiny, task, heads, tmp_path):
    with pytest.raises(TaskError, match="one prompt has no spread"):
        mx.audit(tiny, task[:1], circuit_of(heads, "L0H1"))
    with pytest.raises(Refused, match="8 of 8 units"):
        mx.audit(tiny, task, circuit_of(heads, *heads.names))
    record = edge_record(KEPT)
    (tmp_path / "other.json").write_text(json.dumps(record))
    other = replace(shape_of(tiny), n_layers=5)
    with pytest.raises(Refused, match="is of a model with 10 heads and MLPs"):
        circuit_of_file(tmp_path / "other.json", other)
