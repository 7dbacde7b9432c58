"""Edges of SmolLM2 on IOI: what a mask costs, what a gradient finds, which edges interact.

    OMP_NUM_THREADS=1 python tests/benchmarks/edges.py > tests/benchmarks/edges.md

Seconds are CPU seconds of one thread, of heads and edges in turn in one run.
"""

import resource
import sys
import time

import numpy as np
import torch
from scipy import stats

import mechspex as mx

N_PROMPTS, N_MASKS, N_EXACT, N_PAIRED = 8, 8, 30, 10
N_GRADIENTS = 5


def seconds(call):
    """What a call returns, and the CPU seconds it took."""
    start = time.process_time()
    returned = call()
    return returned, time.process_time() - start


def gigabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def rates(heads, edges, rng):
    """CPU seconds a mask of heads, of edges, and of single edges ablated."""
    few = np.ones((N_MASKS, edges.n_units), dtype=bool)
    few[np.arange(N_MASKS), rng.integers(edges.n_units, size=N_MASKS)] = False
    cases = {
        f"{heads.n_units} heads, 90% kept": (heads, rng.random((N_MASKS, heads.n_units)) < 0.9),
        f"{edges.n_units:,} edges, 90% kept": (edges, rng.random((N_MASKS, edges.n_units)) < 0.9),
        f"{edges.n_units:,} edges, half kept": (edges, rng.random((N_MASKS, edges.n_units)) < 0.5),
        "one edge ablated": (edges, few),
    }
    taken = {name: [] for name in cases}
    for _ in range(2):
        for name, (values, masks) in cases.items():
            taken[name].append(seconds(lambda v=values, m=masks: v(m))[1] / N_MASKS)
    return {name: min(each) for name, each in taken.items()}


def show_rates(heads, edges):
    found = rates(heads, edges, np.random.default_rng(0))
    one = next(iter(found.values()))
    print("## A mask\n")
    print(f"Memory of the whole process afterwards: {gigabytes():.1f} GB.\n")
    print(f"| masks on {N_PROMPTS} prompts | CPU seconds a mask | times heads |\n|---|---|---|")
    for name, each in found.items():
        print(f"| {name} | {each:.2f} | {each / one:.2f} |", flush=True)


def mean_gradient(values, masks):
    """The mean gradient over masks and prompts, one mask at a time."""
    return np.mean([values.value_and_gradient(mask[None])[1][0].mean(0) for mask in masks], axis=0)


def screens(edges):
    """{screen: (predicted effect of ablating each edge, gradients, CPU seconds)}."""
    whole = np.ones((1, edges.n_units), dtype=np.float32)
    line = whole * (np.arange(1, N_GRADIENTS + 1) / N_GRADIENTS)[:, None].astype(np.float32)

    def kept(at):
        return mx.screen(edges, mx.FirstOrder(parts=N_GRADIENTS, at=at), n_terms=1).single_scores

    return {
        "EAP": (*seconds(lambda: -mean_gradient(edges, whole)), 1),
        "EAP-IG": (*seconds(lambda: -mean_gradient(edges, line)), N_GRADIENTS),
        "midpoint": (*seconds(lambda: kept(0.5)), N_GRADIENTS),
        "three quarters": (*seconds(lambda: kept(0.75)), N_GRADIENTS),
    }


def show_screens(edges, found):
    names, n_edges = edges.units.names, edges.n_units
    best = np.concatenate([np.argsort(-np.abs(s))[:N_EXACT] for s, _, _ in found.values()])
    chosen = np.unique(best)
    exact = mx.validate(edges, [(int(column),) for column in chosen]).effects
    print("\n## Screens\n")
    print(
        f"Against the exact effects of {len(chosen)} edges, the best {N_EXACT} of each screen. "
        f"Memory of the whole process: {gigabytes():.1f} GB.\n"
    )
    print("| screen | gradients | CPU seconds | rank correlation | best edges |")
    print("|---|---|---|---|---|")
    for name, (scores, taken, number) in found.items():
        order = np.argsort(-np.abs(scores))[:4]
        listed = ", ".join(f"`{names[column]}` {scores[column]:+.2f}" for column in order)
        correlation = stats.spearmanr(scores[chosen], exact)[0]
        print(f"| {name} | {number} | {taken:.0f} | {correlation:.2f} | {listed} |", flush=True)
    strongest = chosen[np.argsort(-np.abs(exact))][:N_PAIRED]
    columns = [int(column) for column in strongest]
    pairs = [(a, b) for i, a in enumerate(columns) for b in columns[i + 1 :]]
    validated = mx.validate(edges, [tuple(sorted(pair)) for pair in pairs])
    confirmed = np.flatnonzero(validated.confirmed)
    print(
        f"\nOf {len(pairs)} pairs of the {N_PAIRED} strongest edges ({n_edges:,} in all), "
        f"{len(confirmed)} interactions are confirmed. The strongest:\n"
    )
    print("| pair | joint effect less both alone |\n|---|---|")
    for row in sorted(confirmed, key=lambda r: -abs(validated.effects[r]))[:6]:
        label = edges.units.label(validated.terms[row])
        print(f"| `{label}` | {validated.effects[row]:+.2f} |", flush=True)


def main():
    torch.set_num_threads(1)
    model = mx.load_model("smollm2-135m")
    task = mx.load_task("ioi", model, n_prompts=N_PROMPTS, seed=0)
    heads = mx.ComponentValues(model, task, "heads", "corrupted")
    edges, prepared = seconds(lambda: mx.ComponentValues(model, task, "edges", "corrupted"))
    print("# Edges of SmolLM2-135M on IOI\n")
    print(
        "Made by `OMP_NUM_THREADS=1 python tests/benchmarks/edges.py > tests/benchmarks/edges.md` "
        f'on a busy machine, with `ablation="corrupted"` and {N_PROMPTS} prompts of '
        f"{edges._proved.forwards.groups[0].length} tokens. Preparing and proving the edges took "
        f"{prepared:.0f} CPU seconds.\n",
        flush=True,
    )
    show_rates(heads, edges)
    show_screens(edges, screens(edges))


if __name__ == "__main__":
    sys.exit(main())
