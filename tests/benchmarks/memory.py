"""Memory of a process that measures 100,000 masks, as a markdown table.

    OMP_NUM_THREADS=1 python tests/benchmarks/memory.py > tests/benchmarks/memory.md

A random model in the shape of a small GPT-2, so that it takes minutes and not hours.
"""

import tempfile

import psutil
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

import mechspex as mx
from mechspex.core.masks import sample_masks
from mechspex.models.shipped import TINY

MASKS, BLOCK = 100_000, 10_000

if __name__ == "__main__":
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=206, n_positions=32, n_embd=48, n_layer=2, n_head=4)
    with tempfile.TemporaryDirectory() as folder:
        GPT2LMHeadModel(config).save_pretrained(folder)
        AutoTokenizer.from_pretrained(TINY).save_pretrained(folder)
        model = mx.load_model(folder)
    task = mx.Task(["apple bird boat apple", "moon lake key moon"], [" bird"] * 2, [" boat"] * 2)
    values = mx.ComponentValues(model, task, mx.heads(model) + mx.neurons(model))
    command = "OMP_NUM_THREADS=1 python tests/benchmarks/memory.py > tests/benchmarks/memory.md"
    print(f"# Memory over 100,000 masks\n\nMade by `{command}`: heads and")
    print("neurons of a random two-layer model in the shape of GPT-2.\n")
    print("| masks measured | resident memory, MB |\n|---|---|")
    for done in range(BLOCK, MASKS + 1, BLOCK):
        values(sample_masks(values.n_units, BLOCK, keep=0.9, seed=done))
        resident = psutil.Process().memory_info().rss / 1e6
        print(f"| {done:,} | {resident:.0f} |", flush=True)
