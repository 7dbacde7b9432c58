"""Rows of one process in a file that it alone appends to, for drives whose locks do nothing."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mechspex.core.errors import StoreError

# Beside a store; each process has a name of its own.
_PATTERN = "values-*.rows"
# Before each row: its table, the bytes of its key and of its outputs, and their checksum.
_HEAD = struct.Struct("<BIII")
TABLES = ("value", "gradient")


class Row(NamedTuple):
    """A row of a store.

    Attributes:
        key: the mask, see `mask_keys`.
        outputs: the mask's values, as bytes.
        checksum: the CRC-32 of both.
    """

    key: bytes
    outputs: bytes
    checksum: int

    @classmethod
    def of(cls, key: bytes, outputs: bytes) -> Row:
        """The row with its checksum."""
        return cls(key, outputs, zlib.crc32(key + outputs))

    @property
    def is_whole(self) -> bool:
        """Whether its bytes are those that were written."""
        return self.checksum == zlib.crc32(self.key + self.outputs)


class RowLog:
    """A log that this process writes; the file is made with the first rows.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _PATTERN.replace("*", os.urandom(8).hex())

    def append(self, table: str, rows: Iterable[Row]) -> None:
        """Write rows, so that they outlive this process and the machine.

        Args:
            table: ``value`` or ``gradient``.
            rows: the rows.

        Raises:
            StoreError: the disk is full, or the file cannot be written.
        """
        number = TABLES.index(table)
        heads = ((_HEAD.pack(number, len(r.key), len(r.outputs), r.checksum), r) for r in rows)
        content = b"".join(head + row.key + row.outputs for head, row in heads)
        try:
            with self._path.open("ab") as file:
                end = file.tell()
                try:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    # Half a row would hide those that are written behind it.
                    os.truncate(self._path, end)
                    raise
        except OSError as error:
            raise StoreError(
                f"{self._path} could not be written ({error.strerror}); all values committed "
                "before are safe, free some space and start again"
            ) from None


def logs_in(folder: Path) -> list[Path]:
    """The logs of all processes that wrote there."""
    return sorted(folder.glob(_PATTERN))


def read_log(file: Path) -> Iterator[tuple[str, Row]]:
    """The table and the row of each that was written whole; others are to be measured again.

    Args:
        file: one of `logs_in`; its process may still write it.

    Raises:
        StoreError: the file cannot be read.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise StoreError(f"{file} cannot be read ({error.strerror})") from None
    place = 0
    while place + _HEAD.size <= len(content):
        table, n_key, n_outputs, checksum = _HEAD.unpack_from(content, place)
        start = place + _HEAD.size
        place = start + n_key + n_outputs
        row = Row(content[start : start + n_key], content[start + n_key : place], checksum)
        if place <= len(content) and table < len(TABLES) and row.is_whole:
            yield TABLES[table], row
