"""What a run has measured: its masks and their values, read without changing anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from mechspex.runs.mask_keys import is_key_of, masks_of
from mechspex.runs.stored import read_rows


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
    found: dict[bytes, np.ndarray] = {}
    for key, outputs, _ in read_rows(folder):
        single = len(outputs) == 4 * n_outputs
        if not (is_key_of(key, n_units) and (single or len(outputs) == 8 * n_outputs)):
            found.clear()
            break
        found[key] = np.frombuffer(outputs, dtype="<f4" if single else "<f8").astype(np.float64)
    if not found:
        return np.empty((0, n_units), dtype=bool), np.empty((0, n_outputs))
    values = np.array(list(found.values()))
    finite = np.isfinite(values).all(axis=1)
    return masks_of(list(found), n_units)[finite], values[finite]
