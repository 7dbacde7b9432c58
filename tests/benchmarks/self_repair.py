"""Self-repair map of SmolLM2: which of 270 heads take over when one is ablated, on fresh prompts.

    python tests/benchmarks/self_repair.py ioi PICTURE.png > tests/benchmarks/self_repair.md

Pairs are proposed by the second-order screen on 8 prompts (float32, one gradient with each head
ablated), and the 100 with the largest predicted interaction are measured on 32 others. A markdown
table goes to stdout, the map to the picture.
"""

import sys
import time
from pathlib import Path

import mechspex as mx
from mechspex import figures

SCREENED, FRESH, PAIRS = 8, 32, 100


def main(name: str, picture: str) -> None:
    model = mx.load_model("smollm2-135m")
    heads = mx.heads(model)
    task = mx.load_task(name, model, n_prompts=SCREENED + FRESH, seed=0)
    start = time.perf_counter()
    proposed = mx.screen(mx.ComponentValues(model, task[:SCREENED], heads), n_terms=2_000)
    screened = time.perf_counter() - start
    fresh = mx.ComponentValues(model, task[SCREENED:], heads)
    found = mx.self_repair(proposed, fresh, most=PAIRS)
    seconds = time.perf_counter() - start
    figures.self_repair_map(found).savefig(picture, dpi=150, bbox_inches="tight")
    command = f"python tests/benchmarks/self_repair.py {name} {Path(picture).name}"
    print("# Self-repair among the 270 heads of SmolLM2-135M, mean reference\n")
    print(f"Made by `{command}`: screen {screened:.0f} s, {seconds:.0f} s in all.\n")
    print(f"```\n{found}\n```")


if __name__ == "__main__":
    main(*sys.argv[1:])
