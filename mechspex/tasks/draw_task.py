"""Prompts drawn from a task file, filtered by the tokenizer of one model."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np

from mechspex.core.errors import TaskError
from mechspex.models.tokenizer import Tokenizer
from mechspex.tasks.next_token import first_piece, next_token
from mechspex.tasks.task import Task
from mechspex.tasks.task_file import TaskFile, read_task_file
from mechspex.tasks.task_format import PARTS, SLOT, Row

_COMPARISONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
Spans = Mapping[str, tuple[int, int]]
"""{name: the characters of a slot in a prompt}."""

# Draws from which the length of a task's prompts is found, and draws a prompt may take.
_TRIALS, _PATIENCE = 16, 100
# Prompts that are taken to be there, before any is found, in the patience for the next.
_FEW = 10


def draw_task(
    name_or_path: str | Path,
    tokenizer: Tokenizer,
    model_name: str,
    *,
    n_prompts: int,
    seed: int,
    spans: bool = False,
) -> Task:
    """Draw the prompts of a task file for a model's tokenizer; see `mechspex.load_task`.

    Args:
        name_or_path: the name of a task, or a TOML file.
        tokenizer: the model's tokenizer.
        model_name: the model's name, for complaints.
        n_prompts: how many prompts, at least 1.
        seed: the only source of randomness.
        spans: whether the slots of the prompts are named spans.

    Raises:
        TaskError: for the same reasons as `mechspex.load_task`.
    """
    task_file = read_task_file(name_or_path)
    if n_prompts < 1:
        raise TaskError(f"n_prompts = {n_prompts}: a task needs at least one prompt")
    if seed < 0:
        raise TaskError(f"seed = {seed}: give a whole number from 0 up")
    words = _known_words(task_file, tokenizer, model_name)
    return draw(task_file, words, tokenizer, n_prompts=n_prompts, seed=seed, spans=spans)


def _known_words(
    task_file: TaskFile, tokenizer: Tokenizer, model_name: str
) -> dict[str, tuple[Row, ...]]:
    """The rows whose words are single tokens, as far as they have to be.

    A list whose words are compared keeps all of them: of several tokens the first decides.
    """
    words = {}
    for label, rows in task_file.words.items():
        shown = task_file.columns_of_one_token(label)
        words[label] = tuple(
            row
            for row in rows
            if label in task_file.compared
            or all(_is_one_token(tokenizer, row[column]) for column in shown)
        )
        needed = sum(of == label for of in task_file.slots.values())
        if len(words[label]) < needed:
            raise TaskError(
                f"task {task_file.name!r}: {len(words[label])} of the {len(rows)} words of list "
                f"{label!r} are single tokens for {model_name}, {needed} are needed; choose "
                "another task or model"
            )
    return words


def _is_one_token(tokenizer: Tokenizer, word: str) -> bool:
    try:
        next_token(tokenizer, "and", f" {word}", "word")
    except TaskError:
        return False
    return True


def draw(
    task_file: TaskFile,
    words: Mapping[str, Sequence[Row]],
    tokenizer: Tokenizer,
    *,
    n_prompts: int,
    seed: int,
    spans: bool = False,
) -> Task:
    """Different prompts, each with words of its own; of one token length if the file wants that.

    Args:
        task_file: the templates and their slots.
        words: {list: the rows that this tokenizer knows}.
        tokenizer: the model's tokenizer.
        n_prompts: how many prompts.
        seed: the only source of randomness.
        spans: whether the slots of the prompts are named spans.

    Raises:
        TaskError: the words do not make so many prompts.
    """
    source = _Source(task_file, words, tokenizer)
    length: int | None = None
    templates = list(task_file.templates)
    if task_file.lengths == "equal":
        length, templates = source.common_length()
    rng = np.random.default_rng(seed)
    examples: list[_Example] = []
    taken: set[str] = set()
    refused, last = "", 0
    for drawn in range(_PATIENCE * n_prompts):
        # The last of k prompts takes about k draws: after a hundred times as many there is none.
        if drawn - last > _PATIENCE * (_FEW + len(examples)):
            break
        filling = source.fill(rng)
        # Templates take turns: prompts are a fair sample of them.
        template = templates[len(examples) % len(templates)]
        if source.share_a_word(filling):
            continue
        if length is not None and source.length(template, filling) != length:
            continue
        try:
            example = source.example(template, filling)
        except TaskError as error:
            refused = f"; the last that was left out: {error}"
            continue
        if example.prompt not in taken:
            examples.append(example)
            taken.add(example.prompt)
            last = drawn
        if len(examples) == n_prompts:
            break
    if len(examples) < n_prompts:
        of_length = "" if length is None else f" of {length} tokens"
        raise TaskError(
            f"task {task_file.name!r} gave only {len(examples)} different prompts{of_length}, "
            f"{n_prompts} were asked for; ask for fewer or add words{refused}"
        )
    distractors = [example.distractor for example in examples if example.distractor is not None]
    corrupted = [example.corrupted for example in examples if example.corrupted is not None]
    return Task(
        prompts=[example.prompt for example in examples],
        answers=[example.answer for example in examples],
        distractors=distractors or None,
        corrupted=corrupted or None,
        metric=task_file.metric,
        prepend_bos=task_file.prepend_bos,
        spans=[example.spans for example in examples] if spans else None,
        corrupted_spans=_all_or_none(examples) if spans else None,
        name=task_file.name,
        circuits=task_file.circuits,
    )


@dataclass(frozen=True)
class _Example:
    prompt: str
    corrupted: str | None
    answer: str | tuple[str, ...]
    distractor: str | tuple[str, ...] | None
    spans: Spans
    corrupted_spans: Spans | None


@dataclass(frozen=True)
class _Source:
    """Draws examples from templates and words; a filling, {slot: row}, fills a template's slots."""

    task_file: TaskFile
    words: Mapping[str, Sequence[Row]]
    tokenizer: Tokenizer

    def fill(self, rng: np.random.Generator) -> dict[str, Row]:
        """A row for every slot; slots of one list get different ones."""
        filling = {}
        for label, rows in self.words.items():
            slots = [slot for slot, of in self.task_file.slots.items() if of == label]
            places = rng.choice(len(rows), size=len(slots), replace=False)
            filling.update(zip(slots, (rows[i] for i in places.tolist()), strict=True))
        return filling

    def share_a_word(self, filling: Mapping[str, Row]) -> bool:
        """Whether two rows of one list agree in a column that is shown: two cities of one country
        would make the distractor right."""
        return any(
            filling[one][column] == filling[other][column] for one, other, column in self._shown
        )

    @cached_property
    def _shown(self) -> list[tuple[str, str, str]]:
        """(slot, another of its list, a column of that list which is shown)."""
        slots = self.task_file.slots
        return [
            (one, other, column)
            for one, other in combinations(slots, 2)
            if slots[one] == slots[other]
            for column in sorted(self.task_file.columns_used(slots[one]))
        ]

    def common_length(self) -> tuple[int, list[dict[str, str]]]:
        """The token length that most templates have, and those templates.

        Raises:
            TaskError: no template has a corrupted prompt as long as its prompt.
        """
        rng = np.random.default_rng(0)
        fillings = [self.fill(rng) for _ in range(_TRIALS)]
        usual = [
            Counter(self.length(template, filling) for filling in fillings).most_common(1)[0][0]
            for template in self.task_file.templates
        ]
        equal = [length for length in usual if length >= 0]
        if not equal:
            template = self.task_file.templates[0]
            prompt, corrupted = (_written(template[p], fillings[0]) for p in PARTS[:2])
            raise TaskError(
                f"task {self.task_file.name!r}: {prompt!r} and the corrupted {corrupted!r} are not "
                "equally long in this model's tokens; make them equally long"
            )
        length = Counter(equal).most_common(1)[0][0]
        pairs = zip(self.task_file.templates, usual, strict=True)
        return length, [template for template, has in pairs if has == length]

    def length(self, template: Mapping[str, str], filling: Mapping[str, Row]) -> int:
        """Tokens of the prompt; −1 where the corrupted prompt is not as long."""
        prompt, corrupted = (
            len(self.tokenizer(_written(text, filling)).input_ids)
            for text in (template["prompt"], template.get("corrupted", template["prompt"]))
        )
        return prompt if prompt == corrupted else -1

    def example(self, template: Mapping[str, str], filling: Mapping[str, Row]) -> _Example:
        """A template with its slots filled, as prompt, corrupted prompt, answer and distractor.

        Raises:
            TaskError: an answer or distractor that does not continue the prompt by one token.
        """
        prompt = _written(template["prompt"], filling)
        answers = self._continuations(prompt, template["answer"], filling)
        against = template.get("distractor")
        distractors = [] if against is None else self._continuations(prompt, against, filling)
        # Digit by digit, 32 and 37 begin alike: such a beginning is neither right nor wrong.
        right = tuple(text for text in answers if text not in distractors)
        wrong = tuple(text for text in distractors if text not in answers)
        if not right or not (wrong or against is None):
            raise TaskError(f"after {prompt!r} nothing tells the answer from the distractor")
        return _Example(
            prompt,
            _written(template["corrupted"], filling) if "corrupted" in template else None,
            right if _compares(template["answer"]) else right[0],
            None if against is None else wrong if _compares(against) else wrong[0],
            _spans(template["prompt"], filling, names := _names(template["prompt"])),
            _corrupted_spans(template, filling, names),
        )

    def _continuations(self, prompt: str, text: str, filling: Mapping[str, Row]) -> list[str]:
        """The one-token texts with which an answer, or each of several, continues the prompt."""
        if not _compares(text):
            written = _written(text, filling)
            next_token(self.tokenizer, prompt, written, "answer or distractor")
            return [written]
        sign, slot = next((sign, slot) for sign, slot, _ in SLOT.findall(text) if sign)
        rows = list(self.words[self.task_file.slots[slot]])
        place, holds = rows.index(filling[slot]), _COMPARISONS[sign]
        begins = [
            first_piece(self.tokenizer, prompt, _written(text, {**filling, slot: row}))
            for number, row in enumerate(rows)
            if holds(number, place)
        ]
        return list(dict.fromkeys(piece for piece in begins if piece is not None))


