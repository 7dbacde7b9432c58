"""Plain JSON: numbers, lists and dictionaries, written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mechspex.errors import StoreError


def plain(value: Any) -> Any:
    """Numbers, lists and dictionaries as JSON has them; what is not finite becomes null."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def plain_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as JSON can hold them."""
    return [plain(row) for row in frame.to_dict("records")]


def write_json(path: Path, content: object) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_text(json.dumps(content, indent=1, allow_nan=True) + "\n")
        scratch.replace(path)
    except OSError as error:
        raise StoreError(
            f"{path} could not be written ({error.strerror}); free some space"
        ) from None
