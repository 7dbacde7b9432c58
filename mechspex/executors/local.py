"""The local executor: measures batch by batch, commits each, and never measures a mask twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from tqdm import tqdm

from mechspex.masks import check_masks, pack
from mechspex.runs import ValueStore
from mechspex.units import UnitSet
from mechspex.values import ValueFunction
from mechspex.values.value_function import configuration_of

# Masks of one commit: what a killed process has to measure again at most.
_BATCH = 32


class RecordedValues:
    """A value function that remembers: the same seam, with a store and a progress bar behind it.

    A value that is not finite is recorded as it is: the caller sees which masks failed.

    Args:
        value_function: what measures the masks.
        folder: where the values are kept; None keeps them in memory.
        progress: draw a progress bar on stderr.

    Attributes:
        configuration: everything the values depend on but the mask.
        stage: what the masks are for, shown beside the progress bar.
        measured: how many masks were measured here, those found in the store not counted.
        seconds: how long that took.

    Raises:
        RunError: the folder cannot be written, or holds values of another configuration.
        StoreError: the file there is no store of this version.
    """

    def __init__(
        self, value_function: ValueFunction, folder: Path | None, *, progress: bool = False
    ) -> None:
        self.configuration = configuration_of(value_function)
        self._value_function = value_function
        self._store = ValueStore(folder, self.configuration)
        self._progress = progress
        self._used: set[bytes] = set()
        self.stage = "masks"
        self.measured = 0
        self.seconds = 0.0

    @property
    def units(self) -> UnitSet:
        return self._value_function.units

    @property
    def n_units(self) -> int:
        return self._value_function.n_units

    @property
    def outputs(self) -> tuple[str, ...]:
        return self._value_function.outputs

    @property
    def used(self) -> int:
        """How many different masks were asked for."""
        return len(self._used)

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def __call__(self, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, "mask output"]:
        """Values of `masks`, from the store where it has them."""
        masks = check_masks(masks, self.n_units)
        unique, place = np.unique(masks, axis=0, return_inverse=True)
        # In the order of first use, so that what is asked for first is measured first.
        _, first = np.unique(place, return_index=True)
        order = np.argsort(first, kind="stable")
        values = np.full((len(unique), len(self.outputs)), np.nan, dtype=np.float32)
        self._used.update(map(bytes, pack(unique)))
        known = self._store.get(unique, len(self.outputs))
        for row, outputs in known.items():
            values[row] = outputs
        missing = np.array([row for row in order if row not in known], dtype=int)
        for batch in self._batches(missing):
            start = time.perf_counter()
            values[batch] = self._value_function(unique[batch])
            self._store.put(unique[batch], values[batch])
            self.seconds += time.perf_counter() - start
            self.measured += len(batch)
        return values[place.ravel()]

    def _batches(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        if not len(rows):
            return
        n_values = len(self.outputs)
        bar = tqdm(
            total=len(rows) * n_values,
            desc=self.stage,
            unit=" values",
            disable=not self._progress,
        )
        with bar:
            for start in range(0, len(rows), _BATCH):
                batch = rows[start : start + _BATCH]
                yield batch
                bar.update(len(batch) * n_values)
