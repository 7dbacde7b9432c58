"""Decoding before and after, in CPU seconds of one thread; one part of decoding.md a command.

    python tests/benchmarks/decoding.py trees small --before ../before

`--before` is a checkout of the commit to compare with (`git worktree add ../before 04f798b`). Both
sides run in one go, problem by problem, each in a process of its own, this code with either
package.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from planted import Cell, measurement_of

import mechspex as mx
from mechspex.core.masks import all_masks, sample_masks
from mechspex.core.units import Term
from mechspex.decoders import decode
from mechspex.set_functions.r_squared import r_squared
from mechspex.set_functions.set_function import SetFunction

HERE = Path(__file__).resolve()
IOI = HERE.parents[1] / "data" / "ioi_heads_p90.npz"
FRESH = 2_000

Problem = tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
Row = dict[str, Any]


# ── Problems: masks and values, fresh masks and their values without noise ────────────────────────


def planted(*cells: Cell) -> Iterator[Problem]:
    for cell in cells:
        measurement = measurement_of(cell)
        masks = sample_masks(cell.n_units, cell.n_masks, keep=cell.keep, seed=cell.seed)
        fresh = sample_masks(cell.n_units, FRESH, keep=cell.keep, seed=10_000 + cell.seed)
        name = (
            f"{cell.n_terms} {cell.family} of {cell.n_units}, "
            f"{'no noise' if cell.noise_db is None else f'{cell.noise_db:.0f} dB'}, "
            f"p = {cell.keep}, N = {cell.n_masks}"
        )
        yield name, masks, measurement(masks), fresh, measurement.function.predict(fresh)


def recorded_heads(*numbers: int, first: int = 0) -> Iterator[Problem]:
    """Recorded IOI values of 270 heads, from row `first` on; the last 1,000 are fresh."""
    with np.load(IOI) as data:
        masks = np.unpackbits(data["masks_packed"], axis=1, count=270).astype(bool)
        values = data["values"].astype(np.float64)
    for number in numbers:
        name = f"recorded heads, 8 prompts, p = 0.9, N = {number:,}"
        name += f" from row {first:,}" if first else ""
        rows = slice(first, first + number)
        yield name, masks[rows], values[rows], masks[-1000:], values[-1000:]


def parities(n_units: int, n_masks: int, keep: float, noise_db: float | None) -> Iterator[Problem]:
    """40 centred products of one, two and three units in turn, unrelated to each other."""
    rng = np.random.default_rng(0)
    terms: dict[Term, float] = {}
    while len(terms) < 40:
        units = rng.choice(n_units, 1 + len(terms) % 3, replace=False)
        terms[tuple(sorted(units.tolist()))] = rng.uniform(0.5, 1.5) * rng.choice([-1, 1])
    truth = SetFunction.from_mapping(n_units, terms, basis="fourier", keep=keep)
    masks = sample_masks(n_units, n_masks, keep=keep, seed=0)
    fresh = sample_masks(n_units, FRESH, keep=keep, seed=10_000)
    values = truth.predict(masks)
    share = 0.0 if noise_db is None else 10 ** (-noise_db / 20)
    shown = "no noise" if noise_db is None else f"{noise_db:.0f} dB"
    name = f"40 parities of {n_units}, {shown}, p = {keep}, N = {n_masks}"
    noise = share * values.std() * rng.normal(size=n_masks)
    yield name, masks, values + noise, fresh, truth.predict(fresh)


def plain_functions(n_units: int, n_masks: int) -> Iterator[Problem]:
    """Functions of a few units as people write them; fresh masks are all that there are."""

    def rules(m: np.ndarray) -> np.ndarray:
        pairs = 2.0 * m[:, 1] - 3.0 * (m[:, 4] & m[:, 6]) - m[:, 5]
        return 1.0 + pairs + 1.5 * (m[:, 0] & m[:, 2] & m[:, 3])

    def largest(m: np.ndarray) -> np.ndarray:
        return (m * np.arange(1.0, n_units + 1)).max(axis=1)

    weights = np.random.default_rng(1).normal(size=(n_units, n_units))
    functions: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "rules": rules,
        "largest kept": largest,
        "tanh units": lambda m: np.tanh(m @ weights).sum(axis=1),
    }
    masks, fresh = sample_masks(n_units, n_masks), all_masks(n_units)
    for name, function in functions.items():
        for share in (0.0, 0.01, 0.1, 0.5):
            noise = share * function(fresh).std() * np.random.default_rng(0).normal(size=n_masks)
            shown = f"{name} of {n_units}, noise {share:g} σ, N = {n_masks}"
            yield shown, masks, function(masks) + noise, fresh, function(fresh)


# ── Parts: each yields a row a problem ────────────────────────────────────────────────────────────


def pursuit() -> Iterator[Row]:
    """Pursuit alone, then its part of one `mx.recover` of 1,000 masks; held-out R²."""
    heads = (
        recorded_heads(number, first=first)
        for number in (250, 500, 1000, 2000)
        for first in ((0, 1000, 2000, 3000) if number < 2000 else (0, 2000))
    )
    draws = planted(
        Cell(64, "and", "peak", 20, None, 0.5, 500),
        Cell(64, "and", "peak", 20, 10.0, 0.5, 2000, seed=1),
        Cell(64, "walsh", "hierarchical", 100, 20.0, 0.5, 2000, seed=2),
        Cell(64, "and", "peak", 100, None, 0.5, 2000, seed=3),
        Cell(64, "or", "peak", 20, 20.0, 0.9, 2000, seed=4),
        Cell(64, "walsh", "hierarchical", 50, 10.0, 0.9, 2000, seed=5),
        Cell(64, "or", "peak", 200, 10.0, 0.5, 2000, seed=6),
        Cell(270, "and", "peak", 20, None, 0.5, 500, seed=7),
        Cell(270, "and", "hierarchical", 50, None, 0.9, 2000, seed=8),
        Cell(270, "or", "hierarchical", 20, 20.0, 0.5, 2000, seed=9),
        Cell(1024, "and", "peak", 20, 10.0, 0.5, 4000, seed=10),
    )
    for problems in (*heads, draws):
        yield from decoded(problems, "pursuit")
    yield from share_of_recover(mx.decoders.Pursuit)


def kernel() -> Iterator[Row]:
    """The kernel decoder alone, then its part of one `mx.recover`; held-out R²."""
    heads = (
        recorded_heads(number, first=first)
        for number in (250, 500, 1000, 4000)
        for first in ((0, 1000, 2000, 3000) if number < 4000 else (0,))
    )
    draws = planted(
        Cell(64, "walsh", "peak", 20, None, 0.5, 500),
        Cell(64, "and", "peak", 20, None, 0.5, 500, seed=1),
        Cell(64, "or", "hierarchical", 20, 20.0, 0.5, 500, seed=2),
        Cell(64, "and", "peak", 20, 10.0, 0.5, 1000, seed=3),
        Cell(64, "walsh", "hierarchical", 100, 20.0, 0.5, 1500, seed=4),
        Cell(64, "and", "peak", 100, None, 0.5, 500, seed=5),
        Cell(64, "and", "hierarchical", 100, 10.0, 0.5, 500, seed=6),
        Cell(64, "or", "peak", 20, 20.0, 0.9, 500, seed=7),
        Cell(64, "or", "peak", 200, 10.0, 0.5, 1500, seed=8),
        Cell(64, "and", "peak", 20, None, 0.5, 1500, seed=9),
        Cell(200, "and", "hierarchical", 50, None, 0.9, 800, seed=10),
        Cell(200, "or", "hierarchical", 20, 20.0, 0.5, 800, seed=11),
        Cell(200, "and", "peak", 20, 10.0, 0.5, 800, seed=12),
        Cell(200, "walsh", "hierarchical", 50, 10.0, 0.9, 800, seed=13),
    )
    for problems in (*heads, draws):
        yield from decoded(problems, "kernel")
    yield from share_of_recover(mx.decoders.Kernel)


def triples() -> Iterator[Row]:
    """Parities that no smaller set betrays, by density and by size; held-out R²."""
    for decoder in ("pursuit", "automatic"):
        yield from decoded(parities(128, 3000, 0.5, None), decoder)
        yield from decoded(parities(128, 3000, 0.5, 10.0), decoder)
    for keep in (0.3, 0.7, 0.8, 0.85, 0.9):
        yield from decoded(parities(128, 3000, keep, 10.0), "pursuit")
    yield from decoded(parities(128, 1000, 0.5, 10.0), "pursuit")
    yield from decoded(parities(128, 10_000, 0.9, 10.0), "pursuit")
    yield from decoded(parities(270, 3000, 0.5, 10.0), "pursuit")
    yield from decoded(parities(500, 3000, 0.5, 10.0), "pursuit")
    yield from decoded(parities(1000, 3000, 0.5, 10.0), "pursuit")


def trees() -> Iterator[Row]:
    """ProxySPEX as `automatic` has it: held-out R² on fresh masks."""
    draws = planted(
        Cell(30, "and", "peak", 20, None, 0.5, 500),
        Cell(30, "and", "peak", 20, 10.0, 0.5, 500, seed=1),
        Cell(30, "or", "hierarchical", 20, 20.0, 0.5, 500, seed=2),
        Cell(30, "walsh", "hierarchical", 12, 10.0, 0.5, 500, seed=3),
        Cell(30, "or", "peak", 20, 20.0, 0.9, 500, seed=4),
        Cell(64, "and", "peak", 20, 20.0, 0.5, 300, seed=5),
        Cell(64, "or", "hierarchical", 30, 10.0, 0.9, 1000, seed=6),
        Cell(64, "and", "hierarchical", 50, None, 0.9, 2000, seed=7),
        Cell(64, "or", "peak", 100, 10.0, 0.5, 1400, seed=8),
        Cell(270, "and", "hierarchical", 30, 20.0, 0.9, 600, seed=9),
        Cell(270, "or", "peak", 50, 10.0, 0.9, 1000, seed=10),
    )
    for problems in (draws, recorded_heads(250, 400, 1000), plain_functions(8, 200)):
        for name, masks, values, fresh, truth in problems:
            decoder = mx.decoders.ProxySpex(rates=(0.1,))
            start = time.process_time()
            answer = decode(masks, values, decoder=decoder)
            seconds = time.process_time() - start
            yield row(name, seconds, truth, answer.predict(fresh))


def small() -> Iterator[Row]:
    """`mx.recover`, everything in it: the decoders compared, the evidence, the link."""
    for name, masks, values, fresh, truth in plain_functions(8, 200):
        start = time.process_time()
        recovery = mx.recover(masks, values, fresh, truth)
        seconds = time.process_time() - start
        yield row(name, seconds, truth, recovery.function.predict(fresh))


def recover() -> Iterator[Row]:
    """One `mx.recover` of recorded heads, everything in it: imports, decoders, evidence, link."""
    for name, masks, values, fresh, truth in recorded_heads(1000):
        function = mx.recover(masks, values, fresh, truth).function
        # Since the process began.
        yield row(name, time.process_time(), truth, function.predict(fresh))


def share_of_recover(decoder: Any) -> Iterator[Row]:
    """The seconds of one decoder's fits in an `mx.recover` of the recorded heads."""
    spent = []
    decode_all = decoder.decode

    def timed(self: Any, samples: Any) -> SetFunction:
        start = time.process_time()
        answer = decode_all(self, samples)
        spent.append(time.process_time() - start)
        return answer

    decoder.decode = timed
    for name, masks, values, fresh, truth in recorded_heads(1000):
        function = mx.recover(masks, values, fresh, truth).function
        shown = f"{decoder.name} in recover: {name}"
        yield row(shown, sum(spent), truth, function.predict(fresh))
    decoder.decode = decode_all


