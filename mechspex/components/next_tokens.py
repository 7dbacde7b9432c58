"""What a model says next on its prompts while some of its units are ablated."""

from __future__ import annotations

import pandas as pd
import torch

from mechspex.components.batched_forward import BatchedForward
from mechspex.components.proved import Proved
from mechspex.core.masks import ablate_sets
from mechspex.core.units import Term

# Prompts in one forward: the logits of the whole vocabulary are held for each.
_AT_ONCE = 16


def likeliest_tokens(proved: Proved, ablated: Term, n_tokens: int) -> pd.DataFrame:
    """The likeliest next tokens of every prompt, one row each, in the order of the prompts.

    Args:
        proved: the model on its prompts.
        ablated: the columns of the units that are ablated.
        n_tokens: how many tokens a prompt.
    """
    mask = torch.from_numpy(ablate_sets(len(proved.ablated.units), [ablated]))
    rows: list[tuple[int, int, str, float]] = []
    with torch.inference_mode():
        for group in proved.exact.groups:
            for start in range(0, len(group.prompts), _AT_ONCE):
                numbers = group.prompts[start : start + _AT_ONCE]
                p = _after_prompts(group, mask, slice(start, start + len(numbers)))
                for number, shares in zip(numbers, p.softmax(-1), strict=True):
                    best = shares.topk(n_tokens)
                    texts = [str(proved.ablated.model.tokenizer.decode([i])) for i in best.indices]
                    ranked = zip(texts, best.values.tolist(), strict=True)
                    rows += [(number, rank, text, p) for rank, (text, p) in enumerate(ranked, 1)]
    prompts = proved.task.prompts
    return pd.DataFrame(
        [(prompts[number], *row) for number, *row in sorted(rows)],
        columns=["prompt", "rank", "token", "probability"],
    )


def _after_prompts(group: BatchedForward, mask: torch.Tensor, part: slice) -> torch.Tensor:
    """Logits ``[prompt, vocabulary]`` of what comes after some of the prompts."""
    forward = group.usable() or group.plain
    rows = slice(part.start * group.n_sequences, part.stop * group.n_sequences)
    logits = forward(mask.to(group.plain.tokens.device)[:, None], rows)
    # Answers of several tokens are forced after the prompt: those positions are read as well.
    n_forced = group.plain.tokens.shape[1] - group.length
    return logits[:: group.n_sequences, -1 - n_forced].float()
