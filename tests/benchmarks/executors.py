"""Workers: what two give where one gave so much, and how many one coordinator serves.

    python -m tests.benchmarks.executors > tests/benchmarks/executors.md

Rates are those of a second call: workers are there and have made the value function. The
coordinator's cost is the processor time of its process, for masks of 270 units with 8 values each
from worker processes that take no time for them, committed to a run on disk.
"""

import argparse
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import mechspex as mx
from mechspex.core.masks import sample_masks
from mechspex.core.value_function import ValueFunction
from mechspex.executors.messages import packed, unpacked
from mechspex.executors.pool import Pool
from mechspex.executors.processes import Processes
from mechspex.runs.recorded import RecordedValues

N_UNITS, N_OUTPUTS = 270, 8
# What a worker takes for an answer; masks of a request → how many are measured.
_SECONDS = 0.5
_PARTS = {1: 3_000, 16: 30_000, 256: 100_000, 4096: 200_000}


def empty(masks: np.ndarray) -> np.ndarray:
    """A value function that takes no time."""
    return np.repeat(masks[:, :1], N_OUTPUTS, axis=1).astype(np.float32)


@contextmanager
def one_worker() -> Iterator[Pool]:
    """A worker with one thread, whatever cores there are."""
    executor = Processes(1)
    executor._n_threads = 1
    with Pool(executor) as pool:
        yield pool


def rate(values: ValueFunction, n_masks: int) -> float:
    """Values a second of a call, after one that starts what has to be started."""
    masks = sample_masks(N_UNITS, 2 * n_masks, seed=0)
    values(masks[:n_masks])
    start = time.perf_counter()
    values(masks[n_masks:])
    return n_masks * len(values.outputs) / (time.perf_counter() - start)


def memory(pid: int) -> tuple[float, float]:
    """MB that a process has, and its share where several have the same."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = [re.search(rf"^{name}:\s+(\d+)", text, re.M) for name in ("Rss", "Pss")]
    rss, pss = (int(match[1]) / 1024 for match in found if match)
    return rss, pss


def models(n_masks: int) -> None:
    model = mx.load_model("smollm2-135m")
    values = mx.ComponentValues(model, mx.load_task("ioi", model, n_prompts=N_OUTPUTS), "heads")
    print("\n| who measures | threads each | values a second | MB each | MB each, shared apart |")
    print("|---|---|---|---|---|")
    with one_worker() as pool:
        alone = rate(pool.on(values), n_masks)
        print(f"| one worker process | 1 | {alone:.1f} | | |", flush=True)
    n_cores = len(os.sched_getaffinity(0))
    with mx.executor(f"processes:{n_cores}") as pool:
        all_cores = rate(pool.on(values), n_masks)
        sizes = np.mean([memory(w.pid) for w in pool._workers.values()], axis=0)  # pyright: ignore
        print(
            f"| {n_cores} worker processes | 1 | {all_cores:.1f} ({all_cores / alone:.2f} ×) | "
            f"{sizes[0]:.0f} | {sizes[1]:.0f} |"
        )
    print(f"| this process | {n_cores} | {rate(values, n_masks):.1f} | | |", flush=True)


def coordinator() -> None:
    values = mx.FunctionValues(empty, mx.parts(N_UNITS))
    print(
        "\n| masks a request | µs a mask | ms a request | masks a second | bytes a mask on disk |"
    )
    print("|---|---|---|---|---|")
    with mx.executor("processes:2") as pool, tempfile.TemporaryDirectory() as folder:
        pool.on(values)(sample_masks(N_UNITS, 100, seed=1))
        for size, n_masks in _PARTS.items():
            run = Path(folder) / str(size)
            recorded = RecordedValues(values, run)
            for pace in recorded._value_function._paces.values():  # pyright: ignore
                pace.size = size
                pace.see = lambda *_: None
            masks = sample_masks(N_UNITS, n_masks, seed=0)
            wall, own = time.perf_counter(), time.process_time()
            for block in np.array_split(masks, max(1, n_masks // 50_000)):
                recorded(block)
            own, wall = time.process_time() - own, time.perf_counter() - wall
            recorded.close()
            on_disk = (run / "values.sqlite").stat().st_size / n_masks
            print(
                f"| {size} | {1e6 * own / n_masks:.0f} | {1e3 * own * size / n_masks:.2f} | "
                f"{n_masks / wall:,.0f} | {on_disk:.0f} |",
                flush=True,
            )


class Slow:
    """So many workers that take half a second for `size` masks and no processor, as on machines of
    their own."""

    def __init__(self, n_workers: int, size: int) -> None:
        self.n_workers, self.size = n_workers, size

    def start(self, number: int) -> "Slow":
        return self

    def answer(self, request: bytes) -> bytes:
        header, arrays = unpacked(request)
        if "recipe" in header:
            return packed({})
        time.sleep(_SECONDS * len(arrays[0]) / self.size)
        values = np.zeros((len(arrays[0]), N_OUTPUTS), dtype=np.float32)
        return packed({"seconds": _SECONDS}, values)

    def close(self) -> None: ...


def many() -> None:
    values = mx.FunctionValues(empty, mx.parts(N_UNITS))
    print("\n| workers | masks a second each | in all | if none waited | share of a core |")
    print("|---|---|---|---|---|")
    for n_workers, size in ((50, 4), (200, 4), (50, 50), (200, 50), (20, 500)):
        with tempfile.TemporaryDirectory() as folder, Pool(Slow(n_workers, size)):
            recorded = RecordedValues(values, Path(folder))
            for pace in recorded._value_function._paces.values():  # pyright: ignore
                pace.size = size
                pace.see = lambda *_: None
            n_masks = 8 * n_workers * size
            masks = sample_masks(N_UNITS, n_masks, seed=0)
            wall, own = time.perf_counter(), time.process_time()
            recorded(masks)
            own, wall = time.process_time() - own, time.perf_counter() - wall
            recorded.close()
        print(
            f"| {n_workers} | {size / _SECONDS:.0f} | {n_masks / wall:,.0f} | "
            f"{n_workers * size / _SECONDS:,.0f} | {own / wall:.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--masks", type=int, default=32, help="of SmolLM2-135M, for each rate")
    parser.add_argument("--no-model", action="store_true")
    asked = parser.parse_args()
    print("# Workers\n")
    print(f"`python -m tests.benchmarks.executors --masks {asked.masks}`\n")
    print((__doc__ or "").split("\n\n")[2])
    coordinator()
    print(f"\nWorkers that take {_SECONDS} s for an answer, on machines of their own:")
    many()
    if not asked.no_model:
        print(f"\nSmolLM2-135M, 270 heads, {N_OUTPUTS} prompts of `ioi`, {asked.masks} masks:")
        models(asked.masks)
    print(
        f"\n{len(os.sched_getaffinity(0))} cores of a busy machine, load {os.getloadavg()[0]:.1f}."
    )


if __name__ == "__main__":
    # By its own name, as workers import it.
    from tests.benchmarks import executors

    executors.main()
