"""How fast the masked forward is: ratios, both sides in one run, printed as a table.

    python tests/benchmarks/masked_forward.py > tests/benchmarks/masked_forward.md
    python tests/benchmarks/masked_forward.py cuda > tests/benchmarks/masked_forward_cuda.md

About a quarter of an hour on two idle cores.
"""

import functools
import gc
import os
import platform
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel
from transformers.utils import logging as transformers_logging

import mechspex as mx
from mechspex.core.masks import sample_masks
from mechspex.models.shipped import TINY
from mechspex.models.smollm2 import smollm2_folder

PROMPTS, ROUNDS = 8, 4
DEVICE = sys.argv[1] if len(sys.argv) > 1 else "cpu"
# Tokens of one batch of the model's own forward, which fill the device.
TOKENS = 2048 if DEVICE == "cpu" else 1 << 16
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


def gpt2_folder(folder):
    """Random weights in the shape of GPT-2 small, with the words of the tiny model."""
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)
    AutoTokenizer.from_pretrained(TINY).save_pretrained(folder)
    return folder


def task_of(model, length):
    """Eight prompts of `length` tokens: other words, the same lengths."""
    rng = np.random.default_rng(0)
    words = ["apple", "bird", "boat", "door", "flag", "key", "lake", "moon", "tree", "wall"]
    # All begin alike: where a prompt begins, some tokenizers split a word or add a token.
    begin = len(model.tokenizer("apple").input_ids)
    prompts = [" ".join(["apple", *rng.choice(words, length - begin)]) for _ in range(PROMPTS)]
    return mx.Task(prompts, [" bird"] * PROMPTS, [" boat"] * PROMPTS, prepend_bos=True)


def rounds_of(sides, rounds):
    """{name: seconds in each round} of functions that take turns; the first round warms up."""
    taken = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            if DEVICE != "cpu":
                torch.cuda.synchronize()
            taken[name].append(time.perf_counter() - start)
    return {name: np.array(seconds[1:]) for name, seconds in taken.items()}


def peak(dtype):
    """Rate of the best large matrix product, FLOP/s."""
    best = 0.0
    sizes = [(2048, 2048, 2048), (4096, 4096, 4096), (1920, 576, 1536)]
    if DEVICE != "cpu":
        sizes.append((8192, 8192, 8192))
    for rows, inner, columns in sizes:
        a = torch.randn(rows, inner, device=DEVICE).to(dtype)
        b = torch.randn(columns, inner, device=DEVICE).to(dtype)
        with torch.inference_mode():
            taken = rounds_of({"product": lambda a=a, b=b: torch.nn.functional.linear(a, b)}, 8)
        best = max(best, 2 * rows * inner * columns / taken["product"].min())
    return best


def work(raw, tokens):
    """FLOPs of the matrix products of one forward but the unembedding and attention."""
    head = raw.get_output_embeddings()
    weights = sum(
        m.weight.numel()
        for m in raw.modules()
        if m is not head and type(m).__name__ in ("Linear", "Conv1D")
    )
    return 2 * weights * tokens


def loop(model, tokens, mean, masks):
    """What a user writes: one mask a forward, through run_with_hooks."""
    for mask in masks.reshape(len(masks), len(mean), -1):
        hooks = [
            (name, functools.partial(replace, torch.from_numpy(keep).to(DEVICE), mean[name]))
            for name, keep in zip(mean, mask, strict=True)
        ]
        model.run_with_hooks(tokens, fwd_hooks=hooks)


def replace(keep, mean, activation, hook):
    """The hook of that loop."""
    return torch.where(keep.view(1, 1, -1, *[1] * (activation.ndim - 3)), activation, mean)


