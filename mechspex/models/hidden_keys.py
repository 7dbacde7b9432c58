"""Keys hidden from attention: positions that no other position attends to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mechspex.core.errors import ModelError

# The way out for what cannot hide keys.
INSTEAD = "replace words at the embedding instead, by units of kind 'word'"
# Below this the logarithm stands still, so that its slope exists at 0: m · weight to 1e-9.
_LEAST = 2.0**-30


class HiddenKeys:
    """How much each position of some rows is seen by the others, in every attention of a forward.

    pattern = softmax(scores + b) with b[row, query, key] = log seen[row, key], and 0 where query =
    key: the weight of a key is multiplied by ``seen``, and the weights add to 1 again. A position
    always sees itself, so no softmax is empty; what it reads and where it stands stay as they are.

    The mask is added to the one that the architecture makes, so causality, sliding windows and
    ALiBi stay.

    Args:
        seen: ``[row, pos]``, 1 where a position is seen, 0 where it is hidden; also in between.
    """

    def __init__(self, seen: Float[Tensor, "row pos"]) -> None:
        self._in_part = seen.requires_grad or bool(((seen > 0) & (seen < 1)).any())
        if seen.requires_grad:
            # The slope in m at 0, from above; the logarithm of m alone has none there.
            seen = seen + (_LEAST - seen).clamp(min=0).detach()
        self._log_seen = seen.log()
        # Layers of one kind are given one mask.
        self._made: dict[int, tuple[Tensor | None, Tensor]] = {}

    def alone(self, entering: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row 1 query key"]:
        """The mask of the hidden keys alone, for attentions of TransformerLens' own models.

        Raises:
            ModelError: keys that are hidden in part, which those attentions know nothing of.
        """
        if self._in_part:
            raise ModelError(
                "soft masks of hidden words need a model of the transformers library; take hard "
                f"ones, or {INSTEAD}"
            )
        nothing = entering.new_zeros(1, 1, entering.shape[1], entering.shape[1])
        return self.added_to(nothing, entering)

    def added_to(
        self,
        mask: Tensor | None,
        entering: Float[Tensor, "row pos d_model"],
        scale: float | Tensor = 1.0,
    ) -> Float[Tensor, "row head query key"]:
        """The additive mask of an attention; head is 1 where all heads have the same.

        Args:
            mask: what the model gives it; None for plain causality.
            entering: what enters it, at the last positions.
            scale: what scores are divided by after their mask is added.
        """
        if id(mask) not in self._made:
            self._made[id(mask)] = mask, self._make(mask, entering, scale)
        return self._made[id(mask)][1]

    def _make(self, mask: Tensor | None, entering: Tensor, scale: float | Tensor) -> Tensor:
        n_queries, n_keys = entering.shape[1], self._log_seen.shape[1]
        key = torch.arange(n_keys, device=entering.device)
        query = key[n_keys - n_queries :, None]
        seen = torch.where(query == key, 0.0, scale * self._log_seen[:, None, None])
        if mask is None:
            seen = seen.masked_fill(query < key, -torch.inf)
        elif mask.dtype == torch.bool:
            seen = seen.masked_fill(~mask, -torch.inf)
        else:
            seen = mask + seen
        return seen.to(entering.dtype)


def hide(
    modules: Iterable[nn.Module], keys: Callable[[], HiddenKeys | None]
) -> list[RemovableHandle]:
    """Have attentions see their masks with hidden keys in them; returns the hooks that do that.

    Args:
        modules: the attentions.
        keys: the keys that are hidden in the forward that runs; None for none.
    """

    def pre_hook(module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        hidden = keys()
        if hidden is None:
            return None
        mask = given.get("attention_mask")
        entering = args[0] if args else given["hidden_states"]
        if is_native(module):
            return args, given | {"attention_mask": hidden.alone(entering)}
        # In a kernel of its own an architecture may read True either way.
        unclear = isinstance(mask, Tensor) and mask.dtype == torch.bool and not _is_fused(module)
        if "attention_mask" not in given or unclear:
            raise ModelError(
                f"{type(module).__name__} takes no mask that is added to its scores, so no word "
                f"can be hidden from it; {INSTEAD}"
            )
        scale = _scale_after(module)
        return args, given | {"attention_mask": hidden.added_to(mask, entering, scale)}

    return [module.register_forward_pre_hook(pre_hook, with_kwargs=True) for module in modules]


def is_native(module: Any) -> bool:
    """Whether an attention is of a model that TransformerLens made itself."""
    return type(getattr(module, "original_component", None)).__name__ == "NativeAttention"


def _is_fused(module: Any) -> bool:
    return getattr(getattr(module, "config", None), "_attn_implementation", None) == "sdpa"


def _scale_after(module: Any) -> float | Tensor:
    """What an attention divides its scores by after their mask is added; CodeGen's alone does."""
    own = getattr(module, "original_component", module)
    return own.scale_attn if type(own).__name__ == "CodeGenAttention" else 1.0
