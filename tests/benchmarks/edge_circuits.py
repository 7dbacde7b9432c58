"""Circuits of edges by gradients: SmolLM2-135M on IOI, scored on fresh prompts as MIB does.

    OMP_NUM_THREADS=1 python tests/benchmarks/edge_circuits.py 0 1 \\
        > tests/benchmarks/edge_circuits.md

The numbers are seeds: of the prompts, and of the parts into which edges are dealt.
"""

import sys

import numpy as np
import torch

import mechspex as mx
from mechspex.runs.recorded import RecordedValues

N_PROMPTS, N_FRESH, N_GRADIENTS = 8, 24, 5
EAP, EAP_IG, MIDPOINT = "EAP, 1 gradient", "EAP-IG", "midpoint"
THREE_QUARTERS, BOTH = "three quarters", "midpoint and whole"


def scores_of(edges, seed):
    """{screen: the predicted effect of ablating each edge}, from five gradients but for EAP."""
    recorded = RecordedValues(edges, None)
    whole = np.ones((1, edges.n_units), dtype=np.float32)
    line = whole * (np.arange(1, N_GRADIENTS + 1) / N_GRADIENTS)[:, None].astype(np.float32)

    def by_parts(parts, at):
        method = mx.FirstOrder(parts=parts, at=at)
        return mx.screen(edges, method, n_terms=1, seed=seed).single_scores

    return {
        EAP: -recorded.value_and_mean_gradient(whole)[1][0],
        EAP_IG: -recorded.value_and_mean_gradient(line)[1].mean(axis=0),
        MIDPOINT: by_parts(N_GRADIENTS, 0.5),
        THREE_QUARTERS: by_parts(N_GRADIENTS, 0.75),
        BOTH: by_parts(N_GRADIENTS - 1, (0.5, 1.0)),
    }


def curves_of(fresh, scores):
    """{screen: curves of its edges by what their ablation costs, and by the size of that}."""
    # The ends, and circuits that rankings share, are measured once.
    recorded = RecordedValues(fresh, None)
    curves = {}
    for name, each in scores.items():
        rankings = np.argsort(each, kind="stable"), np.argsort(-np.abs(each), kind="stable")
        curves[name] = [mx.faithfulness_curve(recorded, r.tolist()) for r in rankings]
        print(name, file=sys.stderr, flush=True)
    return curves


def print_areas(curves, other):
    """Both areas of each screen, and how far they are from another screen's."""
    print(f"\n| screen | CPR | less {other} | CMD | less {other} |\n|---|---|---|---|---|")
    signed_there, absolute_there = curves[other]
    for name, (signed, absolute) in curves.items():
        more, _ = signed.minus(signed_there)
        _, nearer = absolute.minus(absolute_there)
        there = ("", "") if name == other else (f"{more:+z.3f}", f"{nearer:+z.3f}")
        print(f"| {name} | {signed.cpr} | {there[0]} | {absolute.cmd} | {there[1]} |", flush=True)


def print_sizes(curves):
    sizes = curves[EAP_IG][0].sizes
    print(f"\n| screen | {' | '.join(f'{size:,}' for size in sizes)} |")
    print(f"|{'---|' * (1 + len(sizes))}")
    for name, (signed, absolute) in curves.items():
        both = zip(signed.scores, absolute.scores, strict=True)
        cells = " | ".join(f"{one.value:.2f} / {other.value:.2f}" for one, other in both)
        print(f"| {name} | {cells} |", flush=True)


def main():
    torch.set_num_threads(1)
    model = mx.load_model("smollm2-135m")
    seeds = [int(seed) for seed in sys.argv[1:]]
    print("# Circuits of edges by gradients: SmolLM2-135M on IOI\n")
    asked = " ".join(sys.argv[1:])
    print(
        f"Made by `OMP_NUM_THREADS=1 python tests/benchmarks/edge_circuits.py {asked}`.\n\n"
        f"Of each seed {N_PROMPTS} prompts for the gradients and {N_FRESH} others for the "
        f'circuits, `ablation="corrupted"`, {N_GRADIENTS}\ngradients a screen. *midpoint and '
        "whole* is the default with one part less, as the plain gradient is its fifth. All edges\n"
        "but the best are ablated: CPR is of those whose ablation is predicted to cost most, CMD "
        "of those with the largest effects of\neither sign, as MIB ranks them. Differences are "
        "paired by prompt, with 95% intervals. By size there is the\nfaithfulness of the first, "
        "and after a slash of the second: above 1 a circuit leaves out what works against\nthe "
        "answer."
    )
    for seed in seeds:
        drawn = mx.load_task("ioi", model, n_prompts=N_PROMPTS + N_FRESH, seed=seed)
        task, fresh = drawn.split(N_PROMPTS, N_FRESH)
        edges = mx.ComponentValues(model, task, "edges", "corrupted")
        curves = curves_of(edges.on(fresh), scores_of(edges, seed))
        print(f"\n## Seed {seed}")
        print_areas(curves, EAP_IG)
        print_areas(curves, MIDPOINT)
        print_sizes(curves)


if __name__ == "__main__":
    main()
