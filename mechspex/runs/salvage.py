"""Whatever is whole of a damaged run, in a new one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mechspex.core.errors import MechspexError, RunError, StoreError
from mechspex.core.json_values import read_json, read_texts
from mechspex.runs.check_store import stores_below
from mechspex.runs.row_log import TABLES, Row, logs_in, read_log
from mechspex.runs.run import CONFIGURATION
from mechspex.runs.store import ValueStore
from mechspex.runs.store_file import VALUES
from mechspex.runs.store_pages import rows_in_pages
from mechspex.runs.store_tables import SCHEMA
from mechspex.runs.stored import Stored

# Bytes of a digest, the key of a gradient.
_DIGEST = 32
# Where SQLite keeps the schema's number, `PRAGMA user_version`.
_VERSION = slice(60, 64)


@dataclass(frozen=True)
class Salvaged:
    """What was saved of one store.

    Attributes:
        file: the new store.
        n_values: how many masks with their values were saved.
        n_gradients: how many gradients.
    """

    file: Path
    n_values: int
    n_gradients: int


def salvage(damaged: Path, into: Path) -> list[Salvaged]:
    """Save every row that matches its checksum, and every other file as it is, in a new folder.

    Args:
        damaged: the folder of a run; it is not changed.
        into: the folder to make; none is made where nothing of the values is whole.

    Raises:
        RunError: there is no store, or a folder of that name already.
        StoreError: it is not known what the values of a store depend on.
    """
    folders = stores_below(damaged)
    if into.exists():
        raise RunError(f"{into} is there already; name a new run to save into")
    known = {folder: _stated(folder, damaged) for folder in folders}
    others = shutil.ignore_patterns(f"{VALUES}*", "values-*.rows")
    saved: list[Salvaged] = []
    try:
        shutil.copytree(damaged, into, ignore=others)
        for folder in folders:
            saved.append(_save(folder, into / folder.relative_to(damaged), known[folder]))
    finally:
        # Half a run, or one without values, would pass for what was saved.
        if len(saved) < len(folders) or not any(one.n_values or one.n_gradients for one in saved):
            shutil.rmtree(into, ignore_errors=True)
    return saved


def _stated(folder: Path, run: Path) -> Stored:
    """What the store says of itself; where that cannot be read, what the run's other file says."""
    try:
        return Stored.open(folder)
    except StoreError as error:
        if folder == run:
            with suppress(MechspexError, KeyError, TypeError, ValueError):
                configuration = read_texts(read_json(run / CONFIGURATION)["values"])
                return Stored(folder, _schema_of(folder / VALUES), configuration, None)
        raise StoreError(
            f"{folder / VALUES} does not say any more what its values depend on, nor does "
            f"{run / CONFIGURATION}; nothing can be saved of it"
        ) from error


def _save(folder: Path, into: Path, stated: Stored) -> Salvaged:
    found = list(_rows(folder))
    lengths = {len(row.key) for row in found}
    rows: dict[str, dict[bytes, Row]] = {table: {} for table in TABLES}
    for row in found:
        table = "gradient" if _is_gradient(row, stated, lengths) else "value"
        rows[table].setdefault(row.key, row)
    store = ValueStore(into, stated.configuration, schema=stated.schema, columns=stated.columns)
    try:
        if stated.columns is not None:
            store.describe(*stated.columns)
        n_values, n_gradients = (store.add(table, [*rows[table].values()]) for table in TABLES)
    finally:
        store.close()
    return Salvaged(into / VALUES, n_values, n_gradients)


def _rows(folder: Path) -> Iterator[Row]:
    yield from rows_in_pages(folder / VALUES)
    for log in logs_in(folder):
        yield from (row for _, row in read_log(log))


def _is_gradient(row: Row, stated: Stored, lengths: Set[int]) -> bool:
    """Whether a row is one of gradients, which have a digest as key and a number a unit more."""
    if len(row.key) != _DIGEST:
        return False
    if stated.columns is None:
        return len(lengths) > 1
    n_outputs = len(stated.columns.outputs)
    return len(row.outputs) not in (4 * n_outputs, 8 * n_outputs)


def _schema_of(file: Path) -> int:
    """The schema that the head of a file names; that of new ones where it names none."""
    schema = int.from_bytes(file.read_bytes()[_VERSION], "big")
    return schema if 0 < schema <= SCHEMA else SCHEMA
