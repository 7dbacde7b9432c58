"""CPU seconds a mask where masks share rows, and a gradient in bf16, each with and without.

    python tests/benchmarks/shared_rows.py > shared_rows.md

SmolLM2, its 270 heads, `ioi`, mean reference, one thread; as `find_circuit` asks for them: 16
prompts in bf16, and 48 others in the model's own dtype. Subsets: each of 1 … 20 heads drawn at
random, and the same after 1, 2 and 4 exchanges, kept alone, 8 masks a batch. Pairs: two runs of 128
that follow each other in a sweep of all, on 8 prompts. Random masks, of all densities, share
little: the control. In turn: nested circuits of 1 … 20 heads, and random masks, one at a time, with
and without going on from the one before. Both ways are run in one process, in turns, twice; the
lesser is shown. Values are compared mask by mask.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import combinations
from unittest.mock import patch

import numpy as np
import torch

import mechspex as mx
from mechspex.components import batched_forward
from mechspex.core.masks import as_neighbours, keep_only

BATCH, N_RANDOM, N_HELD_OUT, N_GRADIENTS, N_PAIRS = 8, 16, 16, 4, 128


def subsets(n_units: int) -> np.ndarray:
    """Sets of 1 … 20 units, each followed by what exchanges make of it."""
    rng, masks = np.random.default_rng(0), []
    for size in range(1, 21):
        order = rng.permutation(n_units)
        for exchanges in (0, 1, 2, 4):
            moved = min(exchanges, size)
            mask = np.zeros(n_units, dtype=bool)
            mask[order[moved : size + moved]] = True
            masks.append(mask)
    return np.array(masks)


def pairs(n_units: int) -> np.ndarray:
    """Masks without two of the units, in the order of a sweep, from two places in it."""
    every = np.array(list(combinations(range(n_units), 2)))
    starts = np.random.default_rng(2).choice(len(every) - N_PAIRS, 2, replace=False)
    chosen = np.concatenate([every[start : start + N_PAIRS] for start in starts])
    masks = np.ones((len(chosen), n_units), dtype=bool)
    masks[np.arange(len(chosen))[:, None], chosen] = False
    return masks


def circuits(n_units: int) -> np.ndarray:
    """The first 1 … 20 units of a ranking, in the order in which a run is asked for them."""
    order = np.random.default_rng(3).permutation(n_units)[:20]
    masks = keep_only(n_units, [order[:size] for size in range(1, 21)])
    return masks[as_neighbours(masks)]


def in_batches(values: mx.ComponentValues, masks: np.ndarray, batch: int) -> np.ndarray:
    parts = range(0, len(masks), batch)
    return np.concatenate([values(masks[start : start + batch]) for start in parts])


def seconds(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def row(
    name: str, number: int, without: Callable[[], np.ndarray], shared: Callable[[], np.ndarray]
) -> str:
    """A line of the table, of both ways in turns."""
    took = [(seconds(without), seconds(shared)) for _ in range(2)]
    before, after = (min(pair[side][0] for pair in took) / number for side in (0, 1))
    apart = max(float(np.abs(a[1] - b[1]).max()) for a, b in took)
    size = float(took[0][0][1].std())
    return (
        f"| {name} | {number} | {before:.3f} | {after:.3f} | {after / before:.2f} | "
        f"{apart:.1e} of {size:.1e} |"
    )


def measured(values: mx.ComponentValues, name: str, masks: np.ndarray, batch: int = BATCH) -> str:
    (group,) = values._proved.forwards.groups
    assert group.cached is not None

    def with_parts(part: bool) -> np.ndarray:
        assert group.cached is not None
        group.cached.plain_model.rows_part = part
        return in_batches(values, masks, batch)

    in_batches(values, masks[:BATCH], BATCH)
    return row(name, len(masks), lambda: with_parts(False), lambda: with_parts(True))


def in_turn(values: mx.ComponentValues, name: str, masks: np.ndarray) -> str:
    def one_by_one(turn: AbstractContextManager[None]) -> np.ndarray:
        with turn:
            return in_batches(values, masks, 1)

    one_by_one(nullcontext())
    return row(
        name,
        len(masks),
        lambda: one_by_one(nullcontext()),
        lambda: one_by_one(values.in_turn()),
    )


def main() -> None:
    torch.set_num_threads(1)
    model = mx.load_model("smollm2-135m")
    drawn, heads = mx.load_task("ioi", model, n_prompts=64, seed=0), mx.heads(model)
    coarse = mx.ComponentValues(model, drawn[:16], heads, precision="bf16")
    own = mx.ComponentValues(model, drawn[16:], heads)
    few = mx.ComponentValues(model, drawn[:8], heads)
    kept = subsets(len(heads))
    rng = np.random.default_rng(1)
    anywhere = rng.random((N_RANDOM, len(heads))) < rng.uniform(size=(N_RANDOM, 1))
    soft = kept[:: len(kept) // N_GRADIENTS][:N_GRADIENTS].astype(np.float32)

    def slopes() -> np.ndarray:
        return coarse.value_and_mean_gradient(soft)[1]

    def slopes_by_the_kernel() -> np.ndarray:
        with patch.object(batched_forward, "with_gradients", lambda *_, **__: nullcontext()):
            return slopes()

    print("# Rows that masks share, and gradients in bf16\n")
    print("Made by `python tests/benchmarks/shared_rows.py`, SmolLM2-135M, `ioi`, one thread.\n")
    print("| | number | CPU s each, without | with | × | largest difference |")
    print("|---|---|---|---|---|---|")
    print(measured(coarse, "subsets, 16 prompts, bf16", kept), flush=True)
    print(measured(coarse, "random masks, 16 prompts, bf16", anywhere), flush=True)
    print(measured(own, "subsets, 48 prompts, float32", kept[-N_HELD_OUT:]), flush=True)
    name = "pairs of a sweep, 8 prompts, float32"
    print(measured(few, name, pairs(len(heads)), N_PAIRS), flush=True)
    print(in_turn(own, "nested circuits in turn, 48 prompts, float32", circuits(len(heads))))
    print(in_turn(coarse, "random masks in turn, 16 prompts, bf16", anywhere), flush=True)
    name = "gradients, 16 prompts, bf16, attention by plain products"
    print(row(name, N_GRADIENTS, slopes_by_the_kernel, slopes), flush=True)
    print("\nOf 48 prompts two masks fit into a batch, which share little here.")


if __name__ == "__main__":
    main()
