"""Best subsets of a function recovered from measured IOI values, as a markdown table.

270 heads of SmolLM2-135M, each kept with probability 0.9, 8 prompts decoded together from 4,000
masks, by `pursuit` and by `kernel` cut to its largest terms. For each size: the value of local
search alone, of the additive choice and of greedy on the function; then the program's.

    OMP_NUM_THREADS=1 python tests/benchmarks/subset_search.py
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from mechspex.decoders import decode
from mechspex.set_functions.set_function import SetFunction
from mechspex.subsets.best_subset import (
    SubsetObjective,
    additive_choice,
    best_subset,
    front,
    greedy,
)

DATA = Path(__file__).parents[1] / "data" / "ioi_heads_p90.npz"


def value_of(function: SetFunction, columns: tuple[int, ...], objective: SubsetObjective) -> float:
    mask = np.isin(np.arange(function.n_units), columns) == (objective == "keep")
    return float(function.predict(mask[None])[0])


def subsets(name: str, function: SetFunction, sizes: list[int], time_limit: float) -> None:
    objectives: tuple[SubsetObjective, ...] = ("keep", "remove")
    for objective in objectives:
        for size in sizes:
            local = best_subset(function, size, objective, time_limit=0.0)
            found = best_subset(function, size, objective, time_limit=time_limit)
            additive, climbed = (
                value_of(function, columns, objective)
                for columns in (
                    additive_choice(function, size, objective),
                    greedy(function.predict, function.n_units, size, objective),
                )
            )
            print(
                f"| {name}, {len(function) - 1:,} | {objective} {size} | {additive:.4f} | "
                f"{climbed:.4f} | {local.value:.4f} | {local.seconds:.1f} | {found.value:.4f} | "
                f"{found.gap:.1g} | {'yes' if found.proven else 'no'} | {found.seconds:.1f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5, 10, 20, 40, 80, 135])
    parser.add_argument("--time-limit", type=float, default=60.0)
    arguments = parser.parse_args()
    data = np.load(DATA)
    masks = np.unpackbits(data["masks_packed"], axis=1, count=270).astype(bool)[:4000]
    values = data["values"].astype(np.float64)[:4000]
    kernel = decode(masks, values, decoder="kernel", keep=0.9)
    functions = {
        "pursuit": decode(masks, values, decoder="pursuit", keep=0.9),
        "kernel, cut": kernel.truncate(500),
        "kernel": kernel,
    }
    print("| decoder, terms | objective | additive choice | greedy | local search | s ", end="")
    print("| program | gap | proven | s |")
    print("|---" * 10 + "|")
    for name, function in functions.items():
        subsets(name, function, arguments.sizes, arguments.time_limit)
    print("\n| decoder, terms | front | proven | largest gap | s |\n|---|---|---|---|---|")
    for name, function in functions.items():
        for objective in ("keep", "remove"):
            start = time.perf_counter()
            found = front(function, objective=objective)
            print(
                f"| {name}, {len(function) - 1:,} | {objective} 1 … 270 | "
                f"{sum(subset.proven for subset in found)} | "
                f"{max(subset.gap for subset in found):.1g} | {time.perf_counter() - start:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
