"""What predicts retraining: LDS on fresh parts of the data, markdown table on stdout.

    OMP_NUM_THREADS=1 python tests/benchmarks/training_lds.py > tests/benchmarks/training_lds.md

Parts of the names of cases ("MLP", "documents") after the command choose some of them.
Each density has its own masks to decode from, as datamodels have, and its own fresh ones.
"""

import sys
import time

import numpy as np
import torch
from torch import nn

import mechspex as mx

MASKS, FRESH, DENSITIES = 1_000, 200, (0.1, 0.5, 0.9)
# Of the documents, whose training takes longer.
FEW_MASKS, FEW_FRESH, SEEDS = 400, 100, 4


def logistic(n=300, groups=None, copies=1):
    """Digits; with copies every one of n / copies digits stands there so often."""
    task = mx.training_task("digits", n_examples=n // copies)
    inputs, labels = task.options["dataset"]
    dataset = (np.repeat(inputs, copies, axis=0), np.repeat(labels, copies))
    units = mx.examples(dataset, groups=groups)
    return mx.TrainingValues("logistic", dataset, task.options["targets"], units=units)


def mlp(n=300):
    task = mx.training_task("digits", n_examples=n)
    data, asked = (
        (inputs.astype(np.float32), labels)
        for inputs, labels in (task.options["dataset"], task.options["targets"])
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    training = mx.Training("adam", 0.01, 10, 50)
    return mx.TrainingValues(module, data, asked, training=training, seeds=2)


def documents():
    """Two of 200 documents poison together; the targets are seeds."""
    return mx.training_task("poison").values().with_seeds(SEEDS)


CASES = {
    "300 digits, logistic": logistic,
    "50 groups of 6 digits, logistic": lambda: logistic(groups=[i % 50 for i in range(300)]),
    "100 digits, each 3 times, logistic": lambda: logistic(copies=3),
    "300 digits, MLP, 2 seeds": mlp,
    "200 documents, two poison together": documents,
}


def methods(values, keep, n_masks):
    masks = mx.sample_masks(values.n_units, n_masks, keep=keep, seed=1)
    measured = values(masks)
    # A pair that is decoded from a sum over targets is that of all of them.
    cubic = mx.decoders.Pursuit(max_order=3)
    found = {
        "order 1": mx.decode(masks, measured, decoder="additive", keep=keep),
        "order ≤ 3": mx.decode(masks, measured, decoder=cubic, keep=keep),
        "leave one out": mx.leave_one_out(values),
        "random": mx.random_scores(values.units),
    }
    if isinstance(values.learner, mx.LogisticRegression):
        found["influence"] = mx.influence(values)
        found["influence, 2nd order"] = mx.influence(values, order=2)
    else:
        found["TracIn"] = mx.tracin(values)
    return found


if __name__ == "__main__":
    print("# What predicts retraining\n")
    print(
        "Made by `OMP_NUM_THREADS=1 python tests/benchmarks/training_lds.py > "
        "tests/benchmarks/training_lds.md`.\n"
    )
    print("| data | kept | method | LDS | interval over targets | − order 1 |")
    print("|---|---|---|---|---|---|")
    chosen = sys.argv[1:] or [""]
    for case, make in CASES.items():
        if not any(part in case for part in chosen):
            continue
        values, few = make(), make is documents
        for keep in (0.5,) if few else DENSITIES:
            start = time.perf_counter()
            found = methods(values, keep, FEW_MASKS if few else MASKS)
            scores = mx.lds(found, values, keep=keep, n_masks=FEW_FRESH if few else FRESH)
            for method in scores.methods:
                score = scores.estimate(method, keep)
                apart = ""
                if method != "order 1":
                    difference = scores.difference(method, "order 1", keep)
                    apart = (
                        f"{difference.value:+.3f} ({difference.low:+.3f} … {difference.high:+.3f})"
                    )
                print(
                    f"| {case} | {keep} | {method} | {score.value:.3f} | {score.low:.3f} … "
                    f"{score.high:.3f} | {apart} |",
                    flush=True,
                )
            print(f"{case} {keep} {time.perf_counter() - start:.0f} s", file=sys.stderr)
