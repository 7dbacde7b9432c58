"""Runs: a folder that holds every value ever measured, what it depends on, and the answer."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

from mechspex.errors import RunError
from mechspex.runs.store import VALUES

CONFIGURATION = "configuration.json"

EXPLANATION = "explanation.json"

SWEEP = "sweep.csv"

CIRCUIT = "circuit.json"

PRUNING, REPAIR = "pruning.json", "self_repair.json"

# Below a run: the values on fresh outputs.
VALIDATION = "validation"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def run_folder(run: str | Path) -> Path:
    """The folder of a run: a name lies below ``$MECHSPEX_RUNS`` (``runs`` if unset), a `Path` is
    taken as it is.

    Raises:
        RunError: a name with anything but letters, digits, dots, dashes and underscores.
    """
    if isinstance(run, Path):
        return run
    if not _NAME.fullmatch(run):
        raise RunError(
            f"run name {run!r} is refused: use letters, digits, '.', '-' and '_', "
            "and MECHSPEX_RUNS for the folder"
        )
    return _runs_folder() / run


def _runs_folder() -> Path:
    return Path(os.environ.get("MECHSPEX_RUNS", "runs"))


def list_runs() -> list[dict[str, str | int]]:
    """Every run there is: its name, how many masks it holds, and which answers it has."""
    rows: list[dict[str, str | int]] = []
    for path in sorted(_runs_folder().glob(f"*/{VALUES}")):
        # Read only: looking at a run that is being written must not disturb it.
        answers = {"explained": EXPLANATION, "swept": SWEEP, "circuit found": CIRCUIT,
                   "pruned": PRUNING, "self-repair": REPAIR}  # fmt: skip
        found = [answer for answer, file in answers.items() if (path.parent / file).exists()]
        state = ", ".join(found) or "unfinished"
        uri = f"{path.absolute().as_uri()}?mode=ro"
        try:
            with closing(sqlite3.connect(uri, uri=True)) as database:
                masks = database.execute("SELECT count(*) FROM value").fetchone()[0]
        except sqlite3.Error:
            masks, state = 0, "damaged or empty"
        rows.append({"run": path.parent.name, "masks": masks, "state": state})
    return rows
