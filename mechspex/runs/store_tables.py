"""The tables of a store."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mechspex.core.errors import RunError
from mechspex.core.units import UnitSet
from mechspex.runs.row_log import TABLES, Row, logs_in, read_log

# 1: the keys of values are packed masks. 2: see `mask_keys`.
SCHEMA = 2

STATED = "SELECT value FROM configuration WHERE key = ?"
"""The question for one entry of what a store says of itself."""


def created(database: sqlite3.Connection, schema: int = SCHEMA) -> sqlite3.Connection:
    """The same database with all tables that it lacks.

    Args:
        database: one of any schema, or an empty one.
        schema: the schema of an empty one.

    Raises:
        RunError: it is of a newer version.
    """
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA:
        raise RunError(
            f"the store has schema {version}, this version of mechspex writes {SCHEMA}; "
            "upgrade mechspex to read it"
        )
    with database:
        database.execute(
            "CREATE TABLE IF NOT EXISTS configuration (key TEXT PRIMARY KEY, value TEXT)"
        )
        # Values by the key of the mask; gradients, of soft masks, by the digest of the mask.
        for table in TABLES:
            database.execute(
                f"CREATE TABLE IF NOT EXISTS {table} (mask BLOB PRIMARY KEY, outputs BLOB, "
                "checksum INTEGER) WITHOUT ROWID"
            )
        if not version:
            database.execute(f"PRAGMA user_version = {schema}")
    return database


def write_configuration(
    database: sqlite3.Connection, configuration: Mapping[str, str], how: str = "OR IGNORE"
) -> None:
    """Say what the values of a store depend on.

    Args:
        database: the store.
        configuration: everything but the mask.
        how: ``OR IGNORE`` or ``OR REPLACE`` what is there.
    """
    with database:
        database.execute(
            f"INSERT {how} INTO configuration VALUES (?, ?)",
            ("configuration", json.dumps(dict(configuration), sort_keys=True)),
        )


def write_columns(database: sqlite3.Connection, units: UnitSet, outputs: Sequence[str]) -> None:
    """Say what columns masks and values have, where that is not said yet."""
    content = json.dumps({"units": units.to_list(), "outputs": list(outputs)})
    with database:
        database.execute("INSERT OR IGNORE INTO configuration VALUES (?, ?)", ("columns", content))


def insert(database: sqlite3.Connection, table: str, rows: Iterable[Row]) -> None:
    """Write rows, inside of a transaction; a mask that is there keeps its values."""
    database.executemany(f"INSERT OR IGNORE INTO {table} VALUES (?, ?, ?)", rows)


def take_logs(database: sqlite3.Connection, folder: Path) -> None:
    """Take in what other processes logged; a log that has not grown since is left out."""
    for log in logs_in(folder):
        size = str(log.stat().st_size)
        if database.execute(STATED, (log.name,)).fetchone() == (size,):
            continue
        rows = list(read_log(log))
        with database:
            for table in TABLES:
                insert(database, table, (row for into, row in rows if into == table))
            database.execute("INSERT OR REPLACE INTO configuration VALUES (?, ?)", (log.name, size))
