"""A store that is only looked at: what it says of itself, and its rows."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.errors import RunError, StoreError, in_short
from mechspex.core.json_values import read_texts
from mechspex.core.units import UnitSet
from mechspex.runs.mask_keys import masks_of
from mechspex.runs.row_log import Row, logs_in, read_log
from mechspex.runs.store_file import VALUES, connect_to_read
from mechspex.runs.store_tables import SCHEMA

# What reading a damaged file can meet.
_BROKEN = (sqlite3.Error, ValueError, TypeError, KeyError, RecursionError)


class Columns(NamedTuple):
    """What masks and values have as columns.

    Attributes:
        units: the columns of masks.
        outputs: the names of the columns of values.
    """

    units: UnitSet
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Stored:
    """A store that is only looked at.

    Attributes:
        folder: where it lies.
        schema: the schema that its keys follow, see `mask_keys`.
        configuration: everything the values depend on but the mask.
        columns: what the columns stand for; None in stores of older versions.
    """

    folder: Path
    schema: int
    configuration: dict[str, str]
    columns: Columns | None

    @classmethod
    def open(cls, folder: Path) -> Stored:
        """The store of a folder.

        Raises:
            RunError: there is none, or it is of a newer version.
            StoreError: it is damaged.
        """
        file = folder / VALUES
        if not file.is_file():
            raise RunError(f"{folder} holds no values; mechspex runs lists the runs there are")
        try:
            with closing(connect_to_read(file)) as database:
                schema = database.execute("PRAGMA user_version").fetchone()[0]
                told = dict(database.execute("SELECT key, value FROM configuration").fetchall())
            if schema > SCHEMA:
                raise RunError(f"{file} has schema {schema}; upgrade mechspex to read it")
            columns = None
            if "columns" in told:
                read = json.loads(told["columns"])
                columns = Columns(UnitSet.from_list(read["units"]), tuple(read["outputs"]))
            return cls(folder, schema, read_texts(json.loads(told["configuration"])), columns)
        except RunError:
            raise
        except _BROKEN as error:
            raise damaged(file, error) from None

    def rows(self, table: str = "value") -> Iterator[Row]:
        """The rows of a table in the order of their keys, then those of logs, checked.

        Args:
            table: ``value`` or ``gradient``.

        Raises:
            StoreError: the file is damaged.
        """
        yield from read_rows(self.folder, table)

    def measured(
        self, columns: Columns | None = None
    ) -> tuple[Bool[np.ndarray, "mask unit"], Float[np.ndarray, "mask output"]]:
        """All masks, each once, and their values: in single precision where all are, else double.

        Args:
            columns: what the columns stand for, for stores that do not say.

        Raises:
            RunError: it is not known what the columns stand for.
            StoreError: the file is damaged, or holds values of other columns.
        """
        columns = self.known_columns if columns is None else columns
        found = {row.key: row.outputs for row in self.rows()}
        sizes = {len(outputs) / len(columns.outputs) for outputs in found.values()}
        if not sizes <= {4, 8}:
            raise StoreError(f"{self.folder / VALUES} holds values of other outputs than it says")
        values = [
            np.frombuffer(out, "<f4" if len(out) == 4 * len(columns.outputs) else "<f8")
            for out in found.values()
        ]
        dtype = np.float32 if sizes <= {4} else np.float64
        shape = (len(values), len(columns.outputs))
        masks = masks_of(list(found), len(columns.units))
        return masks, np.array(values, dtype=dtype).reshape(shape)

    @property
    def known_columns(self) -> Columns:
        """What the columns stand for.

        Raises:
            RunError: the store is of an older version.
        """
        if self.columns is None:
            raise RunError(
                f"{self.folder} is of an older version and does not say what its columns stand "
                "for; give the command that made it again, which measures nothing and adds that"
            )
        return self.columns


def read_rows(folder: Path, table: str = "value") -> Iterator[Row]:
    """The rows of the store in a folder, checked; none where there is no store.

    Raises:
        StoreError: the file is damaged.
    """
    file = folder / VALUES
    if not file.is_file():
        return
    try:
        with closing(connect_to_read(file)) as database:
            for found in database.execute(f"SELECT mask, outputs, checksum FROM {table}"):
                row = Row(*found)
                if not row.is_whole:
                    raise ValueError("a row does not match its checksum")
                yield row
    except _BROKEN as error:
        raise damaged(file, error) from None
    for log in logs_in(folder):
        yield from (row for into, row in read_log(log) if into == table)


def damaged(file: Path, error: Exception) -> StoreError:
    """What is said of a store that cannot be read."""
    return StoreError(
        f"{file} cannot be read ({in_short(error)}); the file is damaged, mechspex doctor names "
        "the damage and saves what is whole"
    )
