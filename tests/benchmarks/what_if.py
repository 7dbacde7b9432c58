"""How often the interval of the report's what-if holds the measured value: SmolLM2-135M on IOI.

Run: OMP_NUM_THREADS=1 python tests/benchmarks/what_if.py RUN > what_if.md, where RUN is a run of
`mechspex explain ioi`. Every value is kept in that run.
"""

import sys

import numpy as np

import mechspex as mx
from mechspex.report.what_if import prediction_interval
from mechspex.runs.measured import measured_masks
from mechspex.runs.run import Run, folder_of

# Masks of each kind; among how many of the strongest heads a reader switches off how many; and
# how many heads a circuit keeps.
N_MASKS, N_STRONG, MOST_OFF, CIRCUIT = 200, 40, 15, (10, 100)


def asked_masks(explanation):
    """{kind: masks}: what a reader switches off or keeps, and masks of the run's own design."""
    n_units = len(explanation.units)
    rng = np.random.default_rng(123)
    strong = np.argsort(-np.abs(explanation.single_effects))[:N_STRONG]

    def switched_off(among):
        masks = np.ones((N_MASKS, n_units), dtype=bool)
        for mask in masks:
            mask[rng.choice(among, rng.integers(1, MOST_OFF + 1), replace=False)] = False
        return masks

    def only_the_strongest():
        """The strongest heads by effects that are known up to a tenth of the largest."""
        masks, sizes = np.zeros((N_MASKS, n_units), dtype=bool), np.abs(explanation.single_effects)
        for mask in masks:
            shaken = sizes + 0.1 * sizes.max() * rng.random(n_units)
            mask[np.argsort(-shaken)[: rng.integers(CIRCUIT[0], CIRCUIT[1] + 1)]] = True
        return masks

    return {
        f"1 to {MOST_OFF} of the {N_STRONG} strongest heads off": switched_off(strong),
        f"1 to {MOST_OFF} of all heads off": switched_off(n_units),
        "the run's own density": mx.sample_masks(
            n_units, N_MASKS, keep=explanation.settings["keep"], seed=999
        ),
        "half of all heads off": mx.sample_masks(n_units, N_MASKS, keep=0.5, seed=998),
        f"a circuit of {CIRCUIT[0]} to {CIRCUIT[1]} heads kept alone": only_the_strongest(),
    }


def main(run):
    folder = folder_of(run)
    explanation = mx.Explanation.load(folder)
    n_units, n_outputs = len(explanation.units), len(explanation.outputs)
    interval = prediction_interval(explanation, *measured_masks(folder, n_units, n_outputs))
    model = mx.load_model("smollm2-135m")
    task, _ = mx.load_task("ioi", model, n_prompts=2 * n_outputs).split(n_outputs, n_outputs)
    values = mx.ComponentValues(model, task, mx.heads(model), ablation="mean")
    print("# What if: how often the interval holds, SmolLM2-135M on IOI\n")
    print("Made by `OMP_NUM_THREADS=1 python tests/benchmarks/what_if.py RUN > what_if.md`.\n")
    print(f"The function was recovered from {explanation.recovery.n_train:,} masks (R² "
          f"{explanation.r2:.3f}), the interval made from {interval.n_masks} held-out ones of "
          f"{interval.fewest} to {interval.most} heads off.\n")  # fmt: skip
    print("| masks | number | held | mean half width | RMSE | without an interval |")
    print("|---|---|---|---|---|---|")
    with Run.open(folder, progress=True) as opened:
        recorded = opened.record(values)
        for kind, masks in asked_masks(explanation).items():
            measured = recorded(masks).mean(axis=1, dtype=np.float64)
            error = np.abs(explanation.function.predict(masks) - measured)
            half = interval.half_width(masks)
            known = np.isfinite(half)
            held, width = "—", "—"
            if known.any():
                held, width = f"{(error <= half)[known].mean():.3f}", f"{half[known].mean():.3f}"
            print(f"| {kind} | {len(masks)} | {held} | {width} | "
                  f"{np.sqrt((error**2).mean()):.3f} | {(~known).sum()} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1])
