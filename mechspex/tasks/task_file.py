"""Task files: templates and word lists from which prompts are drawn, one TOML file a task."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mechspex.core.errors import TaskError
from mechspex.tasks.task_format import LENGTHS, PARTS, SLOT, Fault, Row, check_table, rows_of
from mechspex.tasks.toml_lines import line_of

# In the wheel the task files lie inside the package, in the repository beside it.
_FOLDERS = (Path(__file__).parent / "shipped", Path(__file__).parents[2] / "circuits")


@dataclass(frozen=True)
class TaskFile:
    """A task file: templates with slots, and the lists of words that fill them.

    Attributes:
        name: the task's name, that of the file.
        title: what the task is about, in a line.
        citation: where the task comes from.
        metric: the name of the task's metric.
        prepend_bos: whether a BOS token comes before each prompt; None for the tokenizer's own way.
        lengths: ``equal`` where all prompts are to have one length in tokens, or ``any``.
        templates: {part: text with slots}, one mapping a template; all have the same of `PARTS`.
        slots: {slot: the list that its words come from}.
        words: {list: its rows}, in the order of the file.
        circuits: published circuits, {model: {role: unit names}}.
        scores: how well models do the task, {model: what ``tests/benchmarks/task_scores.py``
            measured}.
    """

    name: str
    title: str
    citation: str
    metric: str
    prepend_bos: bool | None
    lengths: str
    templates: tuple[dict[str, str], ...]
    slots: dict[str, str]
    words: dict[str, tuple[Row, ...]]
    circuits: dict[str, dict[str, list[str]]]
    scores: dict[str, dict[str, Any]]

    def references(self, *parts: str) -> Iterator[tuple[str, str, str]]:
        """(comparison, slot, column) of every slot that the templates name; ``""`` is none.

        Args:
            *parts: the parts of the templates to read; all if not given.
        """
        for template in self.templates:
            for part in parts or PARTS:
                yield from SLOT.findall(template.get(part, ""))

    @property
    def compared(self) -> set[str]:
        """The lists whose words are compared, so that their order counts."""
        return {self.slots[slot] for sign, slot, _ in self.references() if sign}

    def columns_used(self, label: str) -> set[str]:
        """The columns of a list that any template shows.

        Args:
            label: the name of the list.
        """
        return {column for _, slot, column in self.references() if self.slots[slot] == label}

    def columns_of_one_token(self, label: str) -> set[str]:
        """The columns of a list whose words are to be single tokens.

        They are those of answers and distractors; where prompts are to have one length, all.

        Args:
            label: the name of the list.
        """
        if self.lengths == LENGTHS[0]:
            return self.columns_used(label)
        read = self.references("answer", "distractor")
        return {column for _, slot, column in read if self.slots[slot] == label}


def task_files() -> dict[str, Path]:
    """{name: file} of the tasks that ship with the package, then of those in ``$MECHSPEX_TASKS``.

    Raises:
        TaskError: ``MECHSPEX_TASKS`` names no folder, or a file there has a shipped task's name.
    """
    shipped = _files(next(folder for folder in _FOLDERS if folder.is_dir()))
    named = os.environ.get("MECHSPEX_TASKS")
    if not named:
        return shipped
    if not Path(named).is_dir():
        raise TaskError(f"MECHSPEX_TASKS = {named!r} is no folder; name one, or unset it")
    own = _files(Path(named))
    for name in own.keys() & shipped.keys():
        raise TaskError(f"{own[name]} has the name of a shipped task; rename the file")
    return shipped | own


def _files(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read_task_file(name_or_path: str | Path) -> TaskFile:
    """Read a task file.

    Args:
        name_or_path: the name of a task of `task_files`, or a TOML file.

    Raises:
        TaskError: no such task, or a file that breaks the format; the message names file, line and
            fault.
    """
    known = task_files()
    path = known.get(str(name_or_path), Path(name_or_path))
    try:
        data = path.read_bytes()
    except (OSError, ValueError):  # a name with a NUL is a ValueError
        raise TaskError(_no_such_task(str(name_or_path), known)) from None
    text, table = _parsed(path, data)
    try:
        check_table(table)
    except Fault as fault:
        raise TaskError(f"{path}, line {line_of(text, fault.path)}: {fault}") from None
    return TaskFile(
        name=path.stem,
        title=table["title"],
        citation=table.get("citation", ""),
        metric=table.get("metric", "logit_difference"),
        prepend_bos=table.get("prepend_bos"),
        lengths=table.get("lengths", LENGTHS[0]),
        templates=tuple(table["templates"]),
        slots=table["slots"],
        words={label: tuple(rows_of(listed)) for label, listed in table["words"].items()},
        circuits=table.get("circuits", {}),
        scores=table.get("scores", {}),
    )


def _no_such_task(name: str, known: Iterable[str]) -> str:
    if name.endswith(".toml"):
        return f"no task {name!r}: there is no such file"
    near = get_close_matches(name.lower(), known, 1)
    slip = f"did you mean {near[0]!r}? Else " if near else ""
    return f"no task {name!r}; {slip}choose {', '.join(known)}, or give a TOML file"


def _parsed(path: Path, data: bytes) -> tuple[str, dict[str, Any]]:
    try:
        # Lines are counted as TOML counts them, whichever system wrote the file.
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
        table = tomllib.loads(text)
        repr(table)  # what cannot be shown cannot be complained about
        return text, table
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise TaskError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", str(error))
        line = (place and place[1]) or data.rstrip().count(b"\n") + 1
        reason = re.sub(r" \(at [^)]*\)$", "", str(error))
        raise TaskError(
            f"{path}, line {line}: not TOML ({reason}); mind quotes, commas and brackets"
        ) from None
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, 1,000 brackets
        reason = str(error).split(";")[0]
        raise TaskError(f"{path}, line 1: TOML that cannot be read ({reason})") from None
