"""Edges under ablation: each reader of the residual stream sees a stream of its own.

A part of a model writes its contribution into the residual stream, and every later part reads the
sum. Where the edge from a writer w to a reader r is ablated, r alone sees w's reference:

    input of r = live stream + Σ_w (1 − m[w→r]) · (reference contribution of w − live one)

Live is what w writes under the same mask. A head contributes its output times its part of the
output projection (biases belong to the layer and stay), an MLP its output, the embedding all that
enters the first block. What the heads of a layer write together may pass a norm before it is added;
r then sees what that norm makes of them with their references in place.

What each writer's contribution is off by is recorded once a forward, ``[writer, row, pos,
d_model]``; all readers of one stream take theirs from it in a single product. Only writers and
readers with an ablated edge in the batch take part, so the cost falls with sparsity.

Heads, MLPs and neurons under the same mask are ablated first: what they then write is the live
contribution. So an edge out of an ablated head changes nothing more, and a head is ablated as all
edges out of it together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from mechspex.components.edge_flow import EdgeFlow
from mechspex.components.edge_sites import EDGE, EdgeSites
from mechspex.components.masked_forward import Ablation, Masks, both
from mechspex.components.mean_references import References
from mechspex.core.errors import ModelError
from mechspex.core.kinds import Kind
from mechspex.core.units import UnitSet
from mechspex.models.bridge import Edits


@dataclass(frozen=True, eq=False)
class EdgeAblation:
    """What ablated edges carry, on rows of one length.

    Attributes:
        sites: where the edges lie.
        references: {hook point of a writer: what its output is replaced by}, ``[1 or row, 1 or pos,
            …]``.
        clean: {the same: its output in the clean pass}, ``[row, pos, …]``.
        length: the length of the rows, in tokens.
        at: which tokens lie at each of the sites' places, ``[place, row, pos]``.
        parts: the heads, MLPs and neurons among the units, ablated themselves.
        fused: edits are made where queries, keys and values leave one module, as in a plain model.
        words: None: no words among edges.
    """

    sites: EdgeSites
    references: References
    clean: Mapping[str, Tensor]
    length: int
    at: Bool[Tensor, "place row pos"]
    parts: Ablation
    fused: bool = False
    words: None = None

    @property
    def hooks(self) -> list[tuple[str, Kind]]:
        """The hook points of its edits, each with the kind of the units there."""
        found = self.parts.hooks
        for block in self.sites.wiring.blocks:
            found += [(block.stream, EDGE), (block.heads, "head"), (block.mlp_stream, EDGE)]
            found += [(block.mlp, "mlp")] if block.mlp is not None else []
            found += [(hook, EDGE) for hook in block.read_at(fused=self.fused)]
        return [*found, (self.sites.wiring.output, EDGE)]

    @property
    def norms(self) -> list[nn.Module]:
        """The norms through which readers see streams of their own."""
        blocks = self.sites.wiring.blocks
        found = [(b.norm, b.norm_after, b.mlp_norm, b.mlp_norm_after) for b in blocks]
        return [norm for each in found for norm in each if norm is not None]

    @property
    def floats_per_token(self) -> int:
        """How many numbers one token of a forward takes beside the model's own."""
        blocks = self.sites.wiring.blocks
        d_model = blocks[0].written.shape[1]
        n_readers = max(len(stage.readers) for stage in self.sites.stages)
        return d_model * (self.sites.n_writers + (4 + 2 * bool(self.sites.places)) * n_readers)

    @property
    def floats_per_token_with_gradients(self) -> int:
        """The same where every block's are kept."""
        d_model = self.sites.wiring.blocks[0].written.shape[1]
        n_readers = sum(len(stage.readers) for stage in self.sites.stages)
        n_each = 6 * (1 + len(self.sites.places))
        return d_model * (2 * self.sites.n_writers + n_each * n_readers)

    def first_positions(self, n_units: int) -> Int[np.ndarray, " unit"]:
        """All are ablated from the first position on: edges are, and most masks ablate some."""
        return np.zeros(n_units, dtype=int)

    def first_blocks(self, units: UnitSet) -> Int[np.ndarray, " unit"]:
        """The block that each edge's reader, or part, is in."""
        return np.array([unit.layer for unit in units])

    def without_bridge(self, dtype: torch.dtype) -> EdgeAblation:
        """The same on a plain model, in another dtype.

        Raises:
            ModelError: it is not known where queries, keys and values leave their one module.
        """
        for block in self.sites.wiring.blocks:
            if block.fused and any(p.rows is None for p in block.projections.values()):
                raise ModelError(f"{block.fused} lists queries, keys and values in no known order")
        wiring = self.sites.wiring.in_dtype(dtype)
        return replace(
            self,
            sites=replace(self.sites, wiring=wiring),
            references={hook: r.to(dtype) for hook, r in self.references.items()},
            clean={hook: c.to(dtype) for hook, c in self.clean.items()},
            parts=self.parts.without_bridge(dtype),
            fused=True,
        )

    def edits(self, masks: Masks, rows: slice) -> Edits:
        """Edits of activations ``[(mask row), pos, …]``, good for one forward.

        Args:
            masks: ``[mask, 1 or row, unit]``, Boolean, or between 0 and 1.
            rows: the rows that are run, as a slice of the references.
        """
        flow = EdgeFlow(
            self.sites, self.references, self.clean, masks, rows, self.at[:, rows], fused=self.fused
        )
        edits = dict(self.parts.edits(masks, rows))
        for hook, edit in flow.edits().items():
            # What is written is recorded after it was ablated.
            before = edits.get(hook)
            edits[hook] = edit if before is None else both(before, edit)
        return edits

    def hidden_keys(self, masks: Masks, rows: slice) -> None:
        """No positions are hidden."""
