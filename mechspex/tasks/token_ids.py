"""A task in the token ids of one model, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from mechspex.core.errors import TaskError
from mechspex.models.tokenizer import Tokenizer
from mechspex.tasks.metric_names import DIFFERENCES
from mechspex.tasks.next_token import continuation, encode
from mechspex.tasks.task import Task

Continuation = tuple[int, ...]
"""The tokens of an answer or a distractor."""


@dataclass(frozen=True)
class TokenIds:
    """The ids of a task's texts, one row a prompt.

    Attributes:
        prompts, corrupted: ids of the prompts, with what marks their ends.
        answers, distractors: the continuations of each prompt, each of them once.
    """

    prompts: list[list[int]]
    corrupted: list[list[int]] | None
    answers: tuple[tuple[Continuation, ...], ...]
    distractors: tuple[tuple[Continuation, ...], ...] | None


def token_ids(task: Task, tokenizer: Tokenizer, *, with_corrupted: bool = True) -> TokenIds:
    """The token ids of a task.

    Args:
        task: the task, in words.
        tokenizer: the model's tokenizer.
        with_corrupted: whether the corrupted prompts are read; they are not looked at else.

    Raises:
        TaskError: a text that this tokenizer cannot read, an answer or distractor that does not
            continue its prompt, or, where both are read, one that is both or begins the other.
    """
    prompts = [encode(tokenizer, text, task.prepend_bos) for text in task.prompts]
    corrupted = None
    if task.corrupted is not None and with_corrupted:
        corrupted = [encode(tokenizer, text, task.prepend_bos) for text in task.corrupted]

    def continuations(
        label: str, texts: Sequence[str | Sequence[str]]
    ) -> tuple[tuple[Continuation, ...], ...]:
        return tuple(
            _each_once(
                _read(continuation(tokenizer, prompt, text, label), task.answer_tokens)
                for text in ([several] if isinstance(several, str) else several)
            )
            for prompt, several in zip(task.prompts, texts, strict=True)
        )

    answers = continuations("answer", task.answers)
    distractors = None
    if task.distractors is not None:
        distractors = continuations("distractor", task.distractors)
        # Other metrics do not read both.
        if task.metric in DIFFERENCES:
            _refuse_both(task, tokenizer, answers, distractors)
    return TokenIds(prompts, corrupted, answers, distractors)


def _each_once(continuations: Iterable[Continuation]) -> tuple[Continuation, ...]:
    """No continuation twice, nor one that begins with another: it is counted in that already."""
    different = dict.fromkeys(continuations)
    return tuple(
        ids
        for ids in different
        if not any(other != ids and ids[: len(other)] == other for other in different)
    )


def _read(ids: Continuation, answer_tokens: str) -> Continuation:
    return ids[:1] if answer_tokens == "first" else ids


def _refuse_both(
    task: Task,
    tokenizer: Tokenizer,
    answers: Sequence[Sequence[Continuation]],
    distractors: Sequence[Sequence[Continuation]],
) -> None:
    for number, (right, wrong) in enumerate(zip(answers, distractors, strict=True)):
        if both := [ids for ids in right if ids in wrong]:
            tokens = tokenizer.convert_ids_to_tokens(list(both[0]))
            by_first = " as their first token" if task.answer_tokens == "first" else ""
            raise TaskError(
                f"prompt {number} has {tokens}{by_first} among its answers and its distractors: "
                f"{task.prompts[number]!r}; change one of them"
            )
        for ids, other in product(right, wrong):
            if ids[: len(other)] == other[: len(ids)]:
                # The probability of the longer one is part of that of the shorter one.
                ours, theirs = map(tokenizer.convert_ids_to_tokens, (list(ids), list(other)))
                raise TaskError(
                    f"prompt {number} has answer {ours} and distractor {theirs}, one of which "
                    f"begins with the other, so that a text is both: {task.prompts[number]!r}; "
                    "change one of them, or end the shorter one as it ends in the text"
                )
