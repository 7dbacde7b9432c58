"""Tables as CSV, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mechspex.core.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame so that a reader sees the old file or the new one, never half of it.

    Args:
        path: the file.
        frame: the table, written without its index.

    Raises:
        StoreError: the file cannot be written.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        frame.to_csv(scratch, index=False)
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise StoreError(
            f"{path} could not be written ({error.strerror or error}); the values are kept, mend "
            "that and give the same command again"
        ) from None
