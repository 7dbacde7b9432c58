"""Sweeps killed at random moments, and processes that write one run where locks do nothing.

    python -m tests.benchmarks.kills > tests/benchmarks/kills.md

The model is `tiny`, 24 units (8 heads at 3 positions), singles and pairs: 301 masks. A kill is
SIGKILL after a random time, exponentially distributed. An acknowledged row is one whose commit the
process had been told of. Locks that do nothing: a C library that makes `fcntl` grant every lock.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from killed_sweeps import kill_sweeps, rows_of

import mechspex as mx
from mechspex.core.masks import all_masks
from mechspex.core.value_function import FunctionValues
from mechspex.errors import MechspexError
from mechspex.runs import store
from mechspex.runs.recorded import RecordedValues

_NO_LOCKS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
static int pass(const char *name, int fd, int command, void *argument) {
    if (command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK
        || command == F_OFD_SETLKW) return 0;
    if (command == F_GETLK || command == F_OFD_GETLK) {
        ((struct flock *)argument)->l_type = F_UNLCK;
        return 0;
    }
    int (*real)(int, int, void *) = dlsym(RTLD_NEXT, name);
    return real(fd, command, argument);
}
int fcntl(int fd, int command, ...) {
    va_list rest; va_start(rest, command); void *a = va_arg(rest, void *); va_end(rest);
    return pass("fcntl", fd, command, a);
}
int fcntl64(int fd, int command, ...) {
    va_list rest; va_start(rest, command); void *a = va_arg(rest, void *); va_end(rest);
    return pass("fcntl64", fd, command, a);
}
"""
_MASKS = all_masks(10)


def value(masks: np.ndarray) -> np.ndarray:
    return masks @ np.arange(1.0, 11.0)


value.configuration = {"function": "value"}  # pyright: ignore[reportFunctionMemberAccess]


def write_rows(folder: Path, seed: int, trusting: bool) -> None:
    """What one of several processes does: half of the masks, a few at a time."""
    if trusting:  # as before locks were looked at
        store.locks_hold = lambda _: True
    rng = np.random.default_rng(seed)
    values = RecordedValues(FunctionValues(value, mx.parts(10)), folder)
    for rows in np.array_split(rng.permutation(len(_MASKS))[:512], 60):
        values(_MASKS[rows])
        print(*rows, flush=True)
    values.close()


def lockless(n_trials: int, n_processes: int, trusting: bool) -> str:
    """A row of the table: what processes lost that wrote one run at once."""
    lost = wrong = broken = acknowledged = 0
    with tempfile.TemporaryDirectory() as scratch:
        library = Path(scratch) / "nolocks.so"
        source = library.with_suffix(".c")
        source.write_text(_NO_LOCKS)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        for trial in range(n_trials):
            folder = Path(scratch) / str(trial)
            folder.mkdir()
            command = [
                sys.executable,
                __file__,
                "--write",
                str(folder),
                "--trusting",
                str(trusting),
            ]
            writers = [
                subprocess.Popen(
                    [*command, "--seed", str(n_processes * trial + number)],
                    env={**os.environ, "LD_PRELOAD": str(library)},
                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                )
                for number in range(n_processes)
            ]  # fmt: skip
            said = {int(row) for writer in writers for row in writer.communicate()[0].split()}
            acknowledged += len(said)
            broken += any(writer.returncode for writer in writers)
            try:
                there = rows_of(folder)
            except MechspexError:
                there, broken = {}, broken + 1
            right = {np.packbits(_MASKS[row]).tobytes(): value(_MASKS[row]) for row in said}
            lost += sum(key not in there for key in right)
            wrong += sum(there.get(k, v.tobytes()) != v.tobytes() for k, v in right.items())
    way = "SQLite trusted with them" if trusting else "as it is: a file a process"
    return (
        f"| {n_processes} processes, {way} | {n_trials} | {acknowledged:,} | {lost} | {wrong} | "
        f"{broken} |"
    )


def of_edges(n_kills: int) -> str:
    """Two rows: what kills do to a sweep of edges, and how two differ that nothing stopped."""
    model = mx.load_model("tiny")
    task = mx.load_task("induction", model, n_prompts=6)
    values = mx.ComponentValues(model, task, mx.edges(model))
    with tempfile.TemporaryDirectory() as folder:
        tally = kill_sweeps(values, Path(folder) / "killed", n_kills=n_kills, order=1, seed=1)
        free = kill_sweeps(
            values, Path(folder) / "free", n_kills=0, n_sweeps=10, share=float("inf"), order=1
        )
    return "\n".join(
        f"| {one.kills} | {one.sweeps} | {one.acknowledged:,} | {one.lost} | {one.again} | "
        f"{one.answers_differ} | {one.furthest:.1e} |"
        for one in (tally, free)
    )


def kills(n_kills: int, lockless: bool) -> str:
    """A row of the table: what kills lost."""
    model = mx.load_model("tiny")
    task = mx.load_task("induction", model, n_prompts=6)
    values = mx.ComponentValues(model, task, mx.heads(model, positions=range(-3, 0)))

    def prepare() -> None:
        if lockless:
            store.locks_hold = lambda _: False

    with tempfile.TemporaryDirectory() as folder:
        tally = kill_sweeps(values, Path(folder), n_kills=n_kills, seed=1, prepare=prepare)
    return (
        f"| {'a file a process' if lockless else 'SQLite'} | {tally.kills} | {tally.sweeps} | "
        f"{tally.acknowledged:,} | {tally.lost} | {tally.wrong} | {tally.again} | "
        f"{tally.beyond_a_batch} | {tally.answers_differ} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=400)
    parser.add_argument("--lockless-kills", type=int, default=100)
    parser.add_argument("--edge-kills", type=int, default=40)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trusting", default="False")
    asked = parser.parse_args()
    if asked.write is not None:
        write_rows(asked.write, asked.seed, asked.trusting == "True")
        return
    start = time.perf_counter()
    print("# Kills\n")
    print(f"`python -m tests.benchmarks.kills {' '.join(sys.argv[1:])}`\n")
    print((__doc__ or "").split("\n\n")[2].strip() + "\n")
    print(
        "| store | kills | sweeps finished | acknowledged rows | lost | wrong | measured again | "
        "kills that cost more than one batch | answers that differ |\n" + "|---" * 9 + "|"
    )
    for n_kills, lockless_drive in ((asked.kills, False), (asked.lockless_kills, True)):
        if n_kills:
            print(kills(n_kills, lockless_drive), flush=True)
    if asked.edge_kills:
        print(
            "\nThe 81 edges of `tiny`, singles: 82 masks. How many of them share a "
            "commit goes by\nthe time they take, and values of edges round by their batch.\n\n"
            "| kills | sweeps finished | acknowledged rows | lost | measured again | "
            "answers that differ in a bit | by at most |\n" + "|---" * 7 + "|"
        )
        print(of_edges(asked.edge_kills), flush=True)
    print("\nLocks that do nothing:\n")
    print(
        "| | trials | acknowledged rows | lost | wrong | trials with an error |\n"
        + "|---" * 6
        + "|"
    )
    for trusting in (True, False):
        for n_processes in (2, 4):
            print(lockless(asked.trials, n_processes, trusting), flush=True)
    print(f"\nIn {(time.perf_counter() - start) / 60:.0f} minutes, on a busy machine.")


if __name__ == "__main__":
    main()
