"""Gradients that see self-repair against exact effects of heads: SmolLM2-135M on three tasks.

    python tests/benchmarks/screening_gradients.py measure FOLDER   # resumable
    python tests/benchmarks/screening_gradients.py pairs FOLDER     # resumable
    python tests/benchmarks/screening_gradients.py held_out FOLDER  # resumable
    python tests/benchmarks/screening_gradients.py edges FOLDER
    python tests/benchmarks/screening_gradients.py table FOLDER \\
        > tests/benchmarks/screening_gradients.md

Exact effects on IOI under mean, of 8 prompts, are those of screening_heads.npz; the others are
measured by the first command, on 2 prompts, and written to screening_gradients.npz, from which
they are read as long as it is there.
"""

import functools
import sys
import time
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

import mechspex as mx
from mechspex.core import backward_rules
from mechspex.core.masks import single_ablations
from mechspex.runs.recorded import RecordedValues
from mechspex.screening.attribution import extensions

RECORDED = Path(__file__).with_name("screening_heads.npz")
EXACT = Path(__file__).with_suffix(".npz")
# (task, reference): number of prompts.
CASES = {
    ("ioi", "mean"): 8, ("capital", "mean"): 2, ("greater_than", "mean"): 2, ("ioi", "zero"): 2,
    ("capital", "corrupted"): 2, ("greater_than", "zero"): 2, ("ioi", "corrupted"): 2,
    ("capital", "zero"): 2, ("greater_than", "corrupted"): 2,
}  # fmt: skip
RULES = {
    "temperature 2": mx.BackwardRules(temperature=2.0),
    "norms frozen": mx.BackwardRules(norms_frozen=True),
    "GIM": backward_rules.GIM,
    "RelP": backward_rules.RELP,
    "AtP*": backward_rules.ATP_STAR,
}
METHODS = {
    "plain": mx.FirstOrder(parts=0),
    **{name: mx.FirstOrder(parts=0, backward=rules) for name, rules in RULES.items()},
    "integrated, 10 steps": mx.Integrated(),
    "midpoint, 30 parts": mx.FirstOrder(at=0.5),
    "three quarters, 30 parts": mx.FirstOrder(at=0.75),
    "midpoint and whole, 30 parts": mx.FirstOrder(),
}
# The query and key fix of AtP* alone, which is about edges.
ANEW = mx.FirstOrder(parts=0, backward=mx.BackwardRules(pattern_recomputed=True))
# Constants that are fitted on IOI: (temperature, shares of queries, keys and values, norms frozen).
GRID = list(
    product((1.0, 1.25, 1.5, 2.0, 3.0), ((1.0, 1.0), (0.5, 1.0), (0.25, 0.5)), (False, True))
)
FITTED_ON = ("ioi", "mean")
# Attention-only, sharp and repaired; programs; gates.
KNOWN = ("backup", "sort_unique", "reverse", "dyck1")
# Cases that were measured when the default had been chosen, and what is measured on them.
HELD_OUT = {("hypernymy", "mean"): 2, ("pronoun", "corrupted"): 2, ("hypernymy", "zero"): 2}
JUDGED = ("plain", "midpoint, 30 parts", "three quarters, 30 parts", "midpoint and whole, 30 parts")
# Whose pairs with all others are exact: of the strongest heads so many, by where they come from.
RECORDED_ROWS, MEASURED_ROWS = 24, 12


@functools.cache
def model():
    return mx.load_model("smollm2-135m")


def values_of(task, reference):
    n_prompts = (CASES | HELD_OUT)[task, reference]
    loaded = mx.load_task(task, model(), n_prompts=n_prompts, seed=0)
    return mx.ComponentValues(model(), loaded, mx.heads(model()), reference)


def rules_of(temperature, shares, frozen):
    of_scores, of_values = shares
    return mx.BackwardRules(temperature, of_scores, of_scores, of_values, norms_frozen=frozen)


def exact_singles(values, task, reference):
    known = np.load(RECORDED)
    if (task, reference) == FITTED_ON:
        return known[f"{reference}_singles"]
    if EXACT.exists():
        return np.load(EXACT)[f"{task}_{reference}"]
    whole = values(np.ones((1, values.n_units), dtype=bool)).mean()
    return values(single_ablations(values.n_units)).mean(1) - whole


def timed(call):
    """What a call returns, and the CPU seconds it took."""
    start = time.process_time()
    return call(), time.process_time() - start


