"""Where a value stands in a TOML text, so that a complaint about it can name the line."""

from __future__ import annotations

import tomllib
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any


def line_of(text: str, path: Sequence[str | int]) -> int:
    """The line, from 1, on which the value at `path` begins.

    A value begins on the first line without which the text up to it lacks the value: the parser
    itself decides, whichever way the file is laid out.

    Args:
        text: a whole TOML text without errors.
        path: keys of tables and indices of arrays, ``("templates", 1, "prompt")``. Where the text
            does not have the whole path, the line is that of the last part it has.
    """
    lines = text.split("\n")
    whole = tomllib.loads(text)
    while path and not _holds(whole, path):
        path = path[:-1]
    if not path:
        return 1

    def complete(number: int) -> tuple[int, dict[str, Any]]:
        """The last of the first `number` lines after which the text can be read, and its content.

        An array that goes on over many lines is closed here.
        """
        for last in range(number, 0, -1):
            head = "\n".join(lines[:last])
            for closed in (head, f"{head}\n]"):
                try:
                    return last, tomllib.loads(closed)
                except tomllib.TOMLDecodeError:
                    continue
        return 0, {}

    last = 1 + bisect_left(
        range(1, len(lines)), True, key=lambda number: _holds(complete(number)[1], path)
    )
    first = complete(last - 1)[0] + 1
    while first < last and lines[first - 1].strip()[:1] in ("", "#"):
        first += 1
    return first


def _holds(value: Any, path: Sequence[str | int]) -> bool:
    """Whether there is a value at `path`."""
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return False
    return True