def measure(name, folder, kind, length):
    """One row a ratio, for one model, kind of unit and prompt length."""
    n_masks = TOKENS // (length * PROMPTS)
    bridge = mx.load_model(folder, device=DEVICE)
    task = task_of(bridge, length)
    units = getattr(mx, kind)(bridge)
    tokens = torch.stack([torch.tensor(bridge.tokenizer(p).input_ids) for p in task.prompts])
    tokens = tokens.to(DEVICE)
    assert tokens.shape == (PROMPTS, length), tokens.shape
    masks = sample_masks(len(units), n_masks, keep=0.9, seed=1)
    hook = "attn.hook_z" if kind == "heads" else "mlp.hook_post"
    names = [f"blocks.{layer}.{hook}" for layer in range(bridge.cfg.n_layers)]
    with torch.inference_mode():
        _, cache = bridge.run_with_cache(tokens, names_filter=names)
    mean = {n: cache[n].mean(0, keepdim=True) for n in names}

    sides, errors = {}, None
    for dtype_name, dtype in DTYPES.items():
        raw: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        raw = raw.to(DEVICE)
        batch = tokens.repeat(n_masks, 1)
        precision = None if dtype_name == "float32" else dtype_name
        values = mx.ComponentValues(bridge, task, units, precision=precision)
        assert values.through_bridge is None, values.through_bridge
        errors = values.precision_error
        # Let the batch size settle.
        n_first = (6 if DEVICE == "cpu" else 16) * n_masks
        values(sample_masks(len(units), n_first, keep=0.9, seed=2))
        sides[f"own {dtype_name}"] = lambda raw=raw, batch=batch: raw(
            batch, logits_to_keep=1, use_cache=False
        )
        sides[f"ours {dtype_name}"] = lambda values=values: values(masks)
        flops = work(raw, batch.numel())
    third = getattr(mx, kind)(
        bridge, layers=range(2 * bridge.cfg.n_layers // 3, bridge.cfg.n_layers)
    )
    upper = mx.ComponentValues(bridge, task, third)
    few = sample_masks(len(third), n_masks, keep=0.5, seed=1)
    sides["upper third"] = lambda: upper(few)
    last = getattr(mx, kind)(bridge, positions=[length - 1])
    at_last = mx.ComponentValues(bridge, task, last)
    many = sample_masks(len(last), 8 * n_masks, keep=0.9, seed=1)
    at_last(many)
    sides["last token"] = lambda: at_last(many)
    sides["loop"] = lambda: loop(bridge, tokens, mean, masks[:1])
    sides["loop, a prompt"] = lambda: [loop(bridge, t[None], mean, masks[:1]) for t in tokens]
    with torch.inference_mode():
        taken = rounds_of(sides, ROUNDS)
    # Masks a second in every round; ratios are medians over rounds, whose sides stand together.
    rate = {side: n_masks / seconds for side, seconds in taken.items()}
    for side, masks_of_side in (("loop", 1), ("loop, a prompt", 1), ("last token", 8 * n_masks)):
        rate[side] *= masks_of_side / n_masks

    def ratio(one, other):
        return float(np.median(rate[one] / rate[other]))

    def best(side):
        return float(rate[side].max())

    row = {
        "model": name,
        "units": kind,
        "tokens": length,
        "s/mask f32": 1 / best("ours float32"),
        "s/mask bf16": 1 / best("ours bf16"),
        "f32 / loop": ratio("ours float32", "loop"),
        "f32 / loop, one prompt a forward": ratio("ours float32", "loop, a prompt"),
        "bf16 / loop": ratio("ours bf16", "loop"),
        "f32 / own f32": ratio("ours float32", "own float32"),
        "bf16 / own bf16": ratio("ours bf16", "own bf16"),
        "bf16 / f32": ratio("ours bf16", "ours float32"),
        "bf16 / own f32": ratio("ours bf16", "own float32"),
        "upper third / own f32": ratio("upper third", "own float32"),
        "last token / own f32": ratio("last token", "own float32"),
        "GFLOP/s f32": flops / n_masks * best("ours float32") / 1e9,
        "GFLOP/s bf16": flops / n_masks * best("ours bf16") / 1e9,
        "GFLOP/s, own f32": flops / n_masks * best("own float32") / 1e9,
        "GFLOP/s, own bf16": flops / n_masks * best("own bf16") / 1e9,
        "bf16 error": errors.rms,
        "bf16 correlation": errors.correlation,
    }
    gc.collect()
    return row


def table(rows):
    """Markdown, one column a case."""
    lines = []
    for key in rows[0]:
        cells = [row[key] for row in rows]
        shown = [cell if isinstance(cell, str | int) else f"{cell:.4g}" for cell in cells]
        lines.append("| " + " | ".join([key, *map(str, shown)]) + " |")
        if len(lines) == 1:
            lines.append("|" + "---|" * (len(rows) + 1))
    return "\n".join(lines)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    transformers_logging.disable_progress_bar()
    end = "" if DEVICE == "cpu" else f"_{DEVICE}"
    asked = "" if DEVICE == "cpu" else f" {DEVICE}"
    table_of = f"tests/benchmarks/masked_forward{end}.md"
    command = f"python tests/benchmarks/masked_forward.py{asked} > {table_of}"
    print(f"# The masked forward: ratios of rates, both sides in one run\n\nMade by `{command}`")
    where = f"{os.cpu_count()} cores ({platform.machine()})"
    if DEVICE != "cpu":
        where = f"one {torch.cuda.get_device_name(DEVICE)}"
    print(f"on {where}, torch {torch.__version__}.\n")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        models = {"SmolLM2": smollm2_folder(), "gpt2 shape": gpt2_folder(Path(scratch))}
        for name, folder in models.items():
            for kind in ("heads", "neurons"):
                for length in (15, 128):
                    # Shared machines change their pace: the peak is measured beside every case.
                    before = {dtype: peak(torch_dtype) for dtype, torch_dtype in DTYPES.items()}
                    row = measure(name, folder, kind, length)
                    after = {dtype: peak(torch_dtype) for dtype, torch_dtype in DTYPES.items()}
                    for dtype, short in (("float32", "f32"), ("bf16", "bf16")):
                        best = max(before[dtype], after[dtype]) / 1e9
                        row[f"peak GFLOP/s {short}"] = best
                        row[f"share of peak {short}"] = row[f"GFLOP/s {short}"] / best
                    rows.append(row)
                    print(row, file=sys.stderr, flush=True)
    print(table(rows))
