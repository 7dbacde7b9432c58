"""What prompts of several lengths and answers of several tokens cost, printed as a table.

    python tests/benchmarks/mixed_lengths.py > tests/benchmarks/mixed_lengths.md

About five minutes on two idle cores.
"""

import os
import platform
import sys
import time
import warnings
from dataclasses import replace

import numpy as np
import torch
from transformers.utils import logging as transformers_logging

import mechspex as mx
from mechspex.core.masks import sample_masks
from mechspex.tasks.teacher_forcing import forced_rows
from mechspex.tasks.tokens import tokenize

N_MASKS, ROUNDS = 40, 3
ONE_LENGTH, FOUR_LENGTHS = [16] * 16, [10, 14, 18, 22] * 4
WORDS = ["apple", "bird", "boat", "door", "flag", "key", "lake", "moon", "tree", "wall"]


def task_of(model, lengths):
    """Prompts of so many tokens each, with an answer and a distractor of one token."""
    rng = np.random.default_rng(0)

    def prompt(n_words):
        return " ".join(["The", *rng.choice(WORDS, n_words - 1)])

    task = mx.Task([prompt(n) for n in lengths], [" bird"] * len(lengths), [" boat"] * len(lengths))
    read = [len(ids) for ids in tokenize(task, model.tokenizer).prompts]
    assert read == lengths, read  # a word is a token
    return task


def tokens_of(model, task, *, read_continuations):
    """How many tokens a mask takes, those of forced answers included."""
    rows = forced_rows(tokenize(task, model.tokenizer), read_continuations=read_continuations)
    return sum(group.rows.numel() for group in rows)


def seconds_of(sides, masks):
    """{name: seconds in each round}, all sides in turn; the first round warms up."""
    taken = {name: [] for name in sides}
    for number in range(ROUNDS + 1):
        for name, values in sides.items():
            start = time.perf_counter()
            values(masks)
            taken[name].append(time.perf_counter() - start)
        print(f"round {number} of {ROUNDS}", file=sys.stderr, flush=True)
    return {name: np.array(seconds[1:]) for name, seconds in taken.items()}


def main():
    model = mx.load_model("smollm2-135m")
    units = mx.heads(model)
    one, four = task_of(model, ONE_LENGTH), task_of(model, FOUR_LENGTHS)
    two_tokens = replace(
        one, answers=[" bird lake"] * len(one), distractors=[" boat lake"] * len(one)
    )
    tasks = {
        "one length": one,
        "four lengths": four,
        "answers and distractors of two tokens": two_tokens,
    }
    sides, prepared = {}, {}
    for name, task in tasks.items():
        start = time.perf_counter()
        sides[name] = mx.ComponentValues(model, task, units)
        prepared[name] = time.perf_counter() - start
        assert sides[name].through_bridge is None, (name, sides[name].through_bridge)
    masks = sample_masks(len(units), N_MASKS, keep=0.9, seed=1)
    taken = seconds_of(sides, masks)

    print("# Prompts of several lengths, answers of several tokens\n")
    print("Made by `python tests/benchmarks/mixed_lengths.py > tests/benchmarks/mixed_lengths.md`")
    print(f"on {os.cpu_count()} cores ({platform.machine()}), torch {torch.__version__}.")
    print(f"SmolLM2-135M, {len(units)} heads under `mean`, 16 prompts, {N_MASKS} masks.")
    print("One length is 16 tokens; four lengths are 10, 14, 18 and 22, four prompts of each.")
    print(f"Sides take turns; medians of {ROUNDS} rounds, ratios within rounds (least and most).\n")
    print("| prompts | tokens a mask | masks/s | tokens/s | of one length's | s to prepare |")
    print("|---|---|---|---|---|---|")
    first = tokens_of(model, one, read_continuations=False) / taken["one length"]
    for name, task in tasks.items():
        n = tokens_of(model, task, read_continuations=task is two_tokens)
        rate = n / taken[name]
        ratio = rate / first
        print(
            f"| {name} | {n} | {np.median(1 / taken[name]) * N_MASKS:.2f} "
            f"| {np.median(rate) * N_MASKS:.0f} "
            f"| {np.median(ratio):.2f} ({ratio.min():.2f}–{ratio.max():.2f}) "
            f"| {prepared[name]:.0f} |"
        )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    transformers_logging.disable_progress_bar()
    main()
