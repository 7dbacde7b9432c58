"""Modules that map each position by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def is_position_wise(module: nn.Module, run: Callable[..., Any], width: int) -> bool:
    """Whether a module maps ``[row, pos, d]`` to the same shape, each position by itself.

    Args:
        module: the module that is tried out.
        run: its forward.
        width: d.
    """
    some = next(module.parameters(), None)
    if some is None:
        return False
    probe = torch.randn(
        1, 3, width, generator=torch.Generator().manual_seed(0), dtype=torch.float32
    ).to(some)
    try:
        with torch.inference_mode():
            whole, last = run(probe), run(probe[:, -1:])
    except (RuntimeError, TypeError, IndexError, ValueError):
        return False
    if not isinstance(whole, Tensor) or whole.shape != probe.shape or last.shape != (1, 1, width):
        return False
    return torch.allclose(whole[:, -1:].float(), last.float(), rtol=1e-2, atol=1e-3)
