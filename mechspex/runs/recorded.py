"""Values that are kept: measured batch by batch, each committed, and no mask measured twice."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import RLock

import numpy as np
from jaxtyping import Bool, Float
from tqdm.auto import tqdm

from mechspex.core.backward_rules import BackwardRules
from mechspex.core.errors import RunError
from mechspex.core.in_force import Streams, spread
from mechspex.core.masks import check_masks, pack
from mechspex.core.recipe import Recipe
from mechspex.core.units import UnitSet
from mechspex.core.value_function import (
    ValueFunction,
    ValuesLike,
    as_value_function,
    values_of,
    without_gradients,
)
from mechspex.runs.same_function import same_function
from mechspex.runs.store import IDENTITIES, ValueStore

# What a killed process has to measure again: one commit, which takes about this long.
_SECONDS = 1.0
# Masks of a commit, powers of two: as many as time says, so many at first and so many at most.
_FIRST, _MOST = 32, 4096
# Masks that tell how long one takes.
_TIMED = 8
# Gradients of a commit, each several times the work of a value.
_GRADIENTS = 8


class RecordedValues(ValueFunction):
    """A value function that remembers: the same seam, with a store and a progress bar behind it.

    A value that is not finite is recorded as it is: the caller sees which masks failed. Values are
    kept in the precision in which they come. Threads wait for one another.

    Args:
        value_function: what measures the masks.
        folder: where the values are kept; None keeps them in memory.
        progress: draw a progress bar on stderr.

    Attributes:
        stage: what the masks are for, shown beside the progress bar.
        measured: how many masks were measured here, those found in the store not counted.
        gradients: how many gradients were measured here.
        seconds: how long both took.

    Raises:
        RunError: the folder cannot be written, or holds values of another configuration or of
            another function.
        StoreError: the file there is no store of this version.
    """

    def __init__(
        self, value_function: ValuesLike, folder: Path | None, *, progress: bool = False
    ) -> None:
        self._value_function = self._own = as_value_function(value_function)
        # Read once: what is in the store are values of this configuration.
        here = self._value_function.configuration
        self._store = ValueStore(folder, here, columns=(self.units, self.outputs))
        try:
            self._configuration = same_function(self._store, self._value_function, here)
        except BaseException:
            self._store.close()
            raise
        self._store.describe(self.units, self.outputs)
        # What is recorded here already is measured by the workers of its own executor.
        if not isinstance(self._value_function, RecordedValues):
            self._value_function = spread(self._value_function)
        self._progress = progress
        self._lock = RLock()
        self._batch = min(_FIRST, self._value_function.first_batch)
        self._used: set[int] = set()
        self.stage = "masks"
        self.measured = 0
        self.seconds = 0.0
        self.gradients = 0

    @property
    def units(self) -> UnitSet:
        return self._value_function.units

    @property
    def outputs(self) -> tuple[str, ...]:
        return self._value_function.outputs

    @property
    def configuration(self) -> dict[str, str]:
        return self._configuration

    @property
    def in_own_dtype(self) -> ValueFunction:
        """The same values in the model's own dtype; recorded only if they are those here."""
        exact = self._value_function.in_own_dtype
        return self if exact is self._value_function else exact

    def with_backward(self, rules: BackwardRules) -> ValueFunction:
        """The same values, with gradients by other rules: not recorded here."""
        return self._own.with_backward(rules) if rules else self

    @property
    def recipe(self) -> Recipe:
        return self._value_function.recipe

    @property
    def first_batch(self) -> int:
        return self._value_function.first_batch

    @property
    def differentiable(self) -> bool:
        return self._value_function.differentiable

    @property
    def used(self) -> int:
        """How many different masks were asked for, those of gradients among them."""
        return len(self._used)

    @property
    def progress(self) -> bool:
        """Whether progress is shown."""
        return self._progress

    def say(self, line: str) -> None:
        """Print a line beside the progress bars; nothing where there are none."""
        if self._progress:
            tqdm.write(line, file=sys.stderr)

    def n_missing(self, masks: Bool[np.ndarray, "mask unit"]) -> int:
        """How many of these different masks the store does not have."""
        return len(masks) - len(self._store.get(masks, len(self.outputs)))

    def pace(self, masks: Bool[np.ndarray, "mask unit"]) -> float | None:
        """The seconds that a mask takes, from the first that the store does not have, which are
        measured; None where it has all of them."""
        known = self._store.get(masks, len(self.outputs))
        missing = [row for row in range(len(masks)) if row not in known][:_TIMED]
        if not missing:
            return None
        before = self.seconds
        self(masks[missing])
        if isinstance(self._value_function, Streams):
            # Workers that are being started tell nothing of those that are there.
            return self._value_function.seconds_a_mask
        return (self.seconds - before) / len(missing)

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def __call__(self, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, "mask output"]:
        """Values of `masks`, from the store where it has them."""
        masks = check_masks(masks, self.n_units)
        (values,) = self.in_blocks([masks], len(masks))
        return values

    def value_and_gradient(
        self, masks: Float[np.ndarray, "mask unit"]
    ) -> tuple[Float[np.ndarray, "mask output"], Float[np.ndarray, "mask output unit"]]:
        """Values of soft masks and their gradients, measured anew: the store has their mean."""
        soft = np.ascontiguousarray(masks, dtype=np.float32)
        self._used.update(hash(row.tobytes()) for row in soft)
        start = time.perf_counter()
        values, gradients = self._value_function.value_and_gradient(soft)
        self.seconds += time.perf_counter() - start
        self.gradients += len(soft)
        return values, gradients

    def value_and_mean_gradient(
        self, masks: Float[np.ndarray, "mask unit"]
    ) -> tuple[Float[np.ndarray, "mask output"], Float[np.ndarray, "mask unit"]]:
        """Values of soft masks, and the gradient of their mean over outputs, from the store where
        it has them.

        Raises:
            Refused: the value function has no gradients.
        """
        if not self.differentiable:
            raise without_gradients(self._value_function)
        soft = np.ascontiguousarray(masks, dtype=np.float32)
        self._used.update(hash(row.tobytes()) for row in soft)
        n_outputs = len(self.outputs)
        found = np.zeros((len(soft), n_outputs + self.n_units), dtype=np.float32)
        known = self._store.get_gradients(soft, found.shape[1])
        for row, numbers in known.items():
            found = _with(found, row, numbers)
        missing = np.array([row for row in range(len(soft)) if row not in known], dtype=int)
        shown = self._progress and bool(len(missing))
        bar = tqdm(desc=self.stage, total=len(missing), unit=" gradients", disable=not shown)
        with self._lock, bar:
            for start in range(0, len(missing), _GRADIENTS):
                rows = missing[start : start + _GRADIENTS]
                before = time.perf_counter()
                measured = self._value_function.value_and_mean_gradient(soft[rows])
                self._check_unchanged()
                found = _with(found, rows, np.concatenate(measured, axis=1))
                self._store.put_gradients(soft[rows], found[rows])
                self.seconds += time.perf_counter() - before
                self.gradients += len(rows)
                bar.update(len(rows))
        return found[:, :n_outputs], found[:, n_outputs:]

    def in_blocks(
        self, blocks: Iterable[Bool[np.ndarray, "mask unit"]], n_masks: int
    ) -> Iterator[Float[np.ndarray, "mask output"]]:
        """Values of each block of masks in turn, under one progress bar.

        Args:
            blocks: made one by one, so that no more than one of them needs to be in memory.
            n_masks: in all blocks together, for the time left.
        """
        bar = None
        with ExitStack() as stack:
            for masks in blocks:
                unique, place, values, missing = self._recall(check_masks(masks, self.n_units))
                # What the store has, or the block twice, takes no time.
                n_masks -= len(masks) - len(missing)
                if len(missing):
                    if bar is None:
                        bar = stack.enter_context(self._bar(n_masks))
                    bar.total = n_masks
                    for batch, measured in self._measured(unique, missing):
                        values = _with(values, batch, measured)
                        bar.update(len(batch))
                yield values[place]

    def _bar(self, n_masks: int) -> tqdm:
        return tqdm(desc=self.stage, total=n_masks, unit=" masks", disable=not self._progress)

    def _measured(
        self, masks: Bool[np.ndarray, "mask unit"], rows: np.ndarray
    ) -> Iterator[tuple[np.ndarray, Float[np.ndarray, "row output"]]]:
        """These rows in batches, and their values: committed. Workers give them in any order."""
        if isinstance(self._value_function, Streams):
            start = time.perf_counter()
            for part, values in self._value_function.as_they_come(masks[rows]):
                self._commit(masks[rows[part]], values, start)
                yield rows[part], values
                start = time.perf_counter()
            return
        with self._value_function.in_turn():
            while len(rows):
                batch, rows = rows[: self._batch], rows[self._batch :]
                yield batch, self._measure(masks, batch)

    def _recall(
        self, masks: Bool[np.ndarray, "mask unit"]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The different masks, where each mask is among them, their values, the rows to measure."""
        # Numbered in the order of first use, so that what is asked for first is measured first.
        number: dict[bytes, int] = {}
        keys = map(bytes, pack(masks))
        place = np.array([number.setdefault(key, len(number)) for key in keys], dtype=int)
        _, first = np.unique(place, return_index=True)
        unique = masks[first]
        # Hashes, as the masks of 46,080 units would take more memory than all else.
        self._used.update(map(hash, number))
        values = np.full((len(unique), len(self.outputs)), np.nan, dtype=np.float32)
        known = self._store.get(unique, len(self.outputs))
        for row, outputs in known.items():
            values = _with(values, row, outputs)
        missing = np.array([row for row in range(len(unique)) if row not in known], dtype=int)
        return unique, place, values, missing

    def _check_unchanged(self) -> None:
        """What a model is may change while a run is open: its weights, the hooks that it carries.

        Raises:
            RunError: the values that were just measured are of another configuration.
        """
        if "function" in self._configuration:  # what a function reads it may change itself
            return
        now = self._value_function.configuration
        if now != self._configuration:
            keys = sorted(now | self._configuration)
            there = self._configuration
            changed = [
                f"{key}: {there.get(key)} before, {now.get(key)} now"
                for key in keys
                if key not in IDENTITIES and there.get(key) != now.get(key)
            ]
            if changed:
                raise RunError(
                    f"the model has changed while it was measured ({'; '.join(changed)}); what was "
                    "measured since is not kept: undo that, or begin anew in another run"
                )

    def _measure(
        self, masks: Bool[np.ndarray, "mask unit"], rows: np.ndarray
    ) -> Float[np.ndarray, "row output"]:
        """Measure a batch and commit it; the next one is sized by the time that took."""
        with self._lock:
            start = time.perf_counter()
            values = values_of(self._value_function(masks[rows]), len(rows), len(self.outputs))
            # Taken anew: values are kept by what was asked for, whatever was written into that.
            seconds = self._commit(masks[rows], values, start)
            self._batch = _next_batch(self._batch, len(rows), seconds)
        return values

    def _commit(self, masks: np.ndarray, values: np.ndarray, start: float) -> float:
        """Keep values that were measured since `start`, and say how many seconds that took."""
        with self._lock:
            self._check_unchanged()
            self._store.put(masks, values)
            seconds = time.perf_counter() - start
            self.seconds += seconds
            self.measured += len(masks)
        return seconds


def _next_batch(size: int, n_masks: int, seconds: float) -> int:
    """How many masks to commit next, after `n_masks` took so long where `size` were allowed."""
    fitting = max(1, int(min(_MOST, n_masks * _SECONDS / max(seconds, 1e-9))))
    fitting = 2 ** (fitting.bit_length() - 1)
    if size * seconds > 1.5 * _SECONDS * n_masks:
        return min(size, fitting)
    if seconds < 0.5 * _SECONDS and n_masks == size:
        return min(_MOST, max(2 * size, min(_FIRST, fitting)))
    return size


def _with(values: np.ndarray, rows: np.ndarray | int, new: np.ndarray) -> np.ndarray:
    """The values with some more, in double precision as soon as one of them is."""
    values = values.astype(np.result_type(values, new), copy=False)
    values[rows] = new
    return values
