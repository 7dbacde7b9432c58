"""Keys and values that many rows of a forward share: they are held once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer


class _PrefixLayer(DynamicLayer):
    """Keys and values of the clean positions, shared by all rows of a prompt, joined on demand."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = self._before = keys, values
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        keys, values = self._before
        return _joined(keys, key_states), _joined(values, value_states)


def _joined(prefix: Tensor, suffix: Tensor) -> Tensor:
    """``[prompt, head, before, d]`` and ``[mask · prompt, head, after, d]``, in one copy."""
    n_prompts, n_heads, before, width = prefix.shape
    rows, _, after, _ = suffix.shape
    joined = suffix.new_empty(rows, n_heads, before + after, width)
    joined.unflatten(0, (-1, n_prompts))[..., :before, :] = prefix
    joined[:, :, before:] = suffix
    return joined


def shared_prefix(pairs: Sequence[tuple[Tensor, Tensor]]) -> DynamicCache | None:
    """A cache that every row of a forward begins with; None of nothing.

    Args:
        pairs: keys and values ``[prompt, head, pos, d_head]``, one pair a block.
    """
    if not pairs:
        return None
    cache = DynamicCache()
    cache.layers.extend(_PrefixLayer(keys, values) for keys, values in pairs)
    return cache


def pairs_of(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    """The keys and values in a cache, one pair a block.

    Args:
        cache: the cache.
    """
    layers: list[Any] = cache.layers
    return [(layer.keys, layer.values) for layer in layers]
