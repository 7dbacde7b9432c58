"""Tasks: prompts with one-token answers, in words and in the tokens of one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from mechspex.errors import TaskError
from mechspex.tasks.metric_names import METRICS
from mechspex.tasks.metrics import Metric


@dataclass(frozen=True)
class Task:
    """Prompts, what should and should not come next, and the metric that is read off.

    Attributes:
        prompts: the texts the model reads.
        answers: the right continuation of each, one token with its leading space (``" Mary"``),
            or a list of several that are all right, one token each.
        distractors: the wrong continuations, likewise; a difference needs them.
        corrupted: for each prompt a text of the same token length without what the answer rests
            on; the ``corrupted`` ablation needs them.
        metric: a name of `mechspex.metric_names.METRICS`, or a function (logits
            ``[row, vocabulary]``, prompt number ``[row]``) → value ``[row]``.
        prepend_bos: None follows the tokenizer, True and False decide.
        name: what the task is called in output.
        circuits: published circuits, {model: {role: head names}}.

    Raises:
        TaskError: no prompts, lists of unequal length, an unknown metric.
    """

    prompts: Sequence[str]
    answers: Sequence[str | Sequence[str]]
    distractors: Sequence[str | Sequence[str]] | None = None
    corrupted: Sequence[str] | None = None
    metric: str | Metric = "logit_difference"
    prepend_bos: bool | None = None
    name: str = "task"
    circuits: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.prompts:
            raise TaskError("a task needs at least one prompt, got none")
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
        lists = ("prompts", "answers", "distractors", "corrupted")
        parts = {name: getattr(self, name) for name in lists}
        return replace(self, **{name: p if p is None else p[chosen] for name, p in parts.items()})


@dataclass(frozen=True)
class Tokens:
    """A task in the tokens of one model.

    Attributes:
        prompts, corrupted: token ids, one row a prompt; rows may differ in length.
        answers, distractors: token ids, one a prompt; where any prompt has several, a row each,
            filled up with −1.
    """

    prompts: tuple[Int[Tensor, " _"], ...]
    corrupted: tuple[Int[Tensor, " _"], ...] | None
    answers: Int[Tensor, " prompt *answer"]
    distractors: Int[Tensor, " prompt *distractor"] | None


def tokenize(task: Task, tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """The tokens of a task.

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


def encode(tokenizer: PreTrainedTokenizerBase, text: str, prepend_bos: bool | None) -> list[int]:
    """Token ids of a prompt; `prepend_bos` None follows the tokenizer, True and False decide.

    Raises:
        TaskError: `prepend_bos` is True and the tokenizer has no BOS token; an empty prompt.
    """
    if prepend_bos is None:
        ids = tokenizer(text).input_ids
    else:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        if prepend_bos:
            if tokenizer.bos_token_id is None:
                raise TaskError("prepend_bos = True, but this tokenizer has no BOS token")
            ids = [tokenizer.bos_token_id, *ids]
    if not ids:
        raise TaskError(f"prompt {text!r} has no tokens")
    return ids


def first_piece(tokenizer: PreTrainedTokenizerBase, prompt: str, text: str) -> str | None:
    """The beginning of `text` that is the first token after `prompt`; None where they merge."""
    before = tokenizer(prompt, add_special_tokens=False).input_ids
    after = tokenizer(prompt + text, add_special_tokens=False).input_ids[: len(before) + 1]
    for end in range(1, len(text) + 1):
        if tokenizer(prompt + text[:end], add_special_tokens=False).input_ids == after:
            return text[:end] if after[:-1] == before else None
    return None


def next_token(tokenizer: PreTrainedTokenizerBase, prompt: str, text: str, label: str) -> int:
    """The token by which `text` continues `prompt`, found in place: some tokenizers encode a word
    alone differently from the same word in a sentence."""
    before = tokenizer(prompt, add_special_tokens=False).input_ids
    after = tokenizer(prompt + text, add_special_tokens=False).input_ids
    if len(after) != len(before) + 1 or after[:-1] != before:
        alone = tokenizer(text, add_special_tokens=False).input_ids
        tokens = tokenizer.convert_ids_to_tokens(alone)
        raise TaskError(
            f"{label} {text!r} does not continue {prompt!r} by one token: it reads as {tokens}; "
            "choose a one-token word and mind its leading space"
        )
    if after[-1] == tokenizer.unk_token_id:
        raise TaskError(f"{label} {text!r} is not in this model's vocabulary; choose another word")
    return after[-1]
