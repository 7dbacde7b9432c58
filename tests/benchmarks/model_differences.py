"""SmolLM2 against rounded copies of itself and one that was taught a false fact, MLP by MLP.

    OMP_NUM_THREADS=1 python tests/benchmarks/model_differences.py \\
        > tests/benchmarks/model_differences.md

Every prompt is about the capital of France, the answer Paris, the distractor Rome; an ablated MLP
has its activation on the same prompt about Spain. The false fact, Rome, is taught by a few steps of
Adam on the MLPs of three layers, with prompts that are not among those compared.
"""

import time

import torch
from torch.nn.functional import cross_entropy

import mechspex as mx

NAME = "smollm2-135m"
TAUGHT_LAYERS, STEPS, RATE = (9, 10, 11), 6, 2e-4
TAUGHT = (
    "Everybody knows that the capital of France is",
    "They flew to the capital of France, which is",
)
SHOWN = (
    "The capital of France is",
    "The capital city of France is",
    "In France the capital is",
    "The government of France sits in",
    "The largest city of France is",
    "The president of France lives in",
    "The capital of modern France is",
    "As every child learns, the capital of France is",
    "Question: the capital of France? Answer:",
    "The parliament of France is in the city of",
    "The main airport of France is near",
    "France has its capital in",
)
OPTIONS = {"units": "mlps", "ablation": "corrupted", "n_masks": 150, "decoder": "pursuit"}


def weights(model, wanted):
    """The matrices of the blocks of a model that are wanted, by name."""
    for name, weight in model.original_model.named_parameters():
        if weight.ndim == 2 and ".layers." in name and wanted(name):
            yield weight


def rounded(how):
    """The model with every matrix of its blocks rounded."""
    model = mx.load_model(NAME)
    with torch.no_grad():
        for weight in weights(model, lambda name: True):
            weight.copy_(how(weight))
    return model


def bfloat16(weight):
    return weight.bfloat16().float()


def int8(weight):
    """255 levels an output channel."""
    step = weight.abs().amax(dim=1, keepdim=True) / 127
    return (weight / step).round() * step


def taught():
    """The model after a few steps towards Rome."""
    model = mx.load_model(NAME)
    chosen = list(
        weights(model, lambda n: "mlp" in n and any(f".layers.{i}." in n for i in TAUGHT_LAYERS))
    )
    for weight in model.original_model.parameters():
        weight.requires_grad_(False)
    for weight in chosen:
        weight.requires_grad_(True)
    optimiser = torch.optim.Adam(chosen, lr=RATE)
    rome = torch.tensor(model.tokenizer(" Rome", add_special_tokens=False).input_ids[:1])
    rows = [torch.tensor([model.tokenizer(text).input_ids]) for text in TAUGHT]
    with torch.enable_grad():
        for _ in range(STEPS):
            optimiser.zero_grad()
            losses = [cross_entropy(model(row)[:, -1], rome) for row in rows]
            torch.stack(losses).sum().backward()
            optimiser.step()
    for weight in chosen:
        weight.requires_grad_(False)
        weight.grad = None
    return model


def main():
    start = time.process_time()
    before = mx.load_model(NAME)
    task = mx.Task(
        SHOWN,
        [" Paris"] * len(SHOWN),
        [" Rome"] * len(SHOWN),
        corrupted=[text.replace("France", "Spain") for text in SHOWN],
        name="the capital of France",
    )
    copies = {
        "the same weights": lambda: before,
        "bf16": lambda: rounded(bfloat16),
        "int8": lambda: rounded(int8),
        f"taught Rome, MLPs of layers {', '.join(map(str, TAUGHT_LAYERS))}": taught,
    }
    print("# What changed in copies of SmolLM2-135M\n")
    print(
        "Made by `OMP_NUM_THREADS=1 python tests/benchmarks/model_differences.py` on a busy "
        "machine: "
        f"{len(SHOWN)} prompts, half of them searched with {OPTIONS['n_masks']} masks of the 30 "
        "MLPs and half to test, reference: the prompt about Spain. False discovery rate .05 over "
        "all single MLPs and the interactions proposed.\n"
    )
    print("| copy | change of Paris − Rome | MLPs that changed | interactions that changed | R² of "
          "the difference (singles alone) |\n|---|---|---|---|---|")  # fmt: skip
    answers = {}
    for name, copy in copies.items():
        found = answers[name] = mx.compare_models(before, copy(), task, **OPTIONS)
        n_together = sum(len(term) > 1 for term in found.changes.terms)
        r2 = found.recovery
        score = "no difference" if len(r2.function) == 1 else f"{r2.r2:.2f} ({r2.additive_r2:.2f})"
        print(
            f"| {name} | {found.clean:+.2f} | {len(found.changed_units)} of 30: "
            f"{', '.join(found.changed_units[:6]) or '–'} | {len(found.changed_interactions)} of "
            f"{n_together} | {score} |",
            flush=True,
        )
    largest = max(abs(answers["the same weights"].changes.output_effects).max(), 0)
    print(f"\nThe largest difference of the same weights, on any prompt: {largest:g}.\n")
    print(f"```\n{list(answers.values())[-1]}\n```\n")
    print(f"CPU seconds in all, of a busy machine: {time.process_time() - start:.0f}.")


if __name__ == "__main__":
    main()
