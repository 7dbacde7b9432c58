"""``mechspex runs``: what there is, several runs in one, values as files and back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mechspex.cli.output import Json, print_answer, refuse_unwritable
from mechspex.cli.status import list_all
from mechspex.core.errors import RunError


class _ListedByDefault(TyperGroup):
    """Commands of which ``list`` is meant where none is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["list"])


app = typer.Typer(
    cls=_ListedByDefault, help="List the runs; merge, export and import their values."
)


@app.command("list")
def list_runs(as_json: Json = False) -> None:
    """Every run: its masks, its size, what was answered."""
    list_all(as_json)


@app.command()
def merge(
    into: Annotated[str, typer.Argument(help="The run that takes the values, new or not.")],
    runs: Annotated[list[str], typer.Argument(help="Runs of the same question.")],
    as_json: Json = False,
) -> None:
    """Put the values of several runs of one question into one, each mask once."""
    from mechspex.runs.merge import merge as merged
    from mechspex.runs.run import folder_of, run_folder

    parts = merged([folder_of(run) for run in runs], run_folder(into))
    rows = [{**asdict(part), "file": str(part.file)} for part in parts]
    lines = [f"{part.file}: {part.n_values:,} masks, {part.n_new:,} rows new" for part in parts]
    lines.append(f"the command that made the runs, with --run {into}, answers from all of them")
    print_answer(rows if as_json else "\n".join(lines), as_json)


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="A run.")],
    file: Annotated[Path, typer.Argument(help="Ends in .parquet, .csv, .safetensors or .json.")],
    part: Annotated[
        str | None, typer.Option(help="A folder below the run, such as validation.")
    ] = None,
) -> None:
    """Write all values of a run for other programs: masks as packed bits, a column an output."""
    from mechspex.runs.run import folder_of
    from mechspex.runs.value_table import ValueTable

    refuse_unwritable(file)
    folder = folder_of(run)
    table = ValueTable.of(folder if part is None else folder / part)
    table.write(file)
    print(f"{len(table.masks):,} masks × {len(table.outputs):,} outputs in {file}")


@app.command("import")
def import_values(
    file: Annotated[Path, typer.Argument(help="What export wrote.")],
    run: Annotated[str, typer.Argument(help="The run that takes the values, new or not.")],
) -> None:
    """Read values that export wrote into a run."""
    from mechspex.runs.run import run_folder
    from mechspex.runs.value_table import ValueTable

    table, folder = ValueTable.read(file), run_folder(run)
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is no folder; choose another run")
    print(f"{table.keep(folder):,} of {len(table.masks):,} masks new in {folder}")
