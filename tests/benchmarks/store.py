"""What the store takes: beside the forward, and with ten million masks in it.

    python -m tests.benchmarks.store > tests/benchmarks/store.md

Overhead: processor seconds that a recorded value function takes beyond the function itself, for
random masks of 270 units with 8 values each, in batches of 1,024, a commit each. The share is of
the time that a mask takes at so many values a second; 57 are those of the README, on two cores.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import mechspex as mx
from mechspex.core.masks import ablate_sets, sample_masks
from mechspex.runs import mask_keys
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.row_log import Row
from mechspex.runs.run import list_runs
from mechspex.runs.store import ValueStore
from mechspex.runs.store_file import VALUES

_N_UNITS, _N_OUTPUTS = 270, 8
_RATES = {"57 values/s": 57.0, "10,000 values/s": 10_000.0}


@contextmanager
def timed(what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    print(f"| {what} | {time.perf_counter() - start:.3f} |", flush=True)


def overhead(n_masks: int) -> None:
    """Seconds a mask that recording adds, and what share of a forward that is."""

    def value(masks: np.ndarray) -> np.ndarray:
        return np.repeat(masks[:, :1], _N_OUTPUTS, axis=1).astype(np.float32)

    value.configuration = {"function": "value"}  # pyright: ignore[reportFunctionMemberAccess]
    masks = sample_masks(_N_UNITS, n_masks, seed=0)
    function = mx.FunctionValues(value, mx.parts(_N_UNITS))
    start = time.process_time()
    function(masks)
    alone = time.process_time() - start
    shares = " | ".join(f"share of a forward at {rate}" for rate in _RATES)
    print(f"\n| masks are | µs a mask | {shares} |")
    print("|---" * (2 + len(_RATES)) + "|")
    with tempfile.TemporaryDirectory() as folder:
        for what in ("measured and committed", "found in the store"):
            recorded = RecordedValues(function, Path(folder))
            recorded._batch = 1024
            start = time.process_time()
            for block in np.array_split(masks, max(1, n_masks // 4096)):
                recorded(block)
            seconds = (time.process_time() - start - alone) / n_masks
            recorded.close()
            shares = (f"{seconds * rate / _N_OUTPUTS:.2%}" for rate in _RATES.values())
            print(f"| {what} | {1e6 * seconds:.0f} | {' | '.join(shares)} |", flush=True)


def wide() -> None:
    """The neurons of SmolLM2, each ablated alone: MB of the run as it is, and with packed bits."""
    n_units, there = 46_080, mask_keys._WIDE
    now = wide_size(n_units)
    mask_keys._WIDE = n_units  # as of fewer units, and as all runs were once
    packed = wide_size(n_units)
    mask_keys._WIDE = there
    print(f"\n{n_units:,} units, each ablated alone: {now:,.1f} MB; {packed:,.0f} MB ", end="")
    print("where masks are packed bits.", flush=True)


def wide_size(n_units: int) -> float:
    """MB of a run in which each of so many units was ablated alone."""
    with tempfile.TemporaryDirectory() as scratch:
        store = ValueStore(Path(scratch), {"function": "value", "units": "wide"})
        outputs = np.zeros((512, _N_OUTPUTS), dtype=np.float32)
        for start in range(0, n_units, 512):
            columns = range(start, min(start + 512, n_units))
            masks = ablate_sets(n_units, [(column,) for column in columns])
            store.put(masks, outputs[: len(masks)])
        store.close()
        return (Path(scratch) / VALUES).stat().st_size / 1e6


def many(n_rows: int) -> None:
    """A store of so many pairs of 4,500 units: opened, counted, asked."""
    n_units = 4500
    configuration = {"function": "value", "units": "many"}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "runs" / "many"
        folder.mkdir(parents=True)
        store = ValueStore(folder, configuration)
        start = time.perf_counter()
        pairs = ((i, j) for i in range(n_units) for j in range(i + 1, n_units))
        rows = []
        outputs = np.zeros(_N_OUTPUTS, dtype="<f4").tobytes()
        for number, pair in enumerate(pairs):
            if number == n_rows:
                break
            rows.append(Row.of(np.array(pair, dtype="<u4").tobytes(), outputs))
            if len(rows) == 100_000:
                store.add("value", rows)
                rows.clear()
        store.add("value", rows)
        seconds = time.perf_counter() - start
        store.close()
        size = (folder / VALUES).stat().st_size
        print(f"\n{n_rows:,} masks of {n_units:,} units: {size / 1e6:,.0f} MB, ", end="")
        print(f"written at {n_rows / seconds:,.0f} a second.\n\n| | seconds |\n|---|---|")
        with timed("opened"):
            store = ValueStore(folder, configuration)
        with timed("asked whether it is empty"):
            assert not store.is_empty
        wanted = np.random.default_rng(0).integers(0, n_units // 2, size=(10_000, 1))
        masks = ablate_sets(n_units, [(int(i), int(i) + 1) for (i,) in wanted])
        with timed("10,000 masks asked for, as a sweep that goes on does"):
            found = store.get(masks, _N_OUTPUTS)
        assert found
        store.close()
        os.environ["MECHSPEX_RUNS"] = str(folder.parent)
        with timed("`mechspex runs` counts them"):
            assert list_runs()[0]["masks"] == n_rows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"\nPeak memory of the whole script: {peak:,.0f} MB.")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--masks", type=int, default=40_000)
    parser.add_argument("--rows", type=int, default=10_000_000)
    asked = parser.parse_args()
    print("# The store\n")
    print(f"`python -m tests.benchmarks.store --masks {asked.masks} --rows {asked.rows}`\n")
    print((__doc__ or "").split("\n\n")[2].strip())
    overhead(asked.masks)
    wide()
    many(asked.rows)
    print("\nTwo cores of a busy machine.")


if __name__ == "__main__":
    main()
