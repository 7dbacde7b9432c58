"""Edges: from what writes into the residual stream to what reads it later."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from mechspex.core.errors import ModelError, UnknownUnitError
from mechspex.core.kinds import ARROW
from mechspex.core.units import Unit, UnitSet

if TYPE_CHECKING:
    from mechspex.models.shape import Shape

EMBEDDING, OUTPUT = "embed", "output"


class Reader(NamedTuple):
    """What reads the residual stream.

    Attributes:
        name: ``L10H0.q`` (a head's query), ``L10H0.k`` and ``L10H0.v``; ``L10G0.k`` and
            ``L10G0.v`` where the heads of a group share their key and value; ``L10MLP``;
            ``output``.
        layer: the block it lies in, the last one for ``output``.
        part: ``q``, ``k``, ``v``, ``mlp`` or ``output``.
        number: the head, or the group of heads; 0 of the others.
        n_writers: how many writers of the model come before it.
    """

    name: str
    layer: int
    part: str
    number: int
    n_writers: int


@dataclass(frozen=True)
class Wires:
    """Who writes into the residual stream of a model, and who reads it when.

    Attributes:
        writers: their names, in the order in which they write: the embedding, then layer by layer
            the heads and the MLP.
        readers: in the order in which they read.
    """

    writers: tuple[str, ...]
    readers: tuple[Reader, ...]

    @classmethod
    def of(cls, shape: Shape) -> Wires:
        """The writers and readers of a model.

        A block with parallel attention has its MLP read before its heads have written.

        Raises:
            ModelError: some layers have no attention: what else mixes positions there reads too.
        """
        if shape.absent.get("head"):
            layer = min(shape.absent["head"])
            raise ModelError(
                f"layer {layer} of {shape.name} has no heads, and what mixes positions in their "
                "place is no writer and no reader of edges; choose heads or MLPs"
            )
        writers, readers = [EMBEDDING], []
        for layer in range(shape.n_layers):
            n_before = len(writers)
            readers += _of_attention(shape, layer, n_before)
            writers += [f"L{layer}H{head}" for head in range(shape.n_heads)]
            if not shape.attention_only:
                n_read = n_before if shape.parallel else len(writers)
                readers.append(Reader(f"L{layer}MLP", layer, "mlp", 0, n_read))
                writers.append(f"L{layer}MLP")
        readers.append(Reader(OUTPUT, shape.n_layers - 1, OUTPUT, 0, len(writers)))
        return cls(tuple(writers), tuple(readers))

    @property
    def stages(self) -> list[tuple[int, ...]]:
        """Places of the readers that read the same stream: an attention, an MLP, the output."""
        places = range(len(self.readers))
        of_attention = ("q", "k", "v")

        def stage(place: int) -> tuple[int, str]:
            reader = self.readers[place]
            return reader.layer, "attention" if reader.part in of_attention else reader.part

        return [tuple(members) for _, members in groupby(places, stage)]

    def ends(self, edges: UnitSet) -> list[tuple[int, int]]:
        """The place of the writer and that of the reader of each edge.

        Raises:
            UnknownUnitError: an edge that the model does not have.
        """
        writer_of = {name: place for place, name in enumerate(self.writers)}
        reader_of = {reader.name: place for place, reader in enumerate(self.readers)}
        found = []
        for edge in edges.units:
            writer, reader = ends_of(edge)
            if writer not in writer_of or reader not in reader_of:
                raise UnknownUnitError(
                    f"no edge {edge.name!r} in this model; take edges from edges(model)"
                )
            ends = writer_of[writer], reader_of[reader]
            if ends[0] >= self.readers[ends[1]].n_writers:
                raise UnknownUnitError(
                    f"no edge {edge.name!r}: {reader} reads before {writer} has written"
                )
            found.append(ends)
        return found


def ends_of(edge: Unit) -> tuple[str, str]:
    """The names of the writer and of the reader of an edge."""
    writer, _, reader = edge.label.partition(ARROW)
    return writer, reader


def edges_of(
    shape: Shape, layers: Iterable[int] | None = None, among: Iterable[str] | None = None
) -> UnitSet:
    """All edges of a model, reader by reader, in the order in which they read.

    Args:
        shape: the sizes of the model.
        layers: the layers whose readers are taken; all if not given, and the output.
        among: names of heads and MLPs, between which edges are taken, and from the embedding and to
            the output; all if not given.

    Raises:
        UnknownUnitError: a layer, a head or an MLP that the model does not have.
        ModelError: see `Wires.of`.
    """
    wires = Wires.of(shape)
    chosen = None if layers is None else set(layers)
    for layer in chosen or ():
        if not 0 <= layer < shape.n_layers:
            raise UnknownUnitError(
                f"no layer {layer} in {shape.name}; it has layers 0 … {shape.n_layers - 1}"
            )
    names = None if among is None else set(among)
    for name in names or ():
        if name not in wires.writers:
            raise UnknownUnitError(f"no head or MLP {name!r} in {shape.name}")
    found, numbers = [], [0] * shape.n_layers
    for reader in wires.readers:
        for writer in wires.writers[: reader.n_writers]:
            number = numbers[reader.layer]
            numbers[reader.layer] += 1
            if chosen is not None and (reader.part == OUTPUT or reader.layer not in chosen):
                continue
            if names is None or _is_among(shape, writer, reader, names):
                label = f"{writer}{ARROW}{reader.name}"
                found.append(Unit("edge", reader.layer, number, None, label))
    return UnitSet(tuple(found))


def _of_attention(shape: Shape, layer: int, n_before: int) -> list[Reader]:
    heads = [
        Reader(f"L{layer}H{head}.q", layer, "q", head, n_before) for head in range(shape.n_heads)
    ]
    letter, n_groups = ("H", shape.n_heads) if shape.n_groups is None else ("G", shape.n_groups)
    return heads + [
        Reader(f"L{layer}{letter}{group}.{part}", layer, part, group, n_before)
        for part in "kv"
        for group in range(n_groups)
    ]


def _is_among(shape: Shape, writer: str, reader: Reader, names: set[str]) -> bool:
    if writer != EMBEDDING and writer not in names:
        return False
    if reader.part == OUTPUT or reader.name in names:
        return True
    if reader.part == "mlp":
        return False
    per_group = 1
    if reader.part != "q" and shape.n_groups is not None:
        per_group = shape.n_heads // shape.n_groups
    heads = range(reader.number * per_group, (reader.number + 1) * per_group)
    return any(f"L{reader.layer}H{head}" in names for head in heads)
