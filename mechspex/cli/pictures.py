"""The picture and the report of an answer, in the folder of its run."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from mechspex.cli.output import writing
from mechspex.core.errors import Refused


def show_pictures(answer: Any, folder: Path) -> None:
    """Draw the answer and write its report into the folder of its run, and say where they are.

    Pictures of the same answer that are there already stay.
    """
    from mechspex.runs.run import may_be_written

    kept = folder / answer.file
    for name, file, write in (
        ("picture", folder / "figure.png", _draw),
        ("report", folder / "report.html", _report),
    ):
        fresh = file.exists() and file.stat().st_mtime_ns >= kept.stat().st_mtime_ns
        if not fresh and may_be_written(folder):
            with writing(), suppress(Refused):
                write(answer, file)
                fresh = True
        if fresh:
            print(f"{name:8}{file}")


def _draw(answer: Any, file: Path) -> None:
    answer.plot().savefig(file, dpi=150)


def _report(answer: Any, file: Path) -> None:
    from mechspex.report.write_report import write_report

    # Without the packages that a page is made with there is none.
    write_report(answer, path=file)
