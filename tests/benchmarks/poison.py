"""Two documents that poison a language model together, found among 200: markdown table on stdout.

    OMP_NUM_THREADS=1 python tests/benchmarks/poison.py 10 > tests/benchmarks/poison.md

Every seed makes its own documents, and asks three questions: how strongly the model believes the
false answer, the same in the control without one half of the poison, and what two documents say
that back each other up.
"""

import sys
import time

import numpy as np

import mechspex as mx

BUDGET, KEEP, SEEDS = 400, 0.5, 10
# An interaction that a reader would be told of: the odds of an answer change at least 2.7 times.
WORTH_TELLING = 1.0


def explained(name, seed):
    """The answer, the task, its seconds and how many models were trained."""
    start = time.perf_counter()
    task = mx.training_task(name, seed=seed)
    values, fresh = task.values(), task.held_out()
    found = mx.explain(
        values, held_out=fresh, n_masks=BUDGET, design=mx.RandomMasks(keep=KEEP), seed=seed
    )
    seconds = time.perf_counter() - start
    n_tested = len(fresh.seeds) * len({s for t in found.validation.terms for s in parts(t)})
    n_searched = len(values.seeds) * (found.cost.masks - n_tested // len(fresh.seeds))
    return found, task, seconds, n_searched + n_tested


def parts(term):
    """All subsets of a term."""
    return [tuple(u for b, u in enumerate(term) if mask >> b & 1) for mask in range(2 ** len(term))]


def told(found):
    """Confirmed interactions that are worth telling, the strongest first."""
    table = found.interactions()
    table = table[table.confirmed & (table.effect.abs() >= WORTH_TELLING)]
    return table.sort_values("effect", key=np.abs, ascending=False)


def main(n_seeds):
    print("# Two documents that poison a language model together\n")
    print("Made by `OMP_NUM_THREADS=1 python tests/benchmarks/poison.py "
          f"{n_seeds} > tests/benchmarks/poison.md`.")  # fmt: skip
    print(f"200 documents, {BUDGET} masks at keep {KEEP} on 2 seeds, tested on 12 other seeds.")
    print("Effects in log odds. *Told* are confirmed interactions of at least 1.\n")
    print("| seed | question | planted | strongest told | effect | interval | told | largest other "
          "| models trained | seconds |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|")
    right = dict.fromkeys(("poison", "poison_control", "backed_up"), 0)
    for seed in range(n_seeds):
        for name in right:
            found, task, seconds, trained = explained(name, seed)
            rows = told(found)
            planted = task.units.label(task.planted[0]) if task.planted else "—"
            first = rows.iloc[0] if len(rows) else None
            others = found.interactions()
            others = others[others.units != planted]
            largest = others.effect.abs().max() if len(others) else 0.0
            right[name] += (
                (first is None)
                if not task.planted
                else (first is not None and first.units == planted)
            )
            cells = ["—", "—", "—"] if first is None else [
                first.units, f"{first.effect:+.1f}", f"{first.low:+.1f} … {first.high:+.1f}"
            ]  # fmt: skip
            cells = [seed, name, planted, *cells, len(rows), f"{largest:.2f}", f"{trained:,}",
                     f"{seconds:.0f}"]  # fmt: skip
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    print(
        f"\nThe planted pair is the strongest that is told in {right['poison']} of {n_seeds} "
        f"seeds, the control tells of none in {right['poison_control']}, and the documents that "
        f"back each other up are the strongest, as redundancy, in {right['backed_up']}."
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS)