def measure(folder):
    for task, reference in CASES:
        file = folder / f"{task}-{reference}.npz"
        found = dict(np.load(file)) if file.exists() else {}
        wanted = {name: method for name, method in METHODS.items() if name not in found}
        fitted = "grid 0" in found or (task, reference) != FITTED_ON
        if found and not wanted and fitted:
            continue
        values = values_of(task, reference)
        if not found:
            found["exact"] = exact_singles(values, task, reference)
        for name, method in wanted.items():
            screened, seconds = timed(lambda m=method, v=values: mx.screen(v, m, n_terms=1))
            found[name], found[f"{name}, seconds"] = screened.single_scores, seconds
        for number, constants in enumerate(() if fitted else GRID):
            rules = mx.FirstOrder(parts=0, backward=rules_of(*constants))
            found[f"grid {number}"] = mx.screen(values, rules, n_terms=1).single_scores
        np.savez_compressed(file, **found)
        print(task, reference, time.strftime("%H:%M:%S"), file=sys.stderr, flush=True)
    measured = {case: np.load(folder / f"{'-'.join(case)}.npz")["exact"] for case in CASES}
    del measured[FITTED_ON]
    np.savez_compressed(EXACT, **{"_".join(case): each for case, each in measured.items()})


def strongest(exact, rows):
    """The heads whose exact effects are largest, in order of their numbers."""
    return np.sort(np.argsort(-np.abs(exact))[:rows])


def exact_pairs(values, task, reference):
    """The strongest heads, and the joint effect of each with any other less both alone."""
    known = np.load(RECORDED)
    n = values.n_units
    if (task, reference) == FITTED_ON:
        heads = strongest(known[f"{reference}_singles"], RECORDED_ROWS)
        exact = np.zeros((n, n))
        exact[np.triu_indices(n, 1)] = known[f"{reference}_pairs"]
        return heads, (exact + exact.T)[heads]
    singles = exact_singles(values, task, reference)
    heads = strongest(singles, MEASURED_ROWS)
    whole = values(np.ones((1, n), dtype=bool)).mean()
    rows = np.zeros((len(heads), n))
    for row, head in zip(rows, heads, strict=True):
        both = single_ablations(n)
        both[:, head] = False
        row[:] = values(both).mean(1) - whole - singles[head] - singles
        row[head] = 0
    return heads, rows


def measure_pairs(folder):
    for task, reference in CASES:
        file = folder / f"pairs-{task}-{reference}.npz"
        found = dict(np.load(file)) if file.exists() else {}
        wanted = [name for name in ("plain", *RULES) if name not in found]
        if found and not wanted:
            continue
        values = values_of(task, reference)
        if not found:
            found["heads"], found["exact"] = exact_pairs(values, task, reference)
        for name in wanted:
            by_rules = values.with_backward(RULES[name]) if name in RULES else values
            recorded = RecordedValues(by_rules, None)
            sets = [(int(head),) for head in found["heads"]]
            rows, seconds = timed(lambda r=recorded, s=sets: extensions(r, s))
            found[name], found[f"{name}, seconds"] = rows, seconds
        np.savez_compressed(file, **found)
        print(task, reference, time.strftime("%H:%M:%S"), file=sys.stderr, flush=True)


def measure_held_out(folder):
    for task, reference in HELD_OUT:
        file = folder / f"held-out-{task}-{reference}.npz"
        if file.exists():
            continue
        values = values_of(task, reference)
        whole = values(np.ones((1, values.n_units), dtype=bool)).mean()
        found = {"exact": values(single_ablations(values.n_units)).mean(1) - whole}
        for name in JUDGED:
            found[name] = mx.screen(values, METHODS[name], n_terms=1).single_scores
        np.savez_compressed(file, **found)
        print(task, reference, time.strftime("%H:%M:%S"), file=sys.stderr, flush=True)


def rank(predicted, exact):
    return float(np.corrcoef(stats.rankdata(predicted), stats.rankdata(exact))[0, 1])


def recall(exact, predicted, k, among):
    top, proposed = (set(np.argsort(-np.abs(v))[:m]) for v, m in ((exact, k), (predicted, among)))
    return len(top & proposed) / k


