"""A task in the tokens of one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mechspex.core.errors import TaskError
from mechspex.models.tokenizer import Tokenizer
from mechspex.tasks.next_token import encode, next_token
from mechspex.tasks.task import Task


@dataclass(frozen=True)
class Tokens:
    """A task in the tokens of one model.

    Attributes:
        prompts, corrupted: token ids, one row a prompt; rows may differ in length.
        answers, distractors: token ids, one a prompt. Where any prompt has several, each prompt
            has a row, filled up with −1.
    """

    prompts: tuple[Int[Tensor, " _"], ...]
    corrupted: tuple[Int[Tensor, " _"], ...] | None
    answers: Int[Tensor, " prompt *answer"]
    distractors: Int[Tensor, " prompt *distractor"] | None


def tokenize(task: Task, tokenizer: Tokenizer) -> Tokens:
    """The tokens of a task.

    Args:
        task: the task, in words.
        tokenizer: the model's tokenizer.

    Raises:
        TaskError: an answer or distractor of several tokens, or a corrupted prompt whose length
            is not its prompt's.
    """
    prompts = [encode(tokenizer, text, task.prepend_bos) for text in task.prompts]
    corrupted = None
    if task.corrupted is not None:
        corrupted = [encode(tokenizer, text, task.prepend_bos) for text in task.corrupted]
        for number, (clean, other) in enumerate(zip(prompts, corrupted, strict=True)):
            if len(clean) != len(other):
                raise TaskError(
                    f"prompt {number} has {len(clean)} tokens and its corrupted prompt "
                    f"{len(other)}: {task.prompts[number]!r} / {task.corrupted[number]!r}; "
                    "make them equally long"
                )

    def continuations(label: str, answers: Sequence[str | Sequence[str]]) -> Tensor:
        if all(isinstance(answer, str) for answer in answers):
            pairs = zip(task.prompts, answers, strict=True)
            return torch.tensor([next_token(tokenizer, p, str(text), label) for p, text in pairs])
        ids = [
            torch.tensor([next_token(tokenizer, prompt, text, label) for text in _several(answer)])
            for prompt, answer in zip(task.prompts, answers, strict=True)
        ]
        return pad_sequence(ids, batch_first=True, padding_value=-1)

    return Tokens(
        prompts=tuple(map(torch.tensor, prompts)),
        corrupted=None if corrupted is None else tuple(map(torch.tensor, corrupted)),
        answers=continuations("answer", task.answers),
        distractors=None
        if task.distractors is None
        else continuations("distractor", task.distractors),
    )


def _several(answer: str | Sequence[str]) -> Sequence[str]:
    return [answer] if isinstance(answer, str) else answer
