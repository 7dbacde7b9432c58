"""Latents of SmolLM2 on IOI: which act together, at which words they fire, and a control.

    OMP_NUM_THREADS=1 python tests/benchmarks/latents.py > tests/benchmarks/latents.md

Latents are chosen and pairs proposed on some prompts, and every pair is measured on others. Seconds
are CPU seconds of one thread.
"""

import sys
import time

import numpy as np
import torch
from train_dictionary import LAYER, NAME

import mechspex as mx

N_SEARCHED, N_FRESH, N_LATENTS, N_WORDS = 6, 32, 32, 4
N_PAIRS, N_MIXED, N_CONTROL = 100, 12, 4
# Of latents by themselves, and of latents and heads.
ALONE, TOGETHER = "zero", "mean"


def seconds(call):
    """What a call returns, and the CPU seconds it took."""
    start = time.process_time()
    returned = call()
    return returned, time.process_time() - start


def show_exactness(values, n_latents):
    """Whether all-kept is the model, and what a mask of latents costs."""
    masks = np.ones((9, values.n_units), dtype=bool)
    masks[1:, :n_latents] = np.random.default_rng(0).random((8, n_latents)) < 0.9
    apart = abs(float(values(masks[:1]).mean()) - values._proved.clean)
    _, taken = seconds(lambda: values(masks[1:]))
    print("\n## A mask\n")
    print(
        f"With {values.units.description} kept, the mean value differs from the untouched model's "
        f"by {apart:.1g}. A mask of the latents on {len(values.task)} prompts takes "
        f"{taken / 8:.2f} CPU seconds; as they lie in block {LAYER}, half the blocks run."
    )


def show_pairs(title, said, validated, words=None):
    print(f"\n## {title}\n")
    rows = np.flatnonzero(validated.confirmed)
    print(said.format(n=len(validated.terms), confirmed=len(rows)), flush=True)
    if not len(rows):
        return
    print("\n| pair | joint effect less both alone | 95% interval |\n|---|---|---|")
    table = validated.to_pandas()
    for row in sorted(rows, key=lambda r: -abs(validated.effects[r])):
        low, high = table["low"][row], table["high"][row]
        label = validated.units.label(validated.terms[row])
        print(f"| `{label}` | {validated.effects[row]:+.3f} | {low:+.3f} … {high:+.3f} |")
    if words is None:
        return
    print("\nWhere those latents fire most, each token once:\n\n| latent | at |\n|---|---|")
    members = {validated.units.names[c] for row in rows for c in validated.terms[row]}
    for name, each in words.groupby("unit", sort=False):
        if name in members:
            places = ", ".join(
                f"{around.replace('|', ' ').replace(chr(10), ' ')} ({size:.1f})"
                for around, size in zip(each["around"], each["activation"], strict=True)
            )
            print(f"| `{name}` | {places} |")


def main():
    torch.set_num_threads(1)
    model = mx.load_model("smollm2-135m")
    dictionary = mx.load_dictionary(NAME)
    task = mx.load_task("ioi", model, n_prompts=N_SEARCHED, seed=0)
    fresh = mx.load_task("ioi", model, n_prompts=N_FRESH, seed=1)
    print(f"# Latents of SmolLM2-135M, block {LAYER}, on IOI\n")
    print(
        "Made by `OMP_NUM_THREADS=1 python tests/benchmarks/latents.py > "
        "tests/benchmarks/latents.md` on a busy machine, "
        "with the dictionary of [train_dictionary](train_dictionary.md). Latents by themselves are "
        f"ablated by `{ALONE}`, latents and heads by `{TOGETHER}`.\n"
    )
    latents, chosen_in = seconds(
        lambda: mx.latents(model, dictionary, task=task, n_latents=N_LATENTS, by="attribution")
    )
    heads = mx.heads(model, layers=range(LAYER + 1, 30))
    units, n_first = latents + heads, len(latents)
    searched = mx.ComponentValues(model, task, units, TOGETHER)
    show_exactness(searched, n_first)
    screen = mx.SecondOrder(rows=n_first)
    alone = mx.ComponentValues(model, task, latents, ALONE)
    found, screened_in = seconds(lambda: mx.screen(alone, screen, n_terms=1000))
    among = [term for term in found.terms if len(term) == 2][:N_PAIRS]
    found = mx.screen(searched, screen, n_terms=1000)
    across = [t for t in found.terms if len(t) == 2 and t[0] < n_first <= t[1]][:N_MIXED]

    active = mx.latents(model, dictionary, task=fresh, n_latents=dictionary.n_latents).column_of
    silent = [n for n in range(dictionary.n_latents) if f"L{LAYER}.latent{n}" not in active]
    never = mx.latents(model, dictionary, silent[:N_CONTROL], error=False)
    tested = mx.ComponentValues(model, fresh, latents + never, ALONE)
    strongest = sorted({column for term in among[:4] for column in term})
    crossing = [(a, n_first + b) for a in strongest for b in range(N_CONTROL)]

    validated, validated_in = seconds(lambda: mx.validate(tested, among))
    texts = [*task.prompts, *mx.load_task("ioi_varied", model, n_prompts=24, seed=2).prompts]
    words = mx.active_words(model, latents, texts, n_words=N_WORDS)
    said = (
        f"{N_LATENTS} latents chosen by attribution in {chosen_in:.0f} CPU seconds; they and the "
        f"error term screened in pairs in {screened_in:.0f}, both on {N_SEARCHED} prompts. Of the "
        f"{{n}} best pairs, measured on {N_FRESH} fresh prompts in {validated_in:.0f} CPU seconds, "
        "{confirmed} interactions are confirmed (false discovery rate 5%)."
    )
    show_pairs("Interactions of latents", said, validated, words)
    said = "Of the {n} best pairs of a latent and a later head, {confirmed} are confirmed."
    mixed = mx.ComponentValues(model, fresh, units, TOGETHER)
    show_pairs("Latents with heads", said, mx.validate(mixed, across))
    said = (
        f"The latents of the four best pairs with {N_CONTROL} that are active at no token of the "
        "fresh prompts: of {n} pairs, {confirmed} are confirmed."
    )
    show_pairs("Negative control", said, mx.validate(tested, crossing))


if __name__ == "__main__":
    sys.exit(main())
