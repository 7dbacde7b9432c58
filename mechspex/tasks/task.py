"""Tasks: prompts with their answers, in words; nothing here loads torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from mechspex.core.checks import LARGEST, Only, Whole, told
from mechspex.core.errors import TaskError
from mechspex.tasks.columns import several_in, spans_in, texts_in
from mechspex.tasks.metric_names import METRICS
from mechspex.tasks.spans import Span

# How much of a continuation's tokens is read.
ANSWER_TOKENS = ("all", "mean", "first")
# What a task has of each prompt.
_LISTS = ("prompts", "answers", "distractors", "corrupted", "spans", "corrupted_spans")


@dataclass(frozen=True, init=False)
class Task:
    """Prompts, what should and should not come next, and the metric that is read off.

    Each list may as well be a tuple, a column of a table or an array of strings.

    Attributes:
        prompts: the texts the model reads.
        answers: the right continuation of each prompt with its leading space (``" Mary"``), of any
            length; or a list of several right ones.
        distractors: the wrong continuation, or continuations, of each prompt; a metric that is a
            difference needs them.
        corrupted: for each prompt a text that lacks what the answer rests on; the ``corrupted``
            ablation needs them.
        metric: a name of `mechspex.tasks.metric_names.METRICS`, or a function (logits
            ``[row, vocabulary]``, prompt number ``[row]``) → value ``[row]``;
            in `mechspex.AllPositions` it sees the logits of every position.
        prepend_bos: whether a BOS token comes first; None for the tokenizer's own way, that of
            ``AutoTokenizer.from_pretrained(folder)(text)``.
        answer_tokens: how much of a continuation is read: ``all`` its tokens (the sum of their
            log-probabilities), their ``mean``, or the ``first`` alone.
        spans: for each prompt {name: a piece of its text}, as a text that stands there once or as
            (first, last + 1) in characters; the ``mean`` is then taken span by span.
        corrupted_spans: the same for the corrupted prompts.
        name: the task's name in output.
        circuits: published circuits, {model: {role: head names}}.

    Raises:
        TaskError: no prompts, lists of unequal length, something in them that is no text (the
            prompt's number is named), an unknown metric.
    """

    prompts: tuple[str, ...]
    answers: tuple[str | tuple[str, ...], ...]
    distractors: tuple[str | tuple[str, ...], ...] | None = None
    corrupted: tuple[str, ...] | None = None
    metric: str | Callable[..., Any] = "logit_difference"
    prepend_bos: bool | None = None
    answer_tokens: str = "all"
    spans: tuple[Mapping[str, Span], ...] | None = None
    corrupted_spans: tuple[Mapping[str, Span], ...] | None = None
    name: str = "task"
    circuits: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)

    def __init__(
        self,
        prompts: Iterable[str],
        answers: Iterable[str | Iterable[str]],
        distractors: Iterable[str | Iterable[str]] | None = None,
        corrupted: Iterable[str] | None = None,
        metric: str | Callable[..., Any] = "logit_difference",
        prepend_bos: bool | None = None,
        answer_tokens: str = "all",
        spans: Iterable[Mapping[str, Span]] | None = None,
        corrupted_spans: Iterable[Mapping[str, Span]] | None = None,
        name: str = "task",
        circuits: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    ) -> None:
        given = {
            "prompts": texts_in("prompts", prompts),
            "answers": several_in("answers", answers),
            "distractors": None if distractors is None else several_in("distractors", distractors),
            "corrupted": None if corrupted is None else texts_in("corrupted", corrupted),
            "metric": metric,
            "prepend_bos": prepend_bos,
            "answer_tokens": answer_tokens,
            "spans": None if spans is None else spans_in("spans", spans),
            "corrupted_spans": None
            if corrupted_spans is None
            else spans_in("corrupted_spans", corrupted_spans),
            "name": name,
            "circuits": circuits or {},
        }
        for label, value in given.items():
            object.__setattr__(self, label, value)
        self._check()

    def _check(self) -> None:
        if not self.prompts:
            raise TaskError("a task needs at least one prompt, got none")
        for label in _LISTS:
            column = getattr(self, label)
            if column is not None and len(column) != len(self.prompts):
                raise TaskError(
                    f"{len(column)} {label} for {len(self.prompts)} prompts; give one a prompt"
                )
        if self.answer_tokens not in ANSWER_TOKENS:
            raise TaskError(
                f"answer_tokens = {self.answer_tokens!r}; choose {', '.join(ANSWER_TOKENS)}"
            )
        if self.prepend_bos not in (True, False, None):
            raise TaskError(f"prepend_bos = {self.prepend_bos!r}; choose True, False or None")
        if not isinstance(self.metric, str):
            _check_metric(self.metric)
        elif self.metric not in METRICS:
            raise TaskError(
                f"metric {self.metric!r} is unknown; choose {', '.join(METRICS)} or a function"
            )

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, chosen: slice) -> Task:
        """The same task with some of its prompts."""
        parts = {name: getattr(self, name) for name in _LISTS}
        return replace(self, **{name: p if p is None else p[chosen] for name, p in parts.items()})

    def split(self, *sizes: int) -> tuple[Task, ...]:
        """Tasks of so many prompts each, from the first on; prompts beyond them are left out.

        Args:
            *sizes: the number of prompts of each task.

        Raises:
            TaskError: a size below 1, or more prompts than there are.
        """
        wanted = "whole numbers of prompts"
        sizes = tuple(Whole(-LARGEST, wanted=wanted, error=TaskError)("sizes", s) for s in sizes)
        if any(size < 1 for size in sizes) or sum(sizes) > len(self):
            raise TaskError(
                f"{len(self)} prompts cannot be split into {', '.join(map(str, sizes))}; give "
                f"sizes from 1 up that are no more than {len(self)} together"
            )
        ends = accumulate(sizes)
        return tuple(self[end - size : end] for size, end in zip(sizes, ends, strict=True))


def as_task(name: str, given: object) -> Any:
    """Reads a task, or the name or file of one that is still to be drawn.

    Raises:
        TaskError: something else.
    """
    wanted = "a Task, or the name of one (mechspex tasks lists them)"
    return Only((Task, str, Path), wanted, TaskError)(name, given)


def _check_metric(metric: object) -> None:
    """Refuse a metric that cannot be called as metrics are."""
    if not callable(metric):
        raise TaskError(
            f"metric {told(metric)} is unknown; choose {', '.join(METRICS)} or a function"
        )
    try:
        inspect.signature(metric).bind(None, None)
    except ValueError:  # it has no signature to be read
        pass
    except TypeError as error:
        raise TaskError(
            f"the metric cannot be called as metric(logits [row, vocabulary], prompt number [row]) "
            f"({error}); write it as def metric(logits, prompts)"
        ) from None
