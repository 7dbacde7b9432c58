"""Gradients against all 36,315 exact pairs of heads: SmolLM2-135M, three tasks, three references.

    python tests/benchmarks/screening_pairs.py exact FOLDER [TASK-REFERENCE …]    # resumable
    python tests/benchmarks/screening_pairs.py predict FOLDER [TASK-REFERENCE …]  # resumable
    python tests/benchmarks/screening_pairs.py table FOLDER > tests/benchmarks/screening_pairs.md

The pairs of IOI under mean and corrupted, of 8 prompts, are those of screening_heads.npz; the
others are measured by the first command, on 2 prompts, and written to screening_pairs.npz, from
which they are read as long as it is there.
"""

import sys
import time
from itertools import combinations
from pathlib import Path

import numpy as np
from screening_gradients import (  # pyright: ignore[reportMissingImports]
    CASES,
    RECORDED,
    RULES,
    exact_singles,
    model,
    rank,
    recall,
)

import mechspex as mx
from mechspex.runs.recorded import RecordedValues
from mechspex.screening.attribution import extensions

EXACT = Path(__file__).with_suffix(".npz")
RECORDED_CASES = [("ioi", "mean"), ("ioi", "corrupted")]
# Scores by AtP* take ten times as long: those of single rows stand in screening_gradients.md.
JUDGED = {"plain": None} | {name: rules for name, rules in RULES.items() if name != "AtP*"}
SAVED_EVERY = 10


def values_of(task, reference):
    n_prompts = 8 if (task, reference) in RECORDED_CASES else 2
    loaded = mx.load_task(task, model(), n_prompts=n_prompts, seed=0)
    return mx.ComponentValues(model(), loaded, mx.heads(model()), reference)


def measure_exact(folder, cases):
    """The effect of both heads less both alone, of all pairs in the order of combinations."""
    for task, reference in cases:
        if (task, reference) in RECORDED_CASES:
            continue
        file = folder / f"exact-{task}-{reference}.npz"
        found = dict(np.load(file)) if file.exists() else {"rows": 0, "seconds": 0.0}
        if "pairs" not in found:
            values = values_of(task, reference)
            found.setdefault("both", np.zeros((values.n_units, values.n_units), dtype=np.float32))
            while found["rows"] < values.n_units:
                measure_rows(values, found)
                np.savez_compressed(file, **found)
            n, singles = values.n_units, exact_singles(values, task, reference)
            whole = values(np.ones((1, n), dtype=bool)).mean()
            apart = found["both"] - whole - singles[:, None] - singles
            found["pairs"] = apart[np.triu_indices(n, 1)].astype(np.float32)
            np.savez_compressed(file, **found)
        print(task, reference, time.strftime("%H:%M:%S"), file=sys.stderr, flush=True)
    files = {case: folder / f"exact-{'-'.join(case)}.npz" for case in CASES}
    done = {case: np.load(file) for case, file in files.items() if file.exists()}
    np.savez_compressed(
        EXACT,
        **{"_".join(case): each["pairs"] for case, each in done.items() if "pairs" in each},
        **{f"{'_'.join(case)}_seconds": each["seconds"] for case, each in done.items()},
    )


def measure_rows(values, found):
    """Some heads more, each ablated with every later one; masks that follow each other share."""
    first, n = int(found["rows"]), values.n_units
    until = min(first + SAVED_EVERY, n)
    pairs = np.array([pair for pair in combinations(range(n), 2) if first <= pair[0] < until])
    start = time.process_time()
    if len(pairs):
        masks = np.ones((len(pairs), n), dtype=bool)
        masks[np.arange(len(pairs))[:, None], pairs] = False
        found["both"][pairs[:, 0], pairs[:, 1]] = values(masks).mean(1)
    found["seconds"] = found["seconds"] + time.process_time() - start
    found["rows"] = until


def exact_pairs(task, reference):
    if (task, reference) in RECORDED_CASES:
        return np.load(RECORDED)[f"{reference}_pairs"]
    return np.load(EXACT)[f"{task}_{reference}"]


