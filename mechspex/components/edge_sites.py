"""Where edges lie in a model: who reads which stream, and in which mask columns its edges are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from mechspex.components.wiring import Wiring
from mechspex.core.errors import AblationError
from mechspex.core.units import UnitSet
from mechspex.models.edges import Reader, Wires
from mechspex.models.load_model import Model
from mechspex.models.units import shape_of

EDGE = "edge"
# Kinds whose ablation changes what a writer of edges writes, and nothing else.
_BESIDE = (EDGE, "head", "mlp", "neuron")


@dataclass(frozen=True, eq=False)
class Stage:
    """The readers of one stream: those of a block's attention, an MLP, or the output.

    Attributes:
        readers: in order.
        columns: the mask column of each edge into them, at all tokens and at each of `places`; the
            number of all columns where it is none.
    """

    readers: tuple[Reader, ...]
    columns: Int[np.ndarray, "place reader writer"]

    @property
    def layer(self) -> int:
        return self.readers[0].layer

    @property
    def part(self) -> str:
        return self.readers[0].part


@dataclass(frozen=True, eq=False)
class EdgeSites:
    """Where the edges among a model's units lie.

    Attributes:
        wiring: how the model is wired.
        stages: its readers, stream by stream.
        written: for each block, its heads and its MLP among all writers; the embedding is the
            first writer.
        n_writers: how many writers there are.
        places: the positions and spans at which some edges alone are ablated.
    """

    wiring: Wiring
    stages: tuple[Stage, ...]
    written: tuple[tuple[range, int | None], ...]
    n_writers: int
    places: tuple[int | str, ...] = ()

    @classmethod
    def of(cls, model: Model, units: UnitSet) -> EdgeSites:
        """Where the edges among some units lie in a model.

        Args:
            model: the bridge.
            units: the columns of the masks.

        Raises:
            AblationError: a unit that changes the stream where no writer of edges writes.
            UnknownUnitError, ModelError: what the model does not have.
        """
        for unit in units:
            if unit.kind not in _BESIDE:
                raise AblationError(
                    f"unit {unit.name!r} cannot be ablated beside edges: it changes the residual "
                    "stream where no head and no MLP writes; take heads, MLPs or neurons there"
                )
        edges = [(column, unit) for column, unit in enumerate(units) if unit.kind == EDGE]
        wires = Wires.of(shape_of(model))
        stages = []
        at = [edge.position for _, edge in edges]
        places = tuple(dict.fromkeys(place for place in at if place is not None))
        ends = wires.ends(UnitSet(tuple(edge for _, edge in edges)))
        column_of = {
            (*pair, edge.position): column for pair, (column, edge) in zip(ends, edges, strict=True)
        }
        for members in wires.stages:
            readers = tuple(wires.readers[place] for place in members)
            columns = [
                [
                    [
                        column_of.get((writer, member, place), len(units))
                        for writer in range(reader.n_writers)
                    ]
                    for member, reader in zip(members, readers, strict=True)
                ]
                for place in (None, *places)
            ]
            stages.append(Stage(readers, np.array(columns)))
        n_heads, has_mlps = model.cfg.n_heads, not model.cfg.attn_only
        per_layer = n_heads + has_mlps
        starts = range(1, len(wires.writers), per_layer)
        written = tuple(
            (range(start, start + n_heads), start + n_heads if has_mlps else None)
            for start in starts
        )
        return cls(Wiring.of(model), tuple(stages), written, len(wires.writers), places)
