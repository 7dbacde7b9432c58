"""Matrix products of a model, by whichever library is faster on this processor."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

# Rows of the product that is timed.
_ROWS = 1024
# What oneDNN must gain to be taken.
_GAIN = 1.05


def multiply_by_the_faster_library(model: PreTrainedModel) -> None:
    """Let oneDNN do the float32 products of a model where it beats the linked BLAS.

    Which one does depends on the processor: both are timed on the largest inner matrix. Both are
    exact up to rounding; gradients always take PyTorch's own way.
    """
    maps: list[Any] = [m for m in model.modules() if isinstance(m, nn.Linear | Conv1D)]
    if not maps or maps[0].weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return
    vocabulary = model.get_output_embeddings()
    largest = max((m for m in maps if m is not vocabulary), key=lambda m: m.weight.numel())
    with torch.inference_mode():
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(
            _ROWS, _matrix(largest).shape[1], generator=generator, dtype=torch.float32
        )
        plain, onednn = partial(largest.forward, rows), partial(_multiply, largest, rows)
        if _seconds(plain) < _GAIN * _seconds(onednn):
            return
    for module in maps:
        module.forward = _with_onednn(module)


def _with_onednn(module: nn.Linear | Conv1D) -> Callable[[Tensor], Tensor]:
    plain = module.forward

    def forward(input: Tensor) -> Tensor:
        # A few rows are over before it matters who multiplies them.
        few = input.numel() < 16 * input.shape[-1]
        return plain(input) if few or torch.is_grad_enabled() else _multiply(module, input)

    return forward


def _multiply(module: nn.Linear | Conv1D, rows: Tensor) -> Tensor:
    matrix = _matrix(module)
    return torch.ops.mkldnn._linear_pointwise(rows, matrix, module.bias, "none", [], "")


def _matrix(module: nn.Linear | Conv1D) -> Tensor:
    """``[out, in]``: GPT-2's modules hold the transpose."""
    return module.weight if isinstance(module, nn.Linear) else module.weight.t()


def _seconds(function: Callable[[], Tensor]) -> float:
    taken = []
    for _ in range(4):
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return min(taken)
