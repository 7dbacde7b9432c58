"""Runs: a folder that holds every value ever measured, what it depends on, and the answer."""

from __future__ import annotations

import math
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from mechspex.core.checks import Only
from mechspex.core.counted import counted
from mechspex.core.errors import RunError, StoreError
from mechspex.core.json_values import write_json
from mechspex.core.value_function import ValuesLike, as_value_function
from mechspex.runs.check_store import is_damaged
from mechspex.runs.cost import Cost
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.row_log import logs_in
from mechspex.runs.store_file import VALUES, connect_to_read
from mechspex.runs.stored import read_rows

CONFIGURATION = "configuration.json"

# What the shell was asked, in options.
EXPERIMENT = "experiment.json"

EXPLANATION = "explanation.json"

SWEEP = "sweep.csv"

CIRCUIT = "circuit.json"

CANDIDATES, VALIDATED = "candidates.json", "validation.json"

PRUNING, REPAIR = "pruning.json", "self_repair.json"

DIFFERENCE, VERDICTS = "model_difference.json", "verdicts.json"

# A figure of a paper, and the cells from which it is drawn.
FIGURE, CELLS = "reproduction.json", "cells.json"

# Below a run: the values on fresh outputs.
VALIDATION = "validation"

# Runs that a complaint names, where none is nearly called so.
_LISTED = 8

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@runtime_checkable
class Saved(Protocol):
    """An answer, whatever its kind; tables are loaded with the answers that have some."""

    def save(self, path: str | Path) -> None: ...


class Run:
    """Where one piece of work keeps its values and answers, what it shows, and what it took.

        with Run.open("ioi", progress=True) as run:
            values = run.record(value_function, "validation")
            values.stage = "validating"
            found = validate(values, terms)
            run.write("validation.json", found.to_record())
        run.cost

    Leaving the block closes every store that was opened in it. A folder that may only be read gives
    the values that it has, and its answers stay as they are.

    Args:
        folder: where everything is kept; None keeps values in memory and answers nowhere.
        progress: draw progress bars on stderr.
    """

    def __init__(self, folder: Path | None, *, progress: bool = False) -> None:
        self.folder = folder
        self.progress = progress
        self._start = time.perf_counter()
        self._recorded: list[RecordedValues] = []
        self._nested: list[Run] = []
        self._closed: Cost | None = None
        self._begun_here = folder is not None and not folder.exists()

    @classmethod
    def open(cls, run: str | Path | Run | None, *, progress: bool = False) -> Run:
        """The run of that name or folder; of None one in memory.

        Inside a run that is open already this is a run of its own in the same folder: what it takes
        counts in both, and it closes only what it opened itself.

        Raises:
            RunError: a name with anything but letters, digits, dots, dashes and underscores.
        """
        if isinstance(run, Run):
            nested = cls(run.folder, progress=progress or run.progress)
            run._nested.append(nested)
            return nested
        return cls(None if run is None else run_folder(run), progress=progress)

    def below(self, part: str) -> Run:
        """A run in a folder below this one, whose cost is counted apart."""
        return Run(self._below(part), progress=self.progress)

    def record(self, value_function: ValuesLike, part: str = "") -> RecordedValues:
        """The value function with a store behind it, open as long as this run is.

        Args:
            value_function: the value function to record.
            part: the folder below the run's in which the values lie, as one folder holds values of
                one configuration; the run's own if not given.

        Raises:
            RunError: the folder cannot be written, or holds values of another configuration.
            StoreError: the file there is no store of this version.
        """
        values = RecordedValues(
            as_value_function(value_function), self._below(part), progress=self.progress
        )
        self._recorded.append(values)
        return values

    def write(self, file: str, content: Mapping[str, Any]) -> None:
        """Write an answer as JSON, whole or not at all; nothing in memory."""
        if self.folder is not None and may_be_written(self.folder):
            write_json(self.folder / file, content)

    def keep(self, *answers: Saved) -> None:
        """Save answers in the folder, each in the file of its kind."""
        if self.folder is not None and may_be_written(self.folder):
            for answer in answers:
                answer.save(self.folder)

    def remove(self, file: str) -> None:
        """Take an answer away, as it is one to another question, or found again."""
        if self.folder is not None and may_be_written(self.folder):
            (self.folder / file).unlink(missing_ok=True)

    @property
    def cost(self) -> Cost:
        """What was asked for and measured while this run was open, and how long that took."""
        if self._closed is not None:
            return self._closed
        nested = [run.cost for run in self._nested]
        own = self._recorded
        return Cost(
            masks=sum(cost.masks for cost in nested) + sum(v.used for v in own),
            measured=sum(cost.measured for cost in nested)
            + sum(v.measured + v.gradients for v in own),
            seconds_measuring=math.fsum(
                [*(cost.seconds_measuring for cost in nested), *(v.seconds for v in own)]
            ),
            seconds=time.perf_counter() - self._start,
            values=sum(cost.values or 0 for cost in nested)
            + sum(v.used * len(v.outputs) for v in own),
            values_measured=sum(cost.values_measured or 0 for cost in nested)
            + sum((v.measured + v.gradients) * len(v.outputs) for v in own),
        )

    def close(self) -> None:
        """Close every store that this run opened; values in memory are gone."""
        self._closed = self.cost
        for values in self._recorded:
            values.close()
        # Models that were measured may go as well.
        self._recorded, self._nested = [], []

    def forget(self) -> None:
        """Close every store, and leave no folder of a question that was refused as soon as asked:
        only where this run made the folder, and alone has measured what lies in it."""
        self.close()
        if self.folder is None or not self._begun_here:
            return
        stores = [file.parent for file in self.folder.rglob(VALUES)]
        if sum(map(_n_masks, stores)) <= self.cost.measured:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        # A run inside of another says it first.
        if isinstance(error, KeyboardInterrupt) and not hasattr(error, "__notes__"):
            error.add_note(self._how_to_go_on())

    def _how_to_go_on(self) -> str:
        """What is said below the traceback of a stopped call."""
        values = counted(self.cost.measured, "mask")
        if self.folder is None:
            return f"{values} measured and kept nowhere; with run='NAME' a stopped call goes on"
        return f"{values} measured and kept in {self.folder}; the same call goes on from there"

    def _below(self, part: str) -> Path | None:
        return None if self.folder is None else self.folder / part


