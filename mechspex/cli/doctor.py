"""``mechspex doctor``: is a run whole, and what can this machine do."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from mechspex.cli.output import Json, print_answer
from mechspex.core.errors import Refused, StoreError


def doctor(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Runs to check; the machine if left out.")
    ] = None,
    salvage: Annotated[
        str | None,
        typer.Option(help="Save what is whole of a run into a new one of this name."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A model whose share of the machine's rate is measured too."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check every value of a run, and save what is whole; or say what this machine can do.

    Exit code 1 where there is damage, or where $MECHSPEX_DEVICE names no device.
    """
    if salvage is not None and len(runs or ()) != 1:
        raise Refused("--salvage saves one run: mechspex doctor RUN --salvage NEW")
    if not runs:
        _machine(model, as_json)
        return
    from mechspex.runs.run import folder_of

    folders = [folder_of(run) for run in runs]
    if salvage is None:
        _check(folders, as_json)
    else:
        _salvage(folders[0], salvage, as_json)


def _check(folders: list[Path], as_json: bool) -> None:
    from mechspex.runs.check_store import check_store, stores_below

    found = [[check_store(store) for store in stores_below(folder)] for folder in folders]
    checked = [one for stores in found for one in stores]
    if as_json:
        told = [(one, [*one.damage, *one.answers]) for one in checked]
        rows = [{"file": str(one.file), **one.rows, "damage": damage} for one, damage in told]
        print_answer(rows, True)
    else:
        lines = list(map(str, checked))
        for folder, stores in zip(folders, found, strict=True):
            if any(one.damage for one in stores):
                lines.append(f"save what is whole: mechspex doctor {folder} --salvage NEW")
        print_answer("\n".join(lines), False)
    if any(one.damage or one.answers for one in checked):
        raise typer.Exit(StoreError.exit_code)


def _salvage(folder: Path, name: str, as_json: bool) -> None:
    from mechspex.runs.run import run_folder
    from mechspex.runs.salvage import salvage

    saved = salvage(folder, run_folder(name))
    rows: list[dict[str, Any]] = [{**asdict(one), "file": str(one.file)} for one in saved]
    empty = not any(one.n_values or one.n_gradients for one in saved)
    lines = [
        f"{one.file}: {one.n_values:,} masks, {one.n_gradients:,} gradients saved" for one in saved
    ]
    if empty:
        lines = [
            f"{folder}: nothing is whole, so there is no run {name}; the command that made it "
            "measures anew with another --run"
        ]
    else:
        lines.append(f"the same command with --run {name} goes on from there")
    print_answer(rows if as_json else "\n".join(lines), as_json)
    if empty:
        raise typer.Exit(StoreError.exit_code)


def _machine(model: str | None, as_json: bool) -> None:
    import psutil

    from mechspex.forward.machine import measure_machine, why_not
    from mechspex.runs.locks import locks_hold
    from mechspex.runs.run import runs_folder

    asked = os.environ.get("MECHSPEX_DEVICE")
    wrong = None if asked is None else why_not(asked)
    machine, folder = measure_machine(), runs_folder()
    there = next(p for p in (folder, *folder.absolute().parents) if p.is_dir())
    free, locks = psutil.disk_usage(str(there)).free, locks_hold(there)
    told = None
    if wrong is not None:
        names = ", ".join(device.name for device in machine.devices)
        told = f"MECHSPEX_DEVICE = {asked!r} is of no use here ({wrong}); set {names}, or unset it"
    rate = None
    if model is not None and wrong is None:
        from mechspex.forward.model_rate import measure_model
        from mechspex.models.load_model import load_model

        rate = replace(measure_model(load_model(model)), model=model)
    if as_json:
        own = None if rate is None else asdict(rate)
        runs = {"folder": str(folder), "free": free, "locks": locks}
        print_answer(
            {
                **asdict(machine),
                "advice": machine.advice,
                "runs": runs,
                "device": told,
                "model": own,
            },
            True,
        )
    else:
        print(machine)
        if rate is not None:
            print(rate)
        held = "" if locks else "; its locks are not relied on: every process writes its own file"
        print(f"runs in {folder}: {free / 2**30:.1f} GiB free{held}")
        if told is not None:
            print(told)
    if told is not None:
        raise typer.Exit(StoreError.exit_code)
