"""Whether edges carry what a model's parts write: proved before any is measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from mechspex.components.edge_ablation import EdgeAblation
from mechspex.components.edge_sites import EdgeSites
from mechspex.components.masked_forward import Ablation, MaskedForward, sites_of
from mechspex.core.errors import ModelError
from mechspex.core.masks import sample_masks
from mechspex.core.units import UnitSet
from mechspex.forward.rounding import rounding_of
from mechspex.models.edges import edges_of, ends_of
from mechspex.models.units import shape_of

# Heads and MLPs that stay, among those whose edges are all ablated.
_KEPT = 0.7


def check_wiring(forward: MaskedForward) -> None:
    """Hold heads and MLPs that are ablated against edges out of them that are, all at once.

    The same must come of both. It does not where a model adds to its residual stream in a way that
    is not known here.

    Args:
        forward: the forward of some edges, through the bridge.

    Raises:
        ModelError: the logits differ by more than rounding.
    """
    model, ablation = forward.model, forward.ablation
    assert isinstance(ablation, EdgeAblation)
    shape = shape_of(model)
    parts = shape.of_kind("head")
    parts = parts if shape.attention_only else parts + shape.of_kind("mlp")
    edges = edges_of(shape)
    of_parts = Ablation(sites_of(model, parts), ablation.references, ablation.length)
    whole = replace(forward, ablation=of_parts)
    alone = replace(of_parts, sites=())
    all_edges = replace(ablation, sites=EdgeSites.of(model, edges), parts=alone)
    every = replace(forward, ablation=all_edges)
    kept = sample_masks(len(parts), 1, keep=_KEPT, seed=0)
    first = slice(0, 1)
    logits = [
        one(torch.from_numpy(masks)[:, None].to(forward.tokens.device), first)
        for one, masks in ((whole, kept), (every, out_of(edges, parts, kept)))
    ]
    apart, size = float((logits[0] - logits[1]).abs().max()), float(logits[0].abs().max())
    if not apart <= rounding_of(logits[0].dtype, size):
        raise ModelError(
            f"the edges of {model.cfg.model_name} cannot be measured: with all edges out of some "
            f"heads and MLPs ablated, logits are off by {apart:.2g} from those with the heads and "
            "MLPs ablated themselves, so it is not known how its residual stream is put together; "
            "choose heads or MLPs"
        )


def out_of(edges: UnitSet, parts: UnitSet, kept: np.ndarray) -> np.ndarray:
    """The masks of edges that ablate all edges out of each part that masks of parts ablate.

    Args:
        edges: the columns of the masks of edges.
        parts: heads and MLPs, the columns of `kept`.
        kept: masks of those, ``[mask, part]``.
    """
    columns = [parts.column_of.get(ends_of(edge)[0], len(parts)) for edge in edges.units]
    return np.pad(kept, ((0, 0), (0, 1)), constant_values=True)[:, columns]
