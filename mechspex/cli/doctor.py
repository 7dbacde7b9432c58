"""``mechspex doctor``: is a run whole, and what can this machine do."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from mechspex.cli.output import Json, print_answer
from mechspex.cli.status import folder_of
from mechspex.core.errors import Refused, StoreError


def doctor(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Runs to check; the machine if left out.")
    ] = None,
    salvage: Annotated[
        str | None,
        typer.Option(help="Save what is whole of a run into a new one of this name."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check every value of a run, and save what is whole; or say what this machine can do.

    Exit code 1 where there is damage.
    """
    if salvage is not None:
        if runs is None or len(runs) != 1:
            raise Refused("--salvage saves one run: mechspex doctor RUN --salvage NEW")
        _salvage(folder_of(runs[0]), salvage, as_json)
    elif runs:
        _check([folder_of(run) for run in runs], as_json)
    else:
        _machine(as_json)


def _check(folders: list[Path], as_json: bool) -> None:
    from mechspex.runs.check_store import check_store, stores_below

    checked = [check_store(store) for folder in folders for store in stores_below(folder)]
    rows = [{"file": str(one.file), **one.rows, "damage": list(one.damage)} for one in checked]
    print_answer(rows if as_json else "\n".join(map(str, checked)), as_json)
    if any(one.damage for one in checked):
        raise typer.Exit(StoreError.exit_code)


def _salvage(folder: Path, name: str, as_json: bool) -> None:
    from mechspex.runs.run import run_folder
    from mechspex.runs.salvage import salvage

    saved = salvage(folder, run_folder(name))
    rows: list[dict[str, Any]] = [{**asdict(one), "file": str(one.file)} for one in saved]
    lines = [
        f"{one.file}: {one.n_values:,} masks, {one.n_gradients:,} gradients saved" for one in saved
    ]
    empty = not any(one.n_values or one.n_gradients for one in saved)
    if empty:
        lines.append("nothing is whole; the same command with another --run measures anew")
    else:
        lines.append(f"the same command with --run {name} goes on from there")
    print_answer(rows if as_json else "\n".join(lines), as_json)
    if empty:
        raise typer.Exit(StoreError.exit_code)


def _machine(as_json: bool) -> None:
    import psutil

    from mechspex.forward.machine import measure_machine
    from mechspex.runs.locks import locks_hold
    from mechspex.runs.run import runs_folder

    machine, folder = measure_machine(), runs_folder()
    there = next(p for p in (folder, *folder.absolute().parents) if p.is_dir())
    free, locks = psutil.disk_usage(str(there)).free, locks_hold(there)
    if as_json:
        runs = {"folder": str(folder), "free": free, "locks": locks}
        print_answer({**asdict(machine), "advice": machine.advice, "runs": runs}, True)
        return
    print(machine)
    held = "" if locks else "; its locks are not relied on: every process writes a file of its own"
    print(f"runs in {folder}: {free / 2**30:.1f} GiB free{held}")
