"""How far the ablations of a prompt's parts agree: correlations of their values on all masks.

python tests/benchmarks/prompt_ablations.py > tests/benchmarks/prompt_ablations.md
"""

from pathlib import Path

import numpy as np
import torch

import mechspex as mx
from mechspex.core.masks import all_masks

CONTEXT = (
    "The museum opens at nine. Tickets cost five euros. Children enter for free. "
    "The cafe is on the second floor. It closes at six."
)
QUESTION = "\nQuestion: When does the museum open?\nAnswer:"
RESPONSE = " The museum is open at nine."
NAME = Path(__file__).stem
ABLATIONS = ["delete", "replace", "hide", "zero", "mean"]


@torch.inference_mode()
def print_one_token(model, values):
    """One token of the context, ` museum`, with another embedding: what becomes of it."""
    own = model.original_model
    before = model.tokenizer(values.prompts[0], return_tensors="pt").input_ids[0]
    after = model.tokenizer(RESPONSE, add_special_tokens=False, return_tensors="pt").input_ids[0]
    embeddings = own.get_input_embeddings().weight
    tokens = torch.cat([before, after])
    place = [model.tokenizer.decode(token) for token in tokens].index(" museum")
    mean = embeddings[before].mean(0)
    length = embeddings[before].norm(dim=-1).mean()
    torch.manual_seed(0)
    random = torch.randn_like(mean)
    references = {
        "itself": embeddings[tokens[place]],
        "zero": torch.zeros_like(mean),
        "mean of the prompt's tokens": mean,
        "the same, as long as a token's": mean / mean.norm() * length,
        "the negative of it": -mean,
        "of random direction, as long as a token's": random / random.norm() * length,
        "mean of two of the prompt's tokens": embeddings[tokens[[place, place + 1]]].mean(0),
        "mean of all tokens of the vocabulary": embeddings.mean(0),
    }
    print("\nThe token ` museum` alone, with another embedding in its place: the value, and the")
    print("first token that the model then likes best.\n")
    print("| its embedding | value (nats) | first token |\n|---|---|---|")
    for name, reference in references.items():
        x = embeddings[tokens].clone()
        x[place] = reference
        log_p = own(inputs_embeds=x[None]).logits[0, len(before) - 1 : -1].log_softmax(-1)
        value = log_p[torch.arange(len(after)), after].sum()
        likeliest = model.tokenizer.decode(log_p[0].argmax())
        print(f"| {name} | {value:.2f} | `{likeliest}` |")


def main():
    model = mx.load_model("smollm2-135m")
    masks, columns, tops = all_masks(5), [], []
    for ablation in ABLATIONS:
        values = mx.PromptValues(model, CONTEXT, QUESTION, response=RESPONSE, ablation=ablation)
        columns.append(values(masks)[:, 0])
        function = mx.decode(masks, columns[-1], decoder="exhaustive")
        effects = function.ablated_effects()
        pair = max((t for t in effects if len(t) == 2), key=lambda t: abs(effects[t]))
        tops.append((effects[(0,)], effects[pair], " × ".join(str(1 + unit) for unit in pair)))
    print("# Ablations of a prompt's parts: how far they agree\n")
    print(f"Made by `python tests/benchmarks/{NAME}.py > tests/benchmarks/{NAME}.md`")
    print(
        "SmolLM2-135M, one context of five sentences, all 32 masks: correlations of the values, the"
    )
    print("effect of the first sentence (which answers) alone, and the strongest pair.\n")
    header = [*ABLATIONS, "sentence 1", "strongest pair", "its effect"]
    print(f"| | {' | '.join(header)} |\n|{'---|' * (1 + len(header))}")
    correlations = np.corrcoef(np.array(columns))
    for name, row, (single, pair, label) in zip(ABLATIONS, correlations, tops, strict=True):
        cells = [*(f"{one:.2f}" for one in row), f"{single:+.2f}", label, f"{pair:+.2f}"]
        print(f"| {name} | {' | '.join(cells)} |")
    print_one_token(model, values)


if __name__ == "__main__":
    main()
