"""What a screen saves: R² at equal cost in seconds, the screen's own included.

    python tests/benchmarks/screening_saves.py heads neurons > tests/benchmarks/screening_saves.md

Random masks of all units at p = 0.9, SmolLM2 on IOI, 8 prompts; R² of their mean on fresh masks.
Without a screen all seconds go to masks. With one some go to gradients at random masks
(`mx.screen(values, mx.FirstOrder(keep=0.9))`), the rest to masks, and the decoder is given what the
screen's prediction leaves over (as `mx.recover(…, prior=…)` does). Seconds are those of gradients
and masks in the same run; decoding takes the same on both sides.
"""

import sys
import time

import numpy as np

import mechspex as mx
from mechspex.decoders import Residual, find_decoder
from mechspex.set_functions.r_squared import r_squared

KEEP = 0.9
# {units: (decoders, held-out masks, budgets in masks' worth of seconds)}; additive is the baseline.
PLANS = {
    "heads": (("additive", "kernel"), 300, (60, 100, 200, 400)),
    "neurons": (("additive", "kernel"), 200, (100, 200, 400)),
}
GRADIENTS = 30


def timed(function, *arguments):
    start = time.perf_counter()
    return function(*arguments), time.perf_counter() - start


def main():
    model = mx.load_model("smollm2-135m")
    task = mx.load_task("ioi", model, n_prompts=8, seed=0)
    print("# What a screen saves: SmolLM2-135M on IOI, 8 prompts, masks at p = 0.9\n")
    print(f"Made by `python tests/benchmarks/screening_saves.py {' '.join(sys.argv[1:])}`.\n")
    for kind in sys.argv[1:]:
        table(mx.ComponentValues(model, task, getattr(mx, kind)(model)), kind)


def table(values, kind):
    decoders, n_test, budgets = PLANS[kind]
    n_units = values.n_units
    fresh = mx.sample_masks(n_units, n_test, keep=KEEP, seed=1)
    truth = values(fresh)
    masks = mx.sample_masks(n_units, max(budgets), keep=KEEP, seed=0)
    measured, seconds = timed(values, masks)
    a_mask = seconds / len(masks)
    found, seconds = timed(lambda: mx.screen(values, mx.FirstOrder(GRADIENTS, KEEP), seed=0))
    spent = round(seconds / a_mask)
    prior = found.function
    mean = truth.mean(axis=1)
    alone = 1 - np.var(mean - prior.predict(fresh)) / mean.var()
    print(f"## {n_units:,} {kind}\n")
    print(
        f"A mask takes {a_mask:.3f} s, {GRADIENTS} gradients {seconds:.1f} s, as much as {spent} "
        f"masks. What they predict has R² {alone:.3f} by itself, but for the constant.\n"
    )
    print("| masks' worth of seconds | decoder | R², no screen | R², screen first |")
    print("|---|---|---|---|")
    for budget in budgets:
        for decoder in decoders:
            scores = []
            for n_masks, before in ((budget, None), (budget - spent, prior)):
                if n_masks < 20:
                    scores.append("–")
                    continue
                chosen = find_decoder(decoder)
                answer = mx.decode(
                    masks[:n_masks],
                    measured[:n_masks],
                    decoder=chosen if before is None else Residual(chosen, before),
                    keep=KEEP,
                )
                scores.append(f"{r_squared(mean, answer.predict(fresh)):.3f}")
            print(f"| {budget} | {decoder} | {' | '.join(scores)} |", flush=True)
    print()


if __name__ == "__main__":
    main()
