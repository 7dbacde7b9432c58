"""Tasks: prompts with their answers, in words; nothing here loads torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

from mechspex.core.errors import TaskError
from mechspex.tasks.metric_names import METRICS
from mechspex.tasks.spans import Span

# How much of a continuation's tokens is read.
ANSWER_TOKENS = ("all", "mean", "first")


@dataclass(frozen=True)
class Task:
    """Prompts, what should and should not come next, and the metric that is read off.

    Attributes:
        prompts: the texts the model reads.
        answers: the right continuation of each prompt with its leading space (``" Mary"``), of any
            length; or a list of several right ones.
        distractors: the wrong continuation, or continuations, of each prompt; a metric that is a
            difference needs them.
        corrupted: for each prompt a text that lacks what the answer rests on; the ``corrupted``
            ablation needs them.
        metric: a name of `mechspex.tasks.metric_names.METRICS`, or a function (logits
            ``[row, vocabulary]``, prompt number ``[row]``) → value ``[row]``.
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
        TaskError: no prompts, lists of unequal length, an unknown metric.
    """

    prompts: Sequence[str]
    answers: Sequence[str | Sequence[str]]
    distractors: Sequence[str | Sequence[str]] | None = None
    corrupted: Sequence[str] | None = None
    metric: str | Callable[..., Any] = "logit_difference"
    prepend_bos: bool | None = None
    answer_tokens: str = "all"
    spans: Sequence[Mapping[str, Span]] | None = None
    corrupted_spans: Sequence[Mapping[str, Span]] | None = None
    name: str = "task"
    circuits: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.prompts:
            raise TaskError("a task needs at least one prompt, got none")
        for label in ("spans", "corrupted_spans"):
            named = getattr(self, label)
            if named is not None and len(named) != len(self.prompts):
                raise TaskError(
                    f"{len(named)} {label} for {len(self.prompts)} prompts; give one a prompt"
                )
        if self.answer_tokens not in ANSWER_TOKENS:
            raise TaskError(
                f"answer_tokens = {self.answer_tokens!r}; choose {', '.join(ANSWER_TOKENS)}"
            )
        for label in ("prompts", "answers", "distractors", "corrupted"):
            texts = getattr(self, label)
            if texts is None:
                continue
            if isinstance(texts, str):
                raise TaskError(f"{label} = {texts!r} is one string; give a list of strings")
            if len(texts) != len(self.prompts):
                raise TaskError(
                    f"{len(texts)} {label} for {len(self.prompts)} prompts; give one a prompt"
                )
            frozen = tuple(text if isinstance(text, str) else tuple(text) for text in texts)
            if () in frozen:
                raise TaskError(f"prompt {frozen.index(())} has an empty list of {label}; give one")
            object.__setattr__(self, label, frozen)
        if isinstance(self.metric, str) and self.metric not in METRICS:
            raise TaskError(
                f"metric {self.metric!r} is unknown; choose {', '.join(METRICS)} or a function"
            )

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, chosen: slice) -> Task:
        """The same task with some of its prompts."""
        lists = ("prompts", "answers", "distractors", "corrupted", "spans", "corrupted_spans")
        parts = {name: getattr(self, name) for name in lists}
        return replace(self, **{name: p if p is None else p[chosen] for name, p in parts.items()})

    def split(self, *sizes: int) -> tuple[Task, ...]:
        """Tasks of so many prompts each, from the first on; prompts beyond them are left out.

        Args:
            *sizes: the number of prompts of each task.

        Raises:
            TaskError: a size below 1, or more prompts than there are.
        """
        if any(size < 1 for size in sizes) or sum(sizes) > len(self):
            raise TaskError(
                f"{len(self)} prompts cannot be split into {', '.join(map(str, sizes))}; give "
                f"sizes from 1 up that are no more than {len(self)} together"
            )
        ends = accumulate(sizes)
        return tuple(self[end - size : end] for size, end in zip(sizes, ends, strict=True))
