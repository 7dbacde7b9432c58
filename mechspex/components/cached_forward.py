"""The cached forward: the masked forward, from the blocks and positions that change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
from mechspex.forward.one_pass import Recording, Start
from mechspex.forward.parted_rows import RowsTogetherError
from mechspex.forward.plain_model import PlainModel
from mechspex.models.bridge import in_parts

# The share of the blocks that masks would run which must be spared for them to go on from the last.
_PAYS = 0.1


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


@dataclass
class LastPass:
    """The last mask that was run, from which masks that begin like it may go on.

    Attributes:
        is_kept: whether there is one ever. Elsewhere a value does not depend on what was measured
            before it, not even in how it is rounded.
        found: the mask, and the forward whose `entering` is of its pass; None before there is one.
    """

    is_kept: bool = False
    # One attribute, since another thread may end the run in which it is kept.
    found: tuple[Bool[np.ndarray, " unit"], CachedForward] | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """It is kept meanwhile."""
        self.is_kept = True
        try:
            yield
        finally:
            self.is_kept, self.found = False, None


@dataclass(frozen=True)
class CachedForward:
    """The masked forward on a plain model, from the first thing that an ablation changes.

    Blocks below the first ablated unit are taken from the clean pass; so are, in a causal model,
    the keys and values of the positions before the first ablated one. (Those of `from_ablated` are
    taken from the pass in which every unit is ablated, up to the first kept one, and those of
    `last` from that of the last mask, up to where another one differs from it.) Masks that ablate
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
        last: the last pass of this forward, or of one that begins with another pass.
    """

    plain_model: PlainModel
    tokens: Int[Tensor, "row pos"]
    ablation: Ablation | EdgeAblation
    entering: dict[int, Tensor]
    cache: tuple[tuple[Tensor, Tensor], ...]
    layers: Int[np.ndarray, " unit"]
    positions: Int[np.ndarray, " unit"]
    n_read: int = 1
    last: LastPass = field(default_factory=LastPass)

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
        """Each mask from one of the passes, whichever lets it begin latest."""
        blocks, positions = self.starts(masks)
        passes: list[CachedForward] = [self]
        begins = [blocks]
        kept_blocks, _ = self.starts(~masks)
        if (kept_blocks > blocks).any() and self.from_ablated is not None:
            passes.append(self.from_ablated)
            begins.append(kept_blocks)
        if self.last.is_kept and (last := self.last.found) is not None:
            alike, _ = self.starts(masks == last[0])
            # A forward of its own for a few masks of many takes longer than it saves.
            later = (alike - np.max(begins, axis=0)).clip(0).sum()
            if later > _PAYS * (self.plain_model.n_blocks - np.max(begins, axis=0)).sum():
                passes.append(last[1])
                begins.append(alike)
        chosen = np.argmax(begins, axis=0)
        ways = [
            Way(forward, rows, blocks[rows], positions[rows])
            for number, (forward, blocks) in enumerate(zip(passes, begins, strict=True))
            if len(rows := np.flatnonzero(chosen == number))
        ]
        # The last mask of all is run last: masks that are measured next begin like it.
        return sorted(ways, key=lambda way: int(way.masks[-1]))

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
        start, recording = Start(block, entering, cache), self._recording(masks, rows, block)
        logits = self.plain_model.logits(
            tokens,
            edits,
            start=start,
            read=read,
            n_last=self.n_read,
            keys=keys,
            recording=recording,
        )
        self._go_on_from(masks, block, recording)
        return logits

    def _recording(
        self, masks: Masks, rows: slice, block: int, last: Mapping[int, int] | None = None
    ) -> Recording:
        """What is kept of a pass, of its last mask: nothing where no other mask could go on from
        it, or some of the prompts alone are run.

        Args:
            last: {block: the place of that mask there}, where several are run as one.
        """
        n_rows = len(self.tokens)
        wanted = self.last.is_kept and self._ablates_whole_blocks(masks)
        if not wanted or len(self.tokens[rows]) < n_rows:
            return Recording()
        places = {
            later: len(masks) - 1 if last is None else last[later - 1]
            for later in self.entering
            if later > block
        }
        return Recording(
            {later: slice(at * n_rows, (at + 1) * n_rows) for later, at in places.items()}
        )

    def _go_on_from(self, masks: Masks, block: int, recording: Recording) -> None:
        """Let masks go on from the last one of a pass that began at `block`."""
        if recording.rows:
            before = {at: there for at, there in self.entering.items() if at <= block}
            forward = replace(self, entering=before | recording.entering)
            self.last.found = masks[-1, 0].cpu().numpy(), forward

    def _ablates_whole_blocks(self, masks: Masks) -> bool:
        """Whether what a mask does up to a block is told by its units up to it: it is the same on
        all prompts, and they are ablated in their own blocks at every position."""
        ablation = self.ablation
        whole = masks.dtype == torch.bool and masks.shape[1] == 1 and not self.cache
        return whole and not isinstance(ablation, EdgeAblation) and ablation.by_layer

    def _branches(self, masks: Masks, block: int) -> Branches | None:
        """Where masks part; None where units are ablated elsewhere than in their own blocks, where
        positions are spared, and where it does not pay."""
        if not self._ablates_whole_blocks(masks) or not self.plain_model.rows_part:
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
        recording = self._recording(masks, rows, block, branches.last)
        logits = self.plain_model.logits(
            tokens.repeat(n_first, 1),
            self.ablation.edits_by_hook(masks_at, rows),
            start=Start(block, entering, ()),
            read=read,
            n_last=self.n_read,
            parting=branches.rows(len(tokens), device),
            attending=attending,
            recording=recording,
        )
        self._go_on_from(masks, block, recording)
        return logits

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