def table(folder):
    found = {
        case: np.load(folder / f"{'-'.join(case)}.npz")
        for case in CASES
        if (folder / f"{'-'.join(case)}.npz").exists()
    }
    print("# Gradients that see self-repair, against exact effects of heads\n")
    print(
        "Made by `OMP_NUM_THREADS=1 python tests/benchmarks/screening_gradients.py measure FOLDER`,"
        "\n`… pairs FOLDER`, `… held_out FOLDER` and `… table FOLDER`. Scores and exact effects "
        "are of the same\nprompts; CPU seconds of one thread on a busy machine.\n"
    )
    table_of_singles(found)
    table_of_held_out(folder)
    table_of_constants(found[FITTED_ON])
    table_of_pairs(folder)
    table_of_known_models()
    table_of_edges()
    table_of_smollm2_edges(folder)


def table_of_singles(found):
    print("## Single heads of SmolLM2-135M\n\nRank correlation with the 270 exact effects:\n")
    print_by_case(found, rank, 3)
    print("\nOf the 15 strongest heads, how many are among the 30 that are predicted strongest:\n")
    print_by_case(found, hits, 0)
    print("\nThe error Σ |predicted − exact| / Σ |exact|, to which strong heads add most:\n")
    print_by_case(found, off_by, 2)


def print_by_case(found, score, digits):
    print_header(found, " | mean | seconds |")
    for name in METHODS:
        each = [score(case[name], case["exact"]) for case in found.values()]
        cells = " | ".join(f"{value:.{digits}f}" for value in each)
        took = found[FITTED_ON][f"{name}, seconds"]
        print(f"| {name} | {cells} | {np.mean(each):.{digits or 1}f} | {took:.1f} |")


