"""How much of a machine's rate of products a model's own forward reaches."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mechspex.forward.machine import fastest, product_rate
from mechspex.models.bridge import edited_logits
from mechspex.models.load_model import Model

# Rows of tokens a forward: where processors have reached their rate, and graphics cards theirs.
_ROWS, _ROWS_OF_A_GPU, _LENGTH = 16, 256, 64


@dataclass(frozen=True)
class ModelRate:
    """The forwards of a model on one device.

    Attributes:
        model: the model's name.
        dtype: the number format of its weights.
        tokens: tokens a second.
        gflops: GFLOP/s in the products with its weights, 2 FLOP a weight and token; attention
            scores and the unembedding, of one position a row, are not counted.
        share: `gflops` over the rate of square products of this format here.
    """

    model: str
    dtype: str
    tokens: float
    gflops: float
    share: float

    def __str__(self) -> str:
        return (
            f"{self.model}: {self.tokens:,.3g} tokens/s in its own forward, {self.gflops:,.3g} "
            f"GFLOP/s, {self.share:.0%} of the products of {self.dtype}"
        )


def measure_model(model: Model) -> ModelRate:
    """Run a model on random tokens for a fraction of a second, through TransformerLens.

    Args:
        model: the model, on the device that is asked for.
    """
    own = model.original_model
    weight = next(own.parameters())
    rows = _ROWS_OF_A_GPU if weight.is_cuda else _ROWS
    length = min(_LENGTH, model.cfg.n_ctx)
    tokens = torch.arange(rows * length, device=weight.device) % model.cfg.d_vocab
    batch = tokens.view(rows, length)

    def forward() -> None:
        with torch.inference_mode():
            edited_logits(model, batch, {}).sum().item()

    a_second = rows * length / fastest(forward)
    gflops = 2 * _n_weights(model) * a_second / 1e9
    peak = product_rate(weight.device, weight.dtype)
    dtype = str(weight.dtype).removeprefix("torch.")
    return ModelRate(model.cfg.model_name, dtype, a_second, gflops, gflops / peak)


def _n_weights(model: Model) -> int:
    """How many weights every token is multiplied with: those of the matrices inside blocks."""
    blocks = model.blocks.parameters()
    return sum(weight.numel() for weight in blocks if weight.ndim > 1)
