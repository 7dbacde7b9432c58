"""The edges of a model: who reads whom, and what they are called."""

import pytest

import mechspex as mx
from mechspex.core.kinds import as_named, kind_of_name
from mechspex.core.units import UnitSet
from mechspex.errors import ModelError, UnknownUnitError
from mechspex.models.edges import edges_of
from mechspex.models.shape import Shape

SHAPE = Shape("some", n_layers=2, n_heads=2, d_mlp=5)


def readers_of(edges, writer):
    return [name.split("→")[1] for name in edges.names if name.startswith(f"{writer}→")]


def test_every_later_reader_reads_every_writer():
    edges = edges_of(SHAPE)
    of_heads = [f"L1H{head}.{part}" for part in "qkv" for head in (0, 1)]
    assert readers_of(edges, "L0H1") == ["L0MLP", *of_heads, "L1MLP", "output"]
    assert readers_of(edges, "L0MLP") == [*of_heads, "L1MLP", "output"]
    assert readers_of(edges, "L1MLP") == ["output"]
    assert len(readers_of(edges, "embed")) == 15
    # 6 + 3 readers' edges in the first block, 6 · 4 + 6 in the second, 7 into the output.
    assert len(edges) == len(set(edges.names)) == 6 + 3 + 24 + 6 + 7


def test_a_parallel_mlp_does_not_read_the_heads_of_its_layer():
    edges = edges_of(Shape("some", n_layers=2, n_heads=2, d_mlp=5, parallel=True))
    assert "L0MLP" not in readers_of(edges, "L0H1")
    assert "L1MLP" in readers_of(edges, "L0H1")


def test_heads_that_share_their_key_and_value_share_its_edges():
    edges = edges_of(Shape("some", n_layers=2, n_heads=4, d_mlp=5, n_groups=2))
    readers = readers_of(edges, "embed")
    shared = ["L1G0.k", "L1G1.k", "L1G0.v", "L1G1.v"]
    assert [reader for reader in readers if reader.startswith("L1G")] == shared
    assert len([reader for reader in readers if reader.endswith("q")]) == 8


def test_some_edges():
    edges = edges_of(SHAPE, layers=[1])
    assert {unit.layer for unit in edges} == {1}
    assert not any(name.endswith("output") for name in edges.names)
    among = edges_of(SHAPE, among=["L0H1", "L1H0"])
    assert among.names == (
        "embed→L0H1.q", "embed→L0H1.k", "embed→L0H1.v",
        "embed→L1H0.q", "L0H1→L1H0.q", "embed→L1H0.k", "L0H1→L1H0.k",
        "embed→L1H0.v", "L0H1→L1H0.v", "embed→output", "L0H1→output", "L1H0→output",
    )  # fmt: skip
    assert edges_of(SHAPE)[among.names] == among


def test_names_are_read_as_they_may_be_typed():
    edges = edges_of(SHAPE)
    for typed in ("L0H1->L1H0.q", "l0h1→l1h0.q", "L0H1 -> L1H0.Q"):
        assert edges[typed].names == ("L0H1→L1H0.q",)
    assert as_named("EMBED->OUTPUT") == "embed→output"
    assert kind_of_name("L0MLP→L1G0.k") == "edge"
    for no_edge in ("L0H1→L1H0", "L0H1→L1G0.q", "L0→L1MLP", "L0H1.q→L1MLP", "output→embed"):
        assert kind_of_name(no_edge) is None
    assert SHAPE.units("L0H1->L1H0.q, embed->output").names == ("L0H1→L1H0.q", "embed→output")
    assert SHAPE.units("edges") == edges
    assert UnitSet.from_list(edges.to_list()) == edges


def test_what_is_no_edge_is_refused():
    edges = edges_of(SHAPE)
    with pytest.raises(UnknownUnitError, match="L1H0→L0H0.q"):
        edges["L1H0→L0H0.q"]
    with pytest.raises(UnknownUnitError, match="no layer 2 in some; it has layers 0 … 1"):
        edges_of(SHAPE, layers=[2])
    with pytest.raises(UnknownUnitError, match="no head or MLP 'L5H0'"):
        edges_of(SHAPE, among=["L5H0"])
    with pytest.raises(ModelError, match="layer 1 of some has no heads"):
        edges_of(Shape("some", 2, 2, 5, absent={"head": frozenset({1})}))


def test_edges_of_a_shipped_model_are_known_before_it_is_loaded():
    edges = mx.edges("smollm2-135m")
    # Readers: 9 queries, 3 keys and 3 values, and an MLP a layer; writers: 10 a layer.
    per_layer = [15 * (1 + 10 * n) + 10 + 10 * n for n in range(30)]
    assert len(edges) == sum(per_layer) + 301 == 70_651
    assert mx.edges("tiny") == mx.edges(mx.load_model("tiny"))
    assert edges.description == "70651 edges"