def _compares(text: str) -> bool:
    return any(sign for sign, _, _ in SLOT.findall(text))


def _written(text: str, filling: Mapping[str, Row]) -> str:
    return SLOT.sub(lambda match: filling[match[2]][match[3] or ""], text)


def _names(text: str) -> list[str]:
    """The names of a template's slots, in order; those of a slot that comes again are numbered."""
    slots = [slot for _, slot, _ in SLOT.findall(text)]
    return [
        slot if slots.count(slot) == 1 else f"{slot}{slots[: place + 1].count(slot)}"
        for place, slot in enumerate(slots)
    ]


def _spans(text: str, filling: Mapping[str, Row], names: Sequence[str]) -> Spans:
    """Where the slots of a text lie once they are filled."""
    spans = {}
    grown = 0
    for name, slot in zip(names, SLOT.finditer(text), strict=True):
        begin, word = slot.start() + grown, _written(slot[0], filling)
        spans[name] = begin, begin + len(word)
        grown += len(word) - len(slot[0])
    return spans


def _corrupted_spans(
    template: Mapping[str, str], filling: Mapping[str, Row], names: Sequence[str]
) -> Spans | None:
    """The slots of the corrupted prompt under the names of those whose places they take."""
    corrupted = template.get("corrupted", "")
    if len(SLOT.findall(corrupted)) != len(names):
        return None
    return _spans(corrupted, filling, names)


def _all_or_none(examples: Sequence[_Example]) -> list[Spans] | None:
    spans = [one.corrupted_spans for one in examples if one.corrupted_spans is not None]
    return spans if len(spans) == len(examples) else None
