"""The store: values by mask, each with its checksum, in SQLite or in memory."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.errors import RunError, StoreError
from mechspex.core.masks import pack

SCHEMA = 1

VALUES = "values.sqlite"


class ValueStore:
    """Values by mask, on disk (SQLite, WAL) or in memory; each row carries its checksum.

    Values are committed batch by batch: whatever ends the process, all earlier batches stay. Two
    processes may write to one store: a mask that it holds already keeps its value.

    Args:
        folder: the run's folder; None keeps the values in memory.
        configuration: everything the values depend on but the mask.

    Raises:
        RunError: the folder cannot be written, or holds values of another configuration.
        StoreError: the file is no store of this version.
    """

    def __init__(self, folder: Path | None, configuration: Mapping[str, str]) -> None:
        self.folder = folder
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RunError(
                    f"run folder {folder} cannot be made ({error.strerror}); choose another --run"
                ) from None
            if not os.access(folder, os.W_OK):
                raise RunError(f"run folder {folder} is read-only; choose another --run")
        self._path = ":memory:" if folder is None else str(folder / VALUES)
        try:
            self._database = sqlite3.connect(self._path, timeout=60)
            _write_ahead(self._database)
            self._create()
        except sqlite3.Error as error:
            raise StoreError(
                f"{self._path} cannot be opened as a value store ({error}); "
                "move it away or choose another --run"
            ) from None
        self._check(dict(configuration))

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

    def _check(self, configuration: dict[str, str]) -> None:
        with self._database:
            self._database.executemany(
                "INSERT OR IGNORE INTO configuration VALUES (?, ?)",
                [("configuration", json.dumps(configuration, sort_keys=True))],
            )
        row = self._database.execute("SELECT value FROM configuration").fetchone()
        stored = json.loads(row[0])
        if stored != configuration:
            differing = [
                f"{key}: {stored.get(key)} there, {configuration.get(key)} here"
                for key in sorted(stored | configuration)
                if stored.get(key) != configuration.get(key)
            ]
            raise RunError(
                f"run {self.folder} holds values of another configuration "
                f"({'; '.join(differing)}); choose another --run"
            )

    def __len__(self) -> int:
        return self._database.execute("SELECT count(*) FROM value").fetchone()[0]

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
        for row, key in enumerate(keys):
            stored = self._database.execute(
                f"SELECT outputs, checksum FROM {table} WHERE mask = ?", (key,)
            ).fetchone()
            if stored is None:
                continue
            outputs, checksum = stored
            if checksum != zlib.crc32(key + outputs) or len(outputs) != 4 * n_numbers:
                raise StoreError(
                    f"{self._path}: the {table}s of mask {row} do not match their checksum; "
                    "the file is damaged, move it away to measure again"
                )
            found[row] = np.frombuffer(outputs, dtype="<f4")
        return found

    def _put(self, table: str, keys: Iterable[bytes], numbers: np.ndarray) -> None:
        rows = []
        for key, outputs in zip(keys, numbers.astype("<f4"), strict=True):
            content = outputs.tobytes()
            rows.append((key, content, zlib.crc32(key + content)))
        try:
            with self._database:
                self._database.executemany(f"INSERT OR IGNORE INTO {table} VALUES (?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise StoreError(
                f"{self._path} could not be written ({error}); all values committed before are "
                "safe, free some space and start again"
            ) from None

    def close(self) -> None:
        """Close the file; values in memory are gone."""
        self._database.close()


def _digest(mask: np.ndarray) -> bytes:
    """Of a soft mask, which would take as much room as its gradient."""
    return hashlib.sha256(mask.astype("<f4").tobytes()).digest()


def _write_ahead(database: sqlite3.Connection) -> None:
    """Switch to WAL, for which SQLite does not wait by itself while another process opens."""
    for _ in range(100):
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            time.sleep(0.1)
    database.execute("PRAGMA journal_mode = WAL")
