"""How answers leave: as text or JSON on stdout, as files, or not at all where they cannot."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from mechspex.core.errors import Refused, StoreError

EXPERIMENT, PROMPTS, MASKS = "Experiment", "Prompts of your own", "Masks"
TEXT, ANSWER, OUTPUT = "Parts of a text of your own", "Answer", "Output"
"""The panels of a command's help."""

# Options that say how an answer is shown: it does not depend on them.
SHOWN_BY = frozenset({"as_json", "csv", "figure", "graphml"})

Json = Annotated[
    bool, typer.Option("--json", help="Print JSON in place of text.", rich_help_panel=OUTPUT)
]
Level = Annotated[float, typer.Option(help="False discovery rate.", rich_help_panel=ANSWER)]
NamedTask = Annotated[
    str | None,
    typer.Option(
        "--task", help="A task (see mechspex tasks) or a TOML file.", rich_help_panel=EXPERIMENT
    ),
]
Contexts = Annotated[
    int,
    typer.Option(
        help="Average over so many random masks of the other units; 0: keep them all.",
        rich_help_panel=MASKS,
    ),
]


class Terminated(BaseException):
    """SIGTERM, as schedulers send it before they take a machine away.

    Whatever stumbles over a model or a training and goes on another way must not take this for
    what it stumbled over.
    """


_PICTURES = (".png", ".svg", ".pdf")


def refuse_picture(figure: Path | None) -> None:
    """Refuse a picture of a kind that is not drawn."""
    if figure is not None and figure.suffix not in _PICTURES:
        raise Refused(f"--figure {figure}: end the name in {', '.join(_PICTURES)}")


def refuse_unwritable(*files: Path | None) -> None:
    """Refuse files that an answer cannot be written to, before anything is loaded."""
    for file in files:
        if file is None:
            continue
        there = file if file.exists() else file.absolute().parent
        if file.is_dir() or not os.access(there, os.W_OK):
            raise Refused(
                f"{file} cannot be written; name a file in a folder that exists and is writable"
            )


@contextmanager
def writing() -> Iterator[None]:
    """A file that cannot be written after all, on a full disk, costs no value."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{error.filename or 'a file'} could not be written ({error.strerror}); the values are "
            "kept, the same command measures nothing again"
        ) from None


def to_stderr(line: object) -> None:
    """Print a line on stderr, beside the answer."""
    print(line, file=sys.stderr)


def say_needed(n_outputs: int, n_terms: int, level: float) -> None:
    """Say on stderr how far an effect must stand out, where few prompts are to test it."""
    from mechspex.effects.validation import needed

    line = needed(n_outputs, n_terms, level)
    if line is not None:
        to_stderr(line)


def print_answer(content: Any, as_json: bool) -> None:
    """Print text, or a dictionary or list as JSON."""
    print(json.dumps(content, indent=1, allow_nan=False) if as_json else content)
