"""A sweep beside another process that computes: all threads against as many as pay.

    python -m tests.benchmarks.busy_machine > tests/benchmarks/busy_machine.md

Both sides measure the same masks in turns, beside the same process.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

import mechspex as mx
from mechspex.core.masks import sample_masks
from mechspex.forward import thread_count
from mechspex.forward.machine import measure_machine
from mechspex.forward.thread_count import ThreadCount, time_steps

N_PROMPTS, N_MASKS, SECONDS, TURNS = 8, 4, 15, 2
PRODUCTS = """
import torch
torch.set_num_threads({threads})
matrix = torch.ones(512, 512)
print(flush=True)
while True:
    torch.nn.functional.gelu(matrix @ matrix)
"""
SWEEP = """
import mechspex as mx
model = mx.load_model("smollm2-135m")
values = mx.ComponentValues(model, mx.load_task("ioi", model, n_prompts=8), "heads")
print(flush=True)
while True:
    values(mx.sample_masks(270, 16, keep=0.9, seed=0))
"""
NEIGHBOURS = {
    "nobody": "",
    "a loop of Python": "print(flush=True)\nwhile True: pass",
    "products of PyTorch, one thread": PRODUCTS.format(threads=1),
    "products of PyTorch, all threads": PRODUCTS.format(threads=torch.get_num_threads()),
    "another sweep like this": SWEEP,
}


@contextmanager
def beside(code: str) -> Iterator[None]:
    """While another process runs some code, which prints a line when it has begun."""
    if not code:
        yield
        return
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def all_pay(threads: int, rows: int) -> tuple[float, float]:
    """As if every thread always had a core of its own."""
    del rows
    return 1.0, float(threads)


def rate(values: mx.ComponentValues, masks: np.ndarray) -> float:
    """Masks a second."""
    n_calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        values(masks)
        n_calls += 1
    return n_calls * len(masks) / (time.perf_counter() - start)


def main() -> None:
    """Print the table."""
    model = mx.load_model("smollm2-135m")
    values = mx.ComponentValues(model, mx.load_task("ioi", model, n_prompts=N_PROMPTS), "heads")
    masks = sample_masks(len(values.units), N_MASKS, keep=0.9, seed=0)
    print("# A busy machine: SmolLM2-135M's heads on IOI\n")
    print("Made by `python -m tests.benchmarks.busy_machine`.\n")
    machine = measure_machine()
    product = machine.devices[0].rates["float32"]
    print(
        f"{machine.cores} cores, {product:,.0f} GFLOP/s in float32, {machine.one_thread:,.0f} with "
        f"one thread. Masks a second on {N_PROMPTS} prompts, {N_MASKS}\nmasks a call, the mean of "
        f"{TURNS} turns of {SECONDS} seconds; in brackets the share of the idle rate of all\n"
        "threads. *values* says whether both sides gave the same bits.\n"
    )
    print("| beside | all threads | as many as pay | values |\n|---|---|---|---|")
    idle = None
    for name, code in NEIGHBOURS.items():
        found: dict[bool, list[float]] = {False: [], True: []}
        bits = set()
        with beside(code):
            for turn in range(2 * TURNS):
                chosen = bool(turn % 2)
                thread_count._COUNT = ThreadCount(time_steps if chosen else all_pay)
                bits.add(values(masks).tobytes())
                found[chosen].append(rate(values, masks))
        every, paying = (float(np.mean(rates)) for rates in found.values())
        idle = every if idle is None else idle
        same = "the same" if len(bits) == 1 else "not the same"
        cells = " | ".join(f"{each:.2f} ({each / idle:.2f})" for each in (every, paying))
        print(f"| {name} | {cells} | {same} |", flush=True)


if __name__ == "__main__":
    main()
