"""A question over twelve sentences of which one, or two together, are needed: who finds them?

    python tests/benchmarks/contexts.py FOLDER 18 > tests/benchmarks/contexts.md

FOLDER keeps every value and every finished context, so a run that was cut off goes on where it
was; 18 is how many contexts of each kind there are to be in the end, 0 prints those that are there.
SmolLM2-135M, float32. The sentences are made up here, in random order; units are sentences, which
are deleted; the value is the log-probability of the right answer after the context and the
beginning of the answer. A context counts where the model is right with all twelve (of the places
named as those of people the right one is the likeliest) and wrong without the needed sentence, or
without either of the two.

* one: "Anna is in the kitchen." … "Anna is in the" (kitchen)
* two: "Anna has the key." … "Anna is in the kitchen." … "The key is in the" (kitchen)

All methods see the same masks, each sentence kept with probability ½; where shapiq 1.4 and its
sparse-transform are installed, its ProxySPEX as well, with these masks in the place of its own.
`attention` reads one forward. LDS: Spearman's correlation on 100 fresh masks. Drop: log-probability
lost without the k best sentences, in nats. Intervals are Student's over contexts. In the last table
the three strongest interactions of `automatic` at 256 masks are measured among 12 random contexts
of the other sentences; of those confirmed the largest counts.
"""

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import mechspex as mx
from mechspex.attribution.context_cite import logit_of
from mechspex.core.statistics import mean_estimate, paired_difference, proportion
from mechspex.experiments.contexts import made_context, understood
from mechspex.runs.run import Run
from mechspex.set_functions.set_function import SetFunction

BUDGETS, FRESH, K = (32, 64, 128, 256), 100, (1, 3, 5)
SHAPIQ = "ProxySPEX of shapiq"
DECODED = ("automatic", "additive", "ContextCite", *([SHAPIQ] if find_spec("shapiq") else []))
# A leaf of its trees holds 20 masks at least: of 32 it makes no tree, and fails.
TRIED = [(name, n) for n in BUDGETS for name in DECODED if name != SHAPIQ or n > 32]
METHODS = ["leave one out", "attention", "random", *(f"{name} {n}" for name, n in TRIED)]


def decoded(method, masks, values, n_tokens, seed):
    """What a method makes of masks and their log-probabilities."""
    if method == "ContextCite":
        return mx.context_cite(masks, logit_of(values.astype(np.float64)), n_tokens=n_tokens)
    if method != SHAPIQ:
        return mx.decode(masks, values, decoder=method)
    from shapiq.approximator.sparse import ProxySPEX  # pyright: ignore[reportMissingImports]

    theirs = ProxySPEX(n=masks.shape[1], random_state=seed)
    theirs._uniform_sampler = SimpleNamespace(sample=lambda _: None, coalitions_matrix=masks)
    found = theirs.approximate(len(masks), lambda _: values[:, 0].astype(np.float64))
    # Faith-Banzhaf values of all orders are the function itself.
    terms = {tuple(map(int, term)): float(value) for term, value in found.dict_values.items()}
    return SetFunction.from_mapping(masks.shape[1], terms, basis="kept")


def scored(model, kind, seed, folder):
    """The scores of one context; None where the model does not answer it."""
    context = made_context(kind, seed)
    if not understood(model, context):
        return None
    values, needed = context.values(model), list(context.needed)
    n_units = values.n_units
    assert n_units == len(context.sentences) == 12
    with Run.open(folder) as run:
        recorded = run.record(values)
        masks = mx.sample_masks(n_units, max(BUDGETS), seed=seed)
        measured = recorded(masks)
        n_tokens = len(model.tokenizer(context.response, add_special_tokens=False)["input_ids"])
        methods: dict[str, Any] = {"leave one out": mx.leave_one_out(recorded, run=run)}
        methods["attention"] = mx.attention_scores(values)
        methods["random"] = mx.random_scores(n_units, seed=seed)
        for name, n in TRIED:
            methods[f"{name} {n}"] = decoded(name, masks[:n], measured[:n], n_tokens, seed)
        assert list(methods) == METHODS
        lds = mx.lds(methods, recorded, n_masks=FRESH, seed=seed)
        drop = mx.top_k_drop(methods, recorded, k=K)
        fourier = methods[f"automatic {max(BUDGETS)}"].to_basis("fourier").to_mapping()
        ranked = sorted((t for t in fourier if 1 < len(t) < 4), key=lambda t: -abs(fourier[t]))
        sets = ranked[:3] + [tuple(needed)] * (len(needed) > 1 and tuple(needed) not in ranked[:3])
        found = mx.validate(recorded, sets, contexts=12, keep=0.5)
    return {
        "kind": kind, "seed": seed, "needed": needed, "methods": list(methods),
        "lds": lds.scores[:, 0, 0].tolist(), "drop": drop.scores[:, :, 0].tolist(),
        "proposed": [list(term) for term in ranked[:3]], "sets": [list(term) for term in sets],
        "effects": found.effects.tolist(), "confirmed": found.confirmed.tolist(),
    }  # fmt: skip


