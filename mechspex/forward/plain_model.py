"""A model without its bridge: the same weights in a plain transformers model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from mechspex.core.errors import ModelError
from mechspex.core.kinds import KINDS, Kind
from mechspex.forward.branches import RowsTogetherError, as_many, parts_alike, some_rows
from mechspex.forward.one_pass import FROM_THE_EMBEDDING, Pass, Start
from mechspex.forward.onednn import multiply_by_the_faster_library
from mechspex.forward.position_wise import is_position_wise
from mechspex.forward.rebuild import bare_module, rebuild
from mechspex.forward.shared_prefix import shared_prefix
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
        self._attached: set[str] = set()
        self._pass = Pass()
        self.n_blocks = len(model.blocks) if n_blocks is None else n_blocks
        self._attentions: dict[int, nn.Module] = {}
        self._returns_tuple = False
        # What enters blocks and leaves them is edited where they are skipped.
        self._of_blocks = {
            f"blocks.{number}.{point}"
            for number in range(len(model.blocks))
            for point in ("hook_in", "hook_out")
        }
        for number, block in enumerate(model.blocks):
            self._make_skippable(number, self.copy_of(block.original_component))
            self._make_sparing(number, getattr(block, "attn", None))
        self._trim(model)
        self._read_columns()
        self.rows_part = self._try_to_part()

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

        Raises:
            RowsTogetherError: rows cannot part in this model.
        """
        start = FROM_THE_EMBEDDING if start is None else start
        run = Pass(edits, len(tokens), start, read, n_last, keys)
        run = replace(run, parting=parting or {}, attending=attending or {})
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
        return logits if logits.shape[1] == last.shape[1] else _take(logits, last)

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
        layers: list[Any] = cache.layers
        return [(layer.keys, layer.values) for layer in layers]

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
        run = Pass(edits or {}, len(tokens), wanted=blocks)
        cache = DynamicCache() if with_cache else None
        self._run(run, tokens, use_cache=with_cache, past_key_values=cache)
        layers: list[Any] = [] if cache is None else cache.layers
        return run.recorded, [(layer.keys, layer.values) for layer in layers]

    def _run(self, run: Pass, tokens: Tensor, **options: Any) -> Tensor:
        self._pass = run
        try:
            n_last = run.n_last or 1
            return self.module(tokens, logits_to_keep=n_last, **options).logits[:, -n_last:]
        finally:
            self._pass = Pass()

    def attach(self, hooks: Iterable[tuple[str, Kind]]) -> None:
        """Make hook points of the bridge editable here.

        Args:
            hooks: each with the kind of the units that lie there.

        Raises:
            ModelError: a hook point that belongs to no module of the copy.
        """
        for hook, kind in hooks:
            if hook in self._attached:
                continue
            if hook in self._of_blocks:
                self._attached.add(hook)
                continue
            if hook not in self._owners:
                raise ModelError(f"{hook} is at no module's input or output")
            owner, at_input = self._owners[hook]
            module = self.copy_of(owner)
            if at_input:
                joined = KINDS[kind].joined
                n_units = KINDS[kind].per_layer(self._sizes) if joined else None
                module.register_forward_pre_hook(self._edit_input(hook, n_units))
            else:
                module.register_forward_hook(self._edit_output(hook))
            self._attached.add(hook)

    def attach_keys(self, model: Model) -> None:
        """Make it possible to hide positions from attention here.

        Args:
            model: the bridge.

        Raises:
            ModelError: see `attentions`.
        """
        if "keys" not in self._attached:
            hide(map(self.copy_of, attentions(model)), lambda: self._pass.keys)
            self._attached.add("keys")

    def _edit_input(self, hook: str, n_units: int | None) -> Callable[..., Any]:
        def pre_hook(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            edit = self._pass.edits.get(hook)
            if edit is None:
                return None
            activation = args[0]
            # OPT hands its MLP flattened rows; units with features of their own come joined.
            rows = activation.view(self._pass.rows, -1, activation.shape[-1])
            if n_units is not None:
                rows = rearrange(rows, "row pos (unit d) -> row pos unit d", unit=n_units)
            return edit(rows).reshape(activation.shape), *args[1:]

        return pre_hook

    def _edit_output(self, hook: str) -> Callable[..., Any]:
        def post_hook(_module: nn.Module, _args: object, output: Any) -> Any:
            if hook not in self._pass.edits:
                return None
            if isinstance(output, tuple):
                return (self._edited(hook, output[0]), *output[1:])
            return self._edited(hook, output)

        return post_hook

    def _edited(self, hook: str, activation: Tensor) -> Tensor:
        edit = self._pass.edits.get(hook)
        if edit is None:
            return activation
        rows = activation.reshape(self._pass.rows, -1, activation.shape[-1])
        return edit(rows).reshape(activation.shape)

    def copy_of(self, module: Any) -> nn.Module:
        """The module here that is a copy of one behind the bridge.

        Args:
            module: a component of the bridge, or what it holds.

        Raises:
            ModelError: it has no counterpart here.
        """
        path = self._paths.get(id(bare_module(module)))
        if path is None:
            raise ModelError(f"{type(module).__name__} has no counterpart outside the bridge")
        return self.module.get_submodule(path)

    def _make_skippable(self, number: int, block: nn.Module) -> None:
        run = block.forward

        def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            start = self._pass.start
            if number == start.block and start.entering is not None:
                hidden = start.entering
            if number in self._pass.wanted:
                self._pass.recorded[number] = hidden.clone()
            if not start.block <= number < self.n_blocks:
                # As the blocks that were run do; the clean pass comes first.
                return (hidden,) if self._returns_tuple else hidden
            if self._pass.parting:
                hidden = self._part(number, hidden, (args, kwargs))
            hidden = self._edited(f"blocks.{number}.hook_in", hidden)
            output = run(hidden, *args, **kwargs)
            self._returns_tuple = isinstance(output, tuple)
            left = f"blocks.{number}.hook_out"
            if left not in self._pass.edits:
                return output
            if self._returns_tuple:
                return (self._edited(left, output[0]), *output[1:])
            return self._edited(left, output)

        block.forward = forward

    def _try_to_part(self) -> bool:
        tokens = torch.zeros(2, 2, dtype=torch.long, device=self.module.device)
        enter, leave = (torch.tensor(rows, device=tokens.device) for rows in ([0, 1], [0, 1, 1]))
        last = self.n_blocks - 1
        options = {"parting": {last: leave}, "attending": {last: (enter, leave)}}
        try:
            with torch.inference_mode():
                return len(self.logits(tokens, {}, **options)) == len(leave)
        except (RuntimeError, RowsTogetherError):
            return False

    def _part(self, number: int, hidden: Tensor, given: object) -> Tensor:
        """The rows that a block runs, of those of the block before."""
        if not parts_alike(given):
            raise RowsTogetherError
        rows = self._pass.parting.get(number)
        if rows is None:
            return hidden
        self._pass = replace(self._pass, rows=len(rows))
        return hidden.index_select(0, rows)

    def _make_sparing(self, number: int, attention: object) -> None:
        path = self._paths.get(id(bare_module(attention))) if attention is not None else None
        if path is None:
            return
        module = self._attentions[number] = self.module.get_submodule(path)
        run = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            whole = self._pass
            if number not in whole.attending:
                return run(*args, **kwargs)
            rows, taken = whole.attending[number]
            args, kwargs = some_rows(args, kwargs, rows)
            self._pass = replace(whole, rows=len(rows))
            output = run(*args, **kwargs)
            self._pass = whole
            return as_many(output, taken)

        module.forward = forward

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
        return any(projection in attention.children() for attention in self._attentions.values())

    def _trim(self, model: Model) -> None:
        """Run the last block's MLP where logits are read alone: nothing else reads the others."""
        mlp = getattr(model.blocks[-1], "mlp", None)
        path = self._paths.get(id(bare_module(mlp))) if isinstance(mlp, nn.Module) else None
        if path is None:
            return
        module = self.module.get_submodule(path)
        run = module.forward

        def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            n_last = self._pass.n_last
            if n_last is None or args or kwargs or hidden.ndim != 3:
                return run(hidden, *args, **kwargs)
            # PyTorch multiplies strided inputs far slower.
            output = run(hidden[:, -n_last:].contiguous())
            # Zeros where nothing is read, so that the residual stream keeps its shape.
            return nn.functional.pad(output, (0, 0, hidden.shape[1] - n_last, 0))

        if is_position_wise(module, run, self.module.config.hidden_size):
            module.forward = forward

    def _read_columns(self) -> None:
        head = self.module.get_output_embeddings()
        if not isinstance(head, nn.Linear):
            return
        run = head.forward

        def forward(input: Tensor) -> Tensor:
            at, read = self._pass.at, self._pass.read
            input = (input if at is None else _take(input, at)).contiguous()
            if read is None:
                return run(input)
            bias = None if head.bias is None else head.bias[read]
            return nn.functional.linear(input, head.weight[read], bias)

        head.forward = forward


def _take(
    rows: Float[Tensor, "row pos d"], at: Int[Tensor, "row read"]
) -> Float[Tensor, "row read d"]:
    return rows.gather(1, at[..., None].expand(-1, -1, rows.shape[-1]))
