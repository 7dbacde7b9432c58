"""Circuits of SmolLM2 among its 270 heads: found, scored on fresh prompts, beside baselines.

    python tests/benchmarks/circuits.py ioi capital hypernymy greater_than colour > circuits.md

Mean reference. 16 prompts are searched (in bf16), 48 others score (float32); in `ioi` they share no
names. At equal cost: attribution patching (midpoint) gets as many prompts as the seconds of the
whole of `find_circuit` allow, or all there are; the additive function has 400 masks of all
densities. CPR: area under faithfulness of the best subsets, CMD: area of |1 − faithfulness| of the
matching ones (rankings: by effect for CPR, by its size for CMD, as in the MIB benchmark). Intervals
are over prompts; those of differences are paired.
"""

import sys
import time

import numpy as np

import mechspex as mx
from mechspex.errors import Refused

SEARCHED, FRESH, BUDGET = 16, 48, 400
# Different prompts of a task, where its words give fewer than are asked for.
ALL_THERE_ARE = {"capital": 96, "hypernymy": 174, "two_step": 121}


def prompts_of(name, model, seed=0):
    """Prompts to search, prompts to score, and more for attribution patching."""
    number = ALL_THERE_ARE.get(name, 600 if name == "ioi" else 300)
    drawn = mx.load_task(name, model, n_prompts=number, seed=seed)
    if name != "ioi":
        return drawn[:SEARCHED], drawn[-FRESH:], drawn[:-FRESH]
    assert drawn.distractors
    names = sorted(map(str, {*drawn.answers, *drawn.distractors}))
    ours = set(names[::2])
    both = zip(drawn.answers, drawn.distractors, strict=True)
    inside = [sum(word in ours for word in pair) for pair in both]
    mine, others = ([i for i, n in enumerate(inside) if n == wanted] for wanted in (2, 0))
    return chosen(drawn, mine[:SEARCHED]), chosen(drawn, others[:FRESH]), chosen(drawn, mine)


def chosen(task, rows):
    lists = (task.prompts, task.answers, task.distractors, task.corrupted)
    prompts, answers, distractors, corrupted = ([part[i] for i in rows] for part in lists)
    return mx.Task(prompts, answers, distractors, corrupted, metric=task.metric, name=task.name)


class Watched:
    """A value function that counts its masks, gradients and seconds."""

    def __init__(self, values):
        self.values, self.n_masks, self.gradients, self.seconds = values, 0, 0, 0.0
        self.units, self.n_units, self.outputs = values.units, values.n_units, values.outputs
        self.configuration, self.in_own_dtype = values.configuration, self

    def value_and_gradient(self, masks):
        start = time.perf_counter()
        found = self.values.in_own_dtype.value_and_gradient(masks)
        self.seconds += time.perf_counter() - start
        self.gradients += len(masks)
        return found

    def __call__(self, masks):
        start = time.perf_counter()
        measured = self.values(masks)
        self.seconds += time.perf_counter() - start
        self.n_masks += len(masks)
        return measured


def at_random(values):
    """As many masks as the search has before it climbs, none of them chosen."""
    rng = np.random.default_rng(1)
    masks = rng.random((BUDGET, values.n_units)) < rng.uniform(size=(BUDGET, 1))
    return masks, values(masks)


def discover(name, model):
    searched, fresh, more = prompts_of(name, model)
    heads = mx.heads(model)
    scored = mx.ComponentValues(model, fresh, heads)
    watched = Watched(mx.ComponentValues(model, searched, heads, precision="bf16"))
    print(f"## {name}\n")
    start = time.perf_counter()
    try:
        found = mx.find_circuit(watched, scored, n_masks=BUDGET, seed=0)
    except Refused as refusal:
        print(f"mechspex refuses: {refusal}\n", flush=True)
        return
    seconds = time.perf_counter() - start
    print(f"```\n{found}\n```\n")
    print(
        f"{watched.n_masks} masks and {watched.gradients} gradients in {watched.seconds:.0f} s; "
        f"{seconds:.0f} s in all, with the scores on fresh prompts.\n"
    )
    print_front(found, scored)
    patched, n_prompts = attribution(model, searched, more, heads, seconds)
    additive = mx.decode(*at_random(watched), decoder="additive").to_basis("kept")
    effects = np.array([-additive[(column,)] for column in range(len(heads))])
    shuffled = np.random.default_rng(0).permutation(len(heads)).tolist()
    rows = {
        "mechspex": (found.best, found.matching),
        f"attribution patching, {n_prompts} prompts": rankings(patched),
        f"additive, {BUDGET} masks of all densities": rankings(effects),
        "random": (shuffled, shuffled),
    }
    print("| method | CPR | mechspex has more | CMD | mechspex has less |\n|---|---|---|---|---|")
    ours = None
    for method, subsets in rows.items():
        performing, matching = (mx.faithfulness_curve(scored, found) for found in subsets)
        ours = ours or (performing, matching)
        gained, _ = ours[0].minus(performing)
        _, less = matching.minus(ours[1])
        print(f"| {method} | {performing.cpr} | {gained} | {matching.cmd} | {less} |", flush=True)
    print()


def rankings(effects):
    """By the loss on ablation, and by its size."""
    return np.argsort(effects).tolist(), np.argsort(-np.abs(effects)).tolist()


def attribution(model, searched, more, heads, seconds):
    """Effects by the midpoint, from as many prompts as the seconds allow."""
    few = mx.ComponentValues(model, searched, heads)
    midpoint = mx.FirstOrder(at=0.5)
    start = time.perf_counter()
    mx.screen(few, midpoint)
    a_prompt = (time.perf_counter() - start) / len(searched)
    n_prompts = min(len(more), max(len(searched), int(seconds / a_prompt)))
    values = mx.ComponentValues(model, more[:n_prompts], heads)
    return mx.screen(values, midpoint).single_scores, n_prompts


def print_front(found, scored):
    """The best subset of each size, as predicted, as searched, and on fresh prompts."""
    print("| size | predicted | bound | searched | faithfulness, fresh | matching, fresh | units |")
    print("|---|---|---|---|---|---|---|")
    shares = [size / scored.n_units for size in found.best]
    best, matching = (
        mx.faithfulness_curve(scored, subsets, shares=shares).scores
        for subsets in (found.best, found.matching)
    )
    for row, score, near in zip(found.front.to_dict("records"), best, matching, strict=True):
        units = row["units"] if row["size"] <= 12 else "…"
        print(
            f"| {row['size']} | {row['predicted']:.2f} | {row['bound']:.2f} | {row['value']:.2f} | "
            f"{score} | {near} | {units} |"
        )
    print(flush=True)


def main():
    model = mx.load_model("smollm2-135m")
    print("# Circuits of SmolLM2-135M among 270 heads, mean reference\n")
    print(f"Made by `python tests/benchmarks/circuits.py {' '.join(sys.argv[1:])}`.\n")
    for name in sys.argv[1:]:
        discover(name, model)


if __name__ == "__main__":
    main()
