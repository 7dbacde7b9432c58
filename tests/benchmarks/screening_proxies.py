"""Proxies of the first order beside all exact single effects: SmolLM2 on IOI, 270 heads.

    python tests/benchmarks/screening_proxies.py mean > tests/benchmarks/screening_proxies.md

The truth lies in screening_heads.npz (see screening_heads.py). GradDrop is that of AtP* (Kramár et
al. 2024, arXiv:2403.00745, §3.2.2): one gradient for each block, with what that block writes held
fixed, sizes averaged.
"""

import sys
import time
from pathlib import Path

import numpy as np
from scipy import stats

import mechspex as mx
from mechspex.screening.screen_method import ScreenMethod

TRUTH = Path(__file__).with_name("screening_heads.npz")
PLAIN, MIDPOINT = mx.FirstOrder(parts=0), mx.FirstOrder(at=0.5)


def effects(values):
    """All exact singles."""
    return mx.validate(values, [(i,) for i in range(values.n_units)]).effects


def singles(values, method: ScreenMethod = MIDPOINT):
    return mx.screen(values, method).single_scores


def grad_drop(values):
    whole = np.ones((1, values.n_units), dtype=np.float32)
    blocks = values._proved.forwards.groups[0].cached.plain_model.module.model.layers
    sizes = np.zeros(values.n_units)
    for block in blocks:
        hooks = [block.self_attn.register_forward_hook(held), block.mlp.register_forward_hook(held)]
        gradient = values.value_and_gradient(whole)[1][0].mean(axis=0)
        sizes += np.abs(gradient) / (len(blocks) - 1)
        for hook in hooks:
            hook.remove()
    return sizes


def held(_module, _inputs, output):
    if isinstance(output, tuple):
        return (output[0].detach(), *output[1:])
    return output.detach()


def main():
    model = mx.load_model("smollm2-135m")
    task = mx.load_task("ioi", model, n_prompts=8, seed=0)
    heads, exact = mx.heads(model), np.load(TRUTH)
    print("# Proxies of the first order: SmolLM2-135M on IOI, 8 prompts, 270 heads\n")
    print(
        "Made by `python tests/benchmarks/screening_proxies.py`, against the 270 exact effects.\n"
    )
    print(
        "| reference | proxy | rank correlation | of sizes | worst rank of the true top 15 | cost |"
    )
    print("|---|---|---|---|---|---|")
    for reference in sys.argv[1:]:
        truth = exact[f"{reference}_singles"]
        values = mx.ComponentValues(model, task, heads, reference)
        few = mx.ComponentValues(model, task[:2], heads, reference)
        bf16 = mx.ComponentValues(model, task, heads, reference, precision="bf16")
        proxies = {
            "exact singles": lambda v=values: effects(v),
            "attribution, plain": lambda v=values: singles(v, PLAIN),
            "attribution, GradDrop": lambda v=values: grad_drop(v),
            "attribution, midpoint": lambda v=values: singles(v),
            "attribution, midpoint, 2 prompts": lambda v=few: singles(v),
            "attribution, midpoint, first 25 blocks": lambda v=values: singles(v.early_exit(25)),
            "exact singles, 2 prompts": lambda v=few: effects(v),
            "exact singles, bf16": lambda v=bf16: effects(v),
            "exact singles, first 25 blocks": lambda v=values: effects(v.early_exit(25)),
            "exact singles, first 20 blocks": lambda v=values: effects(v.early_exit(20)),
            "groups, 100 masks": lambda v=values: singles(v, mx.CoarseToFine(n_masks=200)),
        }
        whole = None
        for name, proxy in proxies.items():
            start = time.perf_counter()
            predicted = proxy()
            seconds = time.perf_counter() - start
            whole = seconds if whole is None else whole
            rank = np.empty(len(truth), dtype=int)
            rank[np.argsort(-np.abs(predicted), kind="stable")] = np.arange(1, len(truth) + 1)
            worst = rank[np.argsort(-np.abs(truth))[:15]].max()
            signed = "–" if name.endswith("GradDrop") else f"{rank_r(predicted, truth):.3f}"
            sizes = rank_r(np.abs(predicted), np.abs(truth))
            cost = f"{seconds / whole:.2f}"
            row = (reference, name, signed, f"{sizes:.3f}", str(worst), cost)
            print(f"| {' | '.join(row)} |", flush=True)


def rank_r(a, b):
    return stats.spearmanr(a, b)[0]


if __name__ == "__main__":
    main()
