"""What `find_circuit` takes, before and after, in CPU seconds of one thread, and what it finds.

    python tests/benchmarks/circuit_seconds.py ioi --before ../before > circuit_seconds.md

`--before` is a checkout of the commit to compare with (`git worktree add ../before 0b96826`). Both
sides run one after the other, each in a process of its own, this code with either package. As in
circuits.py 16 prompts are searched with 400 masks, in bf16 where that pays, and 48 others score;
the seed draws the prompts and seeds the search. Seconds are those of one `find_circuit` as a
whole, from values that are prepared to the scores on fresh prompts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mechspex as mx
from circuits import BUDGET, SEARCHED, prompts_of  # pyright: ignore[reportAttributeAccessIssue]
from mechspex.circuits import by_size, surrogate_search
from mechspex.components.forwards import Forwards

HERE = Path(__file__).resolve()
PARTS = ("masks", "gradients", "held out", "decoding", "searching", "rest")


class Clock:
    """CPU seconds by part; a part within another counts for itself alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.masks: dict[str, int] = defaultdict(int)
        self._part, self._since = "rest", time.process_time()

    def turn(self, part: str) -> str:
        """End the part before, begin this one, and say which ended."""
        now = time.process_time()
        self.seconds[self._part] += now - self._since
        before, self._part, self._since = self._part, part, now
        return before

    def timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def under_the_clock(*args: Any, **kwargs: Any) -> Any:
            before = self.turn(part)
            try:
                return function(*args, **kwargs)
            finally:
                self.turn(before)

        return under_the_clock

    def watch_the_model(self) -> None:
        """Count and time the forwards, those of held-out prompts apart."""
        for method, part in (("values", "masks"), ("values_and_gradients", "gradients")):
            plain = getattr(Forwards, method)

            def measured(forwards: Forwards, masks: Any, plain=plain, part=part) -> Any:
                of = part if forwards.n_prompts == SEARCHED else "held out"
                self.masks[of] += len(masks)
                return self.timed(plain, of)(forwards, masks)

            setattr(Forwards, method, measured)

    def watch_the_search(self) -> None:
        """Time decoding, and the search for subsets that it leads to."""
        surrogate_search.decode = self.timed(surrogate_search.decode, "decoding")
        surrogate_search.front = self.timed(surrogate_search.front, "searching")
        by_size.matching_subsets = self.timed(by_size.matching_subsets, "searching")


def searched(task: str, seed: int) -> dict[str, Any]:
    """One `find_circuit` with the package at hand."""
    warnings.simplefilter("ignore")
    model = mx.load_model("smollm2-135m")
    mine, fresh, _ = prompts_of(task, model, seed)
    heads = mx.heads(model)
    values = mx.ComponentValues(model, mine, heads, precision="auto")
    scored = mx.ComponentValues(model, fresh, heads)
    clock = Clock()
    clock.watch_the_model()
    clock.watch_the_search()
    clock.turn("rest")
    clock.seconds.clear()
    budget: dict[str, Any] = {"budget": BUDGET}  # its name then
    found = mx.find_circuit(values, scored, **budget, seed=seed)
    clock.turn("rest")
    return {
        "seconds": clock.seconds,
        "masks": clock.masks,
        "precision": values.precision,
        "best": list(found.best.items()),
        "matching": list(found.matching.items()),
        "size": len(found.circuit.members),
    }


# ── Both sides ────────────────────────────────────────────────────────────────────────────────────


def started(task: str, seed: int, package: Path, kept: Path) -> dict[str, Any]:
    """What `searched` says with one of the packages, in a process of its own."""
    if not kept.exists():
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(package)}
        command = [sys.executable, str(HERE), task, "--seeds", str(seed), "--here"]
        run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        kept.write_bytes(run.stdout)
    return json.loads(kept.read_text())


def compared(task: str, seed: int, model: Any, before: Path, kept: Path) -> Iterator[str]:
    sides = [
        started(task, seed, package, kept / f"{task}-{seed}-{side}.json")
        for side, package in (("before", before), ("after", HERE.parents[2]))
    ]
    scored = mx.ComponentValues(model, prompts_of(task, model, seed)[1], mx.heads(model))
    curves = [
        [mx.faithfulness_curve(scored, dict(side[kind])) for kind in ("best", "matching")]
        for side in sides
    ]
    (best, near), (best_after, near_after) = curves
    more, _ = best_after.minus(best)
    _, further = near_after.minus(near)
    for name, side, (performing, matching) in zip(("before", "after"), sides, curves, strict=True):
        seconds = [side["seconds"].get(part, 0.0) for part in PARTS]
        masks = [side["masks"].get(part, 0) for part in PARTS[:3]]
        numbers = [f"{sum(seconds):.0f}", *(f"{s:.0f}" for s in seconds), *map(str, masks)]
        scores = [performing.cpr, matching.cmd]
        yield f"| {task}, {seed} | {name} | {' | '.join(map(str, [*numbers, *scores]))} |"
    share = sum(sides[1]["seconds"].values()) / sum(sides[0]["seconds"].values())
    yield (
        f"| | after | {share:.2f} × |"
        + " |" * (len(PARTS) + 3)
        + f" {more} more | {further} more |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--before", type=Path, help="a checkout of the earlier commit")
    parser.add_argument("--kept", type=Path, help="a folder of sides, none of which is run twice")
    parser.add_argument("--here", action="store_true", help="a line of JSON, this package alone")
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(searched(arguments.tasks[0], arguments.seeds[0])))
        return
    kept = arguments.kept or Path(tempfile.mkdtemp())
    model = mx.load_model("smollm2-135m")
    words = " ".join([*arguments.tasks, "--before", str(arguments.before)])
    print("# What find_circuit takes, before and after\n")
    print(
        f"Made by `python tests/benchmarks/circuit_seconds.py {words}`, SmolLM2-135M, 270 heads.\n"
    )
    columns = ["task, seed", "side", "CPU s", *PARTS, "masks", "gradients", "held out"]
    print(f"| {' | '.join([*columns, 'CPR', 'CMD'])} |\n|{'---|' * (len(columns) + 2)}")
    for task in arguments.tasks:
        for seed in arguments.seeds:
            for line in compared(task, seed, model, arguments.before.resolve(), kept):
                print(line, flush=True)


if __name__ == "__main__":
    main()
