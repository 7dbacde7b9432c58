"""What a run has measured: its masks and their values, read without changing anything."""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.errors import StoreError
from mechspex.core.masks import unpack
from mechspex.runs.store import VALUES


def measured_masks(
    folder: Path, n_units: int, n_outputs: int
) -> tuple[Bool[np.ndarray, "mask unit"], Float[np.ndarray, "mask output"]]:
    """The masks with finite values that a run holds, and these values.

    Args:
        folder: the run's folder.
        n_units: the width of its masks.
        n_outputs: how many outputs a value has.

    Returns:
        The masks and their values; none where the run keeps values of other units or outputs, or
        no values at all.

    Raises:
        StoreError: the file is damaged.
    """
    packed, values = [], []
    for mask, outputs, checksum in _rows(folder / VALUES):
        single = len(outputs) == 4 * n_outputs
        if len(mask) != -(-n_units // 8) or not (single or len(outputs) == 8 * n_outputs):
            packed.clear()
            break
        if checksum != zlib.crc32(mask + outputs):
            raise StoreError(
                f"{folder / VALUES}: values do not match their checksum; the file is damaged, move "
                "it away to measure again"
            )
        packed.append(mask)
        values.append(np.frombuffer(outputs, dtype="<f4" if single else "<f8").astype(np.float64))
    if not packed:
        return np.empty((0, n_units), dtype=bool), np.empty((0, n_outputs))
    bits = np.frombuffer(b"".join(packed), dtype=np.uint8).reshape(len(packed), -1)
    found = np.array(values)
    finite = np.isfinite(found).all(axis=1)
    return unpack(bits, n_units)[finite], found[finite]


def _rows(file: Path) -> list[tuple[bytes, bytes, int]]:
    """The rows of a store, in the order of their masks; none where there is no store."""
    if not file.exists():
        return []
    # Where nothing is left to be merged SQLite need not make a file beside this one.
    merged = not file.with_name(f"{file.name}-wal").exists()
    uri = f"{file.absolute().as_uri()}?{'immutable=1' if merged else 'mode=ro'}"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as database:
            return database.execute("SELECT mask, outputs, checksum FROM value").fetchall()
    except sqlite3.Error as error:
        raise StoreError(
            f"{file} cannot be read ({error}); the file is damaged, move it away to measure again"
        ) from None