def table_of_held_out(folder):
    files = {case: folder / f"held-out-{'-'.join(case)}.npz" for case in HELD_OUT}
    found = {case: np.load(file) for case, file in files.items() if file.exists()}
    if not found:
        return
    print(
        "\nCases that were measured when the default, *midpoint and whole*, had been chosen: rank "
        "correlation /\nhow many of the 15 strongest heads are among 30 / the error.\n"
    )
    print_header(found, " |")
    for name in JUDGED:
        cells = [
            f"{rank(case[name], case['exact']):.3f} / {hits(case[name], case['exact']):.0f} / "
            f"{off_by(case[name], case['exact']):.2f}"
            for case in found.values()
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def hits(predicted, exact):
    return 15 * recall(exact, predicted, 15, 30)


def table_of_constants(case):
    print(
        "\n## Constants\n\nFitted on IOI under `mean`: rank correlation by temperature (down), by "
        "what gradients of queries\nand keys, and of values, are multiplied by, and whether norms "
        "are frozen.\n"
    )
    columns = list(dict.fromkeys((shares, frozen) for _, shares, frozen in GRID))
    told = [f"{q:g}, {v:g}{', frozen' if frozen else ''}" for (q, v), frozen in columns]
    print(f"| temperature | {' | '.join(told)} |\n|{'---|' * (len(columns) + 1)}")
    of = {constants: rank(case[f"grid {n}"], case["exact"]) for n, constants in enumerate(GRID)}
    for temperature in dict.fromkeys(constants[0] for constants in GRID):
        cells = " | ".join(f"{of[temperature, *column]:.3f}" for column in columns)
        print(f"| {temperature:g} | {cells} |")
    best = max(of, key=of.__getitem__)
    best_told = "the chain rule" if not rules_of(*best) else str(rules_of(*best))
    print(f"\nThe best of them: {best_told}.")


def table_of_pairs(folder):
    files = {case: folder / f"pairs-{'-'.join(case)}.npz" for case in CASES}
    found = {case: np.load(file) for case, file in files.items() if file.exists()}
    if not found:
        return
    print(
        f"\n## Pairs of SmolLM2-135M\n\nExact pairs of the {RECORDED_ROWS} strongest heads with "
        f"all others (the first case), or of\nthe {MEASURED_ROWS} strongest (the "
        "other cases), against g_j(all) − g_j(all but i) by each set of rules. Rank\ncorrelation:\n"
    )
    print_pairs(found, rank, 3)
    print("\nOf the true top 50 pairs, the share among the predicted 500:\n")
    print_pairs(found, lambda scores, exact: recall(exact, scores, 50, 500), 2)
    print("\nAmong the predicted 100:\n")
    print_pairs(found, lambda scores, exact: recall(exact, scores, 50, 100), 2)
    print("\nCorrelation r of scores and effects:\n")
    print_pairs(found, lambda scores, exact: np.corrcoef(scores, exact)[0, 1], 3)


def print_pairs(found, score, digits):
    print_header(found, " | mean | seconds |")
    for name in ("plain", *RULES):
        each = []
        for case in found.values():
            apart = np.arange(270) != case["heads"][:, None]
            each.append(score(case[name][apart], case["exact"][apart]))
        cells = " | ".join(f"{value:.{digits}f}" for value in each)
        took = found[FITTED_ON][f"{name}, seconds"]
        print(f"| {name} | {cells} | {np.mean(each):.{digits}f} | {took:.0f} |")


def print_header(found, end):
    counts = CASES | HELD_OUT
    header = " | ".join(f"{'`, '.join((f'`{t}', r))}, {counts[t, r]} prompts" for t, r in found)
    print(f"| gradient | {header}{end}\n|{'---|' * (len(found) + end.count('|'))}")


def off_by(predicted, exact):
    if np.abs(exact).max() < 1e-4:
        return np.nan
    return np.abs(predicted - exact).sum() / np.abs(exact).sum()


def table_of_known_models():
    print(
        "\n## Known models\n\nAll units and all their pairs, measured exactly here. Of each "
        "gradient the error\nΣ |predicted − exact| / Σ |exact| of single units and, after a slash, "
        "of pairs,\ng_j(all) − g_j(all but i). In `backup` attention is sharp, and a second head "
        "of either kind repairs.\n"
    )
    print(f"| model | {' | '.join(METHODS)} |\n|{'---|' * (len(METHODS) + 1)}")
    for name, reference in product(KNOWN, ("mean", "zero")):
        known = mx.truth.known_model(name)
        values = mx.ComponentValues(known.model, known.task, known.units, reference)
        n, whole = values.n_units, np.ones((1, values.n_units), dtype=bool)
        clean, singles = values(whole).mean(), values(single_ablations(n)).mean(1)
        pairs = np.array(list(combinations(range(n), 2)))
        both = np.ones((len(pairs), n), dtype=bool)
        both[np.arange(len(pairs))[:, None], pairs] = False
        effects = values(both).mean(1) - singles[pairs].sum(1) + clean
        cells = []
        for method in METHODS.values():
            cell = (
                f"{off_by(mx.screen(values, method, n_terms=1).single_scores, singles - clean):.2f}"
            )
            if getattr(method, "parts", 1) == 0:
                recorded = RecordedValues(values.with_backward(method.rules), None)
                rows = extensions(recorded, [(i,) for i in range(n)])
                scores = ((rows + rows.T) / 2)[pairs[:, 0], pairs[:, 1]]
                error = off_by(scores, effects)
                cell += " / none" if np.isnan(error) else f" / {error:.2f}"
            cells.append(cell)
        print(f"| `{name}`, {reference} | {' | '.join(cells)} |", flush=True)


def table_of_edges():
    """How many edges are put at ½ or ¾ together, and what that does to the scores."""
    tiny = mx.load_model("tiny")
    task = mx.load_task("induction", tiny, n_prompts=8, seed=0)
    print(
        "\n## Edges of `tiny`\n\nThe 81 edges on `induction`, 8 prompts, against their exact "
        "effects: rank correlation / the error\nas above. 81 parts put each edge at ½, or ¾, "
        "alone.\n"
    )
    tried = {
        f"{name}, {parts} parts": mx.FirstOrder(parts=parts, at=at)
        for name, at in (
            ("midpoint", 0.5),
            ("three quarters", 0.75),
            ("midpoint and whole", (0.5, 1.0)),
        )
        for parts in (5, 30, 81)
    }
    names = ("plain", "temperature 2", "GIM", "RelP", "AtP*")
    tried = {name: METHODS[name] for name in names} | {"patterns anew": ANEW} | tried
    tried["integrated, 10 steps"] = mx.Integrated()
    tried["midpoint and whole, 30 parts, patterns anew"] = mx.FirstOrder(backward=ANEW.rules)
    print(f"| reference | {' | '.join(tried)} |\n|{'---|' * (len(tried) + 1)}")
    for reference in ("mean", "corrupted", "zero"):
        print(f"| {reference} | {row_of_edges(tiny, task, reference, tried)} |", flush=True)
    print(
        "\nPatterns anew: the query and key fix of AtP* without its dropped blocks. The same of "
        "all edges of\nknown models:\n"
    )
    names = (
        "plain", "AtP*", "patterns anew", "midpoint and whole, 30 parts",
        "midpoint and whole, 30 parts, patterns anew",
    )  # fmt: skip
    print(f"| model | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
    for name, reference in product(KNOWN, ("mean", "zero")):
        known = mx.truth.known_model(name)
        cells = row_of_edges(known.model, known.task, reference, {n: tried[n] for n in names})
        print(f"| `{name}`, {reference} | {cells} |", flush=True)


def measure_edges(folder):
    """SmolLM2's edges on IOI: the strongest into queries and keys by each gradient, and some at
    random, ablated exactly."""
    task = mx.load_task("ioi", model(), n_prompts=2, seed=0)
    values = mx.ComponentValues(model(), task, "edges", "corrupted")
    found: dict[str, Any] = {"n_edges": values.n_units}
    inside = np.flatnonzero([unit.label.endswith((".q", ".k")) for unit in values.units])
    found["random"] = np.random.default_rng(0).choice(inside, 80, replace=False)
    for name, method in {"plain": METHODS["plain"], "patterns anew": ANEW}.items():
        screened, seconds = timed(lambda m=method: mx.screen(values, m, n_terms=1))
        found[name], found[f"{name}, seconds"] = screened.single_scores, seconds
        order = np.argsort(-np.abs(found[name][inside]), kind="stable")
        found[f"{name}, strongest"] = inside[order[:60]]
    strongest_of = [found[f"{name}, strongest"] for name in ("plain", "patterns anew")]
    found["strongest"] = np.unique(np.concatenate(strongest_of))
    chosen = found["chosen"] = np.unique(np.concatenate([found["strongest"], found["random"]]))
    masks = np.ones((1 + len(chosen), values.n_units), dtype=bool)
    masks[1 + np.arange(len(chosen)), chosen] = False
    (whole, *alone), found["seconds"] = timed(lambda: values(masks).mean(1))
    found["exact"] = np.array(alone) - whole
    np.savez_compressed(folder / "edges-ioi-corrupted.npz", **found)


def table_of_smollm2_edges(folder):
    file = folder / "edges-ioi-corrupted.npz"
    if not file.exists():
        return
    found = np.load(file)
    strongest_of, random = found["strongest"], found["random"]
    print(
        f"\nOf the {found['n_edges']:,} edges of SmolLM2-135M on IOI, 2 prompts, under `corrupted` "
        f"(`… edges FOLDER`) those into queries\nand keys: {len(strongest_of)} that one of both "
        "gradients has among its 60 strongest, and 80 drawn at random; and how many of the\n30 "
        "that are strongest of all these are among its 60. The exact effects of the "
        f"{len(found['exact'])} take {found['seconds']:.0f} CPU seconds.\n"
    )
    print("| gradient | strongest | random | of 30 | seconds |\n|---|---|---|---|---|")
    exact = dict(zip(found["chosen"].tolist(), found["exact"], strict=True))
    top = found["chosen"][np.argsort(-np.abs(found["exact"]))[:30]]
    for name in ("plain", "patterns anew"):
        cells = []
        for edges in (strongest_of, random):
            effects = np.array([exact[edge] for edge in edges.tolist()])
            scores = found[name][edges]
            cells.append(f"{rank(scores, effects):.2f} / {off_by(scores, effects):.2f}")
        hit = np.isin(top, found[f"{name}, strongest"]).sum()
        print(f"| {name} | {' | '.join(cells)} | {hit} | {found[f'{name}, seconds']:.1f} |")


def row_of_edges(of_model, task, reference, methods):
    """The rank correlation and the error of each method."""
    values = mx.ComponentValues(of_model, task, "edges", reference)
    whole = values(np.ones((1, values.n_units), dtype=bool)).mean()
    exact = values(single_ablations(values.n_units)).mean(1) - whole
    scores = [mx.screen(values, m, n_terms=1).single_scores for m in methods.values()]
    return " | ".join(f"{rank(each, exact):.2f} / {off_by(each, exact):.2f}" for each in scores)


if __name__ == "__main__":
    commands = {
        "measure": measure, "pairs": measure_pairs, "held_out": measure_held_out,
        "edges": measure_edges, "table": table,
    }  # fmt: skip
    command = commands[sys.argv[1]]
    where = Path(sys.argv[2])
    where.mkdir(parents=True, exist_ok=True)
    command(where)
