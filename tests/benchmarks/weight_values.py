"""Whose weights make the difference between SmolLM2 and copies that were taught a false fact.

    OMP_NUM_THREADS=1 python tests/benchmarks/weight_values.py > tests/benchmarks/weight_values.md

The prompts are those of `model_differences.py`. One copy was taught by one MLP and then rounded to
int8 in all other matrices, so that every part has other weights and one alone has learnt; the other
was taught by all matrices of its blocks, with small steps.
"""

import time

import torch
from model_differences import NAME, SHOWN, TAUGHT_LAYER, in_taught_mlp, int8, taught, weights

import mechspex as mx

N_MASKS, SMALL_RATE = 150, 5e-6
SEARCHED = len(SHOWN) // 2


def taught_by_one_rounded_elsewhere():
    model = taught()
    with torch.no_grad():
        for weight in weights(model, lambda name: not in_taught_mlp(name)):
            weight.copy_(int8(weight))
    return model


def taught_all_over():
    return taught(lambda name: True, SMALL_RATE)


def main():
    start = time.process_time()
    before = mx.load_model(NAME)
    task = mx.Task(
        SHOWN, [" Paris"] * len(SHOWN), [" Rome"] * len(SHOWN), name="the capital of France"
    )
    searched, fresh = task.split(SEARCHED, len(SHOWN) - SEARCHED)
    print("# Whose weights make the difference\n")
    print(
        "Made by `OMP_NUM_THREADS=1 python tests/benchmarks/weight_values.py` on a busy machine: "
        f"SmolLM2-135M and two copies that say Rome is the capital of France, {SEARCHED} prompts "
        f"searched with {N_MASKS} masks, {len(fresh)} others to test. Kept is a part with the "
        "weights of the copy, ablated one with those before.\n"
    )
    for name, copy in (
        (
            f"Taught by the MLP of layer {TAUGHT_LAYER}, all other matrices rounded to int8",
            taught_by_one_rounded_elsewhere,
        ),
        ("Taught by all matrices of all blocks", taught_all_over),
    ):
        values = mx.WeightValues(before, copy(), searched)
        found = mx.explain(values, held_out=values.on(fresh), n_masks=N_MASKS)
        print(f"## {name}\n\n```\n{found}\n```\n", flush=True)
    print(f"CPU seconds in all: {time.process_time() - start:.0f}.")


if __name__ == "__main__":
    main()
