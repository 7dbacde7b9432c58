"""Screening of heads against all exact effects: SmolLM2 on IOI, 270 heads, 36,315 pairs.

    python tests/benchmarks/screening_heads.py truth FOLDER   # about 30 min a reference, resumable
    python tests/benchmarks/screening_heads.py table > tests/benchmarks/screening_heads.md

The first command measures every single and pair and writes them to screening_heads.npz.
"""

import sys
import time
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy import stats

import mechspex as mx
from mechspex.runs.recorded import RecordedValues
from mechspex.screening.attribution import extensions, first_order

TRUTH = Path(__file__).with_suffix(".npz")
REFERENCES = ("mean", "corrupted")


def values_of(reference):
    model = mx.load_model("smollm2-135m")
    task = mx.load_task("ioi", model, n_prompts=8, seed=0)
    return mx.ComponentValues(model, task, mx.heads(model), reference)


def truth(folder):
    found = {}
    for reference in REFERENCES:
        run = Path(folder) / f"pairs-{reference}"
        swept = mx.sweep(values_of(reference), order=2, run=run, progress=True)
        found[f"{reference}_singles"] = swept.tested[0].effects.astype(np.float32)
        found[f"{reference}_pairs"] = swept.tested[1].effects.astype(np.float32)
    np.savez_compressed(TRUTH, **found)


def worst_rank(exact, predicted, k):
    """Of the true top k among the predicted ones."""
    rank = np.empty(len(exact), dtype=int)
    rank[np.argsort(-np.abs(predicted))] = np.arange(1, len(exact) + 1)
    return rank[np.argsort(-np.abs(exact))[:k]].max()


def recall(exact, predicted, k, among):
    top, proposed = (set(np.argsort(-np.abs(v))[:m]) for v, m in ((exact, k), (predicted, among)))
    return len(top & proposed) / k


def timed(function, *arguments):
    start = time.perf_counter()
    return function(*arguments), time.perf_counter() - start


def table():
    exact = np.load(TRUTH)
    pairs = np.array(list(combinations(range(270), 2)))
    first, second = [], []
    for reference in REFERENCES:
        values = values_of(reference)
        singles, effects = exact[f"{reference}_singles"], exact[f"{reference}_pairs"]
        some = np.random.default_rng(0).choice(len(pairs), 500, replace=False)
        masks = np.ones((len(some), 270), dtype=bool)
        masks[np.arange(len(some))[:, None], pairs[some]] = False
        values(masks[:50])
        cost = timed(values, masks)[1] * len(pairs) / len(some)
        for parts in (0, 30):
            recorded = RecordedValues(values, None)
            predicted, seconds = timed(first_order, recorded, parts, (0.5,), 0)
            name = "plain, one gradient" if parts == 0 else f"midpoint, {parts} parts"
            rank = stats.spearmanr(predicted, singles)[0]
            r = np.corrcoef(predicted, singles)[0, 1]
            first.append(
                f"| {reference} | {name} | {rank:.3f} | {r:.3f} | "
                f"{worst_rank(singles, predicted, 15)} | {seconds:.1f} |"
            )
        recorded = RecordedValues(values, None)
        rows, seconds = timed(extensions, recorded, [(i,) for i in range(270)])
        scores = ((rows + rows.T) / 2)[pairs[:, 0], pairs[:, 1]]
        agree = np.argsort(-np.abs(scores))[:500]
        signs = np.mean(np.sign(scores[agree]) == np.sign(effects[agree]))
        second.append(
            f"| {reference} | {stats.spearmanr(scores, effects)[0]:.3f} | "
            f"{np.corrcoef(scores, effects)[0, 1]:.3f} | {signs:.0%} | "
            f"{recall(effects, scores, 50, 500):.2f} | {recall(effects, scores, 50, 200):.2f} | "
            f"{seconds:.0f} | {cost:.0f} | {seconds / cost:.1%} |"
        )
    print("# Screening of heads: SmolLM2-135M on IOI, 8 prompts, 270 heads\n")
    print(
        "Made by `python tests/benchmarks/screening_heads.py table` on 2 cores, against all exact"
    )
    print("effects (`… truth FOLDER`), which lie in screening_heads.npz.\n")
    print("First order, against the 270 exact singles:\n")
    print("| reference | method | rank correlation | r | worst rank of the true top 15 | seconds |")
    print("|---|---|---|---|---|---|")
    print("\n".join(first))
    print("\nSecond order, against all 36,315 exact pairs (exact cost from 500 of them):\n")
    print(
        "| reference | rank correlation | r | same sign, top 500 | true top 50 in 500 | in 200 | "
        "seconds | exact, seconds | share |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    print("\n".join(second))


if __name__ == "__main__":
    if sys.argv[1] == "truth":
        truth(sys.argv[2])
    else:
        table()
