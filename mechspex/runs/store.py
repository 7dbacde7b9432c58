"""The store: values by mask, each with its checksum, in SQLite or in memory."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.errors import RunError, StoreError
from mechspex.core.identity import Identity
from mechspex.core.masks import pack, unpack

SCHEMA = 1

VALUES = "values.sqlite"

# Entries of a configuration that tell a function; `same_function` looks at what differs in them.
IDENTITIES = ("function", "metric")

# How long another process may hold the file, in seconds.
_PATIENCE = 30
# What reading a damaged file can meet beside SQLite's own errors.
_BROKEN = (sqlite3.Error, ValueError, TypeError)


class ValueStore:
    """Values by mask, on disk (SQLite, WAL) or in memory; each row carries its checksum.

    Values are committed batch by batch: whatever ends the process, all earlier batches stay. Two
    processes may write to one store, and several threads: a mask that it holds already keeps its
    value. Numbers are stored as they come, in single or in double precision. A store that may only
    be read gives what it has.

    Args:
        folder: the run's folder; None keeps the values in memory.
        configuration: everything the values depend on but the mask.

    Attributes:
        configuration: what the store says of itself. It may differ from what was given in which
            function it was (`IDENTITIES`), and in that alone.

    Raises:
        RunError: the folder cannot be written, is in use, or holds values of another configuration.
        StoreError: the file is no store of this version.
    """

    def __init__(self, folder: Path | None, configuration: Mapping[str, str]) -> None:
        self.folder = folder
        self._lock = RLock()
        self._path = ":memory:" if folder is None else str(folder / VALUES)
        self._only_read = folder is not None and _may_only_be_read(folder)
        try:
            self._database = self._connect()
            if not self._only_read:
                _write_ahead(self._database)
                self._create()
            self._file = None if folder is None else _file_number(self._path)
            self.configuration = self._agreed(dict(configuration))
        except _BROKEN as error:
            if isinstance(error, RunError):
                raise
            raise _not_opened(self._path, error) from None

    def _connect(self) -> sqlite3.Connection:
        options = {"timeout": _PATIENCE, "check_same_thread": False}
        if not self._only_read:
            return sqlite3.connect(self._path, **options)
        # Nobody writes here, and where nothing is left to be merged no file need be made for that.
        merged = not Path(f"{self._path}-wal").exists()
        uri = f"{Path(self._path).absolute().as_uri()}?{'immutable=1' if merged else 'mode=ro'}"
        return sqlite3.connect(uri, uri=True, **options)

    def _create(self) -> None:
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise RunError(
                f"{self._path} has schema {version}, this version of mechspex writes {SCHEMA}; "
                "upgrade mechspex to read it"
            )
        with self._database:
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS configuration (key TEXT PRIMARY KEY, value TEXT)"
            )
            # Values by packed mask; gradients, of soft masks, by the digest of the mask.
            for table in ("value", "gradient"):
                self._database.execute(
                    f"CREATE TABLE IF NOT EXISTS {table} (mask BLOB PRIMARY KEY, outputs BLOB, "
                    "checksum INTEGER) WITHOUT ROWID"
                )
            self._database.execute(f"PRAGMA user_version = {SCHEMA}")

    def _agreed(self, configuration: dict[str, str]) -> dict[str, str]:
        """The configuration that is stored, if it is this one."""
        if not self._only_read:
            self._write_configuration(configuration, "OR IGNORE")
        row = self._database.execute("SELECT value FROM configuration").fetchone()
        stored = json.loads(row[0])
        if not isinstance(stored, dict):
            raise TypeError("its configuration is no dictionary")
        differing = [
            f"{key}: {stored.get(key)} there, {configuration.get(key)} here"
            for key in sorted(stored | configuration)
            if _plainly(key, stored.get(key)) != _plainly(key, configuration.get(key))
        ]
        if differing:
            raise RunError(
                f"run {self.folder} holds values of another configuration "
                f"({'; '.join(differing)}); choose another --run"
            )
        return stored

    def _write_configuration(self, configuration: dict[str, str], how: str) -> None:
        with self._database:
            self._database.execute(
                f"INSERT {how} INTO configuration VALUES (?, ?)",
                ("configuration", json.dumps(configuration, sort_keys=True)),
            )

    def rename(self, configuration: dict[str, str]) -> None:
        """Say of an empty store that it is of another function."""
        with self._writing():
            self._write_configuration(configuration, "OR REPLACE")
        self.configuration = configuration

    def forget_gradients(self) -> None:
        """Take away all gradients, so that they are measured anew."""
        with self._writing(), self._database:
            self._database.execute("DELETE FROM gradient")

    def __len__(self) -> int:
        return self._count("value")

    @property
    def is_empty(self) -> bool:
        """Whether it has neither values nor gradients."""
        return not self._count("value") + self._count("gradient")

    def _count(self, table: str) -> int:
        with self._reading():
            return self._database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]

    def some_masks(self, n_masks: int, n_units: int) -> Bool[np.ndarray, "mask unit"]:
        """A few of the masks that are here, drawn at random, the same ones each time."""
        n_here = len(self)
        rows = np.random.default_rng(0).permutation(n_here)[:n_masks]
        with self._reading():
            packed = [
                self._database.execute("SELECT mask FROM value LIMIT 1 OFFSET ?", (int(row),))
                .fetchone()[0]
                for row in rows
            ]  # fmt: skip
            bits = np.frombuffer(b"".join(packed), dtype=np.uint8)
            return unpack(bits.reshape(len(packed), -(-n_units // 8)), n_units)

    def get(self, masks: Bool[np.ndarray, "mask unit"], n_outputs: int) -> dict[int, np.ndarray]:
        """{row of `masks`: its values} for the rows that are here.

        Raises:
            StoreError: a row whose bytes are not those that were written.
        """
        return self._get("value", map(bytes, pack(masks)), n_outputs)

    def put(
        self, masks: Bool[np.ndarray, "mask unit"], values: Float[np.ndarray, "mask output"]
    ) -> None:
        """Commit the values of a batch.

        Raises:
            RunError: the store may only be read.
            StoreError: the disk is full or the file cannot be written; what was there stays.
        """
        self._put("value", map(bytes, pack(masks)), values)

    def get_gradients(
        self, masks: Float[np.ndarray, "mask unit"], n_numbers: int
    ) -> dict[int, np.ndarray]:
        """{row of soft `masks`: its values and gradient, `n_numbers` in all}, as `get`."""
        return self._get("gradient", map(_digest, masks), n_numbers)

    def put_gradients(
        self, masks: Float[np.ndarray, "mask unit"], numbers: Float[np.ndarray, "mask number"]
    ) -> None:
        """Commit values and gradients of soft masks, as `put`."""
        self._put("gradient", map(_digest, masks), numbers)

    def _get(self, table: str, keys: Iterable[bytes], n_numbers: int) -> dict[int, np.ndarray]:
        found = {}
        query = f"SELECT outputs, checksum FROM {table} WHERE mask = ?"
        with self._reading():
            for row, key in enumerate(keys):
                stored = self._database.execute(query, (key,)).fetchone()
                if stored is None:
                    continue
                outputs, checksum = stored
                # Single and double precision are told apart by their length.
                single = len(outputs) == 4 * n_numbers
                known = single or len(outputs) == 8 * n_numbers
                if checksum != zlib.crc32(key + outputs) or not known:
                    raise StoreError(
                        f"{self._path}: the {table}s of mask {row} do not match their checksum; "
                        "the file is damaged, move it away to measure again"
                    )
                found[row] = np.frombuffer(outputs, dtype="<f4" if single else "<f8")
        return found

    def _put(self, table: str, keys: Iterable[bytes], numbers: np.ndarray) -> None:
        rows = []
        stored = numbers.astype("<f8" if numbers.dtype == np.float64 else "<f4")
        for key, outputs in zip(keys, stored, strict=True):
            content = outputs.tobytes()
            rows.append((key, content, zlib.crc32(key + content)))
        with self._writing(), self._database:
            self._database.executemany(f"INSERT OR IGNORE INTO {table} VALUES (?, ?, ?)", rows)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except _BROKEN as error:
                if isinstance(error, StoreError):
                    raise
                raise StoreError(
                    f"{self._path} cannot be read ({error}); the file is damaged, move it away to "
                    "measure again"
                ) from None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock:
            if self._only_read:
                raise RunError(
                    f"run folder {self.folder} is read-only and lacks values that are needed; copy "
                    "it, or choose another --run"
                )
            if self._file is not None and _file_number(self._path) != self._file:
                raise StoreError(
                    f"{self._path} was moved, deleted or replaced while it was in use; values "
                    "measured since are lost, put it back or start again"
                )
            try:
                yield
            except sqlite3.Error as error:
                raise StoreError(
                    f"{self._path} could not be written ({error}); all values committed before are "
                    f"safe, {_next_step(error)} and start again"
                ) from None

    def close(self) -> None:
        """Close the file; values in memory are gone."""
        with self._lock:
            self._database.close()


def _plainly(key: str, text: object) -> object:
    """An entry of a configuration without what `same_function` compares."""
    return Identity.parse(text).name if key in IDENTITIES and isinstance(text, str) else text


def _may_only_be_read(folder: Path) -> bool:
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


def _file_number(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_locked(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def _not_opened(path: str, error: Exception) -> RunError | StoreError:
    if _is_locked(error):
        return RunError(
            f"{path} is locked: another process holds it, or it lies on a drive without locks; "
            "wait for that process, or name a local folder in MECHSPEX_RUNS"
        )
    return StoreError(
        f"{path} cannot be opened as a value store ({error}); move it away or choose another --run"
    )


def _next_step(error: sqlite3.Error) -> str:
    return "wait for the process that holds it" if _is_locked(error) else "free some space"


def _digest(mask: np.ndarray) -> bytes:
    """Of a soft mask, which would take as much room as its gradient."""
    return hashlib.sha256(mask.astype("<f4").tobytes()).digest()


def _write_ahead(database: sqlite3.Connection) -> None:
    """Switch to WAL, for which SQLite does not always wait while another process opens."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not _is_locked(error) or time.monotonic() > end:
                raise
            time.sleep(0.1)
