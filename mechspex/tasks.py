"""Tasks: prompts with one-token answers, the user's own or drawn from a task file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mechspex.errors import TaskError
from mechspex.metrics import METRICS, Metric
from mechspex.models import Model
from mechspex.recipes import SLOT, Recipe, read_recipe


@dataclass(frozen=True)
class Task:
    """Prompts, what should and should not come next, and the metric that is read off.

    Attributes:
        prompts: the texts the model reads.
        answers: the right continuation of each, one token with its leading space (``" Mary"``).
        distractors: the wrong continuation of each, one token; a logit difference needs them.
        corrupted: for each prompt a text of the same token length without what the answer rests
            on; the ``corrupted`` ablation needs them.
        metric: a name of `mechspex.metrics.METRICS`, or a function (logits ``[row, vocabulary]``,
            prompt number ``[row]``) → value ``[row]``.
        prepend_bos: None follows the tokenizer, True and False decide.
        name: what the task is called in output.
        circuits: published circuits, {model: {role: head names}}.

    Raises:
        TaskError: no prompts, lists of unequal length, an unknown metric.
    """

    prompts: Sequence[str]
    answers: Sequence[str]
    distractors: Sequence[str] | None = None
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
            object.__setattr__(self, label, tuple(texts))
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
        answers, distractors: token ids.
    """

    prompts: tuple[Int[Tensor, " _"], ...]
    corrupted: tuple[Int[Tensor, " _"], ...] | None
    answers: Int[Tensor, " prompt"]
    distractors: Int[Tensor, " prompt"] | None


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

    def continuations(label: str, texts: Iterable[str]) -> Tensor:
        pairs = zip(task.prompts, texts, strict=True)
        ids = [_next_token(tokenizer, prompt, text, label) for prompt, text in pairs]
        return torch.tensor(ids)

    return Tokens(
        prompts=tuple(map(torch.tensor, prompts)),
        corrupted=None if corrupted is None else tuple(map(torch.tensor, corrupted)),
        answers=continuations("answer", task.answers),
        distractors=None
        if task.distractors is None
        else continuations("distractor", task.distractors),
    )


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


def _next_token(tokenizer: PreTrainedTokenizerBase, prompt: str, text: str, label: str) -> int:
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


def load_task(name_or_path: str | Path, model: Model, *, n_prompts: int = 8, seed: int = 0) -> Task:
    """Draw the prompts of a task file for one model.

    The words of each list are filtered to those that are a single token for this model. Templates
    take turns, and each prompt draws words of its own; one that is not as long in tokens as the
    first is drawn again.

    Args:
        name_or_path: the name of a shipped task (``mechspex tasks`` lists them) or a TOML file.
        n_prompts: how many prompts, at least 1.
        seed: the only source of randomness.

    Raises:
        TaskError: no such task, a file that breaks the format, or too few words in this model's
            vocabulary.
    """
    recipe = read_recipe(name_or_path)
    if n_prompts < 1:
        raise TaskError(f"n_prompts = {n_prompts}: a task needs at least one prompt")
    if seed < 0:
        raise TaskError(f"seed = {seed}: give a whole number from 0 up")
    tokenizer = model.tokenizer
    words = {
        name: tuple(word for word in words if _is_one_token(tokenizer, word))
        for name, words in recipe.words.items()
    }
    for name, left in words.items():
        needed = sum(of == name for of in recipe.slots.values())
        if len(left) < needed:
            raise TaskError(
                f"task {recipe.name!r}: {len(left)} of the {len(recipe.words[name])} words of "
                f"list {name!r} are single tokens for {model.cfg.model_name}, {needed} are needed; "
                "choose another task or model"
            )
    examples = _draw(recipe, words, tokenizer, n_prompts, seed)
    return Task(
        prompts=[example["prompt"] for example in examples],
        answers=[example["answer"] for example in examples],
        distractors=[example["distractor"] for example in examples],
        corrupted=[example["corrupted"] for example in examples],
        metric=recipe.metric,
        name=recipe.name,
        circuits=recipe.circuits,
    )


def _draw(
    recipe: Recipe,
    words: Mapping[str, tuple[str, ...]],
    tokenizer: PreTrainedTokenizerBase,
    n_prompts: int,
    seed: int,
) -> list[dict[str, str]]:
    rng = np.random.default_rng(seed)
    examples: list[dict[str, str]] = []
    length = None
    for _ in range(100 * n_prompts):
        filling: dict[str, str] = {}
        for name, choices in words.items():
            slots = [slot for slot, of in recipe.slots.items() if of == name]
            drawn = rng.choice(len(choices), size=len(slots), replace=False)
            filling.update(zip(slots, (choices[i] for i in drawn.tolist()), strict=True))
        # Templates take turns, each prompt with words of its own: prompts are a fair sample.
        template = recipe.templates[len(examples) % len(recipe.templates)]
        example = {
            part: SLOT.sub(lambda match: filling[match[1]], text)  # noqa: B023
            for part, text in template.items()
        }
        lengths = {len(tokenizer(example[part]).input_ids) for part in ("prompt", "corrupted")}
        length = min(lengths) if length is None else length
        if lengths != {length} or example in examples:
            continue
        examples.append(example)
        if len(examples) == n_prompts:
            return examples
    raise TaskError(
        f"task {recipe.name!r} gave only {len(examples)} different prompts of {length} tokens, "
        f"{n_prompts} were asked for; ask for fewer or add words"
    )


def _is_one_token(tokenizer: PreTrainedTokenizerBase, word: str) -> bool:
    try:
        _next_token(tokenizer, "and", f" {word}", "word")
    except TaskError:
        return False
    return True
