"""The cached forward: the masked forward, from the blocks and positions that change."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechspex.components.edge_ablation import EdgeAblation
from mechspex.components.masked_forward import Ablation, Masks, Site
from mechspex.core.units import UnitSet
from mechspex.forward.branches import Branches, one_idle, rows_of
from mechspex.forward.one_pass import Start
from mechspex.forward.parted_rows import RowsTogetherError
from mechspex.forward.plain_model import PlainModel
from mechspex.models.bridge import in_parts


@dataclass(frozen=True)
class Way:
    """Masks that are measured by one forward.

    Attributes:
        forward: the forward.
        masks: their numbers.
        blocks, positions: the first block and the first position that each of them changes.
    """

    forward: CachedForward
    masks: Int[np.ndarray, " mask"]
    blocks: Int[np.ndarray, " mask"]
    positions: Int[np.ndarray, " mask"]


@dataclass(frozen=True)
class CachedForward:
    """The masked forward on a plain model, from the first thing that an ablation changes.

    Blocks below the first ablated unit are taken from the clean pass; so are, in a causal model,
    the keys and values of the positions before the first ablated one. (Those of `from_ablated` are
    taken from the pass in which every unit is ablated, up to the first kept one.) Masks that ablate
    the same units up to a block are run as one up to it. The last MLP and the unembedding run where
    the metric reads, and only for the tokens it reads.

    Attributes:
        plain_model: the model without its bridge.
        tokens: the prompts, each with what is forced after it.
        ablation: what ablated activations become.
        entering: {block: what enters it in the clean pass, ``[prompt, pos, d_model]``}.
        cache: clean keys and values ``[prompt, head, pos, d_head]``, one pair a block; empty where
            no ablation spares a position.
        layers, positions: block and first position that each unit changes.
        n_read: how many of the last positions are read.
    """

    plain_model: PlainModel
    tokens: Int[Tensor, "row pos"]
    ablation: Ablation | EdgeAblation
    entering: dict[int, Tensor]
    cache: tuple[tuple[Tensor, Tensor], ...]
    layers: Int[np.ndarray, " unit"]
    positions: Int[np.ndarray, " unit"]
    n_read: int = 1

    @classmethod
    def of(
        cls,
        plain_model: PlainModel,
        tokens: Int[Tensor, "row pos"],
        ablation: Ablation | EdgeAblation,
        units: UnitSet,
        n_read: int = 1,
    ) -> CachedForward:
        """Run the clean pass and keep what later forwards can start from.

        Args:
            plain_model: the model without its bridge.
            tokens: the prompts, each with what is forced after it.
            ablation: what ablated activations become.
            units: the columns of the masks.
            n_read: how many of the last positions are read.

        Raises:
            ModelError: a hook point that the plain model does not have.
        """
        plain_model.attach(ablation.hooks)
        layers = ablation.first_blocks(units)
        positions = ablation.first_positions(len(units))
        wanted = set(layers.tolist()) - {0}
        with_cache = bool(positions.any())
        parts = [
            plain_model.record(part, wanted, with_cache=with_cache) for part in in_parts(tokens)
        ]
        entering = {block: torch.cat([part[0][block] for part in parts]) for block in wanted}
        pairs = zip(*(part[1] for part in parts), strict=True)
        cache = tuple(
            (torch.cat([keys for keys, _ in pair]), torch.cat([values for _, values in pair]))
            for pair in pairs
        )
        return cls(plain_model, tokens, ablation, entering, cache, layers, positions, n_read)

    @cached_property
    def from_ablated(self) -> CachedForward | None:
        """The same, which begins at the first unit that a mask keeps.

        None where units are edges or words or have a position: there it would seldom pay; and
        where what is ablated in one block changes others by itself.
        """
        ablation = self.ablation
        if (
            isinstance(ablation, EdgeAblation)
            or self.cache
            or (ablation.words and ablation.words.at)
            or ablation.crosses_layers
        ):
            return None
        none_kept = torch.zeros(1, 1, len(self.layers), dtype=torch.bool)
        entering: dict[int, list[Tensor]] = {block: [] for block in self.entering}
        done = 0
        for part in in_parts(self.tokens):
            rows = slice(done, done + len(part))
            edits = ablation.edits(none_kept, rows)
            recorded, _ = self.plain_model.record(part, entering, with_cache=False, edits=edits)
            for block, found in recorded.items():
                entering[block].append(found)
            done = rows.stop
        return replace(
            self, entering={block: torch.cat(found) for block, found in entering.items()}
        )

    def ways(self, masks: Bool[np.ndarray, "mask unit"]) -> list[Way]:
        """Each mask from one of the two passes, whichever lets it begin later."""
        blocks, positions = self.starts(masks)
        kept_blocks, _ = self.starts(~masks)
        later = kept_blocks > blocks
        ablated = self.from_ablated if later.any() else None
        if ablated is None:
            return [Way(self, np.arange(len(masks)), blocks, positions)]
        first, second = np.flatnonzero(~later), np.flatnonzero(later)
        return [
            Way(self, first, blocks[first], positions[first]),
            Way(ablated, second, kept_blocks[second], positions[second]),
        ]

    @property
    def first_block(self) -> int:
        """The first block that any mask changes."""
        return int(self.layers.min())

    def starts(
        self, masks: Bool[np.ndarray, "mask unit"]
    ) -> tuple[Int[np.ndarray, " mask"], Int[np.ndarray, " mask"]]:
        """The first block and the first position that each mask changes."""
        blocks = _first(masks, self.layers, if_none=int(self.layers.max()))
        if not self.cache:
            return blocks, np.zeros(len(masks), dtype=int)
        first_read = self.tokens.shape[1] - self.n_read
        positions = _first(masks, self.positions, if_none=first_read)
        return blocks, np.minimum(positions, first_read)

    def __call__(
        self,
        masks: Masks,
        rows: slice = slice(None),
        *,
        block: int = 0,
        position: int = 0,
        read: Int[Tensor, " read"] | None = None,
    ) -> Float[Tensor, "masked_row last read"]:
        """Logits of every mask on every row, at the last positions; masked row: (mask row).

        Args:
            masks: ``[mask, 1 or row, unit]``, Boolean, or between 0 and 1.
            block, position: nothing changes before them.
            read: the tokens wanted; the whole vocabulary if not given.
        """
        branches = self._branches(masks, block)
        if branches is not None:
            try:
                return self._together(masks, rows, block, branches, read)
            except RowsTogetherError:
                self.plain_model.rows_part = False
        tokens = self.tokens[rows, position:]
        tokens = repeat(tokens, "row pos -> (mask row) pos", mask=len(masks))
        edits, keys = self.ablation.edits(masks, rows), self.ablation.hidden_keys(masks, rows)
        entering = None
        if block:
            entering = repeat(
                self.entering[block][rows, position:],
                "row pos d_model -> (mask row) pos d_model",
                mask=len(masks),
            )
        cache = tuple(
            (keys[rows, :, :position], values[rows, :, :position])
            for keys, values in (self.cache if position else ())
        )
        start = Start(block, entering, cache)
        return self.plain_model.logits(
            tokens, edits, start=start, read=read, n_last=self.n_read, keys=keys
        )

    def _branches(self, masks: Masks, block: int) -> Branches | None:
        """Where masks part; None where units are ablated elsewhere than in their own blocks, where
        positions are spared, and where it does not pay."""
        ablation = self.ablation
        whole = masks.dtype == torch.bool and masks.shape[1] == 1 and not self.cache
        if not whole or isinstance(ablation, EdgeAblation) or not ablation.by_layer:
            return None
        if not self.plain_model.rows_part:
            return None
        blocks = range(block, self.plain_model.n_blocks)
        return Branches.of(masks[:, 0].cpu().numpy(), self.layers, blocks)

    def _together(
        self,
        masks: Masks,
        rows: slice,
        block: int,
        branches: Branches,
        read: Int[Tensor, " read"] | None,
    ) -> Float[Tensor, "masked_row last read"]:
        """`__call__`, of masks that are run as one until they part."""
        assert isinstance(self.ablation, Ablation)
        tokens, device = self.tokens[rows], self.tokens.device
        on_host = masks[:, 0].cpu().numpy()
        masks_at, attending = {}, {}
        for site in self.ablation.sites:
            if site.layer not in branches.masks:
                continue
            run = branches.masks[site.layer]
            if site in self._attention:
                some = one_idle(np.any(on_host[run][:, list(site.columns)], axis=1))
                if some is not None:
                    attending[site.layer] = tuple(rows_of(one, len(tokens), device) for one in some)
                    run = run[some[0]]
            masks_at[site.hook] = masks if len(run) == len(masks) else masks[run]
        n_first = len(branches.masks[block])
        entering = self.entering[block][rows].repeat(n_first, 1, 1) if block else None
        return self.plain_model.logits(
            tokens.repeat(n_first, 1),
            self.ablation.edits_by_hook(masks_at, rows),
            start=Start(block, entering, ()),
            read=read,
            n_last=self.n_read,
            parting=branches.rows(len(tokens), device),
            attending=attending,
        )

    @cached_property
    def _attention(self) -> list[Site]:
        """The sites at which all is edited that an attention writes: where a mask keeps nothing of
        it, it need not be run."""
        sites = () if isinstance(self.ablation, EdgeAblation) else self.ablation.sites
        return [
            site
            for site in sites
            if not site.members
            and self.plain_model.all_that_attention_writes(site.hook, len(site.numbers))
        ]


def _first(
    masks: Bool[np.ndarray, "mask unit"], place: Int[np.ndarray, " unit"], *, if_none: int
) -> Int[np.ndarray, " mask"]:
    """The first place of any ablated unit; no table larger than the masks themselves is made."""
    order = np.argsort(place, kind="stable")
    # Units mostly stand in order already: sorting 46,080 columns takes longer than the forward.
    sorted_already = bool((order[1:] > order[:-1]).all())
    in_order = masks if sorted_already else masks[:, order]
    return np.where(masks.all(axis=1), if_none, place[order][in_order.argmin(axis=1)])
