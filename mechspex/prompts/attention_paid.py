"""The attention that a response pays to the units of a prompt."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechspex.core.errors import ModelError
from mechspex.models.bridge import edited_logits
from mechspex.models.load_model import Model
from mechspex.prompts.row_batches import Row
from mechspex.prompts.scored_model import ScoredModel
from mechspex.tasks.spans import tokens_within


def attention_paid(scored: ScoredModel) -> Float[np.ndarray, "unit output"]:
    """The attention from the positions that predict each output to the tokens of each unit.

    paid[i, j] = 1 / (L H T_j) Σ_l Σ_h Σ_t Σ_{k in unit i} A_{l, h}[t, k], over the T_j positions t
    at which the tokens of output j are predicted; a share between 0 and 1. One forward a question,
    of the whole prompt.

    Args:
        scored: the model, its prompts and responses.

    Raises:
        ModelError: a model that does not show its attention.
    """
    kept = [True] * len(scored.asked.units)
    columns = []
    for prompt, row, response in zip(
        scored.asked.prompts, scored.whole, scored.responses, strict=True
    ):
        forced = np.concatenate([row, np.array(response.tokens[:-1], dtype=np.int32)])
        paid = _mean_pattern(scored.model, forced, len(response.tokens))
        text, ids = prompt.text(kept), row.tolist()
        places = tokens_within(scored.model.tokenizer, text, ids, prompt.placed())
        each = np.stack([paid[:, at].sum(1) for at in places])
        columns += [each[:, piece.start : piece.stop].mean(1) for piece in response.pieces]
    return np.stack(columns, axis=1)


def _mean_pattern(model: Model, row: Row, n_read: int) -> Float[np.ndarray, "read key"]:
    """Where a row's last positions look, mean over layers and heads."""
    sums: list[Tensor] = []

    def add(pattern: Float[Tensor, "1 head query key"]) -> Tensor:
        # A map of tokens × tokens of every head would not fit in memory for long texts.
        sums.append(pattern[0, :, -n_read:].detach().double().mean(0).cpu())
        return pattern

    hooks = [f"blocks.{layer}.attn.hook_pattern" for layer in range(len(model.blocks))]
    there = {name: add for name in hooks if name in model.hook_dict}
    device = next(model.original_model.parameters()).device
    with torch.no_grad():
        tokens = torch.from_numpy(row[None]).long().to(device)
        edited_logits(model, tokens, there, n_read)
    if len(sums) < len(hooks):
        raise ModelError(
            f"{model.cfg.model_name} shows the attention of {len(sums)} of its {len(hooks)} "
            "blocks; choose another baseline, such as mx.leave_one_out"
        )
    return torch.stack(sums).mean(0).numpy()
