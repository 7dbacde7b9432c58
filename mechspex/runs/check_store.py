"""Whether a store is whole; what is wrong with one that is not."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mechspex.core.counted import counted
from mechspex.core.errors import MechspexError, RunError, in_short
from mechspex.core.json_values import read_json
from mechspex.runs.row_log import TABLES, Row, logs_in, read_log
from mechspex.runs.store_file import VALUES, connect_to_read
from mechspex.runs.stored import Stored

_BROKEN = (sqlite3.Error, ValueError, TypeError)
# Lines of SQLite's own check that are shown.
_SHOWN = 3
# Bytes that are read in a tenth of a second.
_READ_AT_ONCE = 1 << 23


@dataclass(frozen=True)
class Checked:
    """What a look at every row of a store found.

    Attributes:
        file: the store.
        rows: {table: how many of its rows are whole}.
        damage: what is wrong, in words; nothing where it is whole.
        answers: what is wrong with the answers beside it, likewise.
    """

    file: Path
    rows: dict[str, int]
    damage: tuple[str, ...]
    answers: tuple[str, ...] = ()

    def __str__(self) -> str:
        found = f"{self.file}: {counted(self.rows['value'], 'mask')}"
        if self.rows["gradient"]:
            found += f", {counted(self.rows['gradient'], 'gradient')}"
        return "\n  ".join([found, *(self.damage + self.answers or ["whole"])])


def stores_below(folder: Path) -> list[Path]:
    """The folders of a run that have a store: its own first, then those below it.

    Raises:
        RunError: there are none.
    """
    found = sorted(file.parent for file in folder.rglob(VALUES))
    if not found:
        raise RunError(f"{folder} holds no values; mechspex runs lists the runs there are")
    return found


def is_damaged(folder: Path, most: int = _READ_AT_ONCE) -> bool:
    """Whether a value of a run is damaged, as far as that is soon seen.

    Args:
        folder: the folder of the run.
        most: the bytes of all its stores beyond which nothing is read.
    """
    files = list(folder.rglob(VALUES))
    try:
        if sum(file.stat().st_size for file in files) > most:
            return False
    except OSError:  # of a run that is taken away
        return False
    return any(check_store(file.parent).damage for file in files)


def check_store(folder: Path) -> Checked:
    """Read all of a store, every page and every row, and what lies beside it; nothing is changed.

    Args:
        folder: the folder in which it lies.
    """
    rows: Counter[str] = Counter()
    damage = []
    try:
        Stored.open(folder)
    except MechspexError as error:
        if isinstance(error, RunError):
            raise
        # The error itself would send to whoever asks here.
        damage.append(
            f"what it says of itself cannot be read ({in_short(error.__context__ or error)})"
        )
    try:
        with closing(connect_to_read(folder / VALUES)) as database:
            lines = [text for (text,) in database.execute(f"PRAGMA integrity_check({_SHOWN})")]
            damage += [] if lines == ["ok"] else [" ".join(str(line).split()) for line in lines]
            for table in TABLES:
                wrong = 0
                for found in database.execute(f"SELECT mask, outputs, checksum FROM {table}"):
                    whole = _is_whole(found)
                    rows[table] += whole
                    wrong += not whole
                if wrong:
                    damage.append(f"{counted(wrong, table)} without a matching checksum")
    except _BROKEN as error:
        damage.append(str(error))
    for log in logs_in(folder):
        rows.update(table for table, _ in read_log(log))
    # What is said twice is said once.
    return Checked(
        folder / VALUES,
        {table: rows[table] for table in TABLES},
        tuple(dict.fromkeys(damage)),
        tuple(_damaged_answers(folder)),
    )


def _damaged_answers(folder: Path) -> Iterator[str]:
    for file in sorted(folder.glob("*.json")):
        try:
            read_json(file)
        except MechspexError as error:
            yield str(error)


def _is_whole(found: tuple[object, ...]) -> bool:
    try:
        return Row(*found).is_whole  # type: ignore[arg-type]
    except TypeError:
        return False
