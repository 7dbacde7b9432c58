"""Plain JSON: numbers, lists and dictionaries, written whole or not at all, and read back."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mechspex.core.errors import Refused, RunError, StoreError
from mechspex.core.statistics import Estimate

# The entry of a file that says what the others were when they were written.
CHECKSUM = "checksum"


def plain(value: Any) -> Any:
    """Numbers, lists and dictionaries as JSON has them; what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def plain_rows(frame: Any) -> list[dict[str, Any]]:
    """The rows of a pandas frame as JSON can hold them; pandas itself is not loaded for this."""
    return [plain(row) for row in frame.to_dict("records")]


def write_json(path: Path, content: object) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_text(json.dumps(content, indent=1, allow_nan=True) + "\n")
        scratch.replace(path)
    except OSError as error:
        raise unwritable(path, error) from None


def unwritable(path: Path, error: OSError) -> StoreError:
    """What is said of a file that could not be written, with what to do about it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        way = "free some space"
    elif error.errno == errno.ENOENT:
        way = f"make the folder {path.parent} first"
    else:
        way = "name a place that can be written"
    return StoreError(f"{path} could not be written ({error.strerror}); {way}")


def checked(content: Mapping[str, Any]) -> dict[str, Any]:
    """The same with a checksum of it, which `read_json` looks at."""
    return {**content, CHECKSUM: _checksum(json.loads(json.dumps(content)))}


def _checksum(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def read_json(path: Path) -> Any:
    """What a file holds, without the checksum that it may have.

    Raises:
        RunError: its content is not that of its checksum.
        Refused: no such file, or one that is not JSON.
    """
    try:
        found = json.loads(path.read_bytes())
        told = found.pop(CHECKSUM, None) if isinstance(found, dict) else None
        if told is not None and told != _checksum(found):
            raise RunError(
                f"{path} is damaged: it is not what was written (checksum); take it away and give "
                "the same command again, which measures nothing anew"
            )
        return found
    except RunError:
        raise
    except OSError as error:
        raise Refused(f"{path} is refused: it cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise Refused(f"{path} is refused: it is not JSON ({error})") from None


def read_number(stored: object) -> float:
    """A stored number; null stands for one that is not finite.

    Raises:
        TypeError: anything else.
    """
    if stored is None:
        return float("nan")
    if isinstance(stored, bool) or not isinstance(stored, int | float):
        raise TypeError(f"{stored!r} is no number")
    return float(stored)


def read_margin(stored: object) -> float:
    """A stored number above zero; null stands for none that is finite.

    Raises:
        TypeError: anything else.
    """
    return float("inf") if stored is None else read_number(stored)


def read_array(stored: object, *names: str, rows: int | None = None) -> np.ndarray:
    """A stored array of numbers, with an axis for each name; nulls stand for what is not finite.

    Args:
        stored: nested lists of numbers and nulls.
        *names: the names of the axes, for complaints.
        rows: the length of the first axis; any length if not given.

    Raises:
        TypeError, ValueError: anything else.
    """
    array = np.array(stored, dtype=np.float64)
    if not array.size and len(names) == 2:
        array = array.reshape(len(array), -1) if len(array) else np.empty((0, 1))
    if array.ndim != len(names) or (rows is not None and len(array) != rows):
        raise ValueError(f"numbers of shape {list(array.shape)} where {list(names)} belong")
    return array


def read_estimate(stored: object) -> Estimate:
    """A stored ``[value, low, high]``.

    Raises:
        TypeError, ValueError: anything else.
    """
    if not isinstance(stored, list):
        raise TypeError(f"{stored!r} is no list of value, low and high")
    value, low, high = (read_number(part) for part in stored)
    return Estimate(value, low, high)


def read_whole(stored: object) -> int:
    """A stored whole number.

    Raises:
        TypeError: anything else.
    """
    if isinstance(stored, bool) or not isinstance(stored, int):
        raise TypeError(f"{stored!r} is no whole number")
    return stored


def read_text(stored: object) -> str:
    """A stored text.

    Raises:
        TypeError: anything else.
    """
    if not isinstance(stored, str):
        raise TypeError(f"{stored!r} is no text")
    return stored


def read_texts(stored: object) -> dict[str, str]:
    """A stored dictionary of texts.

    Raises:
        TypeError: anything else.
    """
    if not isinstance(stored, dict):
        raise TypeError(f"{stored!r} is no dictionary")
    return {read_text(key): read_text(value) for key, value in stored.items()}


def read_term(stored: object) -> tuple[int, ...]:
    """A stored set of units, by column.

    Raises:
        TypeError: anything else.
    """
    if not isinstance(stored, list):
        raise TypeError(f"{stored!r} is no list of columns")
    return tuple(read_whole(column) for column in stored)
