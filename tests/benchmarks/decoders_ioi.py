"""Held-out R² of every decoder on measured IOI values, as a markdown table.

270 heads of SmolLM2-135M, each kept with probability 0.9, 8 prompts decoded together; trained on N
masks from `--first` on, the mean over prompts scored on the last 1,000. Seconds are those of
`automatic` alone, all it compares included.

    OMP_NUM_THREADS=1 python tests/benchmarks/decoders_ioi.py
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from mechspex.decoders import decode

DATA = Path(__file__).parents[1] / "data" / "ioi_heads_p90.npz"
DECODERS = ("additive", "proxyspex", "pursuit", "kernel", "automatic")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="first training row")
    parser.add_argument("--masks", type=int, nargs="+", default=[250, 500, 1000, 2000, 4000])
    arguments = parser.parse_args()
    data = np.load(DATA)
    masks = np.unpackbits(data["masks_packed"], axis=1, count=270).astype(bool)
    values = data["values"].astype(np.float64)
    test_masks, test_values = masks[-1000:], values[-1000:].mean(axis=1)
    print("| N | " + " | ".join(DECODERS) + " | automatic, seconds | what automatic chose |")
    print("|---" * (len(DECODERS) + 3) + "|")
    for n_masks in arguments.masks:
        rows = slice(arguments.first, arguments.first + n_masks)
        scores, seconds, chosen = [], 0.0, ""
        for decoder in DECODERS:
            start = time.perf_counter()
            answer = decode(masks[rows], values[rows], decoder=decoder)
            seconds = time.perf_counter() - start
            errors = test_values - answer.predict(test_masks)
            scores.append(f"{1 - (errors**2).mean() / test_values.var():.3f}")
            chosen = answer.notes[0] if answer.notes else ""
        choice = chosen.removeprefix("automatic: ")
        print(f"| {n_masks:,} | {' | '.join(scores)} | {seconds:.0f} | {choice} |", flush=True)


if __name__ == "__main__":
    main()
