"""The format of a task file, and what is wrong with a file that breaks it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from mechspex.tasks.metric_names import DIFFERENCES, METRICS

# {A} is a word, {A.capital} a column of a row, {>A} every word of A's list that comes after A's.
SLOT = re.compile(r"\{(<=|>=|<|>)?(\w+)(?:\.(\w+))?\}")
PARTS = ("prompt", "corrupted", "answer", "distractor")
_ALWAYS = ("prompt", "answer")
LENGTHS = ("equal", "any")

Row = Mapping[str, str]
"""{column: word}; a list of plain words has the one column ``""``."""

_REQUIRED = ("title", "templates", "slots", "words")
_KEYS = (*_REQUIRED, "citation", "metric", "prepend_bos", "lengths", "circuits", "scores")
_SCORE = {"prompts": int, "clean": float, "interval": list, "corrupted": float, "accuracy": float,
          "can": bool}  # fmt: skip
_LARGEST = 1e12


class Fault(Exception):
    """What is wrong, and with which value of the file."""

    def __init__(self, path: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.path = path


def check_table(table: dict[str, Any]) -> None:
    """Refuse what breaks the format, as far as that can be said without a model.

    Args:
        table: the file as parsed TOML.

    Raises:
        Fault: the first fault found.
    """
    _check_keys((), table, _REQUIRED, _KEYS, "a task file")
    for key in ("title", "citation", "metric"):
        _expect((key,), table.get(key, "-"), str)
    _expect(("prepend_bos",), table.get("prepend_bos", True), bool)
    if (lengths := table.get("lengths", LENGTHS[0])) not in LENGTHS:
        raise Fault(("lengths",), f"'lengths' is {_short(lengths)}; choose {' or '.join(LENGTHS)}")
    for key in ("slots", "words"):
        _expect((key,), table[key], dict)
    for label, listed in table["words"].items():
        _check_list(("words", label), listed)
    for slot, label in table["slots"].items():
        _check_slot(slot, label, table)
    metric = table.get("metric", "logit_difference")
    if metric not in METRICS:
        raise Fault(("metric",), f"metric {metric!r} is unknown; choose {', '.join(METRICS)}")
    _expect(("templates",), table["templates"], list)
    for number, template in enumerate(table["templates"]):
        _check_template(number, template, table, metric)
    _check_same_parts(table["templates"], metric)
    _check_all_used(table)
    if "circuits" in table:
        _check_circuits(table["circuits"])
    if "scores" in table:
        _check_scores(table["scores"])


def _expect(path: tuple[str | int, ...], value: Any, kind: type) -> Any:
    """`value`, which must be of this kind and not empty."""
    wanted = {str: "a text in quotes", list: "a list in brackets", dict: "a table",
              bool: "true or false", int: "a whole number", float: "a number"}[kind]  # fmt: skip
    kinds = (int, float) if kind is float else (kind,)
    name = next(key for key in reversed(path) if isinstance(key, str))
    if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
        raise Fault(path, f"{name!r} is {_short(value)}; it must be {wanted}")
    if kind in (str, list, dict) and not value:
        raise Fault(path, f"{name!r} is empty; give it at least one entry")
    if kind in (int, float) and not abs(value) < _LARGEST:
        raise Fault(path, f"{name!r} is {_short(value)}; a finite number is needed")
    return value


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}…"


def _check_keys(
    path: tuple[str | int, ...],
    table: dict[str, Any],
    required: tuple[str, ...],
    allowed: tuple[str, ...],
    what: str,
) -> None:
    for key in table:
        if key not in allowed:
            raise Fault((*path, key), f"unknown {[key]}; {what} has {', '.join(sorted(allowed))}")
    if missing := sorted(set(required) - set(table)):
        raise Fault(path, f"missing {missing}; {what} needs {', '.join(required)}")


def _check_list(path: tuple[str | int, ...], listed: Any) -> None:
    """A list of words, or a table of rows with named columns."""
    if not isinstance(listed, dict):
        _check_words(path, _expect(path, listed, list))
        return
    _check_keys(path, listed, ("columns", "rows"), ("columns", "rows"), "a list of rows")
    columns = _expect((*path, "columns"), listed["columns"], list)
    _check_words((*path, "columns"), columns)
    for number, row in enumerate(_expect((*path, "rows"), listed["rows"], list)):
        place = (*path, "rows", number)
        if not isinstance(row, list) or len(row) != len(columns):
            raise Fault(place, f"row {_short(row)} needs a list of {', '.join(columns)}")
        for word in row:
            _check_word(place, word)
    rows = [tuple(row) for row in listed["rows"]]
    for number, row in enumerate(rows):
        if row in rows[:number]:
            raise Fault((*path, "rows", number), f"row {list(row)} is there twice; leave one")


def _check_words(path: tuple[str | int, ...], words: list[Any]) -> None:
    seen = set()
    for number, word in enumerate(words):
        _check_word((*path, number), word)
        if word in seen:
            raise Fault((*path, number), f"{word!r} is twice in {path[-1]!r}; leave one")
        seen.add(word)


def _check_word(path: tuple[str | int, ...], word: Any) -> None:
    if not isinstance(word, str) or not word.strip() or word != word.strip():
        raise Fault(path, f"{_short(word)} is no word; write it in quotes, without outer spaces")


def rows_of(listed: Any) -> list[Row]:
    """The rows of a list in [words].

    Args:
        listed: plain words, or a table of ``columns`` and ``rows``.
    """
    if isinstance(listed, dict):
        return [dict(zip(listed["columns"], row, strict=True)) for row in listed["rows"]]
    return [{"": word} for word in listed]


def _check_slot(slot: str, label: Any, table: dict[str, Any]) -> None:
    path = ("slots", slot)
    if not re.fullmatch(r"\w+", slot):
        raise Fault(path, f"slot {slot!r}: a slot's name has letters, digits and _ only")
    _expect(path, label, str)
    if label not in table["words"]:
        raise Fault(
            path,
            f"slot {slot!r} takes words of {label!r}; [words] has no such list, only "
            f"{', '.join(table['words'])}",
        )


def _check_template(number: int, template: Any, table: dict[str, Any], metric: str) -> None:
    path = ("templates", number)
    if not isinstance(template, dict) or not {*_ALWAYS} <= {*template} <= {*PARTS}:
        parts = sorted(template) if isinstance(template, dict) else _short(template)
        odd = [key for key in template if key not in PARTS] if isinstance(template, dict) else []
        raise Fault(
            (*path, *odd[:1]),
            f"template {number + 1} has {parts}, needs {', '.join(_ALWAYS)} and may have "
            f"{', '.join(part for part in PARTS if part not in _ALWAYS)}",
        )
    for part in template:
        _check_text(path, part, _expect((*path, part), template[part], str), table, metric)
    for one, other in (("prompt", "corrupted"), ("answer", "distractor")):
        if template[one] == template.get(other):
            raise Fault((*path, other), f"{other} is the same text as {one}; change one of them")
    shown = {slot for _, slot, _ in SLOT.findall(template["prompt"])}
    for _, slot, _ in SLOT.findall(template["answer"]):
        if slot not in shown:
            raise Fault(
                (*path, "answer"),
                f"the answer has slot {{{slot}}}, which the prompt has not: nothing there decides "
                "it; use it in the prompt",
            )


def _check_same_parts(templates: list[dict[str, str]], metric: str) -> None:
    for number, template in enumerate(templates):
        if strange := sorted({*template} ^ {*templates[0]}):
            raise Fault(
                ("templates", number),
                f"template {number + 1} and template 1 do not both have {strange[0]}; give it to "
                "all or none",
            )
    if "distractor" not in templates[0] and metric in DIFFERENCES:
        raise Fault(
            ("templates", 0),
            f"metric {metric!r} needs a distractor in every template; add one, or set metric = "
            "'answer_log_probability'",
        )


def _check_text(
    template: tuple[str | int, ...], part: str, text: str, table: dict[str, Any], metric: str
) -> None:
    path, where = (*template, part), f"{part} of template {int(template[-1]) + 1}"
    for sign, slot, column in SLOT.findall(text):
        if slot not in table["slots"]:
            raise Fault(path, f"{where} has slot {{{slot}}}, which is not in [slots]; add it")
        listed = table["words"][table["slots"][slot]]
        columns = listed["columns"] if isinstance(listed, dict) else [""]
        if column not in columns:
            right = " or ".join(f"{{{slot}.{name}}}" if name else f"{{{slot}}}" for name in columns)
            raise Fault(path, f"{where} has {{{slot}{column and '.' + column}}}; write {right}")
        if sign and (part not in ("answer", "distractor") or column):
            raise Fault(
                path,
                f"{where} has {{{sign}{slot}}}; words are compared in answer and distractor only, "
                "and only those of a plain list",
            )
    signs = [sign for sign, _, _ in SLOT.findall(text) if sign]
    if len(signs) > 1:
        raise Fault(path, f"{where} compares {len(signs)} times; compare once")
    if signs and metric == "logit_difference":
        raise Fault(
            path,
            f"{where} stands for several words, and a logit difference reads one; "
            "set metric = 'probability_difference'",
        )
    if "{" in (rest := SLOT.sub("", text)) or "}" in rest:
        raise Fault(
            path, f"{where} has a brace that is no slot; write {{A}}, {{A.column}} or {{>A}}"
        )


def _check_all_used(table: dict[str, Any]) -> None:
    text = "".join(part for template in table["templates"] for part in template.values())
    used = {slot for _, slot, _ in SLOT.findall(text)}
    for slot in table["slots"]:
        if slot not in used:
            raise Fault(("slots", slot), f"slot {slot!r} is in no template; use it or remove it")
    needed = Counter(table["slots"].values())
    for label, listed in table["words"].items():
        if label not in needed:
            raise Fault(("words", label), f"list {label!r} has no slot; use it or remove it")
        if (length := len(rows_of(listed))) < needed[label]:
            raise Fault(
                ("words", label),
                f"list {label!r} has {length} entries for {needed[label]} slots; add some",
            )


def _check_circuits(circuits: Any) -> None:
    for model, roles in _expect(("circuits",), circuits, dict).items():
        for role, names in _expect(("circuits", model), roles, dict).items():
            for number, name in enumerate(_expect(("circuits", model, role), names, list)):
                if not isinstance(name, str) or not re.fullmatch(r"L\d+(H\d+|N\d+|MLP)", name):
                    raise Fault(
                        ("circuits", model, role, number),
                        f"{_short(name)} is no unit; write 'L9H6', 'L3N1021' or 'L8MLP'",
                    )


def _check_scores(scores: Any) -> None:
    for model, score in _expect(("scores",), scores, dict).items():
        path = ("scores", model)
        _check_keys(path, _expect(path, score, dict), tuple(_SCORE), tuple(_SCORE), "a score")
        for key, kind in _SCORE.items():
            _expect((*path, key), score[key], kind)
        if len(score["interval"]) != 2:
            raise Fault((*path, "interval"), f"'interval' is {_short(score['interval'])}, not two")
        for number, end in enumerate(score["interval"]):
            _expect((*path, "interval", number), end, float)
