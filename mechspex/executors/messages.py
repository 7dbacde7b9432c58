"""Messages between coordinator and workers: a JSON header, then arrays as they lie in memory."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

_LENGTH = struct.Struct("<I")


def packed(header: Mapping[str, Any], *arrays: np.ndarray) -> bytes:
    """A message.

    Args:
        header: what JSON can hold; ``arrays`` is taken.
        *arrays: numbers of any shape.
    """
    whole = [np.ascontiguousarray(array) for array in arrays]
    described = [[array.dtype.str, list(array.shape)] for array in whole]
    text = json.dumps({**header, "arrays": described}).encode()
    return b"".join([_LENGTH.pack(len(text)), text, *(array.tobytes() for array in whole)])


def unpacked(message: bytes) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The header and the arrays of a message; `ValueError` and the like of anything else."""
    (length,) = _LENGTH.unpack_from(message)
    place = _LENGTH.size + length
    header = json.loads(message[_LENGTH.size : place])
    arrays = []
    for text, shape in header.pop("arrays"):
        dtype = np.dtype(text)
        if dtype.kind not in "biuf":
            raise ValueError(f"an array of {text} is no array of numbers")
        count = int(np.prod(shape, dtype=np.int64))
        arrays.append(np.frombuffer(message, dtype, count, place).reshape(shape))
        place += count * dtype.itemsize
    return header, arrays
