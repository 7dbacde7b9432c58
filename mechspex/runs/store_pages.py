"""Rows out of the pages of a damaged store, one by one: no index is needed, each has a checksum.

The format is that of https://sqlite.org/fileformat2.html. The tables of values are WITHOUT ROWID:
their rows lie in the cells of index pages (2 inside the tree, 10 at its leaves).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from mechspex.runs.row_log import Row

_INSIDE, _LEAF = 2, 10
_USUAL_SIZE = 4096
_WAL_HEAD, _FRAME_HEAD = 32, 24
# Bytes of a stored integer, by its serial type; 8 and 9 are the numbers 0 and 1.
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def rows_in_pages(file: Path) -> Iterator[Row]:
    """Every row of a store whose bytes match its checksum, those of its write-ahead log as well.

    A row may come more than once. Rows of values and of gradients come alike.

    Args:
        file: the database; its log lies beside it.
    """
    content = file.read_bytes()
    size = _page_size(content)
    pages = {
        1 + number: content[number * size : (number + 1) * size]
        for number in range(-(-len(content) // size))
    }
    yield from _rows(pages, pages, size)
    log = file.with_name(f"{file.name}-wal")
    if log.exists():
        newer = _logged(log.read_bytes(), size)
        # A long row may go on in pages of either file.
        for number, page in newer:
            yield from _rows({number: page}, pages | dict(newer), size)


def _page_size(content: bytes) -> int:
    size = int.from_bytes(content[16:18], "big")
    size = 65536 if size == 1 else size
    return size if 512 <= size <= 65536 and size & (size - 1) == 0 else _USUAL_SIZE


def _logged(content: bytes, size: int) -> list[tuple[int, bytes]]:
    """The pages of a write-ahead log, the oldest first."""
    frame = _FRAME_HEAD + size
    starts = range(_WAL_HEAD, len(content) - frame + 1, frame)
    return [
        (int.from_bytes(content[at : at + 4], "big"), content[at + _FRAME_HEAD : at + frame])
        for at in starts
    ]


def _rows(some: Mapping[int, bytes], pages: Mapping[int, bytes], size: int) -> Iterator[Row]:
    for page in some.values():
        if page[:1] not in (bytes([_INSIDE]), bytes([_LEAF])):
            continue
        inside = page[0] == _INSIDE
        first, n_cells = (12 if inside else 8), int.from_bytes(page[3:5], "big")
        pointers = page[first : first + 2 * n_cells]
        for (place,) in struct.iter_unpack(">H", pointers[: len(pointers) // 2 * 2]):
            try:
                row = _row(_payload(page, place + 4 * inside, pages, size))
            except (IndexError, ValueError, KeyError):
                continue
            if row.is_whole:
                yield row


def _payload(page: bytes, place: int, pages: Mapping[int, bytes], size: int) -> bytes:
    """All bytes of a cell, those on overflow pages as well."""
    length, place = _varint(page, place)
    most, least = (size - 12) * 64 // 255 - 23, (size - 12) * 32 // 255 - 23
    here = length
    if length > most:
        here = least + (length - least) % (size - 4)
        here = here if here <= most else least
    found = [page[place : place + here]]
    left, at = length - here, place + here
    next_page = int.from_bytes(page[at : at + 4], "big") if left else 0
    for _ in range(-(-left // (size - 4)) if left > 0 else 0):
        more = pages[next_page]
        found.append(more[4:])
        next_page = int.from_bytes(more[:4], "big")
    return b"".join(found)[:length]


def _row(payload: bytes) -> Row:
    """The three columns of a row: two of bytes, and a whole number."""
    end, place = _varint(payload, 0)
    types = []
    while place < end:
        kind, place = _varint(payload, place)
        types.append(kind)
    key, outputs, checksum = types
    if key < 12 or outputs < 12 or key % 2 or outputs % 2:
        raise ValueError("these are no bytes")
    middle = end + (key - 12) // 2
    last = middle + (outputs - 12) // 2
    if checksum in (8, 9):
        number = checksum - 8
    else:
        number = int.from_bytes(payload[last : last + _INTEGERS[checksum]], "big", signed=True)
    return Row(payload[end:middle], payload[middle:last], number)


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """A number of one to nine bytes, seven bits each, and the place behind it."""
    number = 0
    for at in range(place, place + 8):
        number = number << 7 | content[at] & 0x7F
        if content[at] < 0x80:
            return number, at + 1
    return number << 8 | content[place + 8], place + 9
