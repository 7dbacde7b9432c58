"""Circuits as files of the MIB benchmark: nodes (heads and MLPs) of a graph, and its edges."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mechspex.circuits.circuit import Circuit
from mechspex.core.checks import told
from mechspex.core.counted import counted
from mechspex.core.errors import Refused
from mechspex.core.json_values import read_json, write_json
from mechspex.core.units import Unit, UnitSet

if TYPE_CHECKING:
    from mechspex.models.load_model import Model

INPUT, LOGITS = "input", "logits"
MibEdge = tuple[str, str, str | None]
"""The names of the nodes at both ends, and as what a head reads."""
# What is in the graph of every circuit, and no unit here.
_ENDS = (INPUT, LOGITS)
_EDGE = re.compile(r"(?P<parent>[^<>]+)->(?P<child>[^<>]+?)(?:<(?P<letter>[qkv])>)?")
_SIZES = ("n_layers", "n_heads", "d_model")
# No model has more; a file that says so is none.
_MOST = 10**6


@dataclass(frozen=True)
class MibGraph:
    """The sizes of a model, as the benchmark's graphs have them.

    Attributes:
        n_layers, n_heads, d_model: the sizes.
        parallel_attn_mlp: whether an MLP reads what the heads of its layer read, not what they
            write.
    """

    n_layers: int
    n_heads: int
    d_model: int
    parallel_attn_mlp: bool

    @classmethod
    def of_model(cls, model: Model) -> MibGraph:
        """The sizes of a model."""
        config = model.cfg
        return cls(config.n_layers, config.n_heads, config.d_model, bool(config.parallel_attn_mlp))

    @property
    def units(self) -> UnitSet:
        """All heads and MLPs, in the order of the nodes: layer by layer, the MLP last."""
        return UnitSet(
            tuple(
                unit
                for layer in range(self.n_layers)
                for unit in (
                    *(Unit("head", layer, head) for head in range(self.n_heads)),
                    Unit("mlp", layer, 0),
                )
            )
        )

    def edges(self, kept: Sequence[Unit]) -> Iterator[str]:
        """The names of the edges between nodes that are kept, with the input and the logits.

        Args:
            kept: units in the order of `units`.
        """
        for child in kept:
            parents = [INPUT, *(node_name(one) for one in kept if self.reads(child, one))]
            letters = [f"<{letter}>" for letter in "qkv"] if child.kind == "head" else [""]
            for parent in parents:
                for letter in letters:
                    yield f"{parent}->{node_name(child)}{letter}"
        for parent in [INPUT, *map(node_name, kept)]:
            yield f"{parent}->{LOGITS}"

    def n_edges(self, kept: Sequence[Unit]) -> int:
        """How many edges `edges` names.

        Args:
            kept: the units.
        """
        found = before = 1
        for layer in sorted({unit.layer for unit in kept}):
            n_heads = sum((unit.layer, unit.kind) == (layer, "head") for unit in kept)
            n_mlps = sum((unit.layer, unit.kind) == (layer, "mlp") for unit in kept)
            read = before if self.parallel_attn_mlp else before + n_heads
            found += 3 * n_heads * before + n_mlps * read + n_heads + n_mlps
            before += n_heads + n_mlps
        return found

    def reads(self, child: Unit, parent: Unit) -> bool:
        """Whether a node reads what another writes."""
        if parent.layer != child.layer:
            return parent.layer < child.layer
        return (parent.kind, child.kind) == ("head", "mlp") and not self.parallel_attn_mlp


def node_name(unit: Unit) -> str:
    """What the benchmark calls a head or an MLP: ``a9.h6``, ``m5``.

    Raises:
        Refused: a unit of another kind, or of one position.
    """
    if unit.kind not in ("head", "mlp") or unit.position is not None:
        if unit.kind == "edge":
            raise Refused(
                f"unit {unit.name}: graphs of edges are read from files of MIB and EAP-IG (audit), "
                "not written; keep the circuit with save"
            )
        raise Refused(
            f"unit {unit.name}: nodes of MIB are whole heads and MLPs; find the circuit among "
            "heads(model) + mlps(model)"
        )
    return f"m{unit.layer}" if unit.kind == "mlp" else f"a{unit.layer}.h{unit.number}"


def write_mib(
    circuit: Circuit, path: Path, model: Model | str | Path, importance: Sequence[float] | None
) -> None:
    """Write a circuit; see `Circuit.to_mib`."""
    # A file is read without the libraries of models.
    from mechspex.models.load_model import as_model

    bridge: Model = as_model("model", model)
    graph = MibGraph.of_model(bridge)
    every, inside = graph.units, set(circuit.names)
    searched = {node_name(unit): unit.name for unit in circuit.units}
    unknown = set(searched.values()) - set(every.names)
    if unknown:
        raise Refused(
            f"the circuit has the unit {min(unknown)}, which {bridge.cfg.model_name} lacks; give "
            "the model that it was found in"
        )
    scores = _scores(circuit, importance)
    nodes: dict[str, Any] = {INPUT: {"in_graph": True}}
    kept = [unit for unit in every if unit.name in inside or unit.name not in scores]
    of_graph = {unit.name for unit in kept}
    for unit in every:
        score = {"score": scores[unit.name]} if unit.name in scores else {}
        nodes[node_name(unit)] = {"in_graph": unit.name in of_graph, **score}
    nodes[LOGITS] = {"in_graph": True}
    edges = {name: {"in_graph": True, "score": 1.0} for name in graph.edges(kept)}
    write_json(path, {"cfg": vars(graph), "nodes": nodes, "edges": edges})


def _scores(circuit: Circuit, importance: Sequence[float] | None) -> dict[str, float]:
    """{unit: its score}: as given, else whether it is a member."""
    scores = circuit.mask.astype(float) if importance is None else np.asarray(importance, float)
    if scores.shape != (len(circuit.units),) or not np.isfinite(scores).all():
        raise Refused(
            f"importance of shape {scores.shape}: give a finite number for each of "
            f"{len(circuit.units)} units"
        )
    return dict(zip(circuit.units.names, scores.tolist(), strict=True))


@dataclass(frozen=True)
class MibNodes:
    """What a file of the benchmark says of the nodes.

    Attributes:
        units: all heads and MLPs of its model.
        inside: the names of those in the graph.
        scores: {name: its score}, of those that have one.
        edges: (parent, child, ``q``, ``k``, ``v`` or None) of those in the graph whose ends are.
        by_edges: whether edges between nodes of the graph are left out of it.
    """

    units: UnitSet
    inside: frozenset[str]
    scores: Mapping[str, float]
    edges: tuple[MibEdge, ...]
    by_edges: bool


def read_mib(path: Path) -> MibNodes:
    """Read a file of the benchmark.

    Args:
        path: a JSON file.

    Raises:
        Refused: a file of another kind, or one with nodes, scores or edges that are none.
    """
    refuse_pickle(path)
    found = read_json(path)
    try:
        return _nodes(found)
    except Refused as error:
        raise Refused(f"{path} is no circuit of MIB: {error}") from None


def refuse_pickle(path: Path) -> None:
    """Refuse what `Graph.to_pt` of EAP-IG writes.

    Raises:
        Refused: a file of that kind.
    """
    if path.suffix == ".pt":
        raise Refused(f"{path} is a pickle, which is not read here; write JSON: Graph.to_json")


def _nodes(found: object) -> MibNodes:
    if not isinstance(found, dict) or not {"cfg", "nodes", "edges"} <= set(found):
        raise Refused("it lacks one of cfg, nodes, edges; write it with Graph.to_json")
    parts = {part: _mapping(part, found[part]) for part in ("cfg", "nodes", "edges")}
    graph = _graph(parts["cfg"])
    nodes = {node_name(unit): unit for unit in graph.units}
    inside: set[Unit] = set()
    scores: dict[str, float] = {}
    for node, entry in parts["nodes"].items():
        if node in _ENDS:
            continue
        if node not in nodes:
            raise Refused(
                f"node {told(node)} is none of {graph.n_layers} layers of {graph.n_heads} heads"
            )
        # EAP-IG writes true or false alone.
        entry = {"in_graph": entry} if type(entry) is bool else _mapping(f"node {node}", entry)
        if _in_graph(f"node {node}", entry):
            inside.add(nodes[node])
            _refuse_neurons(node, entry)
        score = _score(f"node {node}", entry)
        if score is not None:
            scores[nodes[node].name] = score
    edges = _edges(parts["edges"], graph, {**nodes, INPUT: None, LOGITS: None}, inside)
    whole = graph.n_edges(list(inside))
    names = frozenset(unit.name for unit in inside)
    return MibNodes(UnitSet(tuple(nodes.values())), names, scores, edges, len(edges) < whole)


def _graph(cfg: Mapping[str, Any]) -> MibGraph:
    sizes = {}
    for name in _SIZES:
        size = cfg.get(name)
        if type(size) is not int or not 1 <= size <= _MOST:
            raise Refused(f"cfg: {name} = {told(size)}; give a whole number from 1 up")
        sizes[name] = size
    parallel = cfg.get("parallel_attn_mlp", False)
    if type(parallel) is not bool:
        raise Refused(f"cfg: parallel_attn_mlp = {told(parallel)}; give true or false")
    if sizes["n_layers"] * (sizes["n_heads"] + 1) > _MOST:
        raise Refused(
            f"cfg: {sizes['n_layers']} layers of {sizes['n_heads']} heads; no model has as many"
        )
    return MibGraph(**sizes, parallel_attn_mlp=parallel)


def _mapping(what: str, given: object) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise Refused(f"{what} is {told(given)}; give an object of JSON")
    return given


def _in_graph(what: str, entry: Mapping[str, Any]) -> bool:
    given = entry.get("in_graph")
    if type(given) is not bool:
        raise Refused(f"{what}: in_graph is {told(given)}; give true or false")
    return given


def _score(what: str, entry: Mapping[str, Any]) -> float | None:
    """Their scores are NaN where there is none."""
    given = entry.get("score")
    if given is None:
        return None
    if type(given) not in (int, float) or math.isinf(given):
        raise Refused(f"{what}: score is {told(given)}; give a finite number, or none")
    return None if math.isnan(given) else float(given)


def _refuse_neurons(node: str, entry: Mapping[str, Any]) -> None:
    neurons = entry.get("neurons")
    if neurons is not None and not all(neurons if isinstance(neurons, list) else [False]):
        raise Refused(f"node {node} is there with a part of its neurons; only whole nodes are read")


def _edges(
    stored: Mapping[str, Any], graph: MibGraph, nodes: Mapping[str, Unit | None], inside: set[Unit]
) -> tuple[MibEdge, ...]:
    """The edges of the graph that join nodes of it; the input and the logits are no units."""
    kept = []
    for edge, entry in stored.items():
        found = _EDGE.fullmatch(edge)
        if not found or not _joins(found["parent"], found["child"], found["letter"], graph, nodes):
            raise Refused(f"edge {told(edge)} joins no two nodes of {graph.n_layers} layers")
        ends = nodes[found["parent"]], nodes[found["child"]]
        in_graph = _in_graph(f"edge {edge}", _mapping(f"edge {edge}", entry))
        if in_graph and all(end is None or end in inside for end in ends):
            kept.append((found["parent"], found["child"], found["letter"]))
    return tuple(kept)


def _joins(
    parent: str, child: str, letter: str | None, graph: MibGraph, nodes: Mapping[str, Unit | None]
) -> bool:
    """Whether the child reads the parent, and says as what if it is a head."""
    if parent not in nodes or child not in nodes or parent == LOGITS or child == INPUT:
        return False
    writes, reads = nodes[parent], nodes[child]
    if (letter is not None) != (reads is not None and reads.kind == "head"):
        return False
    return writes is None or reads is None or graph.reads(reads, writes)


def circuit_of_mib(path: Path, units: UnitSet | None, size: int | None, absolute: bool) -> Circuit:
    """The nodes of a file of the benchmark; see `Circuit.from_mib`."""
    nodes = read_mib(path)
    inside = nodes.inside if size is None else _largest(nodes, size, absolute)
    units = nodes.units if units is None else units
    others = set(nodes.units.names) - set(nodes.units[units.names].names)
    if not others <= inside:
        raise Refused(
            f"{path} leaves out {min(others - inside)}, which is none of the units; give "
            "heads(model) + mlps(model), or no units"
        )
    how = "the nodes in its graph"
    if size is not None:
        how = f"the {counted(size, 'node')} of the {'largest' if absolute else 'highest'} scores"
        n_others = len(inside) - size
        how += f", beside {n_others} without one" if n_others else ""
    elif nodes.by_edges:
        how += ", of which some edges are not in it"
    members = tuple(column for column, unit in enumerate(units) if unit.name in inside)
    return Circuit(units, members, method=f"a file of MIB: {how}")


def _largest(nodes: MibNodes, size: int, absolute: bool) -> frozenset[str]:
    """The nodes with the best scores, and all that have none."""
    if not 0 <= size <= len(nodes.scores):
        raise Refused(
            f"size = {size}: the file has scores of {len(nodes.scores)} nodes; leave the size out "
            "to take the nodes that are in its graph"
        )
    worth = {name: abs(score) if absolute else score for name, score in nodes.scores.items()}
    ranking = sorted(worth, key=lambda name: -worth[name])
    unscored = set(nodes.units.names) - set(nodes.scores)
    return frozenset({*ranking[:size], *unscored})
