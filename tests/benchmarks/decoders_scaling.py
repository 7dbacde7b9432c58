"""Time and memory of the decoders against the number of units n and of masks N, as markdown.

Sums of 20 AND terms of order 1–5 (walsh terms for spex, on the masks of its own design), 10 dB of
noise, p = ½. Each run is a process of its own on `--threads` threads; memory is its peak, the masks
included.

    python tests/benchmarks/decoders_scaling.py
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time

import numpy as np

from mechspex.core.masks import sample_masks
from mechspex.decoders import decode
from mechspex.decoders.spex.design import SpexDesign
from mechspex.set_functions.bases import Basis
from mechspex.set_functions.r_squared import r_squared
from mechspex.set_functions.set_function import SetFunction

UNITS = (270, 1_024, 4_096, 46_080)
MASKS = (1_000, 2_000, 4_000)
MOST_UNITS, MOST_MASKS = UNITS[-1], MASKS[-1]
DECODERS = ("additive", "spex", "kernel", "proxyspex", "pursuit", "automatic")


def plant(n_units: int, basis: Basis) -> SetFunction:
    rng = np.random.default_rng(0)
    terms = {}
    while len(terms) < 20:
        units = rng.choice(n_units, size=int(rng.integers(1, 6)), replace=False)
        size = float(rng.uniform(0.5, 1.5) * rng.choice([-1, 1]))
        terms[tuple(sorted(units.tolist()))] = size
    return SetFunction.from_mapping(n_units, terms, basis=basis)


def run(decoder: str, n_units: int, n_masks: int) -> dict[str, float]:
    """Seconds, GiB and held-out R² of one decoder on one planted function, in this process."""
    design = SpexDesign(n_units, n_masks) if decoder == "spex" else None
    truth = plant(n_units, "kept" if design is None else "fourier")
    masks = sample_masks(n_units, n_masks, seed=1) if design is None else design.masks
    values = truth.predict(masks)
    noise = np.random.default_rng(2).normal(size=n_masks)
    values = values + values.std() * 10**-0.5 * noise
    start = time.perf_counter()
    answer = decode(masks, values, decoder=decoder, design=design, keep=0.5)
    seconds = time.perf_counter() - start
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    test = sample_masks(n_units, 1_000, seed=3)
    return {
        "seconds": seconds,
        "gib": gib,
        "r2": r_squared(truth.predict(test), answer.predict(test)),
    }


def in_subprocess(decoder: str, n_units: int, n_masks: int, threads: int) -> str:
    """One cell of the table: seconds · GiB · R²."""
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    command = [sys.executable, __file__, "--run", decoder, str(n_units), str(n_masks)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | limits)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1].split(":")[0]
    found = json.loads(done.stdout.splitlines()[-1])
    return f"{found['seconds']:.1f} s · {found['gib']:.1f} GiB · {found['r2']:.3f}"


def table(cells: list[tuple[int, int]], threads: int, decoders: list[str]) -> None:
    print("| n | N | " + " | ".join(decoders) + " |")
    print("|---" * (len(decoders) + 2) + "|")
    for n_units, n_masks in cells:
        row = [in_subprocess(d, n_units, n_masks, threads) for d in decoders]
        print(f"| {n_units:,} | {n_masks:,} | {' | '.join(row)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--decoders", nargs="+", default=list(DECODERS))
    parser.add_argument("--run", nargs=3, help="decoder, n, N: one run, in this process")
    arguments = parser.parse_args()
    if arguments.run:
        decoder, n_units, n_masks = arguments.run
        print(json.dumps(run(decoder, int(n_units), int(n_masks))))
        return
    by_units = [(n_units, MOST_MASKS) for n_units in UNITS]
    by_masks = [(270, n_masks) for n_masks in MASKS[:-1]]
    table([*by_masks, *by_units], arguments.threads, arguments.decoders)


if __name__ == "__main__":
    main()
