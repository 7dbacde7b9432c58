"""How far the ablations of a prompt's parts agree: correlations of their values on all masks.

python tests/benchmarks/prompt_ablations.py > tests/benchmarks/prompt_ablations.md
"""

from pathlib import Path

import numpy as np

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


if __name__ == "__main__":
    main()
