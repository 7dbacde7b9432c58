"""Slopes of edges into queries and keys, by the attention pattern that is left without each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mechspex.components.edge_sites import EdgeSites
from mechspex.forward.patterns import Patterns


class _Edge(NamedTuple):
    """An edge into a query or a key.

    Attributes:
        column: its mask column.
        layer: the reader's block.
        heads: those whose attention it changes: all of a group where it is the group's key, and all
            of the layer where these pass one norm.
    """

    column: int
    layer: int
    heads: slice


def recomputed_slopes(
    sites: EdgeSites,
    masks: Float[Tensor, "mask row unit"],
    patterns: Patterns,
    run: Callable[[Tensor], object],
) -> Iterator[tuple[list[int], Float[Tensor, "pass mask row edge"]]]:
    """For columns of edges into queries or keys, the slope of the value in them by their patterns.

    slope(e) = Σ (A − A') · ∂f/∂A / (m_e − m'_e), with A the patterns at the masks, and A' those at
    the end of m_e that is further away: m'_e = 0 from m_e = ½ on, which ablates the edge, else 1.
    The reader sees its stream so, through its own norm; all that a writer's edges into queries, or
    keys, change in all layers comes of one forward, as patterns go no further. Where the queries of
    all heads pass one norm together (OLMo 2), each reader takes a forward of its own.

    Args:
        sites: where the edges lie.
        masks: the masks of every row.
        patterns: the attention patterns at these masks, with the gradients of each backward pass.
        run: runs a forward of the same rows at other masks.
    """
    n_masks, n_rows, n_units = masks.shape
    n_heads, _, d_head = sites.wiring.blocks[0].written.shape
    joined = any(_has_wide_norm(attention, d_head) for attention in patterns.attentions)
    for edges in _together(sites, n_units, n_heads, joined=joined):
        columns = [edge.column for edge in edges]
        here = masks[..., columns]
        other = (here < 0.5).to(masks.dtype)
        moved = masks.clone()
        moved[..., columns] = other
        with patterns.compared(n_masks * n_rows, n_heads) as changes:
            run(moved)
        each = [changes[edge.layer][..., edge.heads].sum(-1) for edge in edges]
        slopes = torch.stack(each, dim=-1).unflatten(1, (n_masks, n_rows))
        yield columns, slopes / (here - other)


def _has_wide_norm(attention: nn.Module, d_head: int) -> bool:
    """Whether the queries, or keys, of several heads may pass one norm."""
    norms = [m for m in attention.modules() if "norm" in type(m).__name__.lower()]
    return any(p.numel() > d_head for norm in norms for p in norm.parameters())


def _together(
    sites: EdgeSites, n_units: int, n_heads: int, *, joined: bool
) -> Iterator[list[_Edge]]:
    """The edges that one forward serves: those of one writer, at one place, into one part; into
    one reader a layer alone where heads are `joined`."""
    found: dict[tuple[int, int, str, int], list[_Edge]] = {}
    for stage in sites.stages:
        n_of_part = {part: sum(r.part == part for r in stage.readers) for part in ("q", "k")}
        for member, reader in enumerate(stage.readers):
            if reader.part not in n_of_part:
                continue
            size = n_heads // n_of_part[reader.part]
            heads = slice(size * reader.number, size * (reader.number + 1))
            alone, heads = (reader.number, slice(None)) if joined else (0, heads)
            for place, of_writers in enumerate(stage.columns[:, member]):
                for writer, column in enumerate(of_writers.tolist()):
                    if column < n_units:
                        edge = _Edge(column, stage.layer, heads)
                        found.setdefault((place, writer, reader.part, alone), []).append(edge)
    yield from found.values()