def predict(folder, cases):
    """g_j(all) − g_j(all but i), the mean of both orders, by each set of rules."""
    for task, reference in cases:
        file = folder / f"predicted-{task}-{reference}.npz"
        found = dict(np.load(file)) if file.exists() else {}
        wanted = [name for name in JUDGED if name not in found]
        if not wanted:
            continue
        values = values_of(task, reference)
        n = values.n_units
        for name in wanted:
            rules = JUDGED[name]
            by_rules = values if rules is None else values.with_backward(rules)
            start = time.process_time()
            rows = extensions(RecordedValues(by_rules, None), [(i,) for i in range(n)])
            found[f"{name}, seconds"] = time.process_time() - start
            found[name] = ((rows + rows.T) / 2)[np.triu_indices(n, 1)]
            np.savez_compressed(file, **found)
        print(task, reference, time.strftime("%H:%M:%S"), file=sys.stderr, flush=True)


def table(folder, cases):
    files = {case: folder / f"predicted-{'-'.join(case)}.npz" for case in cases}
    found = {case: np.load(file) for case, file in files.items() if file.exists()}
    cases = list(found)
    exact = {case: exact_pairs(*case) for case in cases}
    print("# Gradients against all exact pairs of heads\n")
    print(
        "Made by `OMP_NUM_THREADS=1 python tests/benchmarks/screening_pairs.py exact FOLDER`, "
        "`… predict FOLDER`\nand `… table FOLDER`. SmolLM2-135M, its 270 heads, all 36,315 pairs: "
        "the exact effect of both less\nboth alone against [g_j(all) − g_j(all but i) + g_i(all) "
        "− g_i(all but j)] / 2, on the same prompts\n(IOI under mean and corrupted: 8, else 2). "
        "CPU seconds of one thread on a busy machine.\n"
    )
    print("Rank correlation of scores and effects:\n")
    print_table(cases, found, exact, rank, 3)
    print("\nRank correlation of their sizes:\n")
    print_table(cases, found, exact, lambda s, e: rank(np.abs(s), np.abs(e)), 3)
    print("\nOf the true top 50 pairs, the share among the predicted 500:\n")
    print_table(cases, found, exact, lambda s, e: recall(e, s, 50, 500), 2)
    print("\nAmong the predicted 100:\n")
    print_table(cases, found, exact, lambda s, e: recall(e, s, 50, 100), 2)
    print("\nCorrelation r of scores and effects:\n")
    print_table(cases, found, exact, lambda s, e: np.corrcoef(s, e)[0, 1], 3)
    print_exact(cases, exact)


def print_table(cases, found, exact, score, digits):
    told = " | ".join(f"`{task}`, {reference}" for task, reference in cases)
    print(f"| gradient | {told} | mean | seconds |\n|{'---|' * (len(cases) + 3)}")
    for name in JUDGED:
        each = [score(found[case][name], exact[case]) for case in cases]
        took = np.mean([found[c][f"{name}, seconds"] for c in cases if c not in RECORDED_CASES])
        cells = " | ".join(f"{value:.{digits}f}" for value in each)
        print(f"| {name} | {cells} | {np.mean(each):.{digits}f} | {took:.0f} |")


def print_exact(cases, exact):
    """How large the pairs are, and how few of them hold what all hold together."""
    print(
        "\n## The exact pairs\n\nThe largest and its effect; how many have a tenth, and a "
        "hundredth, of it at least; how many of the\nlargest hold half, and nine tenths, of the "
        "sum of squares; CPU seconds.\n"
    )
    print("| | largest | effect | a tenth | a hundredth | half | nine tenths | seconds |")
    print(f"|{'---|' * 8}")
    names, saved = mx.heads(model()).names, np.load(EXACT)
    upper = np.triu_indices(270, 1)
    for case in cases:
        sizes = np.abs(exact[case])
        largest = sizes.argmax()
        pair = " × ".join(names[axis[largest]] for axis in upper)
        share = np.cumsum(np.sort(sizes**2)[::-1]) / (sizes**2).sum()
        counts = [(sizes >= part * sizes[largest]).sum() for part in (0.1, 0.01)]
        counts += [int(np.searchsorted(share, part)) + 1 for part in (0.5, 0.9)]
        told = " | ".join(f"{count:,}" for count in counts)
        took = "" if case in RECORDED_CASES else f"{saved['_'.join((*case, 'seconds'))]:.0f}"
        effect = f"{exact[case][largest]:+.3f}"
        print(f"| `{case[0]}`, {case[1]} | {pair} | {effect} | {told} | {took} |")


if __name__ == "__main__":
    commands = {"exact": measure_exact, "predict": predict, "table": table}
    command, where = commands[sys.argv[1]], Path(sys.argv[2])
    where.mkdir(parents=True, exist_ok=True)
    asked = [tuple(case.rsplit("-", 1)) for case in sys.argv[3:]]
    command(where, asked or list(CASES))
