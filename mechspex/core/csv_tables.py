"""Tables as CSV, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mechspex.core.checks import number_in
from mechspex.core.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd

# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame so that a reader sees the old file or the new one, never half of it.

    A spreadsheet takes a text that begins with ``=``, ``+``, ``-`` or ``@`` for a formula, and a
    word of a prompt may be one: an apostrophe before it says that it is text.

    Args:
        path: the file.
        frame: the table, written without its index.

    Raises:
        StoreError: the file cannot be written.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        frame.map(_as_text).to_csv(scratch, index=False)
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise StoreError(
            f"{path} could not be written ({error.strerror or error}); the values are kept, mend "
            "that and give the same command again"
        ) from None


def _as_text(cell: object) -> object:
    if not isinstance(cell, str) or not cell.startswith(_FORMULA):
        return cell
    return cell if number_in(cell) is not None else f"'{cell}"
