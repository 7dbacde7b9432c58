"""The fewest training examples without which a prediction flips: markdown table on stdout.

    OMP_NUM_THREADS=1 python tests/benchmarks/flips.py [RUN] > tests/benchmarks/flips.md

300 digits of scikit-learn, logistic regression, 40 targets. How functions are decoded here was
chosen on targets of draw 0 of the data; these are of draw 1. What is trained for the program is
kept in the folder RUN where one is given, so that a run that was cut off goes on.
"""

import sys
import time
from pathlib import Path

import numpy as np

import mechspex as mx
from mechspex.runs.run import Run

TARGETS, MASKS, MOST, DRAW = 40, 600, 200, 1
TITLES = {
    "pairs": "integer program on a function of singles and pairs",
    "greedy": "greedy ranking of the same function",
    "additive": "integer program on an additive function",
    "influence": "greedy removal by influence",
    "second order": "greedy removal by influence of second order",
    "random": "random order",
}


def prefix_size(values, order, column, sign):
    """How many of a ranking's first have to go until the prediction flips; None beyond the most."""
    for start in range(0, MOST, 50):
        masks = np.ones((50, values.n_units), dtype=bool)
        for row, size in enumerate(range(start + 1, start + 51)):
            masks[row, order[:size]] = False
        across = np.flatnonzero(sign * values(masks)[:, column] <= 0)
        if len(across):
            return start + 1 + int(across[0])
    return None


def greedy_of(second, column, sign):
    """A ranking in which each next example is the one that moves the prediction most, as an
    expansion of second order says beside those that are gone."""
    pairs = second.pairs[column]
    slope = sign * (second.singles[:, column] + 0.5 * np.diag(pairs))
    order = []
    for _ in range(MOST):
        order.append(int(np.argmin(slope)))
        slope = slope + sign * pairs[order[-1]]
        slope[order] = np.inf
    return np.array(order)


def by_program(values, decoder, run):
    """A flipping set of a function of masks that leave out half of the candidates."""
    masks = mx.sample_masks(values.n_units, MASKS, keep=0.5, seed=1)
    with Run.open(run) as opened:
        function = mx.decode(masks, opened.record(values)(masks), decoder=decoder, keep=0.5)
        return mx.flipping_set(values, function, run=opened)


def main(folder):
    task = mx.training_task("digits", seed=DRAW)
    values = task.values().on(task.fresh["targets"])
    assert len(values.outputs) == TARGETS
    influences = [mx.influence(values, order=order) for order in (1, 2)]
    clean = values(np.ones((1, values.n_units), dtype=bool))[0]
    rng = np.random.default_rng(0)
    sizes, found = {name: [] for name in TITLES}, {"pairs": [], "additive": []}
    for column in range(TARGETS):
        sign = np.sign(clean[column])
        first = np.argsort(sign * influences[0].singles[:, column])
        size = prefix_size(values, first, column, sign)
        assert size is not None
        sizes["influence"].append(size)
        order = greedy_of(influences[1], column, sign)
        sizes["second order"].append(prefix_size(values, order, column, sign))
        order = rng.permutation(values.n_units)
        sizes["random"].append(prefix_size(values, order, column, sign))
        # Twice as many candidates as influence needs: masks leave out about as many as will flip.
        candidates = sorted(first[: max(12, 2 * size)].tolist())
        units = mx.examples(values.n_units, groups={f"#{row}": [row] for row in candidates})
        asked = tuple(part[column : column + 1] for part in task.fresh["targets"])
        near = mx.TrainingValues("logistic", task.options["dataset"], asked, units=units)
        run = None if folder is None else folder / str(column)
        for name, decoder in (
            ("pairs", mx.decoders.Pursuit(max_order=2)),
            ("additive", mx.decoders.Additive()),
        ):
            answer = by_program(near, decoder, run)
            found[name].append(answer)
            sizes[name].append(None if answer.members is None else len(answer.members))
        sizes["greedy"].append(found["pairs"][-1].greedy)
        line = {name: numbers[-1] for name, numbers in sizes.items()}
        print(column, f"{clean[column]:+.2f}", line, file=sys.stderr, flush=True)
    report(sizes, found, clean)


def report(sizes, found, clean):
    print("| method | flipped | median size | fewer than influence / as many / more |")
    print("|---|---|---|---|")
    for name, title in TITLES.items():
        have = [size for size in sizes[name] if size is not None]
        pairs = zip(sizes[name], sizes["influence"], strict=True)
        signs = [np.sign(one - other) for one, other in pairs if None not in (one, other)]
        counts = " / ".join(str(sum(sign == each for sign in signs)) for each in (-1, 0, 1))
        median = f"{np.median(have):.1f}" if have else "—"
        print(f"| {title} | {len(have)} of {TARGETS} | {median} | {counts} |")
    print(
        f"\n{TARGETS} targets, margins from {clean.min():+.1f} to {clean.max():+.1f}, "
        f"{(clean > 0).sum()} of them right."
    )
    for name, answers in found.items():
        tried = [answer for answer in answers if answer.tried]
        first = sum(bool(answer.reached[0]) for answer in tried)
        confirmed = [answer for answer in answers if answer.members is not None]
        proven = sum(answer.proven for answer in confirmed)
        print(
            f"{TITLES[name].capitalize()}: the first set proposed flips {first} of {len(tried)} "
            f"predictions after retraining ({first / len(tried):.0%}), one of at most 8 flips "
            f"{len(confirmed)}; {proven} of these are proven to be the smallest of their function."
        )
    print(
        f"Functions are decoded from {MASKS} masks that leave out half of the candidates: the "
        "examples with the largest influence, twice as many as have to go in the order of "
        f"influence. Orders remove one example after another until retraining flips the "
        f"prediction, at most {MOST}."
    )


if __name__ == "__main__":
    started = time.perf_counter()
    print("# The fewest training examples without which a prediction flips\n")
    print(
        "Made by `OMP_NUM_THREADS=1 python tests/benchmarks/flips.py > tests/benchmarks/flips.md`."
        "\n"
    )
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    print(f"\n{time.perf_counter() - started:.0f} seconds on a machine that others shared.")
