"""Options about a text whose parts are the units: a context, a question, and the response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from mechspex.cli.choices import Partition, Removal, Score
from mechspex.cli.output import TEXT
from mechspex.core.errors import TaskError

_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
# What a row of a table of contexts may say.
_COLUMNS = ("context", "question", "response", "distractor")


@dataclass(frozen=True, kw_only=True)
class OwnTexts:
    """A text of your own, of which parts are taken out."""

    context: Annotated[
        Path | None,
        typer.Option(
            help="A text whose parts are the units; or a table (.jsonl, .csv) of many, with "
            "columns context and, where there are any, question, response, distractor.",
            rich_help_panel=TEXT,
        ),
    ] = None
    text: Annotated[
        str | None, typer.Option(help="The same, written here.", rich_help_panel=TEXT)
    ] = None
    question: Annotated[
        list[str] | None,
        typer.Option(
            help="What follows the context and always stays; may be given several times.",
            rich_help_panel=TEXT,
        ),
    ] = None
    response: Annotated[
        list[str] | None,
        typer.Option(
            help="What the model should say after each question; it writes one itself if not "
            "given, of so many tokens if this is a number.",
            rich_help_panel=TEXT,
        ),
    ] = None
    by: Annotated[
        Partition,
        typer.Option(
            help="What the parts are; span: pieces marked {{…}}.",
            case_sensitive=False,
            rich_help_panel=TEXT,
        ),
    ] = "sentence"
    within: Annotated[
        Partition | None,
        typer.Option(
            help="explain alone: take out such parts first (sentences), then only the units (--by "
            "word) within those that matter.",
            case_sensitive=False,
            rich_help_panel=TEXT,
        ),
    ] = None
    remove: Annotated[
        Removal,
        typer.Option(
            help="How a part is taken out: deleted, replaced, hidden from attention, or with a "
            "zero or mean embedding.",
            case_sensitive=False,
            rich_help_panel=TEXT,
        ),
    ] = "delete"
    replacement: Annotated[
        str | None,
        typer.Option(help="The word for --remove replace.", rich_help_panel=TEXT),
    ] = None
    score: Annotated[
        Score,
        typer.Option(
            help="What is measured of the response.", case_sensitive=False, rich_help_panel=TEXT
        ),
    ] = "log_probability"

    @property
    def has_text(self) -> bool:
        """Whether the units are parts of a text."""
        return self.context is not None or self.text is not None

    def check_texts(self, task: str | None) -> None:
        """Refuse options that contradict each other, and a file that cannot be read.

        Args:
            task: the task that is named.

        Raises:
            TaskError: two texts, a text and a task, or a file without one.
        """
        if self.context is not None and self.text is not None:
            raise TaskError("--context and --text are given; choose one")
        if task is not None:
            raise TaskError(f"task {task!r} and a text of your own are given; choose one")
        if self.replacement is not None and self.remove != "replace":
            raise TaskError("--replacement goes with --remove replace")
        self.texts()

    def check_no_texts(self) -> None:
        """Refuse options about a text that there is not.

        Raises:
            TaskError: there are some.
        """
        for name in ("question", "response", "replacement", "within"):
            if getattr(self, name):
                raise TaskError(f"--{name} goes with --context FILE, or --text")

    def texts(self) -> list[dict[str, Any]]:
        """The contexts, each with its questions, responses and distractors where there are any.

        Raises:
            TaskError: a file that cannot be read, or a row without a context.
        """
        from mechspex.tasks.prompt_records import file_text, records_of

        shared = {"question": self.question, "response": self._responses(self.response)}
        if self.context is None or self.context.suffix.lower() not in _TABLES:
            whole = self.text if self.context is None else file_text(self.context)
            return [{"context": whole, **shared}]
        rows = []
        for record in records_of(self.context)[1]:
            if "context" not in record.cells:
                raise TaskError(
                    f"{self.context}, {record.place} has no context; name its column so "
                    f"(it has {', '.join(record.cells) or 'none'})"
                )
            own = {name: record.cells.get(name) for name in _COLUMNS}
            rows.append({**own, **{k: v for k, v in shared.items() if v and not own[k]}})
        return rows

    @staticmethod
    def _responses(given: Sequence[str] | None) -> Sequence[str] | int | None:
        """The responses; or how many tokens the model writes."""
        if given is not None and len(given) == 1 and given[0].isdecimal():
            return int(given[0])
        return given
