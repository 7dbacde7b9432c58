"""What flows along edges in one forward: recorded where it is written, mixed where it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from mechspex.components.edge_sites import EdgeSites
from mechspex.components.mean_references import References
from mechspex.components.wiring import STREAM, Block
from mechspex.models.bridge import Edits


class EdgeFlow:
    """The edits of one forward, which record what writers write and change what readers read.

    Args:
        sites: where the edges lie.
        references: what each writer's output is replaced by.
        clean: each writer's output in the clean pass, for those before the block where a forward
            begins.
        masks: ``[mask, 1 or row, unit]``, Boolean, or between 0 and 1.
        rows: the rows that are run, as a slice of the references.
        at: which of their tokens lie at each of the sites' places.
        fused: edit where queries, keys and values leave one module, if they do.
    """

    def __init__(
        self,
        sites: EdgeSites,
        references: References,
        clean: Mapping[str, Tensor],
        masks: Tensor,
        rows: slice,
        at: Bool[Tensor, "place run pos"],
        *,
        fused: bool,
    ) -> None:
        self._sites, self._blocks = sites, sites.wiring.blocks
        self._references, self._clean = references, clean
        self._rows, self._fused, self._n_masks = rows, fused, len(masks)
        self._at = at.to(masks.device)
        self._n_rows = len(masks) * len(clean[STREAM][rows])
        self._keeps_history = masks.requires_grad
        # One more column, for the edges that are no units.
        self._masks = torch.cat([masks, torch.ones_like(masks[..., :1])], dim=-1)
        changed = _changed(self._masks)
        self._active_at: list[np.ndarray] = [changed[stage.columns] for stage in sites.stages]
        self._active = [np.logical_or.reduce(active) for active in self._active_at]
        # Writers with an edge that is ablated in this batch; others are not recorded.
        self._flows = np.zeros(sites.n_writers, dtype=bool)
        for active in self._active:
            self._flows[: active.shape[1]] |= active.any(axis=0)
        self._recorded: Tensor | None = None
        self._pieces: list[Tensor] = []
        self._n_chunks = self._n_recorded = 0
        # What the stream would be with the first so many writers at their references.
        self._base: Tensor | None = None
        self._bases: dict[int, Tensor] = {}
        self._streams: dict[int, Tensor] = {}
        self._together: dict[int, tuple[Tensor, Tensor]] = {}

    def edits(self) -> Edits:
        """{hook point: what takes the place of the activation there}."""
        edits: dict[str, Callable[[Tensor], Tensor]] = {}
        for layer, (heads, mlp) in enumerate(self._sites.written):
            block = self._blocks[layer]
            if self._flows[heads.start : heads.stop].any():
                edits[block.heads] = partial(self._write, 1 + 2 * layer)
            if block.mlp is not None and mlp is not None and self._flows[mlp]:
                edits[block.mlp] = partial(self._write, 2 + 2 * layer)
        for number, stage in enumerate(self._sites.stages):
            if not self._active[number].any():
                continue
            block = self._blocks[stage.layer]
            if stage.part == "output":
                edits[self._sites.wiring.output] = partial(self._read_one, number, None)
            elif stage.part == "mlp":
                edits[block.mlp_stream] = partial(self._read_one, number, block)
                if block.mlp_norm is not None and block.stream not in edits:
                    edits[block.stream] = partial(self._keep_stream, stage.layer)
            else:
                made: dict[str, tuple[list[int], Tensor]] = {}
                edits[block.stream] = partial(self._read_heads, number, made)
                for hook in block.read_at(fused=self._fused):
                    edits[hook] = partial(self._replace, block, hook, made)
        return edits

    def _write(self, chunk: int, output: Tensor) -> Tensor:
        """Record what writers write now."""
        self._catch_up(chunk)
        self._record(chunk, output, self._n_masks)
        return output

    def _catch_up(self, chunk: int) -> None:
        """Record what was written in the clean pass, before this forward began."""
        while self._n_chunks < chunk:
            hook = self._hook(self._n_chunks)
            if hook is None:
                self._n_chunks += 1
            else:
                self._record(self._n_chunks, self._clean[hook][self._rows], 1)

    def _hook(self, chunk: int) -> str | None:
        """Where a chunk of writers writes: the embedding, then block by block heads and MLP."""
        if chunk == 0:
            return STREAM
        block = self._blocks[(chunk - 1) // 2]
        return block.heads if chunk % 2 else block.mlp

    def _writers(self, chunk: int) -> list[int]:
        """The writers of a chunk, by their number in it, that have an ablated edge."""
        if chunk == 0:
            return [0] if self._flows[0] else []
        heads, mlp = self._sites.written[(chunk - 1) // 2]
        if chunk % 2:
            return [writer - heads.start for writer in heads if self._flows[writer]]
        return [0] if mlp is not None and self._flows[mlp] else []

    def _n_writers(self, chunk: int) -> int:
        """How many writers there are up to the end of a chunk."""
        if chunk == 0:
            return 1
        heads, mlp = self._sites.written[(chunk - 1) // 2]
        return heads.stop if chunk % 2 or mlp is None else mlp + 1

    def _record(self, chunk: int, output: Tensor, n_masks: int) -> None:
        """Keep by how much the references differ from what a chunk of writers wrote."""
        self._n_chunks = chunk + 1
        writers = self._writers(chunk)
        if not writers:
            return
        hook = self._hook(chunk)
        assert hook is not None
        block = self._blocks[max(chunk - 1, 0) // 2]
        live = rearrange(output, "(mask row) ... -> mask row ...", mask=n_masks)
        reference = self._references[hook]
        reference = (reference[self._rows] if len(reference) > 1 else reference).to(live)[None]
        if chunk == 0:
            base, off = reference, (reference - live)[None]
        elif chunk % 2:
            off = self._off_by_heads(block, live, reference, writers)
            together = block.output(reference.flatten(-2))
            if block.norm_after is not None:
                self._together[chunk] = together, block.output(live.flatten(-2))
            base = block.scale * _through(block.norm_after, together)
        else:
            norm = block.mlp_norm_after
            base = block.scale * _through(norm, reference)
            off = (base - block.scale * _through(norm, live))[None]
        self._base = base if self._base is None else self._base + base
        self._bases[self._n_writers(chunk)] = self._base
        _, _, n_rows, n_positions, d_model = off.shape
        if self._recorded is None:
            shape = (self._n_rows, int(self._flows.sum()), n_positions * d_model)
            self._recorded = off.new_empty(shape)
        places = slice(self._n_recorded, self._n_recorded + len(writers))
        self._n_recorded = places.stop
        rows = self._recorded.view(self._n_masks, n_rows, -1, n_positions, d_model)
        rows[:, :, places] = off.detach().permute(1, 2, 0, 3, 4)
        if self._keeps_history:
            each = off.expand(-1, self._n_masks, -1, -1, -1).permute(1, 2, 0, 3, 4)
            self._pieces.append(each.flatten(3).flatten(0, 1))

    def _off_by_heads(
        self, block: Block, live: Tensor, reference: Tensor, heads: list[int]
    ) -> Float[Tensor, "head mask row pos d_model"]:
        off = reference[..., heads, :] - live[..., heads, :]
        flat = rearrange(off, "mask row pos head d -> head (mask row pos) d")
        written = torch.bmm(flat, block.written[heads].transpose(1, 2))
        if block.norm_after is None and block.scale != 1:
            written = block.scale * written
        return written.unflatten(1, off.shape[:3])

    def _read(
        self, number: int, stream: Float[Tensor, "row pos d_model"]
    ) -> tuple[list[int], Float[Tensor, "row reader pos d_model"]]:
        """The readers of a stage that have an ablated edge, and what each of them sees."""
        stage, active = self._sites.stages[number], self._active[number]
        readers = np.flatnonzero(active.any(axis=1)).tolist()
        n_writers = active.shape[1]
        n_chunks = self._chunks_before(n_writers)
        self._catch_up(n_chunks)
        writers = np.flatnonzero(self._flows[:n_writers])
        everywhere, *columns = stage.columns[:, readers][:, :, writers]
        absent = self._absent(everywhere, stream)
        seen = self._seen(absent, writers, n_writers, stream)
        for place, columns_at in enumerate(columns):
            if self._active_at[number][1 + place].any():
                absent_at = absent + (1 - absent) * self._absent(columns_at, stream)
                here = self._of_each_mask(self._at[None, place])[:, None, -stream.shape[1] :, None]
                seen = torch.where(here, self._seen(absent_at, writers, n_writers, stream), seen)
        return readers, seen

    def _seen(
        self,
        absent: Float[Tensor, "row reader writer"],
        writers: np.ndarray,
        n_writers: int,
        stream: Float[Tensor, "row pos d_model"],
    ) -> Float[Tensor, "row reader pos d_model"]:
        """What readers see where so much of each edge from some of the first writers is ablated."""
        turned = _turned(absent, n_writers)
        base = stream
        if turned.any():
            base = self._of_each_mask(self._bases[n_writers])
        begin = _chosen(turned, base, stream)
        assert self._recorded is not None
        recorded = self._recorded[:, : len(writers)]
        weights = absent - turned[..., None].to(absent.dtype)
        with_norm = self._chunks_with_norm(writers)
        for _, places in with_norm:
            weights[..., places] = 0
        seen = _mixed(begin, weights, recorded, self._history(0, len(writers)))
        for chunk, places in with_norm:
            seen = seen + self._through_norm(chunk, absent, turned, places, recorded)
        return seen

    def _of_each_mask(
        self, of_rows: Shaped[Tensor, "#mask #row ..."]
    ) -> Shaped[Tensor, "masked_row ..."]:
        """What is the same for all masks, or all rows, for each row of the batch."""
        n_rows = self._n_rows // self._n_masks
        return of_rows.expand(self._n_masks, n_rows, *of_rows.shape[2:]).flatten(0, 1)

    def _absent(
        self, columns: Int[np.ndarray, "reader writer"], stream: Tensor
    ) -> Float[Tensor, "row reader writer"]:
        """How much of each edge is ablated, 1 − m."""
        kept = self._masks[..., torch.from_numpy(columns).to(self._masks.device)]
        absent = 1 - kept.to(stream.dtype)
        n_rows = self._n_rows // self._n_masks
        return absent.expand(-1, n_rows, -1, -1).flatten(0, 1)

    def _chunks_before(self, n_writers: int) -> int:
        """How many chunks the first writers of a model are."""
        if n_writers <= 1:
            return n_writers
        for layer, (heads, mlp) in enumerate(self._sites.written):
            if n_writers <= heads.start:
                return 1 + 2 * layer
            if n_writers == heads.stop and mlp is not None:
                return 2 + 2 * layer
        return 1 + 2 * len(self._blocks)

    def _chunks_with_norm(self, writers: np.ndarray) -> list[tuple[int, list[int]]]:
        """The chunks whose writers pass a norm together, with their places among `writers`."""
        found = []
        for layer, (heads, _) in enumerate(self._sites.written):
            if self._blocks[layer].norm_after is not None:
                inside = (writers >= heads.start) & (writers < heads.stop)
                if inside.any():
                    found.append((1 + 2 * layer, np.flatnonzero(inside).tolist()))
        return found

    def _through_norm(
        self, chunk: int, absent: Tensor, turned: Tensor, places: list[int], recorded: Tensor
    ) -> Float[Tensor, "row reader pos d_model"]:
        """By how much a layer's heads, some at their references, change what a norm adds."""
        block = self._blocks[(chunk - 1) // 2]
        at_reference, live = map(self._of_each_mask, self._together[chunk])
        start, stop = places[0], places[-1] + 1
        inside = absent[..., start:stop]
        turned_here = _turned(inside, len(block.written))
        changed = _mixed(
            _chosen(turned_here, at_reference, live),
            inside - turned_here[..., None].to(inside.dtype),
            recorded[:, start:stop],
            self._history(start, stop),
        )
        norm, before = block.norm_after, _chosen(turned, at_reference, live)
        return block.scale * (_through(norm, changed) - _through(norm, before))

    def _history(self, start: int, stop: int) -> list[Tensor]:
        """What was recorded from one writer up to another, with the history that gradients take."""
        found, at = [], 0
        for piece in self._pieces:
            if start <= at < stop:
                found.append(piece)
            at += piece.shape[1]
        return found

    def _keep_stream(self, layer: int, stream: Tensor) -> Tensor:
        self._streams[layer] = stream
        return stream

    def _read_heads(
        self, number: int, made: dict[str, tuple[list[int], Tensor]], stream: Tensor
    ) -> Tensor:
        """Queries, keys and values of the streams that their readers see."""
        stage = self._sites.stages[number]
        block = self._blocks[stage.layer]
        if block.mlp_norm is not None:
            self._streams[stage.layer] = stream
        readers, seen = self._read(number, stream)
        normed = _through(block.norm, seen)
        for part, projection in block.projections.items():
            inside = [i for i, reader in enumerate(readers) if stage.readers[reader].part == part]
            if inside:
                heads = [stage.readers[readers[i]].number for i in inside]
                streams = normed[:, inside[0] : inside[-1] + 1]
                made[part] = heads, projection(streams, heads)
        return stream

    def _replace(
        self,
        block: Block,
        hook: str,
        made: Mapping[str, tuple[list[int], Tensor]],
        output: Tensor,
    ) -> Tensor:
        """Put queries, keys and values in the place of those of the ordinary stream."""
        parts = [part for part in made if hook in (block.read[part], block.fused)]
        if not parts:
            return output
        changed = output.clone().flatten(2)
        for part in parts:
            heads, vectors = made[part]
            rows = block.projections[part].rows if hook == block.fused else None
            if rows is None:
                width = vectors.shape[-1]
                rows = torch.arange(changed.shape[-1], device=changed.device).view(-1, width)
            changed[..., rows[heads].flatten()] = vectors.flatten(2)
        return changed.view(output.shape)

    def _read_one(self, number: int, block: Block | None, activation: Tensor) -> Tensor:
        """What an MLP or the output sees in place of the ordinary stream."""
        stage = self._sites.stages[number]
        shared = None if block is None else block.mlp_norm
        # OPT hands its MLP flattened rows.
        d_model = self._blocks[0].written.shape[1]
        stream = activation.reshape(self._n_rows, -1, d_model)
        if shared is not None:
            stream = self._streams.pop(stage.layer)
        _, seen = self._read(number, stream)
        return _through(shared, seen[:, 0]).reshape(activation.shape)


def _changed(masks: Tensor) -> Bool[np.ndarray, " column"]:
    """The columns of edges that are ablated in part of a batch; all where gradients are wanted."""
    if masks.requires_grad:
        changed = np.ones(masks.shape[-1], dtype=bool)
        changed[-1] = False
        return changed
    return ((masks != 1).flatten(0, 1).any(0)).cpu().numpy()


def _turned(
    absent: Float[Tensor, "row reader writer"], n_writers: int
) -> Bool[Tensor, "row reader"]:
    """Where a reader begins at the references, to which what is kept is added.

    Of a stream from which much is taken, little may be left but rounding, which a norm would blow
    up. Where few edges are ablated not all writers are recorded, and it is taken from the stream.
    """
    return (absent > 0).any(-1) & (absent.shape[-1] == n_writers)


def _chosen(
    turned: Bool[Tensor, "row reader"],
    base: Float[Tensor, "row _ d_model"],
    stream: Float[Tensor, "row pos d_model"],
) -> Float[Tensor, "row reader pos d_model"]:
    """Where each reader begins: at the references, or at the live stream."""
    wide = stream[:, None].expand(-1, turned.shape[1], -1, -1)
    if turned.all():
        return base[:, None].expand_as(wide)
    return torch.where(turned[..., None, None], base[:, None], wide) if turned.any() else wide


def _through(norm: nn.Module | None, stream: Tensor) -> Tensor:
    return stream if norm is None else norm(stream)


class _Mixture(torch.autograd.Function):
    """What each reader sees: where it begins, and what each writer's reference changes.

    All readers of all stages share one record, which grows while the forward goes on. Autograd
    would take that for a change of what it has saved, so its gradient is written down here.
    """

    @staticmethod
    def forward(
        ctx: Any,
        begin: Float[Tensor, "row reader d"],
        weights: Float[Tensor, "row reader writer"],
        recorded: Float[Tensor, "row writer d"],
        *pieces: Float[Tensor, "row _ d"],
    ) -> Float[Tensor, "row reader d"]:
        ctx.save_for_backward(weights)
        ctx.recorded, ctx.sizes = recorded, [piece.shape[1] for piece in pieces]
        return torch.baddbmm(begin, weights, recorded)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (weights,), (gradient,) = ctx.saved_tensors, gradients
        of_weights = torch.bmm(gradient, ctx.recorded.transpose(1, 2))
        of_recorded = torch.bmm(weights.transpose(1, 2), gradient)
        return gradient, of_weights, None, *of_recorded.split(ctx.sizes, dim=1)


def _mixed(
    begin: Float[Tensor, "row reader pos d_model"],
    weights: Float[Tensor, "row reader writer"],
    recorded: Float[Tensor, "row writer d"],
    pieces: list[Tensor],
) -> Float[Tensor, "row reader pos d_model"]:
    """begin + weights · recorded; `pieces` are the record with its history, where it is kept."""
    mixed: Any = _Mixture.apply(begin.flatten(2), weights, recorded, *pieces)
    return mixed.view(begin.shape)
