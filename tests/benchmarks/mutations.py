"""Mutated files of every kind that is read: markdown table on stdout.

    PYTHONPATH=tests python tests/benchmarks/mutations.py > tests/benchmarks/mutations.md

Bytes are flipped, cut, doubled, overwritten and put in (huge numbers, deep nesting, NUL, what is
not UTF-8), one to four places a file; of JSON every other file instead has entries of its record
replaced by others of any type, with a checksum that is right. Each file is read as its users read
it, and what is found is shown. Each kind has a process of its own, which may take 2 GiB more than
it has. *Read, other*: the file says something else, as it may where a person writes it or where the
checksum was made anew. *Seal lost*: of these, files that lost the name of their checksum together
with other bytes, and are read as files of older versions, which had none. *Wrong*: files that are
read with other numbers than were written, although their checksum is there.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from files_read import FILES, OTHERS, WHOLE
from mutated_files import FileKind, Tally, tally_of

MIB = 2**20
HEADER = (
    "| file | inputs | refused, typed | read, equal | read, other | seal lost | wrong | "
    "raw errors, hangs | slowest, s | peak memory, MiB |\n" + "|---" * 10 + "|"
)


def in_child(number: int, n_inputs: int, seed: int) -> tuple[Tally, float]:
    """The tally of one kind, and the memory that reading took above that of a good file, in MiB."""
    kind = [*FILES, *WHOLE][number]
    # What is told beside an answer is told often here.
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        # Libraries are loaded, and the good file is made and read.
        tally_of(kind, Path(folder), 0, seed)
    here = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (here + 2 * 2**30, resource.RLIM_INFINITY))
    before = peak()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        found = tally_of(kind, Path(folder), n_inputs, seed)
    return found, peak() - before


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB


def row(name: str, found: Tally, memory: float) -> str:
    raw = "; ".join(f"{number} × {told}" for told, number in found.raw.items()) or "0"
    return (
        f"| {name} | {found.inputs:,} | {found.refused:,} | {found.equal:,} | {found.other:,} | "
        f"{found.unsealed} | {found.wrong} | {raw} | {found.slowest:.2f} | {memory:.0f} |"
    )


def together(one: Tally, two: Tally) -> Tally:
    added = {
        name: getattr(one, name) + getattr(two, name)
        for name in ("inputs", "refused", "equal", "other", "unsealed", "wrong")
    }
    return replace(one, **added, raw={**one.raw, **two.raw}, slowest=max(one.slowest, two.slowest))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    start = time.process_time()
    print("# Mutated files\n")
    command = " ".join(["python tests/benchmarks/mutations.py", *sys.argv[1:]])
    print(f"Made by `PYTHONPATH=tests {command}`.\n")
    print((__doc__ or "").split("\n\n")[2].strip() + "\n")
    print(HEADER, flush=True)
    others = [f"answer: {name}" for name in OTHERS]
    rest, memory = Tally(), 0.0
    every = [*FILES, *WHOLE]
    for number, kind in enumerate(every):
        n_inputs = share(kind, others, asked.inputs)
        # Forked, as loading the libraries takes longer than most kinds.
        with get_context("fork").Pool(1) as pool:
            found, took = pool.apply(in_child, (number, n_inputs, asked.seed))
        if kind.name in others:
            rest, memory = together(rest, found), max(memory, took)
        else:
            print(row(kind.name, found, took), flush=True)
    print(row(f"answers of other functions, {len(others)} kinds", rest, memory))
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = time.process_time() - start + spent.ru_utime + spent.ru_stime
    print(f"\n{seconds / 60:.0f} minutes of one core.")


def share(kind: FileKind, others: list[str], n_inputs: int) -> int:
    """As many inputs as are asked for; of a folder that is loaded whole a tenth."""
    if kind.name in others:
        return -(-n_inputs // len(others))
    return n_inputs // 10 if kind in WHOLE else n_inputs


if __name__ == "__main__":
    main()
