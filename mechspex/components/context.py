"""Whether a task's tokens fit a model: its vocabulary and its context."""

from __future__ import annotations

import warnings
from typing import Any

from transformers import PreTrainedModel

from mechspex.core.errors import TaskError
from mechspex.models.load_model import Model
from mechspex.models.positions import most_positions, trained_positions
from mechspex.tasks.metrics import reads_continuations
from mechspex.tasks.task import Task
from mechspex.tasks.tokens import Tokens


def check_context(model: Model, task: Task, tokens: Tokens) -> None:
    """Hold prompts and answers against what a model can read.

    Args:
        model: the model.
        task: the prompts, in words.
        tokens: the prompts and answers, in tokens.

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
    # What is not read is not forced after a prompt.
    with_answer = reads_continuations(task.metric, tokens)
    lengths = [_length(tokens, j, with_answer) for j in range(len(tokens.prompts))]
    longest = max(range(len(lengths)), key=lengths.__getitem__)
    length, limit = lengths[longest], trained_positions(model)
    if limit is None or length <= limit:
        return
    text = task.prompts[longest]
    told = (
        f"prompt {longest} has {length} tokens{' with its answer' * with_answer}, "
        f"and {model.cfg.model_name} has "
        f"{limit} positions: {text[:60]!r}{'…' if len(text) > 60 else ''}"
    )
    if most_positions(model) is None:
        warnings.warn(f"{told}; it was not trained on more", stacklevel=5)
        return
    raise TaskError(f"{told}; shorten it")


def _length(tokens: Tokens, number: int, with_answer: bool) -> int:
    forced = max(len(ids) - 1 for ids in tokens.continuations(number)) if with_answer else 0
    corrupted = 0 if tokens.corrupted is None else len(tokens.corrupted[number])
    return max(len(tokens.prompts[number]), corrupted) + forced


def _vocabulary(model: Model) -> int:
    own = model.original_model
    if not isinstance(own, PreTrainedModel):
        return int(model.cfg.d_vocab)
    weight: Any = own.get_input_embeddings().weight
    return len(weight)
