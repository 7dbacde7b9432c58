"""A task in the tokens of one model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mechspex.models.tokenizer import Tokenizer
from mechspex.tasks.next_token import runs_on
from mechspex.tasks.spans import token_spans
from mechspex.tasks.task import Task
from mechspex.tasks.token_ids import Continuation, token_ids


@dataclass(frozen=True)
class Tokens:
    """A task in the tokens of one model.

    Attributes:
        prompts, corrupted: token ids, one row a prompt; rows may differ in length.
        answers, distractors: the continuations of each prompt, each of them once.
        spans, corrupted_spans: {name: the tokens it spans} of each prompt.
    """

    prompts: tuple[Int[Tensor, " _"], ...]
    corrupted: tuple[Int[Tensor, " _"], ...] | None
    answers: tuple[tuple[Continuation, ...], ...]
    distractors: tuple[tuple[Continuation, ...], ...] | None
    spans: tuple[Mapping[str, range], ...] | None = None
    corrupted_spans: tuple[Mapping[str, range], ...] | None = None

    def continuations(self, number: int) -> tuple[Continuation, ...]:
        """The answers of a prompt, then its distractors."""
        wrong = () if self.distractors is None else self.distractors[number]
        return self.answers[number] + wrong

    @property
    def of_one_token(self) -> bool:
        """Whether every continuation is a single token."""
        prompts = range(len(self.prompts))
        return all(len(ids) == 1 for number in prompts for ids in self.continuations(number))


def first_tokens(
    continuations: Sequence[Sequence[Continuation]],
) -> Int[Tensor, " prompt *continuation"]:
    """The first tokens of continuations, filled up with −1 where prompts have several."""
    ids = [torch.tensor([tokens[0] for tokens in several]) for several in continuations]
    padded = pad_sequence(ids, batch_first=True, padding_value=-1)
    return padded[:, 0] if padded.shape[1] == 1 else padded


def _warn_of_words_run_together(task: Task) -> None:
    """Ends of words are written so as well: it is said, and read as it stands."""
    pairs = [
        (prompt, text)
        for prompt, answer in zip(task.prompts, task.answers, strict=True)
        for text in ([answer] if isinstance(answer, str) else answer)
    ]
    if task.metric != "kl_divergence" and all(runs_on(*pair) for pair in pairs):
        prompt, text = pairs[0]
        warnings.warn(
            f"no answer begins with a space: the model reads {prompt[-20:] + text[:20]!r}; where "
            f"answers are words of their own, write {' ' + text[:20]!r}",
            stacklevel=4,
        )


def tokenize(task: Task, tokenizer: Tokenizer, *, with_corrupted: bool = True) -> Tokens:
    """The tokens of a task.

    Args:
        task: the task, in words.
        tokenizer: the model's tokenizer.
        with_corrupted: whether the corrupted prompts are read; they are not looked at else.

    Raises:
        TaskError: a text that this tokenizer cannot read, an answer or distractor that does not
            continue its prompt, or one that is both.
    """
    ids = token_ids(task, tokenizer, with_corrupted=with_corrupted)
    _warn_of_words_run_together(task)
    return Tokens(
        prompts=tuple(map(torch.tensor, ids.prompts)),
        corrupted=None if ids.corrupted is None else tuple(map(torch.tensor, ids.corrupted)),
        answers=ids.answers,
        distractors=ids.distractors,
        spans=token_spans(tokenizer, task.prompts, ids.prompts, task.spans),
        corrupted_spans=None
        if ids.corrupted is None or task.corrupted is None
        else token_spans(tokenizer, task.corrupted, ids.corrupted, task.corrupted_spans),
    )
