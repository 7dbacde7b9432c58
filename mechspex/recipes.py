"""Task files: templates and word lists from which prompts are drawn, one TOML file a task."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechspex.errors import TaskError

SLOT = re.compile(r"\{(\w+)\}")

# In the wheel the task files lie inside the package, in the repository beside it.
_FOLDERS = (Path(__file__).parent / "circuits", Path(__file__).parents[1] / "circuits")


def task_files() -> dict[str, Path]:
    """{name: file} of the tasks that ship with the package."""
    folder = next(folder for folder in _FOLDERS if folder.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


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
        for slot in SLOT.findall("".join(template.values())):
            if slot not in slots:
                raise TaskError(f"template {number} has slot {{{slot}}}, which is not in [slots]")
    return Recipe(
        name=name,
        title=table["title"],
        citation=table.get("citation", ""),
        metric=table.get("metric", "logit_difference"),
        templates=tuple(table["templates"]),
        slots=slots,
        words={label: tuple(dict.fromkeys(listed)) for label, listed in words.items()},
        circuits=table.get("circuits", {}),
    )
