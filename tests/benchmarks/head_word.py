"""Which heads of SmolLM2 need which words of IOI: one mask over heads and words.

    OMP_NUM_THREADS=1 python tests/benchmarks/head_word.py > tests/benchmarks/head_word.md

The units are the 10 heads with the largest first-order scores, ablated by their mean, and six words
of each prompt, hidden from attention. No position reads the last word but itself, so hiding it is
the negative control. Terms are found on 6 prompts and tested on 8 others.
"""

import time
from dataclasses import replace

import numpy as np
import torch

import mechspex as mx
from mechspex.models.load_model import Model

SEARCHED, FRESH, HEADS, BUDGET, STRONG = 6, 8, 10, 200, 5
NAMES, LAST = ("IO", "S1", "S2"), "to"


def prompts(model: Model) -> mx.Task:
    """IOI with its names, its other slots and its last word as spans."""
    task = mx.load_task("ioi", model, n_prompts=SEARCHED + FRESH, spans=True)
    ends = [len(text) for text in task.prompts]
    spans = task.spans or ()
    last = [dict(named) | {LAST: (end - 2, end)} for named, end in zip(spans, ends, strict=True)]
    return replace(task, spans=last, corrupted_spans=None)


def read_by(model: Model, task: mx.Task, heads: mx.UnitSet) -> dict[str, dict[str, float]]:
    """{head: {word: the largest mean attention that any later position pays to it}}."""
    patterns: dict[str, torch.Tensor] = {}

    def keep(pattern: torch.Tensor, hook: object) -> torch.Tensor:
        patterns[hook.name] = pattern  # type: ignore[attr-defined]
        return pattern

    names = {f"blocks.{head.layer}.attn.hook_pattern" for head in heads}
    found = {head.name: dict.fromkeys(mx.spans(task).names, 0.0) for head in heads}
    for text, spans in zip(task.prompts, task.spans or (), strict=True):
        read = model.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        ids = [model.tokenizer.bos_token_id, *read.input_ids]
        with model.hooks(fwd_hooks=[(name, keep) for name in names]), torch.no_grad():
            model.original_model(torch.tensor([ids]))
        ends = [0, *(end for _, end in read.offset_mapping)]
        place = {name: ends.index(end) for name, (_, end) in spans.items()}
        for head in heads:
            pattern = patterns[f"blocks.{head.layer}.attn.hook_pattern"][0, head.number]
            for name, key in place.items():
                later = pattern[key + 1 :, key]
                most = float(later.max()) if len(later) else 0.0
                found[head.name][name] += most / len(task)
    return found


def main() -> None:
    model = mx.load_model("smollm2-135m")
    task = prompts(model)
    start = time.perf_counter()
    every = mx.ComponentValues(model, task[:SEARCHED], mx.heads(model))
    scored = mx.screen(every, mx.FirstOrder(at=0.5), n_terms=HEADS)
    heads = mx.heads(model)[[mx.heads(model).names[term[0]] for term in scored.terms[:HEADS]]]
    units = mx.spans(task, hidden=True) + heads
    values = mx.ComponentValues(model, task[:SEARCHED], units)
    fresh = mx.ComponentValues(model, task[SEARCHED:], units)
    explanation = mx.explain(values, held_out=fresh, n_masks=BUDGET, seed=0)
    searched = time.perf_counter() - start

    singles = mx.validate(fresh, [(head,) for head in heads.names])
    order = np.argsort(-np.abs(singles.effects))[:STRONG]
    strong = [heads.names[place] for place in order]
    words = mx.spans(task).names
    pairs = mx.validate(fresh, [(word, head) for head in strong for word in words])
    attention = read_by(model, task[SEARCHED:], heads[strong])
    seconds = time.perf_counter() - start

    print("# Head × word on IOI, SmolLM2-135M\n")
    print("Made by `OMP_NUM_THREADS=1 python tests/benchmarks/head_word.py`, in "
          f"{seconds:.0f} s, of which the search took {searched:.0f} s.\n")  # fmt: skip
    print(__doc__.split("\n\n")[2].replace("\n", " ") + "\n")
    print(f"Held-out R² {explanation.r2:.3f}, additive {explanation.additive_r2:.3f}.\n")
    print("## Each strong head and each word, measured exactly on the fresh prompts\n")
    print("Joint effect of ablating both, less the single ones, in logits; bold where confirmed at "
          "a false discovery rate of 0.05. In brackets the attention that the head pays the word, "
          "at the position that pays most.\n")  # fmt: skip
    print("| head | alone | " + " | ".join(words) + " |\n" + "|---" * (2 + len(words)) + "|")
    rows = iter(zip(pairs.effects, pairs.confirmed, strict=True))
    for place, head in zip(order, strong, strict=True):
        cells = [f"{singles.effects[place]:+.2f}"]
        for word in words:
            effect, sure = next(rows)
            bold = "**" if sure else ""
            cells.append(f"{bold}{effect:+.2f}{bold} ({attention[head][word]:.2f})")
        print(f"| {head} | " + " | ".join(cells) + " |")
    found = zip(pairs.terms, pairs.confirmed, strict=True)
    sure = {units.label(sorted(term)) for term, holds in found if holds}
    most = {head: max(NAMES, key=lambda name: attention[head][name]) for head in strong}
    reads = sum(f"{name} × {head}" in sure for head, name in most.items())
    control = sum(f"{LAST} × {head}" in sure for head in strong)
    print(
        f"\nConfirmed with the name to which the head attends most: {reads} of {len(strong)} heads."
    )
    print(f"Confirmed with `{LAST}`, to which none can attend: {control} of {len(strong)}.")
    print(f"\n## What `mx.explain` finds by itself from {BUDGET} masks\n")
    print(f"```\n{explanation}\n```")


if __name__ == "__main__":
    main()
