"""Attention patterns of one forward, held against those of others in which queries differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mechspex.core.errors import ModelError

# Its names as a function of torch, of torch.nn.functional, and as a method.
SOFTMAX = ("softmax", "_softmax")


@dataclass(frozen=True, eq=False)
class Patterns:
    """The attention patterns of a forward, and gradients in them.

    Attributes:
        attentions: the modules of attention, in order.
        patterns: {number of an attention: what its softmax gave, row by row and head by head}.
        gradients: {the same: the gradients of each backward pass in that, ``[pass, …]``}.
    """

    attentions: Sequence[nn.Module]
    patterns: Mapping[int, Tensor]
    gradients: Mapping[int, Float[Tensor, "pass ..."]]

    @contextmanager
    def compared(
        self, n_rows: int, n_heads: int
    ) -> Iterator[dict[int, Float[Tensor, "pass row head"]]]:
        """Run another forward of the same rows, of which only queries and keys are read.

        Its patterns P' are held against those here, Σ (P − P') · ∂f/∂P over all positions, and
        then these take their place: so nothing else changes, and one forward serves all layers.

        Args:
            n_rows: how many rows are run.
            n_heads: how many heads an attention has.

        Yields:
            {number of an attention: those sums}, filled while the forward runs.

        Raises:
            ModelError: patterns that are no map from positions to positions for each head.
        """
        changes: dict[int, Tensor] = {}

        def compare(number: int, pattern: Tensor) -> Tensor:
            ours = self.patterns[number]
            fits = ours.shape == pattern.shape and ours.shape[:-2].numel() == n_rows * n_heads
            if not fits or number in changes:
                raise ModelError(
                    f"the rule 'pattern_recomputed' does not apply: the softmax of "
                    f"{type(self.attentions[number]).__name__} has shape {list(pattern.shape)}, "
                    "not one pattern for each row and head; leave it out"
                )
            shape = (n_rows, n_heads, *ours.shape[-2:])
            less = (ours - pattern).view(shape)
            slopes = self.gradients[number].view(-1, *shape)
            axes = "n row head query key, row head query key -> n row head"
            changes[number] = einsum(slopes, less, axes)
            return ours

        mode = _AtSoftmax(compare)
        hooks = []
        for number in self.patterns:
            module = self.attentions[number]
            hooks.append(module.register_forward_pre_hook(mode.enter(number), prepend=True))
            hooks.append(module.register_forward_hook(mode.leave))
        try:
            with torch.no_grad(), mode:
                yield changes
        finally:
            for hook in hooks:
                hook.remove()


class _AtSoftmax(TorchFunctionMode):
    """A context in which what the softmax of an attention gives is replaced.

    Args:
        replaced: (number of the attention, its pattern) → what takes its place.
    """

    def __init__(self, replaced: Callable[[int, Tensor], Tensor]) -> None:
        super().__init__()
        self._replaced = replaced
        self._number: int | None = None

    def enter(self, number: int) -> Callable[..., None]:
        """A hook for when an attention begins."""

        def pre_hook(*_: object) -> None:
            self._number = number

        return pre_hook

    def leave(self, *_: object) -> None:
        """A hook for when an attention ends."""
        self._number = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if self._number is None or getattr(func, "__name__", "") not in SOFTMAX:
            return output
        return self._replaced(self._number, output)
