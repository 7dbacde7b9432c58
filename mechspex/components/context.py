"""Whether a task's tokens fit a model: its vocabulary and its context."""

from __future__ import annotations

import warnings
from typing import Any

from transformers import PreTrainedModel

from mechspex.core.errors import TaskError
from mechspex.models.load_model import Model
from mechspex.tasks.task import Task
from mechspex.tasks.tokens import Tokens

# Positions that can be computed beyond those the model was trained on.
_RELATIVE = ("rotary", "alibi", "relative_positional_bias", "none")


def check_context(model: Model, task: Task, tokens: Tokens) -> None:
    """Hold prompts and answers against what a model can read.

    Raises:
        TaskError: a token that the model's embedding lacks, or a prompt that is longer than its
            positions; where positions are computed, a longer one is warned of.
    """
    size = _vocabulary(model)
    for number in range(len(tokens.prompts)):
        read = [*tokens.prompts[number].tolist()]
        read += [] if tokens.corrupted is None else tokens.corrupted[number].tolist()
        answers = [token for ids in tokens.continuations(number) for token in ids]
        if max([*read, *answers]) >= size:
            raise TaskError(
                f"prompt {number} or its answers have token {max([*read, *answers])}, and "
                f"{model.cfg.model_name} has embeddings for tokens 0 … {size - 1}: "
                f"{task.prompts[number]!r}; use the tokenizer that belongs to the model, or resize "
                "the model's embeddings"
            )
    longest = max(range(len(tokens.prompts)), key=lambda number: _length(tokens, number))
    length, limit = _length(tokens, longest), int(model.cfg.n_ctx or 0)
    if not limit or length <= limit:
        return
    text = task.prompts[longest]
    told = (
        f"prompt {longest} has {length} tokens with its answer, and {model.cfg.model_name} has "
        f"{limit} positions: {text[:60]!r}{'…' if len(text) > 60 else ''}"
    )
    # TransformerLens' own models hold tables of their positions, whatever kind they are.
    computed = isinstance(model.original_model, PreTrainedModel)
    if computed and str(model.cfg.positional_embedding_type) in _RELATIVE:
        warnings.warn(f"{told}; it was not trained on more", stacklevel=5)
        return
    raise TaskError(f"{told}; shorten it")


def _length(tokens: Tokens, number: int) -> int:
    forced = max(len(ids) - 1 for ids in tokens.continuations(number))
    corrupted = 0 if tokens.corrupted is None else len(tokens.corrupted[number])
    return max(len(tokens.prompts[number]), corrupted) + forced


def _vocabulary(model: Model) -> int:
    own: Any = model.original_model
    embeddings = own.get_input_embeddings() if hasattr(own, "get_input_embeddings") else None
    size = getattr(embeddings, "num_embeddings", None)
    return int(model.cfg.d_vocab if size is None else size)
