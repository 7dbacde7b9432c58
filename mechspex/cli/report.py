"""``mechspex report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mechspex.cli.output import OUTPUT, Json, print_answer, refuse_unwritable


def report(
    runs: Annotated[
        list[str], typer.Argument(help="Names of runs; several are shown side by side.")
    ],
    out: Annotated[Path, typer.Option(help="The file to write.", rich_help_panel=OUTPUT)] = Path(
        "report.html"
    ),
    as_json: Json = False,
) -> None:
    """Write a page that shows runs and answers back: one HTML file, which needs no network."""
    refuse_unwritable(out)
    from mechspex.runs.run import folder_of

    # Before the tables load that an answer takes: a second.
    folders = [folder_of(run) for run in runs]
    from mechspex.report.write_report import write_report

    path = write_report(*folders, path=out)
    size = path.stat().st_size
    answer = {"report": str(path), "bytes": size}
    print_answer(
        answer if as_json else f"{path}   {size / 1e6:.1f} MB; open it in a browser", as_json
    )
