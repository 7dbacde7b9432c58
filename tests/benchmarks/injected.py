"""Exceptions at random operations of a forward: markdown table on stdout.

    PYTHONPATH=tests python tests/benchmarks/injected.py > tests/benchmarks/injected.md

One operation of torch raises, an error or an interrupt, while a value function is proved, measures
masks and gradients, and attention patterns are read. Then hooks of every kind are counted on every
module, and the model is asked for its answer again.
"""

import sys
import time

from injected_exceptions import inject

import mechspex as mx


def main(number: int) -> None:
    model = mx.load_model("tiny")
    task = mx.load_task("induction", model, n_prompts=6)
    start = time.process_time()
    left = inject(model, task, number)
    print("# Exceptions in a forward\n")
    print("Made by `PYTHONPATH=tests python tests/benchmarks/injected.py`.\n")
    print((__doc__ or "").split("\n\n")[2].strip() + "\n")
    print("| injected | hooks left | other answers, or in train mode | gradients left |")
    print("|---|---|---|---|")
    print(f"| {left.injected:,} | {left.hooks} | {left.changed} | {left.gradients} |")
    print(f"\nThe model is `tiny`. {(time.process_time() - start) / 60:.0f} minutes of one core.")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
