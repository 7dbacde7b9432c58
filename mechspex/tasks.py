"""Tasks: prompts with one-token answers, from the user's own lists or from a TOML file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mechspex.errors import TaskError
from mechspex.metrics import METRICS, Metric
from mechspex.models import Model

_SLOT = re.compile(r"\{(\w+)\}")
# In the wheel the task files lie inside the package, in the repository beside it.
_FOLDERS = (Path(__file__).parent / "circuits", Path(__file__).parents[1] / "circuits")


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


def task_files() -> dict[str, Path]:
    """{name: file} of the tasks that ship with the package."""
    folder = next(folder for folder in _FOLDERS if folder.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_task(name_or_path: str | Path, model: Model, *, n_prompts: int = 8, seed: int = 0) -> Task:
    """Draw the prompts of a task file for one model.

    The words of each list are filtered to those that are a single token for this model; every
    draw fills each template once, so that templates are balanced; prompts that are not as long as
    the first one in tokens are drawn again.

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
        for template in recipe.templates:
            example = {
                part: _SLOT.sub(lambda match: filling[match[1]], text)  # noqa: B023
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


@dataclass(frozen=True)
class Recipe:
    """A task file: templates with slots, and the lists of words that fill them."""

    name: str
    title: str
    citation: str
    metric: str
    templates: tuple[dict[str, str], ...]
    slots: dict[str, str]
    words: dict[str, tuple[str, ...]]
    circuits: dict[str, dict[str, list[str]]]


_PARTS = ("prompt", "corrupted", "answer", "distractor")
_KEYS = {"title", "citation", "metric", "templates", "slots", "words", "circuits"}


def read_recipe(name_or_path: str | Path) -> Recipe:
    """Read a task file.

    Raises:
        TaskError: no such task, or a file that breaks the format, naming what and where.
    """
    shipped = task_files()
    path = shipped.get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        raise TaskError(
            f"no task {str(name_or_path)!r}; choose {', '.join(shipped)}, or give a TOML file"
        )
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TaskError(f"{path} is not a TOML file: {error}") from None
    try:
        return _recipe(path.stem, table)
    except TaskError as error:
        raise TaskError(f"{path}: {error}") from None


def _recipe(name: str, table: dict[str, Any]) -> Recipe:
    unknown, missing = set(table) - _KEYS, {"title", "templates", "slots", "words"} - set(table)
    if unknown or missing:
        wrong = f"unknown {sorted(unknown)}" if unknown else f"missing {sorted(missing)}"
        raise TaskError(f"keys {wrong}; a task file has {', '.join(sorted(_KEYS))}")
    slots, words = table["slots"], table["words"]
    for slot, of in slots.items():
        if of not in words:
            raise TaskError(f"slot {slot!r} takes words of {of!r}; [words] has no such list")
    for number, template in enumerate(table["templates"], 1):
        if set(template) != set(_PARTS):
            raise TaskError(f"template {number} has {sorted(template)}, needs {', '.join(_PARTS)}")
        for slot in _SLOT.findall("".join(template.values())):
            if slot not in slots:
                raise TaskError(f"template {number} has slot {{{slot}}}, which is not in [slots]")
    metric = table.get("metric", "logit_difference")
    if metric not in METRICS:
        raise TaskError(f"metric {metric!r} is unknown; choose {', '.join(METRICS)}")
    return Recipe(
        name=name,
        title=table["title"],
        citation=table.get("citation", ""),
        metric=metric,
        templates=tuple(table["templates"]),
        slots=slots,
        words={label: tuple(dict.fromkeys(listed)) for label, listed in words.items()},
        circuits=table.get("circuits", {}),
    )
