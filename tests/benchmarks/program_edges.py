"""Edges of compiled programs: do effects and gradients rank first those it is made of?

    OMP_NUM_THREADS=1 python tests/benchmarks/program_edges.py > tests/benchmarks/program_edges.md

*wired*: the edges whose reader's weights see a direction along which the writer writes, told from
the weights alone. *needed*: those of them in a term of the exact function of all wired edges, from
all 2^n masks of these where they are at most 16; a term counts where its coefficient for a prompt
exceeds a thousandth of the largest spread of values. Every edge of the model is ranked, by the size
of what each column says of it:

- *single*: the exact effect of ablating it alone, the mean over prompts;
- *by prompt*: the same effect, its root mean square over prompts;
- *pair*: the largest exact effect of it alone or with one other edge, beyond both alone, by prompt;
- *default*: `mx.screen(values, "first_order")`; *plain*: the same with `FirstOrder(parts=0)`.

What is below a millionth of the largest counts as 0. AUC counts ties half.
"""

import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from program_wires import connected
from sklearn.metrics import average_precision_score, roc_auc_score

import mechspex as mx
from mechspex.core.masks import all_masks
from mechspex.truth import known_model
from mechspex.truth.brute_force import exact_terms
from mechspex.truth.programs import PROGRAMS

REFERENCES = ("zero", "resample", "mean")
MOST_WIRED, MOST_PAIRED = 16, 80
COLUMNS = ("single", "by prompt", "pair", "default", "plain")


NOTES = """
## What it says

- No edge that is not wired has an effect, alone or in a pair: an AUC of effects below 1 against
  *wired* is that of edges that are wired and silent under this reference (1 − silent / 2 wired).
  They carry what the last token does not need, or what the reference leaves as it is. Pairs of
  the 388 edges of `dyck1` were not measured, nor all masks of its 29 wired ones.
- *needed* is made of effects itself, on all masks of the wired edges. What one edge alone shows of
  it: all but one edge of `reverse` under zero, without which nothing changes until another is
  ablated too; a pair shows it. So singles are not enough where edges stand in for each other.
- Effects of one sign on one prompt and the other on the next cancel in a mean: `xproportion` and
  `pair_balance` under resample and mean, where one prompt gains what another loses. By prompt they
  are there.
- Gradients name no edge that is not wired either; what they miss is silent to them. A hard softmax
  has no slope for its queries and keys (`embed→L1H0.q` of `xproportion`), a step none beside it
  (`L0H0→L0MLP` of `hist`). The midpoint, half of *default*, sees some of them.
"""


def needed(known, reference, edges, wired):
    """Which edges are in a term of the exact function; None where there are too many masks."""
    if wired.sum() > MOST_WIRED:
        return None
    names = np.array(edges.names)
    values = mx.ComponentValues(known.model, known.task, edges[names[wired].tolist()], reference)
    table = values(all_masks(int(wired.sum())))
    terms = exact_terms(table.astype(np.float64)).terms
    inside = {unit for term in terms for unit in term}
    columns = np.flatnonzero(wired)[sorted(inside)]
    return np.isin(np.arange(len(edges)), columns)


def effects(values, order):
    """Exact effects by output: of all single edges, and of all pairs beyond both alone."""
    swept = mx.sweep(values, order=order)
    sizes = np.array([len(term) for term in swept.terms])
    pairs = [term for term in swept.terms if len(term) == 2]
    return swept.output_effects[sizes == 1], pairs, swept.output_effects[sizes == 2]


def by_prompt(each):
    """The root mean square over prompts."""
    return np.sqrt((each**2).mean(1))


def scores(values):
    """{column: a score an edge}."""
    n_edges = values.n_units
    singles, pairs, joint = effects(values, 2 if n_edges <= MOST_PAIRED else 1)
    found = {"single": np.abs(singles.mean(1)), "by prompt": by_prompt(singles)}
    if pairs:
        found["pair"] = found["by prompt"].copy()
        for column in np.array(pairs).T:
            np.maximum.at(found["pair"], column, by_prompt(joint))
    for name, method in {"default": mx.FirstOrder(), "plain": mx.FirstOrder(parts=0)}.items():
        found[name] = np.abs(mx.screen(values, method, n_terms=1).single_scores)
    return {name: np.where(s > 1e-6 * s.max(), s, 0.0) for name, s in found.items()}


def areas(truth, found):
    """AUC and average precision of every column, where there is one."""
    if truth is None:
        return {}
    return {
        name: (roc_auc_score(truth, each), average_precision_score(truth, each))
        for name, each in found.items()
    }


def shown(pair):
    return "—" if pair is None else f"{pair[0]:.3f} · {pair[1]:.3f}"


def summary(measured):
    """A row a truth: the mean AUC of each column, the smallest, and how often it is 1."""
    print("\nMean AUC (smallest; 1 in so many cells):\n")
    print(f"| truth | cells | {' | '.join(COLUMNS)} |\n{'|---' * (2 + len(COLUMNS))}|")
    for what in ("needed", "wired"):
        every = [found for name, found in measured if name == what and found]
        row = [what, len(every)]
        for column in COLUMNS:
            auc = np.array([found[column][0] for found in every if column in found])
            row.append(f"{auc.mean():.3f} ({auc.min():.3f}; {(auc == 1).sum()} of {len(auc)})")
        print("|", " | ".join(map(str, row)), "|")


def main():
    warnings.filterwarnings("ignore", "the mean over")
    _, command, meaning = (__doc__ or "").split("\n\n", 2)
    print(f"# Edges of compiled programs\n\n`{command.strip()}`\n\n{meaning}")
    print("Cells: AUC · average precision. *silent*: wired edges without an effect alone.\n")
    print(f"| program | reference | truth | edges | silent | {' | '.join(COLUMNS)} |")
    print("|---" * (5 + len(COLUMNS)) + "|")
    measured = []
    for name in PROGRAMS:
        known = known_model(name)
        edges = mx.edges(known.model)
        wired = connected(known.model, edges)
        for reference in REFERENCES:
            values = mx.ComponentValues(known.model, known.task, edges, reference)
            found = scores(values)
            truths = {"wired": wired, "needed": needed(known, reference, edges, wired)}
            for what, truth in truths.items():
                n_true = "—" if truth is None else f"{truth.sum()} of {len(edges)}"
                silent = "—" if truth is None else (found["by prompt"][truth] == 0).sum()
                area = areas(truth, found)
                measured.append((what, area))
                cells = (shown(area.get(column)) for column in COLUMNS)
                row = [name, reference, what, n_true, silent, *cells]
                print("|", " | ".join(map(str, row)), "|", flush=True)
    summary(measured)
    print(NOTES, end="")


if __name__ == "__main__":
    main()
