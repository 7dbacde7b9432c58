"""Circuits of other tools, read from their files: nodes or edges of a graph, not yet believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mechspex.circuits.circuit import Circuit
from mechspex.circuits.discovery import Discovery
from mechspex.circuits.mib import INPUT, LOGITS, read_mib, refuse_pickle
from mechspex.core.checks import told
from mechspex.core.counted import counted
from mechspex.core.errors import Refused
from mechspex.core.json_values import read_json
from mechspex.core.kinds import ARROW
from mechspex.core.units import UnitSet
from mechspex.models.edges import EMBEDDING, OUTPUT, edges_of
from mechspex.models.shape import Shape

# What stands for the ends of a graph in attribution graphs.
_ENDS = ("embedding", "logit")
# Types of nodes that are whole components.
_HEAD, _MLP = ("attention", "attention head"), ("mlp",)


def circuit_of_file(path: Path, shape: Shape) -> Circuit:
    """The circuit in a file, with the model's heads and MLPs or its edges as units.

    Args:
        path: a circuit or a discovery of mechspex; JSON of the MIB benchmark or of EAP-IG, of whose
            graph either nodes or edges are left out; an attribution graph of heads and MLPs.
        shape: the sizes of the model in which it lies.

    Raises:
        Refused: a file of another kind, of another model, or of parts of MLPs.
    """
    refuse_pickle(path)
    record = read_json(path)
    keys = set(record) if isinstance(record, dict) else set()
    if "schema" in keys:
        if record["schema"] == Discovery.schema:
            return Discovery.load(path).circuit
        return Circuit.load(path)
    if {"cfg", "nodes", "edges"} <= keys:
        return _of_graph(path, shape)
    if {"nodes", "links"} <= keys:
        return _of_attribution_graph(path, record, shape)
    raise Refused(
        f"{path} holds {told(record)}, which is no circuit; give one of mechspex, of MIB or EAP-IG "
        "(cfg, nodes, edges), or an attribution graph (nodes, links)"
    )


def _of_graph(path: Path, shape: Shape) -> Circuit:
    """Nodes, or edges where the graph leaves out some between its nodes."""
    nodes = read_mib(path)
    n_nodes = shape.n_layers * (shape.n_heads + 1)
    if len(nodes.units) != n_nodes:
        raise Refused(
            f"{path} is of a model with {len(nodes.units)} heads and MLPs, and {shape.name} has "
            f"{n_nodes}; give the model that it was found in"
        )
    if not nodes.by_edges:
        return Circuit.from_mib(path, _heads_and_mlps(shape))
    units = edges_of(shape)
    names = {_edge_name(*ends, shape) for ends in nodes.edges}
    members = tuple(sorted(units.columns(sorted(names))))
    return Circuit(units, members, method=f"a file of MIB: {counted(len(members), 'edge')}")


def _edge_name(parent: str, child: str, letter: str | None, shape: Shape) -> str:
    """``L9H6→L10H0.q``; heads that share their key and value share the edge to it."""
    writer = EMBEDDING if parent == INPUT else _node_name(parent)
    if child == LOGITS:
        return f"{writer}{ARROW}{OUTPUT}"
    reader = _node_name(child)
    if letter is None:
        return f"{writer}{ARROW}{reader}"
    if letter != "q" and shape.n_groups is not None:
        layer, head = reader.split("H")
        reader = f"{layer}G{int(head) * shape.n_groups // shape.n_heads}"
    return f"{writer}{ARROW}{reader}.{letter}"


def _node_name(node: str) -> str:
    """``a9.h6`` is ``L9H6``, ``m5`` is ``L5MLP``."""
    if node.startswith("m"):
        return f"L{node[1:]}MLP"
    layer, head = node[1:].split(".h")
    return f"L{layer}H{head}"


def _of_attribution_graph(path: Path, record: dict[str, Any], shape: Shape) -> Circuit:
    """Heads and MLPs of an attribution graph; a node at any position counts for all of them."""
    if not isinstance(record["nodes"], list):
        raise Refused(f"{path}: nodes is {told(record['nodes'])}; give a list")
    found = {_component(path, node) for node in record["nodes"]} - {None}
    units = _heads_and_mlps(shape)
    members = tuple(sorted(units.columns(sorted(name for name in found if name))))
    return Circuit(units, members, method="an attribution graph: its heads and MLPs")


def _component(path: Path, node: Any) -> str | None:
    """The head or MLP of a node; None of the graph's ends."""
    kind, layer, number = (
        (node.get("feature_type"), node.get("layer"), node.get("feature"))
        if isinstance(node, dict)
        else (None, None, None)
    )
    if isinstance(node, dict) and kind is None:
        raise Refused(
            f"{path}: the node {told(node.get('node_id', node))} has no feature_type; give each "
            f"node one of {', '.join([*_ENDS, *_HEAD, *_MLP])}"
        )
    if kind in _ENDS:
        return None
    if not str(layer).isdecimal():
        raise Refused(f"{path}: the layer of a node is {told(layer)}; give a whole number")
    if kind in _MLP:
        return f"L{layer}MLP"
    if kind in _HEAD:
        if type(number) is not int:
            said = f"is {told(number)}" if "feature" in node else "is missing"
            raise Refused(
                f"{path}: the feature of a node of type {told(kind)} {said}; give the number of "
                "the head"
            )
        return f"L{layer}H{number}"
    raise Refused(
        f"{path} has a node of type {told(kind)}, which is no whole head or MLP: features of "
        "transcoders and their errors are parts of MLPs; give a graph of heads and MLPs"
    )


def _heads_and_mlps(shape: Shape) -> UnitSet:
    return shape.units("heads" if shape.attention_only else "heads+mlps")
