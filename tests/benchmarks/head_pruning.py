"""Head pruning of SmolLM2: two groups of layers, two tasks, each choice on 64 held-out prompts.

    OMP_NUM_THREADS=1 python tests/benchmarks/head_pruning.py FOLDER > head_pruning.md

Every value is kept in FOLDER, so that the same command goes on where it was stopped, and another
decoder (``--decoder automatic``) measures only the masks around its own best. The same search with
an additive function tells what interactions add. Search and held-out prompts differ, though they
share their words and templates. A markdown table goes to stdout.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

import mechspex as mx
from mechspex.circuits.pruning import Pruning
from mechspex.core.statistics import holm, paired_difference

TASKS = ("ioi", "pronoun")
GROUPS = ((8, 14), (20, 26))
SEARCH, HELD_OUT, BUDGET, RANDOM = 16, 64, 400, 10


def prompts_of(name: str, model) -> tuple[mx.Task, mx.Task]:
    """Search and held-out prompts, no prompt twice."""
    task = mx.load_task(name, model, n_prompts=8 * (SEARCH + HELD_OUT))
    places = {prompt: place for place, prompt in reversed(list(enumerate(task.prompts)))}
    chosen = sorted(places.values())[: SEARCH + HELD_OUT]
    assert len(chosen) == SEARCH + HELD_OUT, f"{name} has only {len(chosen)} different prompts"
    lists = {
        part: None if given is None else [given[place] for place in chosen]
        for part in ("prompts", "answers", "distractors", "corrupted")
        for given in [getattr(task, part)]
    }
    distinct = replace(task, **lists)
    return distinct[:SEARCH], distinct[SEARCH:]


def rows(task: str, layers: str, pruning: Pruning) -> list[str]:
    compared = {(one.size, one.rival): one for one in pruning.comparisons}
    lines = []
    for choice in pruning.choices:
        start = (
            f"| {task} | {layers} | {choice.size} ({choice.size / len(pruning.units):.0%}) | "
            f"{choice.method} | {choice.value:.2f} | {choice.accuracy:.0%} | "
        )
        one = compared.get((choice.size, choice.method))
        if one is None:
            lines.append(f"{start}| | | |")
            continue
        lines.append(
            f"{start}{one.difference.value:+.2f} [{one.difference.low:+.2f}, "
            f"{one.difference.high:+.2f}] | {one.adjusted_p:.2g} | "
            f"{one.only_recovered:.3g} : {one.only_rival:.3g} | {one.adjusted_accuracy_p:.2g} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--decoder", default="kernel")
    arguments = parser.parse_args()
    model = mx.load_model("smollm2-135m")
    heads = mx.heads(model)
    per_layer = model.cfg.n_heads
    lines, ends, searches = [], [], []
    for name in TASKS:
        search, held_out = prompts_of(name, model)
        for first, last in GROUPS:
            units = heads[first * per_layer : last * per_layer]
            start = time.perf_counter()
            values = mx.ComponentValues(
                model, search, units, "zero", rescale=True, precision="bf16"
            )
            fresh = mx.ComponentValues(model, held_out, units, "zero", rescale=True)
            pruning, without = (
                mx.prune_heads(
                    values,
                    fresh,
                    n_masks=BUDGET,
                    decoder=decoder,
                    n_random=RANDOM,
                    run=arguments.folder / f"{name}-{first}",
                )
                for decoder in (arguments.decoder, "additive")
            )
            print(pruning, f"\n{time.perf_counter() - start:.0f} s\n", file=sys.stderr, flush=True)
            layers = f"{first}–{last - 1}"
            lines += rows(name, layers, pruning)
            searches += [(name, layers, size, pruning, without) for size in pruning.sizes]
            ends.append(
                f"| {name} | {layers} | {pruning.clean.mean():.2f} | "
                f"{(pruning.clean > 0).mean():.0%} | {pruning.ablated.mean():.2f} | "
                f"{(pruning.ablated > 0).mean():.0%} |"
            )
    print(
        f"""# Head pruning: SmolLM2-135M, {len(units)} heads of six layers

Made by `OMP_NUM_THREADS=1 python tests/benchmarks/head_pruning.py FOLDER > head_pruning.md`
(`--decoder {arguments.decoder}`).

Pruned heads are replaced by zeros and the kept heads of a layer multiplied by (heads of the layer)
/ (heads kept), as in ProxySPEX (Butler et al. 2025). The heads of the other layers stay. Choices
are made from {BUDGET} masks each on {SEARCH} prompts, measured in bf16, and scored on {HELD_OUT}
other prompts in float32; {RANDOM} random subsets a size. Of the masks of the recovered choice
three fifths are random and the others lie around the best subsets of the function recovered so far;
those of the rivals are all random.
*value*: logit difference, mean over prompts;
*right*: share of prompts on which it is above 0. *recovered has more*: paired over the same
prompts, with its 95% interval (Student; for random subsets their spread is in it). *right alone*:
prompts on which only the recovered choice is right : only the rival. p by the paired t and by
McNemar's exact test (for random, the paired t of right answers), corrected by Holm for the nine
comparisons of one task and group.

| task | layers | all kept | right | all ablated | right |
|---|---|---|---|---|---|"""
    )
    print("\n".join(ends))
    print(
        "\n| task | layers | kept | choice | value | right | recovered has more | p | right alone "
        "| p |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    print("\n".join(lines))
    print_interactions(searches)


def print_interactions(searches) -> None:
    """What the search with interactions has more than the same one with an additive function."""
    pairs = [
        tuple(found.choice(size).values[0] for found in both) for _, _, size, *both in searches
    ]
    differences = [paired_difference(ours, theirs[None]) for ours, theirs in pairs]
    corrected = holm(np.array([one.p_value for one in differences]))
    print(
        "\nThe same search with an additive function in place of the recovered one (p corrected by "
        "Holm for all twelve):\n\n"
        "| task | layers | kept | recovered | additive | recovered has more | p |\n"
        "|---|---|---|---|---|---|---|"
    )
    for (name, layers, size, *_), (ours, theirs), one, p in zip(
        searches, pairs, differences, corrected, strict=True
    ):
        print(
            f"| {name} | {layers} | {size} | {ours.mean():.2f} | {theirs.mean():.2f} | "
            f"{one.value:+.2f} [{one.low:+.2f}, {one.high:+.2f}] | {p:.2g} |"
        )


if __name__ == "__main__":
    main()
