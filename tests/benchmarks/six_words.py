"""Short sentences with a negation: all masks of their words, and the exact Möbius terms.

    python tests/benchmarks/six_words.py docs/pictures > tests/benchmarks/six_words.md

Each word is deleted or kept, and SmolLM2-135M says how the review sounds: the value is
logit(" positive") − logit(" negative") after "Review: … Sentiment:". All 2ⁿ masks are measured, so
nothing is estimated. Terms are those of the kept basis, f(S) = Σ_{T⊆S} kept(T): what a set of words
adds beyond all smaller ones. Energy is the share of the variance over all masks (Fourier basis).
"""

import sys
from pathlib import Path

import numpy as np

import mechspex as mx
from mechspex.core.masks import all_masks
from mechspex.figures import TextEffects

SENTENCES = (
    "Her acting never fails to impress",
    "Her acting fails to impress",
    "The movie was not bad at all",
    "The movie was not good at all",
    "I could not put it down",
    "Hardly a dull moment in it",
)
PICTURED = SENTENCES[0]
TERMS = 6


def explained(model, sentence):
    """All masks of the words of a sentence, and the value function."""
    units = mx.words(f"Review: {sentence}", by="word")[1:]
    values = mx.PromptValues(
        model,
        units,
        "\nSentiment:",
        response=" positive",
        distractor=" negative",
        metric="logit_difference",
    )
    masks = all_masks(values.n_units)
    function = mx.decode(masks, values(masks), decoder="exhaustive")
    return units, function


def main():
    model = mx.load_model("smollm2-135m")
    print("# Short sentences with a negation: all their masks\n")
    print(__doc__.strip(), "\n")
    print("| sentence | all kept | none | order 1 | 2 | 3 and more | strongest terms |")
    print("|---|---|---|---|---|---|---|")
    for sentence in SENTENCES:
        units, function = explained(model, sentence)
        kept = function.to_basis("kept").to_mapping()
        fourier = function.to_basis("fourier").to_mapping()
        energy = np.zeros(4)
        for term, value in fourier.items():
            energy[min(len(term), 3)] += value**2 if term else 0
        shares = " | ".join(f"{share:.0%}" for share in energy[1:] / energy[1:].sum())
        ranked = sorted((t for t in kept if t), key=lambda term: -abs(kept[term]))[:TERMS]
        told = ", ".join(f"{units.label(term)} {kept[term]:+.2f}" for term in ranked)
        whole = sum(kept.values())
        print(f"| {sentence} | {whole:+.2f} | {kept[()]:+.2f} | {shares} | {told} |", flush=True)
        if sentence == PICTURED and len(sys.argv) > 1:
            said = TextEffects(
                units.text, units.spans, {t: v for t, v in kept.items() if t},
                "logit(positive) − logit(negative)", "SmolLM2-135M, all 64 masks", most=3,
                shaded="adds to",
            )  # fmt: skip
            said.plot().savefig(Path(sys.argv[1]) / "six_words.png", dpi=160)


if __name__ == "__main__":
    main()
