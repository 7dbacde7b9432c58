"""Screening of the 46,080 neurons of SmolLM2 on IOI: do the reported pairs hold on other prompts?

    python tests/benchmarks/screening_neurons.py > tests/benchmarks/screening_neurons.md

Screened on 8 prompts; the best 200 pairs tested exactly on 32 others, which report some of them;
those reported are tested on 32 further ones. About 8 minutes.
"""

import time

import numpy as np

import mechspex as mx


def main():
    start = time.perf_counter()
    model = mx.load_model("smollm2-135m")
    drawn = mx.load_task("ioi", model, n_prompts=72, seed=0)
    units = mx.neurons(model)
    screened, fresh, third = (
        mx.ComponentValues(model, drawn[part], units, "mean")
        for part in (slice(0, 8), slice(8, 40), slice(40, 72))
    )
    found = mx.screen(screened)
    seconds = time.perf_counter() - start
    here, tested = mx.validate(screened, found.terms), mx.validate(fresh, found.terms)
    reported = [term for term, held in zip(found.terms, tested.confirmed, strict=True) if held]
    again = mx.validate(third, reported)
    overlooked = mx.missed(fresh, found, tested)
    print("# Screening of neurons: SmolLM2-135M on IOI, 46,080 neurons, mean reference\n")
    print("Made by `python tests/benchmarks/screening_neurons.py` on 2 cores.\n")
    print("| | |\n|---|---|")
    at_least, bound = overlooked.at_least, overlooked.last_bound
    rows = {
        "pairs scored": f"{found.considered[1]:,}",
        "gradients": f"{found.cost.masks}",
        "seconds to screen, loading included": f"{seconds:.0f}",
        "best 200, r with the exact effects on the same 8 prompts": _r(found.scores, here.effects),
        "… on 32 fresh prompts": _r(found.scores, tested.effects),
        "confirmed on 32 fresh prompts, of 200 (reported)": f"{len(reported)}",
        "of those, confirmed on 32 further prompts": f"{again.confirmed.sum()}",
        "rejected pairs tested": f"{overlooked.n_tested}",
        f"of those, effects of at least {at_least:.3f}": f"{overlooked.n_missed}",
        "estimated recall of such pairs": f"{overlooked.recall:.2f}",
        "share of the lowest ranks that could hide such pairs": f"{bound:.1%}",
        "seconds in all": f"{time.perf_counter() - start:.0f}",
    }
    print("\n".join(f"| {name} | {value} |" for name, value in rows.items()))


def _r(a, b):
    return f"{np.corrcoef(a, b)[0, 1]:.3f}"


if __name__ == "__main__":
    main()
