"""The store: values by mask, each with its checksum, in SQLite or in memory."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.errors import RunError, StoreError, in_short
from mechspex.core.identity import Identity
from mechspex.core.units import UnitSet
from mechspex.runs.locks import locks_hold
from mechspex.runs.mask_keys import mask_keys, masks_of
from mechspex.runs.row_log import Row, RowLog, logs_in
from mechspex.runs.store_file import (
    VALUES,
    connect,
    connect_to_read,
    file_number,
    may_only_be_read,
    next_step,
    not_opened,
    write_ahead,
    write_once,
)
from mechspex.runs.store_tables import (
    SCHEMA,
    STATED,
    created,
    insert,
    take_logs,
    write_columns,
    write_configuration,
)

# Entries of a configuration that tell a function; `same_function` looks at what differs in them.
IDENTITIES = ("function", "metric")

# Masks of one question to the database.
_ASKED = 500
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
        schema: the schema of a new file, where it is to take the rows of another one.
        columns: units and outputs, of which a new file says that they are its columns.

    Attributes:
        schema: the schema of the file, which its keys follow.
        configuration: what the store says of itself. It may differ from what was given in which
            function it was (`IDENTITIES`), and in that alone.

    Raises:
        RunError: the folder cannot be written, is in use, or holds values of another configuration.
        StoreError: the file is no store of this version.
    """

    def __init__(
        self,
        folder: Path | None,
        configuration: Mapping[str, str],
        *,
        schema: int = SCHEMA,
        columns: tuple[UnitSet, Sequence[str]] | None = None,
    ) -> None:
        self.folder = folder
        self.schema = schema
        self._lock = RLock()
        self._path = ":memory:" if folder is None else str(folder / VALUES)
        self._only_read = folder is not None and may_only_be_read(folder)
        self._log: RowLog | None = None
        given = dict(configuration)
        try:
            self._database = self._opened(given, columns)
            self._file = None if folder is None else file_number(self._path)
            self.configuration = self._agreed(given)
        except _BROKEN as error:
            if isinstance(error, RunError):
                raise
            raise not_opened(self._path, error) from None

    def _opened(
        self, configuration: dict[str, str], columns: tuple[UnitSet, Sequence[str]] | None
    ) -> sqlite3.Connection:
        if self.folder is None:
            return created(connect(self._path), self.schema)
        if self._only_read and not logs_in(self.folder):
            return connect_to_read(self.folder / VALUES)
        if self._only_read or not locks_hold(self.folder):
            return self._copied(self.folder, configuration, columns)
        database = connect(self._path)
        write_ahead(database)
        take_logs(created(database, self.schema), self.folder)
        return database

    def _copied(
        self,
        folder: Path,
        configuration: dict[str, str],
        columns: tuple[UnitSet, Sequence[str]] | None,
    ) -> sqlite3.Connection:
        """What is there in memory; what is measured goes to a log that no other process writes."""
        if not (folder / VALUES).exists():
            with closing(created(connect(":memory:"))) as empty:
                write_configuration(empty, configuration)
                if columns is not None:
                    # The file that others read is not written again.
                    write_columns(empty, *columns)
                write_once(folder, empty.serialize())
        memory = connect(":memory:")
        with closing(connect_to_read(folder / VALUES)) as database:
            database.backup(memory)
        take_logs(created(memory), folder)
        self._log = RowLog(folder)
        return memory

    def _agreed(self, configuration: dict[str, str]) -> dict[str, str]:
        """The configuration that is stored, if it is this one."""
        self.schema = self._database.execute("PRAGMA user_version").fetchone()[0]
        if not self._only_read:
            write_configuration(self._database, configuration)
        row = self._database.execute(STATED, ("configuration",)).fetchone()
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

    def describe(self, units: UnitSet, outputs: Sequence[str]) -> None:
        """Say what columns masks and values have, for readers who have not the value function."""
        with self._reading():
            told = self._database.execute(STATED, ("columns",)).fetchone()
        if self._only_read or told:
            return
        with self._writing():
            write_columns(self._database, units, outputs)

    def rename(self, configuration: dict[str, str]) -> None:
        """Say of an empty store that it is of another function."""
        with self._writing():
            write_configuration(self._database, configuration, "OR REPLACE")
            if self._log is not None and self.folder is not None:
                write_once(self.folder, self._database.serialize(), anew=True)
                self._file = file_number(self._path)
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
        with self._reading():
            query = "SELECT EXISTS (SELECT 1 FROM value) OR EXISTS (SELECT 1 FROM gradient)"
            return not self._database.execute(query).fetchone()[0]

    def _count(self, table: str) -> int:
        with self._reading():
            return self._database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]

    def some_masks(self, n_masks: int, n_units: int) -> Bool[np.ndarray, "mask unit"]:
        """A few of the masks that are here, drawn at random, the same ones each time."""
        n_here = len(self)
        rows = np.random.default_rng(0).permutation(n_here)[:n_masks]
        with self._reading():
            query = "SELECT mask FROM value LIMIT 1 OFFSET ?"
            keys = [self._database.execute(query, (int(row),)).fetchone()[0] for row in rows]
        return masks_of(keys, n_units)

    def get(self, masks: Bool[np.ndarray, "mask unit"], n_outputs: int) -> dict[int, np.ndarray]:
        """{row of `masks`: its values} for the rows that are here.

        Raises:
            StoreError: a row whose bytes are not those that were written.
        """
        return self._get("value", mask_keys(masks, self.schema), n_outputs)

    def put(
        self, masks: Bool[np.ndarray, "mask unit"], values: Float[np.ndarray, "mask output"]
    ) -> None:
        """Commit the values of a batch.

        Raises:
            RunError: the store may only be read.
            StoreError: the disk is full or the file cannot be written; what was there stays.
        """
        self._put("value", mask_keys(masks, self.schema), values)

    def add(self, table: str, rows: Sequence[Row]) -> int:
        """Commit rows of another store of the same schema and configuration.

        Args:
            table: ``value`` or ``gradient``.
            rows: the rows.

        Returns:
            How many of them were new here.

        Raises:
            RunError, StoreError: what `put` raises.
        """
        with self._writing():
            if self._log is not None:
                self._log.append(table, rows)
            before = self._database.total_changes
            with self._database:
                insert(self._database, table, rows)
            return self._database.total_changes - before

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
        for row, key, outputs, checksum in self._stored(table, list(keys)):
            whole = isinstance(outputs, bytes) and Row(key, outputs, checksum).is_whole
            # Single and double precision are told apart by their length.
            single = whole and len(outputs) == 4 * n_numbers
            if not single and not (whole and len(outputs) == 8 * n_numbers):
                raise StoreError(
                    f"{self._path}: the {table}s of mask {row} do not match their checksum; "
                    "the file is damaged, mechspex doctor saves what is whole"
                )
            found[row] = np.frombuffer(outputs, dtype="<f4" if single else "<f8")
        return found

    def _stored(self, table: str, keys: Sequence[bytes]) -> list[tuple[int, bytes, Any, Any]]:
        """(place among the keys, key, outputs, checksum) of those that are here."""
        stored = []
        with self._reading():
            for start in range(0, len(keys), _ASKED):
                some = keys[start : start + _ASKED]
                marks = ",".join("?" * len(some))
                query = f"SELECT mask, outputs, checksum FROM {table} WHERE mask IN ({marks})"
                here = {key: rest for key, *rest in self._database.execute(query, some)}
                stored += [
                    (row, key, *here[key]) for row, key in enumerate(some, start) if key in here
                ]
        return stored

    def _put(self, table: str, keys: Iterable[bytes], numbers: np.ndarray) -> None:
        stored = numbers.astype("<f8" if numbers.dtype == np.float64 else "<f4")
        rows = [Row.of(key, out.tobytes()) for key, out in zip(keys, stored, strict=True)]
        self.add(table, rows)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except _BROKEN as error:
                if isinstance(error, StoreError):
                    raise
                raise StoreError(
                    f"{self._path} cannot be read ({in_short(error)}); the file is damaged, "
                    "mechspex doctor saves what is whole"
                ) from None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock:
            if self._only_read:
                raise RunError(
                    f"run folder {self.folder} is read-only and lacks values that are needed; copy "
                    "it, or choose another --run"
                )
            if self._file is not None and file_number(self._path) != self._file:
                raise StoreError(
                    f"{self._path} was moved, deleted or replaced while it was in use; values "
                    "measured since are lost, put it back or start again"
                )
            try:
                yield
            except sqlite3.Error as error:
                raise StoreError(
                    f"{self._path} could not be written ({in_short(error)}); all values committed "
                    f"before are safe, {next_step(error)} and start again"
                ) from None

    def close(self) -> None:
        """Close the file; values in memory are gone."""
        with self._lock:
            self._database.close()


def _plainly(key: str, text: object) -> object:
    """An entry of a configuration without what `same_function` compares."""
    return Identity.parse(text).name if key in IDENTITIES and isinstance(text, str) else text


def _digest(mask: np.ndarray) -> bytes:
    """Of a soft mask, which would take as much room as its gradient."""
    return hashlib.sha256(mask.astype("<f4").tobytes()).digest()
