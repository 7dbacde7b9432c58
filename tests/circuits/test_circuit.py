"""Circuits: what they hold, how their members act together, files, comparisons."""

import json
from itertools import combinations

import networkx as nx
import numpy as np
import pandas as pd
import pytest

import mechspex as mx
from mechspex.circuits.circuit import MemberPair
from mechspex.core.statistics import Estimate
from mechspex.errors import Refused, UnknownUnitError


def gates():
    """0 AND 1; 2 OR 3; 4 writes what 5 takes away; 6 does nothing."""

    def function(masks):
        m = masks.astype(float)
        both, either = m[:, 0] * m[:, 1], 1 - (1 - m[:, 2]) * (1 - m[:, 3])
        value = 2 * both + either + m[:, 4] * (1 - 0.5 * m[:, 5])
        return np.outer(value, np.linspace(0.9, 1.1, 10))

    return mx.FunctionValues(function, mx.parts(f"u{i}" for i in range(8)))


def circuit_of(values, members):
    terms = [(i,) for i in members] + list(combinations(members, 2))
    found = mx.Circuit(values.units, tuple(members), method="by hand")
    return found.with_links(mx.validate(values, terms))


def test_pairs_are_told_apart_by_exact_effects():
    found = circuit_of(gates(), range(7))
    relation = {link.members: link.relation for link in found.links}
    assert relation == {(0, 1): "together", (2, 3): "backup", (4, 5): "opposed"}
    assert found.effects[0] == pytest.approx(-2.0)
    assert found.groups("together") == ((0, 1),)
    assert found.groups("backup") == ((2, 3),)
    frame = found.links_to_pandas().set_index("units")
    assert frame.loc["u0 × u1", "effect"] == pytest.approx(2.0)
    assert frame.loc["u2 × u3", "effect"] == pytest.approx(-1.0)


def test_roles_come_from_a_frame():
    found = mx.Circuit(mx.parts("abcd"), (0, 1, 2))
    frame = pd.DataFrame(
        {
            "unit": ["c", "a", "b", "d"],
            "role": ["mover", "mover", "", "mover"],
            "evidence": ["looks here", "looks there", "", "no member"],
        }
    )
    named = found.with_roles(frame)
    assert named.roles == {"mover": (0, 2)}
    assert named.evidence == {0: "looks there", 2: "looks here"}
    assert list(named.to_pandas()["role"]) == ["mover", "", "mover"]
    assert found.roles == {}, "the circuit itself is left alone"
    with pytest.raises(UnknownUnitError, match="'e'"):
        found.with_roles(frame.assign(unit=["e", "a", "b", "d"]))


def test_groups_join_overlapping_pairs():
    joint = Estimate(1.0, 0.5, 1.5)
    links = tuple(MemberPair(pair, joint, "together") for pair in ((0, 1), (1, 2), (4, 5)))
    found = mx.Circuit(mx.parts(range(6)), (0, 1, 2, 4, 5), links=links)
    assert found.groups("together") == ((0, 1, 2), (4, 5))
    assert found.groups("opposed") == ()


def test_additive_functions_have_no_links():
    values = mx.FunctionValues(
        lambda masks: masks @ np.linspace(1, 2, 40).reshape(8, 5), mx.parts(range(8))
    )
    assert circuit_of(values, range(8)).links == ()


def test_a_circuit_survives_its_file(tmp_path):
    values = gates()
    found = circuit_of(values, range(7))
    scores = mx.faithfulness(values, found.members, n_random=3).to_dict()
    found = mx.Circuit(
        **{**vars(found), "scores": scores, "roles": {"mover": (2, 3)}, "evidence": {2: "looks"},
           "predicted": 3.5, "configuration": {"task": "gates"}}
    )  # fmt: skip
    found.save(tmp_path / "circuit.json")
    again = mx.Circuit.load(tmp_path / "circuit.json")
    assert again == found
    assert json.loads((tmp_path / "circuit.json").read_text())["schema"] == "mechspex.circuit/1"
    assert "faithfulness 1.000" in str(again)
    assert "mover" in str(again)
    found.to_graphml(tmp_path / "circuit.graphml")
    graph = nx.read_graphml(tmp_path / "circuit.graphml")
    assert set(graph.nodes) == set(found.names)
    assert graph.edges["u0", "u1"]["relation"] == "together"


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"schema": "mechspex.circuit/2"}', '{"schema": "mechspex.circuit/1"}',
     '{"schema": "mechspex.circuit/1", "units": 3}'],
)  # fmt: skip
def test_a_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "circuit.json"
    path.write_text(content)
    with pytest.raises(Refused, match="refused"):
        mx.Circuit.load(path)
    with pytest.raises(Refused, match="refused"):
        mx.Circuit.load(tmp_path / "none.json")


def test_members_must_be_units():
    units = mx.parts("abc")
    for members in ((1, 0), (0, 0), (0, 3)):
        with pytest.raises(Refused, match="members"):
            mx.Circuit(units, members)


def test_a_found_circuit_beside_a_published_one():
    units = mx.parts(f"u{i}" for i in range(10))
    truth = mx.Circuit.published({"mover": ["u1", "u2"], "other": ["u2", "u7"]}, units)
    assert truth.members == (1, 2, 7)
    assert truth.roles == {"mover": (1, 2), "other": (2, 7)}
    found = mx.Circuit(units, (1, 2, 3, 4))
    held = mx.compare_circuits(found, truth)
    assert (held.precision, held.recall) == (0.5, pytest.approx(2 / 3))
    assert held.f1 == pytest.approx(4 / 7)
    assert held.both == ("u1", "u2")
    assert held.only_truth == ("u7",)
    assert held.expected == pytest.approx(0.3)
    # Membership alone: pairs (true, other) in order, ties counting half.
    assert held.auc == pytest.approx((2 * (5 + 2 / 2) + 1 * 5 / 2) / 21)
    best = mx.compare_circuits(found, truth, ranking=[1, 2, 7, 0, 3, 4, 5, 6, 8, 9])
    assert best.auc == 1.0
    last = ["u0", "u3", "u4", "u5", "u6", "u8", "u9", "u1", "u2", "u7"]
    worst = mx.compare_circuits(found, truth, ranking=last)
    assert worst.auc == 0.0
    assert "precision 0.50 (by chance 0.30)" in str(held)


def test_what_cannot_be_compared_is_refused():
    units = mx.parts("abcd")
    one = mx.Circuit(units, (0,))
    with pytest.raises(Refused, match="one model"):
        mx.compare_circuits(one, mx.Circuit(mx.parts("abc"), (0,)))
    with pytest.raises(Refused, match="0 of 4 units"):
        mx.compare_circuits(one, mx.Circuit(units, ()))
    with pytest.raises(Refused, match="the ranking has 2 units"):
        mx.compare_circuits(one, mx.Circuit(units, (1,)), ranking=[0, 1])
    with pytest.raises(UnknownUnitError, match="L0H0"):
        mx.Circuit.published({"mover": ["L0H0"]}, units)
