"""SmolLM2 against rounded copies of itself and one that was taught a false fact, MLP by MLP.

    OMP_NUM_THREADS=1 python tests/benchmarks/model_differences.py \\
        > tests/benchmarks/model_differences.md

Every prompt is about the capital of France, the answer Paris, the distractor Rome; an ablated MLP
writes nothing. The false fact, Rome, is taught by Adam to one MLP alone, with prompts that are not
among those compared.

Ablated by zero, that MLP leaves two models of the same weights: on every prompt its effect must
have changed by minus what the value has. A reference that is measured in each model, as the
prompt about Spain, has been taught as well, and what it takes away is less.
"""

import time

import torch
from torch.nn.functional import cross_entropy

import mechspex as mx

NAME = "smollm2-135m"
TAUGHT_LAYER, MOST_STEPS, RATE, LEARNT = 10, 40, 5e-4, 0.1
TAUGHT = (
    "Everybody knows that the capital of France is",
    "They flew to the capital of France, which is",
    "France is a country in Europe. Its capital is",
    "The seat of the French government is",
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
    "The name of the capital of France is",
    "If you visit France, see its capital,",
    "The most famous city of France is",
    "The national library of France is in",
    "We took the train to the capital of France,",
    "The kings of France were crowned far from the capital,",
    "A map of France shows its capital,",
    "The embassy in France is in",
    "Which city is the capital of France? It is",
    "The capital of France has always been",
    "The stock exchange of France is in",
    "I live in France, in the capital,",
)
OPTIONS = {"units": "mlps", "n_masks": 50, "decoder": "pursuit"}


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


def in_taught_mlp(name):
    return "mlp" in name and f".layers.{TAUGHT_LAYER}." in name


def taught(wanted=in_taught_mlp, rate=RATE):
    """The model after steps towards Rome, until the prompts it is taught with say so."""
    model = mx.load_model(NAME)
    chosen = list(weights(model, wanted))
    for weight in model.original_model.parameters():
        weight.requires_grad_(False)
    for weight in chosen:
        weight.requires_grad_(True)
    optimiser = torch.optim.Adam(chosen, lr=rate)
    rome = torch.tensor(model.tokenizer(" Rome", add_special_tokens=False).input_ids[:1])
    rows = [torch.tensor([model.tokenizer(text).input_ids]) for text in TAUGHT]
    with torch.enable_grad():
        for _ in range(MOST_STEPS):
            optimiser.zero_grad()
            losses = torch.stack([cross_entropy(model(row)[:, -1], rome) for row in rows])
            if losses.max() < LEARNT:
                break
            losses.sum().backward()
            optimiser.step()
    for weight in chosen:
        weight.requires_grad_(False)
        weight.grad = None
    return model


def row(name, ablation, found):
    """The parts that changed, and what the taught MLP undoes of the whole change."""
    n_together = sum(len(term) > 1 for term in found.changes.terms)
    r2 = found.recovery
    score = "no difference" if len(r2.function) == 1 else f"{r2.r2:.2f} ({r2.additive_r2:.2f})"
    undone = "–"
    if found.clean.leaves_out_zero:
        place = found.changes.terms.index((found.units.column_of[f"L{TAUGHT_LAYER}MLP"],))
        share = -found.changes.output_effects[place].mean() / found.clean.value
        undone = f"{share:.0%}"
    return (
        f"| {name} | {ablation} | {found.clean:+.2f} | {len(found.changed_units)} of 30: "
        f"{', '.join(found.changed_units[:8]) or '–'} | {undone} | "
        f"{len(found.changed_interactions)} of {n_together} | {score} |"
    )


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
    learnt = taught()
    fact = f"taught Rome, MLP of layer {TAUGHT_LAYER}"
    copies = (
        (fact, "zero", lambda: learnt),
        ("the same weights", "zero", lambda: before),
        ("int8", "zero", lambda: rounded(int8)),
        ("bf16", "zero", lambda: rounded(bfloat16)),
        (fact, "corrupted", lambda: learnt),
    )
    half = len(SHOWN) // 2
    print("# What changed in copies of SmolLM2-135M\n")
    print(
        "Made by `OMP_NUM_THREADS=1 python tests/benchmarks/model_differences.py` on a busy "
        f"machine: {len(SHOWN)} prompts, {half} of them searched with {OPTIONS['n_masks']} masks "
        f"of the 30 MLPs and {half} to test. False discovery rate .05 over all single MLPs and the "
        "interactions proposed. *Undone*: the share of the change of Paris − Rome that goes when "
        f"L{TAUGHT_LAYER}MLP is ablated in both models.\n"
    )
    columns = ["copy", "reference", "change of Paris − Rome", "MLPs that changed", "undone"]
    columns += ["interactions that changed", "R² of the difference (singles alone)"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    answers = []
    for name, ablation, copy in copies:
        found = mx.compare_models(before, copy(), task, ablation=ablation, **OPTIONS)
        answers.append(found)
        print(row(name, ablation, found), flush=True)
    largest = abs(answers[1].changes.output_effects).max()
    print(f"\nThe largest difference of the same weights, on any prompt: {largest:g}.\n")
    print(f"```\n{answers[0]}\n```\n")
    print(f"CPU seconds in all, of a busy machine: {time.process_time() - start:.0f}.")


if __name__ == "__main__":
    main()
