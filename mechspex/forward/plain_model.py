"""A model without its bridge: the same weights in a plain transformers model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from mechspex.core.errors import ModelError
from mechspex.core.kinds import KINDS, Kind
from mechspex.forward.one_pass import FROM_THE_EMBEDDING, Pass, PassAtHand, Recording, Start
from mechspex.forward.onednn import multiply_by_the_faster_library
from mechspex.forward.parted_rows import RowsTogetherError
from mechspex.forward.read_positions import at_positions, read_columns, run_where_read
from mechspex.forward.rebuild import bare_module, rebuild
from mechspex.forward.shared_prefix import pairs_of, shared_prefix
from mechspex.forward.skipped_blocks import ends_of_block, make_skippable
from mechspex.forward.spared_attention import make_sparing
from mechspex.models.bridge import (
    Edits,
    HookWatch,
    attentions,
    can_keep_last_logits,
    hook_owners,
)
from mechspex.models.hidden_keys import HiddenKeys, hide
from mechspex.models.load_model import Model
from mechspex.models.units import shape_of


class PlainModel:
    """A model without its bridge: the same weights in a plain transformers model.

    What is done to it (hooks, skipped blocks, another dtype) is never seen by the user's model.

    Attributes:
        n_blocks: how many blocks are run.
        rows_part: whether rows may part on the way; in some models every row that enters leaves.

    Args:
        model: the bridge.
        dtype: the dtype of the copy; weights of the bridge's own dtype are shared, others are
            converted.
        fused: compute attention in one kernel, where the architecture allows it.
        device: where the copy lies; the bridge's own if not given.
        n_blocks: how many blocks are run; what leaves the last of them is read as if it left the
            model (the logit lens, nostalgebraist 2020). All if not given.

    Raises:
        ModelError: the bridge holds no transformers model, one whose weights were processed, is
            spread over devices, or carries hooks, or one that cannot be rebuilt from its
            configuration.
    """

    def __init__(
        self,
        model: Model,
        dtype: torch.dtype,
        *,
        fused: bool = True,
        device: torch.device | None = None,
        n_blocks: int | None = None,
    ) -> None:
        own = model.original_model
        if not isinstance(own, PreTrainedModel):
            raise ModelError(f"{model.cfg.model_name} is no model of the transformers library")
        if not can_keep_last_logits(own):
            raise ModelError(f"{model.cfg.model_name} is not read at its last position alone")
        if model.compatibility_mode or HookWatch(model).sees_any():
            raise ModelError(f"{model.cfg.model_name} carries hooks or processed weights")
        self.module, bare = rebuild(own, dtype, fused, device)
        if dtype == torch.float32:
            multiply_by_the_faster_library(self.module)
        self._paths = {id(module): path for path, module in bare.items()}
        self._owners = hook_owners(model)
        self._sizes = shape_of(model)
        self._at_hand, self._hides_keys = PassAtHand(), False
        blocks = list(model.blocks)
        self.n_blocks = len(blocks) if n_blocks is None else n_blocks
        # What enters blocks and leaves them is edited where they are skipped.
        self._editable = {point for number in range(len(blocks)) for point in ends_of_block(number)}
        own_blocks = [self.copy_of(block.original_component) for block in blocks]
        make_skippable(own_blocks, self.n_blocks, self._at_hand)
        self._attentions: list[nn.Module] = []
        for number, block in enumerate(blocks):
            attention = self._copy_if_any(getattr(block, "attn", None))
            if attention is not None:
                make_sparing(number, attention, self._at_hand)
                self._attentions.append(attention)
        mlp = self._copy_if_any(getattr(blocks[-1], "mlp", None))
        if mlp is not None:
            run_where_read(mlp, self.module.config.hidden_size, self._at_hand)
        unembedding = self.module.get_output_embeddings()
        if isinstance(unembedding, nn.Linear):
            read_columns(unembedding, self._at_hand)
        self.rows_part = self._rows_can_part()

    def logits(
        self,
        tokens: Int[Tensor, "row pos"],
        edits: Edits,
        *,
        start: Start | None = None,
        read: Int[Tensor, " read"] | None = None,
        n_last: int = 1,
        keys: HiddenKeys | None = None,
        parting: Mapping[int, Int[Tensor, " _"]] | None = None,
        attending: Mapping[int, tuple[Tensor, Tensor]] | None = None,
        recording: Recording | None = None,
    ) -> Float[Tensor, "parted_row last read"]:
        """Logits at the last positions, of the tokens `read` or of the whole vocabulary.

        Args:
            tokens: the token ids at the positions that are run.
            edits: made to the activations on the way.
            start: where to begin; at the embedding if not given.
            read: token ids.
            n_last: how many of the last positions.
            keys: positions that are hidden from attention, once `attach_keys` was called.
            parting: {block: the row that each of its rows was in the block before}, where more
                rows leave the model than enter it.
            attending: {block: the rows whose attention is run, and which of these each of its rows
                takes}, where attention writes the same into several; edits in it see those alone.
            recording: what is kept of the pass.

        Raises:
            RowsTogetherError: rows cannot part in this model.
        """
        start = FROM_THE_EMBEDDING if start is None else start
        run = Pass(edits, len(tokens), start, read, n_last, keys)
        recording = Recording() if recording is None else recording
        run = replace(run, parting=parting or {}, attending=attending or {}, recording=recording)
        cache = shared_prefix(start.cache)
        return self._run(run, tokens, use_cache=cache is not None, past_key_values=cache)

    def logits_at(
        self,
        tokens: Int[Tensor, "row pos"],
        at: Int[Tensor, "row read"],
        *,
        before: Sequence[tuple[Tensor, Tensor]] = (),
    ) -> Float[Tensor, "row read vocabulary"]:
        """Logits at some positions of each row, of the whole vocabulary.

        Args:
            tokens: the token ids at the positions that are run; a row that is shorter than others
                is filled up at its end, which no causal model looks at.
            at: which of those positions are read.
            before: keys and values of the positions before those, as in `Start`.
        """
        n_last = tokens.shape[1] - int(at.min())
        last = at - (tokens.shape[1] - n_last)
        run = Pass(rows=len(tokens), n_last=n_last, at=last)
        cache = shared_prefix(before)
        logits = self._run(run, tokens, use_cache=cache is not None, past_key_values=cache)
        # Where the unembedding is no plain map, it could not be told which positions to take.
        return logits if logits.shape[1] == last.shape[1] else at_positions(logits, last)

    def keys_and_values(
        self, tokens: Int[Tensor, "1 pos"], before: Sequence[tuple[Tensor, Tensor]] = ()
    ) -> list[tuple[Tensor, Tensor]]:
        """Every block's keys and values of a row, those of `before` first.

        Args:
            tokens: the token ids after those of `before`.
            before: keys and values of the positions before.
        """
        cache = DynamicCache()
        for block, (keys, values) in enumerate(before):
            cache.update(keys, values, block)
        self._run(Pass(), tokens, use_cache=True, past_key_values=cache)
        return pairs_of(cache)

    def record(
        self,
        tokens: Int[Tensor, "prompt pos"],
        blocks: Collection[int],
        *,
        with_cache: bool,
        edits: Edits | None = None,
    ) -> tuple[dict[int, Tensor], list[tuple[Tensor, Tensor]]]:
        """What enters each of `blocks`, and every block's keys and values.

        Args:
            tokens: the token ids.
            blocks: the numbers of the blocks.
            with_cache: whether keys and values are kept.
            edits: made to the activations on the way; none is the clean pass.
        """
        recording = Recording(dict.fromkeys(blocks, slice(None)))
        run = Pass(edits or {}, len(tokens), recording=recording)
        cache = DynamicCache() if with_cache else None
        self._run(run, tokens, use_cache=with_cache, past_key_values=cache)
        return recording.entering, [] if cache is None else pairs_of(cache)

    def _run(self, one: Pass, tokens: Tensor, **options: Any) -> Tensor:
        n_last = one.n_last or 1
        with self._at_hand.running(one):
            return self.module(tokens, logits_to_keep=n_last, **options).logits[:, -n_last:]

    def _rows_can_part(self) -> bool:
        """Whether two rows may leave the last block as three, its attention run for two alone."""
        tokens = torch.zeros(2, 2, dtype=torch.long, device=self.module.device)
        enter, leave = (torch.tensor(rows, device=tokens.device) for rows in ([0, 1], [0, 1, 1]))
        last = self.n_blocks - 1
        options = {"parting": {last: leave}, "attending": {last: (enter, leave)}}
        try:
            with torch.inference_mode():
                return len(self.logits(tokens, {}, **options)) == len(leave)
        except (RuntimeError, RowsTogetherError):
            return False

    def attach(self, hooks: Iterable[tuple[str, Kind]]) -> None:
        """Make hook points of the bridge editable here.

        Args:
            hooks: each with the kind of the units that lie there.

        Raises:
            ModelError: a hook point that belongs to no module of the copy.
        """
        for hook, kind in hooks:
            if hook not in self._editable:
                self._make_editable(hook, kind)
                self._editable.add(hook)

    def _make_editable(self, hook: str, kind: Kind) -> None:
        if hook not in self._owners:
            raise ModelError(f"{hook} is at no module's input or output")
        owner, at_input = self._owners[hook]
        module, at_hand = self.copy_of(owner), self._at_hand
        if not at_input:
            module.register_forward_hook(lambda _, __, output: at_hand.now.edited(hook, output))
            return
        n_units = KINDS[kind].per_layer(self._sizes) if KINDS[kind].joined else None
        # What a module is given begins with the activation, as what it returns may.
        module.register_forward_pre_hook(lambda _, given: at_hand.now.edited(hook, given, n_units))

    def attach_keys(self, model: Model) -> None:
        """Make it possible to hide positions from attention here.

        Args:
            model: the bridge.

        Raises:
            ModelError: see `attentions`.
        """
        if not self._hides_keys:
            hide(map(self.copy_of, attentions(model)), lambda: self._at_hand.now.keys)
            self._hides_keys = True

    def copy_of(self, module: Any) -> nn.Module:
        """The module here that is a copy of one behind the bridge.

        Args:
            module: a component of the bridge, or what it holds.

        Raises:
            ModelError: it has no counterpart here.
        """
        found = self._copy_if_any(module)
        if found is None:
            raise ModelError(f"{type(module).__name__} has no counterpart outside the bridge")
        return found

    def _copy_if_any(self, module: object) -> nn.Module | None:
        path = self._paths.get(id(bare_module(module))) if isinstance(module, nn.Module) else None
        return None if path is None else self.module.get_submodule(path)

    def all_that_attention_writes(self, hook: str, n_units: int) -> bool:
        """Whether what is edited at a hook point is all of a block's attention that goes on.

        Args:
            hook: where units of a kind lie that are joined in one activation.
            n_units: how many of a block are edited there.
        """
        owner, at_input = self._owners.get(hook, (None, False))
        if not at_input or n_units != self._sizes.n_heads:
            return False
        projection = self.copy_of(owner)
        return any(projection in attention.children() for attention in self._attentions)
