"""``mechspex collect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mechspex.cli.output import (
    OUTPUT,
    Json,
    print_answer,
    refuse_picture,
    refuse_unwritable,
    writing,
)
from mechspex.core.csv_tables import write_csv


def collect(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of runs ($MECHSPEX_RUNS, or runs, if left out)."),
    ] = None,
    per_prompt: Annotated[
        bool, typer.Option("--per-prompt", help="A row a prompt in place of their mean.")
    ] = False,
    csv: Annotated[
        Path | None,
        typer.Option(help="Write the table (.csv or .parquet).", rich_help_panel=OUTPUT),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="Draw a map a run (.png, .svg or .pdf).", rich_help_panel=OUTPUT),
    ] = None,
    as_json: Json = False,
) -> None:
    """Put the exact effects of many runs into one table: a row a set of units and run."""
    refuse_unwritable(csv, figure)
    refuse_picture(figure)
    from mechspex.report.load_runs import load_runs

    found = load_runs(folders or None, per_prompt=per_prompt)
    show_table(found, csv, figure, as_json)


def show_table(found: Any, csv: Path | None, figure: Path | None, as_json: bool) -> None:
    """Write the table and the picture that are asked for, and print what was collected.

    Args:
        found: what `load_runs` returned.
        csv: the file of the table, CSV or Parquet by its name.
        figure: the file of the picture.
        as_json: print JSON.
    """
    with writing():
        if csv is not None and csv.suffix == ".parquet":
            found.to_pandas().to_parquet(csv)
        elif csv is not None:
            write_csv(csv, found.to_pandas())
        if figure is not None:
            found.plot().savefig(figure, dpi=150)
    print_answer(found.to_dict() if as_json else str(found), as_json)
