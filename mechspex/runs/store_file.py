"""How the file of a store is opened: to be written with others, alone, or only read."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

from mechspex.core.errors import RunError, StoreError, in_short
from mechspex.core.json_values import unwritable

VALUES = "values.sqlite"

# How long another process may hold the file, in seconds.
PATIENCE = 30


def connect(path: str) -> sqlite3.Connection:
    """A database that several threads use, one at a time."""
    return sqlite3.connect(path, timeout=PATIENCE, check_same_thread=False)


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A database that is only read: looking at one that is being written does not disturb it."""
    # Where nothing is left to be merged SQLite need not make a file beside this one.
    merged = not path.with_name(f"{path.name}-wal").exists()
    uri = f"{path.absolute().as_uri()}?{'immutable=1' if merged else 'mode=ro'}"
    return sqlite3.connect(uri, uri=True, timeout=PATIENCE, check_same_thread=False)


def write_once(folder: Path, content: bytes, *, anew: bool = False) -> None:
    """Write a whole store, unless there is one: the first of several processes wins.

    Args:
        folder: the run's folder.
        content: the bytes of the file.
        anew: in the place of the one that is there.
    """
    scratch = folder / f".{VALUES}.{os.urandom(8).hex()}"
    try:
        scratch.write_bytes(content)
        try:
            if anew:
                scratch.replace(folder / VALUES)
            else:
                os.link(scratch, folder / VALUES)
        except FileExistsError:
            pass
        except OSError:  # a drive without links
            if not (folder / VALUES).exists():
                scratch.replace(folder / VALUES)
        scratch.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(folder / VALUES, error) from None


def may_only_be_read(folder: Path) -> bool:
    """Whether a folder with values cannot be written; makes the folder where there is none.

    Raises:
        RunError: there are no values, and none can be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / VALUES
        kept = path.exists()
    except OSError as error:
        raise RunError(
            f"run folder {folder} cannot be made ({error.strerror}); choose another --run"
        ) from None
    if os.access(folder, os.W_OK | os.X_OK) and (not kept or os.access(path, os.W_OK)):
        return False
    if kept and os.access(path, os.R_OK):
        return True
    raise RunError(f"run folder {folder} is read-only; choose another --run")


def file_number(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_locked(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def not_opened(path: str, error: Exception) -> RunError | StoreError:
    if is_locked(error):
        return RunError(
            f"{path} is locked: another process holds it, or it lies on a drive without locks; "
            "wait for that process, or name a local folder in MECHSPEX_RUNS"
        )
    return StoreError(
        f"{path} cannot be opened as a value store ({in_short(error)}); mechspex doctor saves "
        "what is whole, or choose another --run"
    )


def next_step(error: sqlite3.Error) -> str:
    return "wait for the process that holds it" if is_locked(error) else "free some space"


def write_ahead(database: sqlite3.Connection) -> None:
    """Switch to WAL, for which SQLite does not always wait while another process opens."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not is_locked(error) or time.monotonic() > end:
                raise
            time.sleep(0.1)