def as_run(name: str, given: object) -> Any:
    """Reads the name of a run, its folder, or a run that is open.

    Raises:
        RunError: something else.
    """
    return Only((str, Path, Run), "the name of a run or its folder", RunError)(name, given)


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
    return runs_folder() / run


def named_folder(name: str) -> list[Path]:
    """The folder of a run of that name; none where no run can be called so."""
    try:
        return [run_folder(name)]
    except RunError:
        return []


def folder_of(run: str | Path) -> Path:
    """The folder of a run that exists, from its name, itself or the file of its answer.

    A name is that of a run before it is that of a folder here.

    Raises:
        RunError: there is no such run, and those of nearly that name are told; or no run can be
            called so.
    """
    path = Path(run)
    if path.is_file():
        return path.parent
    named = [] if isinstance(run, Path) else named_folder(run)
    # No name is not the folder where one stands.
    for folder in (*named, *([path] if run else ())):
        if folder.is_dir():
            return folder
    run_folder(run)
    there = sorted(folder.name for folder in runs_folder().glob("*/"))
    near = get_close_matches(str(run), there, 3, 0.4)
    if near:
        told = f"did you mean {' or '.join(near)}?"
    elif there:
        more = f" and {len(there) - _LISTED} more" if len(there) > _LISTED else ""
        told = f"there are {', '.join(there[-_LISTED:])}{more}"
    else:
        told = "there are none yet; start one with: mechspex explain ioi"
    raise RunError(f"no run {str(run)!r} in {runs_folder()}; {told}")


def runs_folder() -> Path:
    """The folder that holds all runs."""
    return Path(os.environ.get("MECHSPEX_RUNS", "runs"))


def may_be_written(folder: Path) -> bool:
    """Whether the folder of a run takes values and answers; of a finished one it need not."""
    return not folder.exists() or os.access(folder, os.W_OK | os.X_OK)


def may_be_read(folder: Path) -> bool:
    """Whether the folder of a run has values that can be read."""
    return os.access(folder / VALUES, os.R_OK)


_ANSWERS = {
    EXPLANATION: "explained", SWEEP: "swept", CIRCUIT: "circuit found", CANDIDATES: "screened",
    VALIDATED: "validated", PRUNING: "pruned", REPAIR: "self-repair", FIGURE: "figure drawn",
    DIFFERENCE: "models compared", VERDICTS: "audited",
}  # fmt: skip


def list_runs() -> list[dict[str, str | int]]:
    """Every run there is: its name, how many masks it holds, which answers it has, its bytes.

    Small runs are read whole, and it is said which are damaged; of larger ones only what keeps them
    from being counted shows, and `mechspex doctor` reads the rest. The values of a figure lie in
    folders below its own, if it has any.
    """
    rows: list[dict[str, str | int]] = []
    for folder in sorted(runs_folder().glob("*/")):
        of_figure = [file for file in (FIGURE, CELLS) if (folder / file).exists()]
        stores = folder.rglob(VALUES) if of_figure else folder.glob(VALUES)
        files = sorted(stores)
        if not files and not of_figure:
            continue
        found = [answer for file, answer in _ANSWERS.items() if (folder / file).exists()]
        try:
            masks = sum(_n_masks(file.parent) for file in files)
            damage = "damaged" if is_damaged(folder) else ""
        except (sqlite3.Error, StoreError):
            masks, damage = 0, "damaged or empty"
        if damage:
            found.append(f"{damage}: mechspex doctor {folder.name}")
        state = ", ".join(found) or "no answer yet"
        rows.append({"run": folder.name, "masks": masks, "state": state, "bytes": _size(folder)})
    return rows


def _n_masks(folder: Path) -> int:
    """How many masks the store of a folder holds, which another process may be writing."""
    with closing(connect_to_read(folder / VALUES)) as database:
        count = database.execute("SELECT count(*) FROM value").fetchone()[0]
    return len({row.key for row in read_rows(folder)}) if logs_in(folder) else count


def _size(folder: Path) -> int:
    """Bytes of all files of a run."""
    size = 0
    for file in folder.rglob("*"):
        with suppress(OSError):  # of a run that is being written
            size += file.stat().st_size if file.is_file() else 0
    return size
