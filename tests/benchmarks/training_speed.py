"""Trainings a second, many at once and one by one: markdown table on stdout.

    OMP_NUM_THREADS=1 python tests/benchmarks/training_speed.py > tests/benchmarks/training_speed.md

Both sides train on the same parts of the digits of scikit-learn, in turns, on one thread. The loops
are those that anyone would write: scikit-learn with its own optimiser, and torch with the same
steps.
"""

# pyright: reportArgumentType=false

import time
import warnings
from copy import deepcopy

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from torch import nn

import mechspex as mx

ROUNDS, BATCHED, LOOPED = 3, 256, 4
BATCH = 50
TRAINING = mx.Training("adam", 0.01, 10, BATCH)
HIDDEN = 32


def digits(n):
    """So many digits in a fixed order, and 20 of them as targets."""
    inputs, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(inputs))[:n]
    inputs, labels = (inputs[order] / 16).astype(np.float32), labels[order]
    return (inputs, labels), (inputs[:20], labels[:20])


def with_one(inputs):
    return np.hstack([inputs, np.ones((len(inputs), 1))])


def margins(logits, labels):
    logits, labels = torch.as_tensor(logits).double(), torch.as_tensor(labels)
    right = nn.functional.one_hot(labels, logits.shape[1]).bool()
    return (logits[right] - logits.masked_fill(right, -torch.inf).logsumexp(1)).numpy()


def sklearn_logistic(data, asked, mask):
    fitted = LogisticRegression(C=1.0, fit_intercept=False, max_iter=2000)
    fitted.fit(with_one(data[0])[mask], data[1][mask])
    return margins(fitted.decision_function(with_one(asked[0])), asked[1])


def torch_logistic(data, asked, mask):
    inputs = torch.as_tensor(with_one(data[0])[mask])
    labels = torch.as_tensor(data[1][mask])
    theta = torch.zeros(inputs.shape[1], 10, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([theta], max_iter=500, line_search_fn="strong_wolfe",
                                  tolerance_grad=1e-4)  # fmt: skip

    def loss():
        optimiser.zero_grad()
        found = nn.functional.cross_entropy(inputs @ theta, labels, reduction="sum")
        found = found + 0.5 * theta.square().sum()
        found.backward()
        return found

    optimiser.step(loss)
    return margins(torch.as_tensor(with_one(asked[0])) @ theta.detach(), asked[1])


def mlp():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(64, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))


def sklearn_mlp(data, asked, mask):
    fitted = MLPClassifier(
        (HIDDEN,), learning_rate_init=TRAINING.learning_rate, max_iter=TRAINING.epochs,
        batch_size=min(BATCH, int(mask.sum())), alpha=0.0, random_state=0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted.fit(data[0][mask], data[1][mask])


def torch_mlp(data, asked, mask):
    module, rng = deepcopy(MODULE), np.random.default_rng(0)
    optimiser = torch.optim.Adam(module.parameters(), TRAINING.learning_rate)
    inputs, labels = torch.as_tensor(data[0]), torch.as_tensor(data[1])
    for _ in range(TRAINING.epochs):
        order = rng.permutation(len(inputs))
        for start in range(0, len(inputs), BATCH):
            rows = order[start : start + BATCH]
            rows = rows[mask[rows]]
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(inputs[rows]), labels[rows]).backward()
            optimiser.step()
    with torch.no_grad():
        return margins(module(torch.as_tensor(asked[0])), asked[1])


MODULE = mlp()
MODELS = {
    "logistic": ("logistic", None, sklearn_logistic, torch_logistic),
    "MLP": (MODULE, TRAINING, sklearn_mlp, torch_mlp),
}


def rate(train, n):
    """Trainings a second."""
    start = time.perf_counter()
    train()
    return n / (time.perf_counter() - start)


def row(n, name, keep):
    data, asked = digits(n)
    kind, training, by_sklearn, by_torch = MODELS[name]
    values = mx.TrainingValues(kind, data, asked, training=training)
    masks = mx.sample_masks(n, BATCHED, keep=keep, seed=1)
    few = masks[:LOOPED]
    rates = {"ours": [], "scikit-learn": [], "torch": []}
    for _ in range(ROUNDS):
        rates["ours"].append(rate(lambda: values(masks), BATCHED))
        for loop, train in (("scikit-learn", by_sklearn), ("torch", by_torch)):
            rates[loop].append(rate(lambda t=train: [t(data, asked, m) for m in few], LOOPED))
    apart = max(np.abs(values(m[None])[0] - by_torch(data, asked, m)).max() for m in few)
    batch = np.abs(values(masks)[:LOOPED] - values(few)).max()
    median = {loop: float(np.median(found)) for loop, found in rates.items()}
    ratios = [o / max(s, t) for o, s, t in zip(*rates.values(), strict=True)]
    print(
        f"| {name} | {n:,} | {keep} | {median['ours']:.0f} | {median['scikit-learn']:.1f} | "
        f"{median['torch']:.1f} | **{np.median(ratios):.1f} ×** ({min(ratios):.1f}–"
        f"{max(ratios):.1f}) | {apart:.0e} | {batch:.0e} |",
        flush=True,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    print("# Trainings a second\n")
    print(
        "Made by `OMP_NUM_THREADS=1 python tests/benchmarks/training_speed.py > "
        "tests/benchmarks/training_speed.md`.\n"
    )
    print(
        "| model | examples | kept | ours | scikit-learn | torch | ours / the faster loop | apart "
        "| batch |\n|---|---|---|---|---|---|---|---|---|"
    )
    for n in (300, 1797):
        for name in MODELS:
            for keep in (0.9, 0.5):
                row(n, name, keep)
    print(
        f"\nDigits of scikit-learn, one thread, medians of {ROUNDS} rounds in which all took turns "
        f"(lowest and highest ratio); {BATCHED} trainings at once against {LOOPED} one by one. "
        "*Apart*: the largest difference of margins from the torch loop, whose steps are the same "
        "(of logistic regression: from its own minimum). *Batch*: the largest difference between "
        f"values of {BATCHED} and of {LOOPED} masks at once. MLP: 64–{HIDDEN}–10, Adam, "
        f"{TRAINING.epochs} epochs, batches of {BATCH}."
    )