def strongest(row, sign=None):
    """The confirmed interaction of the proposed ones that is largest, or largest of one sign."""
    held = [
        (abs(effect), term)
        for term, effect, sure in zip(row["sets"], row["effects"], row["confirmed"], strict=True)
        if sure and term in row["proposed"] and (sign is None or effect * sign > 0)
    ]
    return max(held, default=(0, None))[1]


def kept(model, kind, folder, wanted):
    """The contexts that count, up to so many; those of earlier runs are read if they have all the
    methods."""
    rows, seed = [], 0
    while len(rows) < wanted:
        path = folder / f"{kind}-{seed}.json"
        row = json.loads(path.read_text()) if path.exists() else {}
        if row is not None and row.get("methods") != METHODS:
            row = scored(model, kind, seed, folder / f"{kind}-{seed}")
            path.write_text(json.dumps(row))
            print(kind, seed, "counts" if row else "does not count", file=sys.stderr, flush=True)
        rows += [row] if row else []
        seed += 1
    return rows, seed


def told(scores):
    """The mean with its interval; one context alone has none."""
    return f"{mean_estimate(scores):.2f}" if len(scores) > 1 else f"{scores[0]:.2f}"


def table(rows):
    methods = [m for m in rows[0]["methods"] if all(m in row["methods"] for row in rows)]
    places = [[row["methods"].index(method) for method in methods] for row in rows]
    lds, drop = (
        np.array([np.array(row[score])[at] for row, at in zip(rows, places, strict=True)])
        for score in ("lds", "drop")
    )
    print("| method | masks | LDS | " + " | ".join(f"drop k = {k}" for k in K) + " |")
    print("|---|---|---|" + "---|" * len(K))
    for column, method in enumerate(methods):
        name, _, masks = method.rpartition(" ") if method[-1].isdigit() else (method, "", "")
        cells = [told(lds[:, column])]
        cells += [told(drop[:, column, place]) for place in range(len(K))]
        print(f"| {name} | {masks} | {' | '.join(cells)} |")
    if len(rows) < 2:
        return
    print("\n| `automatic` less | masks | LDS, paired |\n|---|---|---|")
    for n in BUDGETS:
        for rival in ("additive", "ContextCite"):
            ours, theirs = (lds[:, methods.index(f"{m} {n}")] for m in ("automatic", rival))
            print(f"| {rival} | {n} | {paired_difference(ours, theirs[None]):+.2f} |")


def report(kind, rows, n_seeds):
    print(f"\n## {kind}: {len(rows)} contexts of {n_seeds} made\n")
    if not rows:
        return
    table(rows)
    if kind == "two":
        needed = [row["needed"] for row in rows]
        shares = {
            "the strongest confirmed interaction": [strongest(row) for row in rows],
            "the strongest confirmed synergy": [strongest(row, 1) for row in rows],
        }
        proposed = np.array([row["needed"] in row["proposed"] for row in rows])
        print("\n| the needed pair is | share of contexts |\n|---|---|")
        for name, found in shares.items():
            right = np.array([one == pair for one, pair in zip(found, needed, strict=True)])
            print(f"| {name} | {proportion(right):.2f} |")
        print(f"| among the three strongest recovered | {proportion(proposed):.2f} |")
        others = [(row, strongest(row)) for row in rows]
        print("\nWhere another interaction is the strongest, both measured exactly, in nats:\n")
        print("| seed | the needed pair | the strongest |\n|---|---|---|")
        for row, other in others:
            if other is None or other == row["needed"]:
                continue
            effect = {tuple(t): e for t, e in zip(row["sets"], row["effects"], strict=True)}
            own, other = (effect[tuple(t)] for t in (row["needed"], other))
            print(f"| {row['seed']} | {own:+.2f} | {other:+.2f} |")


def main():
    folder, wanted = Path(sys.argv[1]), int(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    model = mx.load_model("smollm2-135m") if wanted else None
    print("# A question over twelve sentences, of which one or two are needed\n")
    print(__doc__.strip())
    for kind in ("two", "one"):
        if model is not None:
            report(kind, *kept(model, kind, folder, wanted))
        else:
            there = [json.loads(p.read_text()) for p in sorted(folder.glob(f"{kind}-*.json"))]
            report(kind, [row for row in there if row], len(there))


if __name__ == "__main__":
    main()
