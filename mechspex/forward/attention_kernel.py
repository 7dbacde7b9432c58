"""The kernel of attention that gradients go through."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

# Positions up to which plain products are the faster ones: they hold all scores.
_SHORT = 128


def with_gradients(
    device: torch.device, length: int, dtype: torch.dtype, *, hides: bool
) -> AbstractContextManager[object]:
    """Attention as plain products, where the kernels of PyTorch are slow or refuse.

    On a processor the gradient of the fused kernel takes two to four times as long in bf16 and
    fp16. CUDA's memory-efficient kernel refuses some shapes where gradients flow through the mask
    ("LSE is not correctly aligned").

    Args:
        device: where the model lies.
        length: the positions of a row.
        dtype: the dtype of the model that runs.
        hides: whether positions are hidden from attention.
    """
    slow = device.type == "cpu" and dtype != torch.float32 and length <= _SHORT
    refused = device.type == "cuda" and hides
    return sdpa_kernel(SDPBackend.MATH) if slow or refused else nullcontext()