def decoded(problems: Iterator[Problem], decoder: str) -> Iterator[Row]:
    for name, masks, values, fresh, truth in problems:
        start = time.process_time()
        answer = decode(masks, values, decoder=decoder)
        seconds = time.process_time() - start
        yield row(f"{decoder}: {name}", seconds, truth, answer.predict(fresh))


def row(name: str, seconds: float, truth: np.ndarray, predicted: np.ndarray) -> Row:
    mean = truth.reshape(len(truth), -1).mean(axis=1)
    return {"problem": name, "seconds": seconds, "r2": r_squared(mean, predicted)}


PARTS = {
    "recover": recover,
    "kernel": kernel,
    "pursuit": pursuit,
    "triples": triples,
    "trees": trees,
    "small": small,
}


# ── Both sides ────────────────────────────────────────────────────────────────────────────────────


def started(part: str, package: Path) -> Iterator[Row]:
    """The rows of a part with one of the packages, from a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(package)}
    command = [sys.executable, str(HERE), part, "--here"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield from map(json.loads, process.stdout)


def table(part: str, before: Path) -> None:
    print("| problem | CPU s before | after | R² before | after |\n|---|---|---|---|---|")
    totals = np.zeros(2)
    sides = started(part, before), started(part, HERE.parents[2])
    for old, new in zip(*sides, strict=True):
        seconds, r2 = ([side[key] for side in (old, new)] for key in ("seconds", "r2"))
        totals += seconds
        numbers = [f"{s:.2f}" for s in seconds] + [f"{r:.4f}" for r in r2]
        print(f"| {old['problem']} | {' | '.join(numbers)} |", flush=True)
    print(f"| all | {totals[0]:.1f} | {totals[1]:.1f} | | |\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--before", type=Path, help="a checkout of the earlier commit")
    parser.add_argument("--here", action="store_true", help="lines of JSON, this package alone")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    for part in arguments.parts:
        if arguments.here:
            for line in PARTS[part]():
                print(json.dumps(line), flush=True)
        else:
            print(f"## {part}\n\n{PARTS[part].__doc__}\n")
            table(part, arguments.before.resolve())


if __name__ == "__main__":
    main()
