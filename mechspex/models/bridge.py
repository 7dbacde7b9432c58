"""A bridge at work: its hook points, edits of its activations, and where it is read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from mechspex.core.errors import ModelError, TaskError
from mechspex.core.kinds import KINDS, Kind
from mechspex.models.hidden_keys import INSTEAD, HiddenKeys, hide, is_native
from mechspex.models.load_model import Model

# Both install hooks of their own, which are part of the model.
_MACHINERY = ("transformers.", "transformer_lens.model_bridge.")
# Tokens of one forward that reads many prompts once: memory does not grow with a task.
_TOKENS_AT_ONCE = 4096


def hook_point(model: Model, kind: Kind, layer: int) -> str | None:
    """The name of the hook point at which units of a kind are ablated in a layer; None without."""
    # All blocks are of one kind; whether there is one of this number is the caller's to check.
    return KINDS[kind].hook_point(layer, getattr(model.blocks[0], "hook_aliases", {}))


Edits = Mapping[str, Callable[[Tensor], Tensor]]
"""{hook point: activation ``[row, pos, unit, …]`` → what takes its place}."""


def edited_logits(
    model: Model,
    tokens: Int[Tensor, "row pos"],
    edits: Edits,
    n_read: int = 1,
    *,
    keys: HiddenKeys | None = None,
) -> Float[Tensor, "row read vocabulary"]:
    """Logits where the model is read, its activations edited on the way.

    A causal model is read at its last `n_read` positions, a masked language model at its mask
    token, a classifier at its only output. The wrapped model is called itself: it holds the hooked
    modules, and models of the transformers library can skip the unembedding of other positions.

    Args:
        model: the bridge.
        tokens: the token ids.
        edits: made to the activations on the way.
        n_read: how many of the last positions are read.
        keys: positions that are hidden from attention.

    Raises:
        TaskError: a model that reads one position is to read several.
        ModelError: an attention from which nothing can be hidden.
    """
    hooks = [(name, _as_hook(edit)) for name, edit in edits.items()]
    own = model.original_model
    with model.hooks(fwd_hooks=hooks), ExitStack() as stack:
        for handle in [] if keys is None else hide(attentions(model), lambda: keys):
            stack.callback(handle.remove)
        if not isinstance(own, PreTrainedModel):
            return own(tokens)[:, -n_read:]
        if can_keep_last_logits(own):
            return own(tokens, logits_to_keep=n_read, use_cache=False).logits[:, -n_read:]
        if n_read > 1:
            raise TaskError(
                f"{model.cfg.model_name} is read at one position, so a continuation of several "
                "tokens cannot be scored; give answers of one token, or answer_tokens='first'"
            )
        logits = own(tokens).logits
    if logits.ndim == 2:
        return logits[:, None]
    return logits[torch.arange(len(tokens)), _read_positions(model, tokens)][:, None]


def _as_hook(edit: Callable[[Tensor], Tensor]) -> Callable[[Tensor, object], Tensor]:
    def on_hook(activation: Tensor, hook: object) -> Tensor:
        return edit(activation)

    return on_hook


def can_keep_last_logits(own: PreTrainedModel) -> bool:
    """Whether a model can be told to unembed the last position alone: causal ones can."""
    return "logits_to_keep" in inspect.signature(own.forward).parameters


def attentions(model: Model) -> list[nn.Module]:
    """The attention of each block, from which keys can be hidden.

    Raises:
        ModelError: a model of transformers that is not causal, one of neither library, or blocks
            that mix positions by something else than attention.
    """
    name, own = model.cfg.model_name, model.original_model
    found = [getattr(block, "attn", None) for block in model.blocks]
    here = [module for module in found if isinstance(module, nn.Module)]
    causal = isinstance(own, PreTrainedModel) and can_keep_last_logits(own)
    if not causal and not all(map(is_native, found)):
        raise ModelError(
            f"no word can be hidden from the attention of {name}, which is no causal model of the "
            f"transformers library; {INSTEAD}"
        )
    if len(here) < len(found):
        missing = next(n for n, module in enumerate(found) if not isinstance(module, nn.Module))
        raise ModelError(
            f"block {missing} of {name} has no attention: what is hidden from attention would "
            f"still be read there; {INSTEAD}"
        )
    return here


def hook_owners(model: Model) -> dict[str, tuple[nn.Module, bool]]:
    """{hook point: (the component it belongs to, whether it is at its input)}.

    Args:
        model: the bridge.
    """
    place = {}
    for component in model.modules():
        for name, at_input in (("hook_in", True), ("hook_out", False)):
            point = component._modules.get(name)
            if point is not None:
                place[id(point)] = (component, at_input)
    points = model.hook_dict.items()
    return {name: place[id(point)] for name, point in points if id(point) in place}


class HookWatch:
    """Tells whether a bridge carries hooks; its places are looked up once, asking costs little."""

    def __init__(self, model: Model) -> None:
        modules: list[Any] = [*{*model.modules(), *model.original_model.modules()}]
        self._points = [module for module in modules if "fwd_hooks" in module.__dict__]
        self._modules = [module for module in modules if "fwd_hooks" not in module.__dict__]

    def users(self) -> tuple[Any, ...]:
        """Those of the user's now."""
        hooks: list[Any] = []
        for point in self._points:
            if point.fwd_hooks or point.bwd_hooks:
                hooks += (handle.user_hook for handle in (*point.fwd_hooks, *point.bwd_hooks))
        for module in self._modules:
            if module._forward_hooks or module._forward_pre_hooks:
                hooks += (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        return tuple(
            hook for hook in hooks if not getattr(hook, "__module__", "").startswith(_MACHINERY)
        )

    def sees_users(self) -> bool:
        """Whether there are any of the user's now."""
        return bool(self.users())

    def sees_any(self) -> bool:
        """The same, or of accelerate's, which fetch the weights of a model that is spread out."""
        return self.sees_users() or any("_hf_hook" in m.__dict__ for m in self._modules)


def _read_positions(model: Model, tokens: Int[Tensor, "row pos"]) -> Int[Tensor, " row"]:
    mask = None if model.tokenizer is None else model.tokenizer.mask_token_id
    last = torch.full((len(tokens),), tokens.shape[1] - 1, device=tokens.device)
    if mask is None:
        return last
    masked = tokens == mask
    if bool((masked.sum(1) > 1).any()):
        raise TaskError("a prompt has more than one mask token; give it one, where it is read")
    return torch.where(masked.any(1), masked.int().argmax(1), last)


def check_mode(model: Model) -> None:
    """Refuse a model whose values are random.

    Raises:
        ModelError: a model in train mode.
    """
    if model.original_model.training:
        raise ModelError(
            f"{model.cfg.model_name} is in train mode, where dropout makes values random; "
            "call model.eval() first"
        )


def in_parts(tokens: Int[Tensor, "prompt pos"]) -> tuple[Tensor, ...]:
    """The prompts of a task, as many at a time as a clean forward should take."""
    return tokens.split(max(1, _TOKENS_AT_ONCE // tokens.shape[1]))
