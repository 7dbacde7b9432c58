"""The layouts in which the field publishes prompts, each by the columns that it has."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mechspex.core.errors import TaskError
from mechspex.tasks.prompt_records import Record

Turns = tuple[Mapping[str, str], ...]
"""A chat: ``{"role": …, "content": …}`` of each turn."""


@dataclass(frozen=True)
class PromptRow:
    """What a row says.

    Attributes:
        prompt: the text; of a chat what was said last.
        answers, distractors: the right and the wrong continuations.
        corrupted: the corrupted prompt.
        subject, corrupted_subject: what the prompts are about, a span of each.
        joined: whether continuations go on without a space, as digits of a number do.
        turns, corrupted_turns: the prompts as chats, each turn with its ``role`` and ``content``.
    """

    prompt: str
    answers: tuple[str, ...]
    distractors: tuple[str, ...] = ()
    corrupted: str | None = None
    subject: tuple[int, int] | None = None
    corrupted_subject: tuple[int, int] | None = None
    joined: bool = False
    turns: Turns = ()
    corrupted_turns: Turns = ()


# The names of columns in the layout that is known by no more than these.
_PROMPT, _ANSWER = "prompt|clean|messages", "answer|answers|correct|target|attribute"
_DISTRACTOR = "distractor|distractors|incorrect|wrong_answer|wrong_answers"
_CORRUPTED = "corrupted|corrupt"

Read = Callable[[Mapping[str, Any], Sequence[Record]], PromptRow]


@dataclass(frozen=True)
class Layout:
    """A way in which prompts are published.

    Attributes:
        about: whose it is.
        columns: the columns by which it is known; ``a|b`` is either.
        read: (a row's cells, all rows) → what the row says.
        metric: the metric of its authors; None where a logit difference does.
    """

    about: str
    columns: tuple[str, ...]
    read: Read
    metric: str | None = None

    def fits(self, cells: Mapping[str, Any]) -> bool:
        """Whether a row has the columns."""
        return all(_cell(cells, name, needed=False) is not None for name in self.columns)


def layout_of(records: Sequence[Record]) -> Layout:
    """The layout of a table.

    Raises:
        TaskError: none has these columns.
    """
    seen: dict[str, Any] = {}
    for record in records:
        seen = {**record.cells, **seen}
    for layout in LAYOUTS:
        if layout.fits(seen):
            return layout
    known = "; ".join(f"{layout.about}: {', '.join(layout.columns)}" for layout in LAYOUTS)
    raise TaskError(
        f"the prompts have columns {', '.join(seen) or 'none'}; give prompt, answer and, where "
        f"there are any, distractor and corrupted. Read as well are {known}"
    )


def _cell(cells: Mapping[str, Any], names: str, *, needed: bool = True) -> Any:
    """A cell by any of its names, ``a|b.c`` being a, or c within b."""
    for name in names.split("|"):
        found: Any = cells
        for key in name.split("."):
            found = found.get(key) if isinstance(found, Mapping) else None
        if found is not None:
            return found
    if needed:
        raise TaskError(f"it has no {names.split('|')[0]}")
    return None


def _text(cells: Mapping[str, Any], names: str, *, needed: bool = True) -> str | None:
    found = _cell(cells, names, needed=needed)
    return None if found is None else _written(found, names.split("|")[0])


def _needed(cells: Mapping[str, Any], names: str) -> str:
    return _written(_cell(cells, names), names.split("|")[0])


def _written(found: Any, name: str) -> str:
    if isinstance(found, str):
        return str(found)
    if hasattr(found, "item"):
        found = found.item()
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    raise TaskError(f"its {name} is {found!r:.60}, no text")


def _several(cells: Mapping[str, Any], names: str, *, needed: bool = True) -> tuple[str, ...]:
    """The texts of a cell that holds one, a list, or a list as a CSV file writes it."""
    found = _cell(cells, names, needed=needed)
    if found is None:
        return ()
    if isinstance(found, str) and found[:1] == "[" and found[-1:] == "]":
        found = _list_in(found)
    if isinstance(found, str) or not hasattr(found, "__len__"):
        found = [found]
    texts = tuple(dict.fromkeys(_written(text, names.split("|")[0]) for text in found))
    if needed and not texts:
        raise TaskError(f"its {names.split('|')[0]} are an empty list")
    return texts


def _list_in(text: str) -> Any:
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list):
            return found
    return text


def _plain(cells: Mapping[str, Any], _: Sequence[Record]) -> PromptRow:
    turns, corrupted = _turns(cells, _PROMPT), _turns(cells, _CORRUPTED)
    return PromptRow(
        turns[-1]["content"] if turns else _needed(cells, _PROMPT),
        _several(cells, _ANSWER),
        _several(cells, _DISTRACTOR, needed=False),
        corrupted[-1]["content"] if corrupted else _text(cells, _CORRUPTED, needed=False),
        turns=turns,
        corrupted_turns=corrupted,
    )


def _turns(cells: Mapping[str, Any], names: str) -> Turns:
    """The turns of a cell that holds a chat; none of another."""
    found = _cell(cells, names, needed=False)
    if isinstance(found, str) and found[:2] == "[{":
        listed = _list_in(found)
        # Any other list may be what the model is to read.
        found = listed if all("role" in turn for turn in listed) else found
    if isinstance(found, str) or not hasattr(found, "__len__"):
        return ()
    if not len(found) or not all(isinstance(turn, Mapping) for turn in found):
        name = names.split("|")[0]
        raise TaskError(f"its {name} is {found!r:.60}: give a text, or turns of role and content")
    parts = ("role", "content")
    return tuple({part: _written(_cell(turn, part), part) for part in parts} for turn in found)


def _relation(cells: Mapping[str, Any], rows: Sequence[Record]) -> PromptRow:
    """The first template; the other subject is the next one whose object is another."""
    template = _several(cells, "prompt_templates")[0]
    subject, objects = _needed(cells, "subject"), _several(cells, "object")
    place = next(n for n, row in enumerate(rows) if row.cells is cells)
    others = [row.cells for row in (*rows[place + 1 :], *rows[:place])]
    other = next(
        (row for row in others if not {*_several(row, "object", needed=False)} & {*objects}
         and "subject" in row and "object" in row), None,
    )  # fmt: skip
    prompt, span = _filled(template, subject)
    if other is None:
        return PromptRow(prompt, objects, subject=span)
    corrupted, other_span = _filled(template, _needed(other, "subject"))
    return PromptRow(prompt, objects, _several(other, "object")[:1], corrupted, span, other_span)


def _filled(template: str, subject: str) -> tuple[str, tuple[int, int]]:
    if template.count("{}") != 1:
        raise TaskError(f"its template {template!r} has no place {{}} for the subject, or several")
    begin = template.index("{}")
    return template.replace("{}", subject), (begin, begin + len(subject))


def _counterfact(cells: Mapping[str, Any], _: Sequence[Record]) -> PromptRow:
    rewrite = cells.get("requested_rewrite", cells)
    prompt, span = _needed(rewrite, "prompt"), None
    if "{}" in prompt:
        prompt, span = _filled(prompt, _needed(rewrite, "subject"))
    return PromptRow(
        prompt,
        _several(rewrite, "target_true.str|target_true"),
        _several(rewrite, "target_false.str|target_new.str|target_false|target_new", needed=False),
        subject=span,
    )


def _mib_names(cells: Mapping[str, Any], _: Sequence[Record]) -> PromptRow:
    return PromptRow(
        _needed(cells, "prompt"),
        _several(cells, "metadata.indirect_object"),
        _several(cells, "metadata.subject"),
        _text(cells, f"s2_io_flip_counterfactual.prompt|{_counterfactual(cells)}", needed=False),
    )


def _mib_choice(cells: Mapping[str, Any], _: Sequence[Record]) -> PromptRow:
    right, labels = _choice(cells)
    other = next((name for name in cells if name.endswith("_counterfactual")), "")
    wrong = _choice(cells[other])[0] if other else right
    return PromptRow(
        _needed(cells, "prompt"),
        (right,),
        (wrong,) if wrong != right else tuple(label for label in labels if label != right),
        _text(cells, _counterfactual(cells), needed=False),
    )


def _choice(cells: Mapping[str, Any]) -> tuple[str, list[str]]:
    labels = [_written(label, "label") for label in _cell(cells, "choices.label")]
    return _at(labels, _cell(cells, "answerKey")), labels


def _at(listed: Sequence[str], key: Any) -> str:
    if isinstance(key, str) and key in listed:
        return key
    place = int(_written(key, "answer")) if _written(key, "answer").isdigit() else -1
    if not 0 <= place < len(listed):
        raise TaskError(f"its answer {key!r} is none of the {len(listed)} choices")
    return listed[place]


def _counterfactual(cells: Mapping[str, Any]) -> str:
    found = next((name for name in cells if name.endswith("counterfactual")), "corrupted")
    return f"{found}.prompt"


def _mib_sum(cells: Mapping[str, Any], _: Sequence[Record]) -> PromptRow:
    return PromptRow(
        _needed(cells, "prompt"),
        _several(cells, "label"),
        _several(cells, "random_counterfactual.label"),
        _text(cells, "random_counterfactual.prompt"),
        joined=True,
    )


def _question(cells: Mapping[str, Any], _: Sequence[Record]) -> PromptRow:
    """A question with lettered choices, as MMLU is put."""
    choices = _several(cells, "choices")
    letters = "ABCDEFGHIJ"[: len(choices)]
    right = _at(letters, _cell(cells, "answer"))
    lines = [f"{letter}. {choice}" for letter, choice in zip(letters, choices, strict=False)]
    return PromptRow(
        "\n".join([_needed(cells, "question"), *lines, "Answer:"]),
        (right,),
        tuple(letter for letter in letters if letter != right),
    )


def _hypernym(cells: Mapping[str, Any], _: Sequence[Record]) -> PromptRow:
    right = _several(cells, "answers")
    wrong = _several(cells, "corrupted_answers")
    return PromptRow(_needed(cells, "clean"), right, wrong, _text(cells, "corrupted", needed=False))


def _country(cells: Mapping[str, Any], _: Sequence[Record]) -> PromptRow:
    return PromptRow(
        _needed(cells, "clean"),
        _several(cells, "country"),
        _several(cells, "corrupted_country", needed=False),
        _text(cells, "corrupted", needed=False),
    )


def _pronoun(cells: Mapping[str, Any], _: Sequence[Record]) -> PromptRow:
    """he or she, by the man or woman of the corrupted prompt: the file has numbers of tokens."""
    corrupted = _needed(cells, "corrupted")
    words = corrupted.lower().split()
    if ("man" in words) == ("woman" in words):
        raise TaskError(
            "its answers are numbers of tokens, of which tokenizer the file does not say, and the "
            "corrupted prompt has neither man nor woman; add columns answer and distractor"
        )
    he, she = "he", "she"
    right, wrong = (she, he) if "man" in words else (he, she)
    return PromptRow(_needed(cells, "clean"), (right,), (wrong,), corrupted)


# Verbs that come in two forms after a noun of either number.
_PLURAL, _SINGULAR = ("are", "were", "have", "do"), ("is", "was", "has", "does")


def _verb(cells: Mapping[str, Any], _: Sequence[Record]) -> PromptRow:
    plural = _written(_cell(cells, "plural"), "plural")
    if plural not in ("0", "1"):
        raise TaskError(f"its plural is {plural!r}, neither 0 nor 1")
    both = (_PLURAL, _SINGULAR) if plural == "1" else (_SINGULAR, _PLURAL)
    corrupted = _text(cells, "corrupted", needed=False)
    return PromptRow(_needed(cells, "clean"), *both, corrupted)


def _names(cells: Mapping[str, Any], _: Sequence[Record]) -> PromptRow:
    """The two names of the prompt: the file has numbers of tokens for them.

    ``corrupted_hard`` has the name that is the answer where the prompt repeats the other one.
    """
    clean = _needed(cells, "clean").split()
    hard = (_text(cells, "corrupted_hard", needed=False) or "").split()
    differ = [pair for pair in zip(clean, hard, strict=False) if pair[0] != pair[1]]
    if len(clean) != len(hard) or len(differ) != 1:
        raise TaskError(
            "its answers are numbers of tokens, of which tokenizer the file does not say; add "
            "columns answer and distractor with the texts"
        )
    wrong, right = (word.strip(".,;:!?") for word in differ[0])
    return PromptRow(_needed(cells, "clean"), (right,), (wrong,), _text(cells, "corrupted"))


def _year(cells: Mapping[str, Any], _: Sequence[Record]) -> PromptRow:
    """The last two digits of a year: those above the given ones are right, all others wrong."""
    given = _needed(cells, "correct_idx|label")
    if not given.isdigit() or not 0 <= int(given) < 99:
        raise TaskError(f"its {given!r} is no beginning of a span of years, 0 … 98")
    years = [f"{year:02}" for year in range(100)]
    after = int(given) + 1
    return PromptRow(
        _needed(cells, "clean"),
        tuple(years[after:]),
        tuple(years[:after]),
        _text(cells, "corrupted", needed=False),
        joined=True,
    )


_EAP_IG = "EAP-IG"
# The first whose columns a table has is taken: those with more columns first.
LAYOUTS = (
    Layout("relations (LRE)", ("prompt_templates", "subject", "object"), _relation),
    Layout("CounterFact", ("requested_rewrite",), _counterfact),
    Layout("CounterFact, flat", ("prompt", "target_true"), _counterfact),
    Layout("MIB, names", ("prompt", "metadata.indirect_object", "metadata.subject"), _mib_names),
    Layout("MIB, choices", ("prompt", "choices.label", "answerKey"), _mib_choice),
    Layout("MIB, sums", ("prompt", "label", "random_counterfactual"), _mib_sum),
    Layout("MMLU", ("question", "choices", "answer"), _question),
    Layout(
        f"{_EAP_IG}, hypernyms", ("clean", "answers", "corrupted_answers"), _hypernym,
        "probability_difference",
    ),
    Layout(f"{_EAP_IG}, countries", ("clean", "country", "corrupted_country"), _country),
    Layout(f"{_EAP_IG}, pronouns", ("clean", "corrupted", "clean_answer_idx"), _pronoun),
    Layout(f"{_EAP_IG}, verbs", ("clean", "plural"), _verb, "probability_difference"),
    Layout("mechspex, auto-circuit", (_PROMPT, _ANSWER), _plain),
    Layout(f"{_EAP_IG}, names", ("clean", "correct_idx", "incorrect_idx"), _names),
    Layout(f"{_EAP_IG}, years", ("clean", "correct_idx|label"), _year, "probability_difference"),
)  # fmt: skip
