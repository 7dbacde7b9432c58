"""Short sentences with a negation: all masks of their words, and the exact Möbius terms."""

from __future__ import annotations

from functools import partial
from typing import Any

from mechspex.core.masks import all_masks
from mechspex.decoders import decode
from mechspex.experiments.catalogue import FIGURES
from mechspex.experiments.experiment import Asked, Measured, experiment
from mechspex.experiments.paper_figure import Claim, Published, series
from mechspex.experiments.reproduction import Axes
from mechspex.models.load_model import load_model
from mechspex.prompts.prompt_values import PromptValues
from mechspex.prompts.words import words

SENTENCES = (
    "Her acting never fails to impress",
    "Her acting fails to impress",
    "The movie was not bad",
    "The movie was not good",
)
# Drawn of each sentence.
_TERMS = 8


def _cell(model: Any, sentence: str) -> list[dict[str, Any]]:
    loaded = load_model(model) if isinstance(model, str) else model
    units = words(f"Review: {sentence}", by="word")[1:]
    values = PromptValues(
        loaded, units, "\nSentiment:", response=" positive", distractor=" negative",
        metric="logit_difference",
    )  # fmt: skip
    masks = all_masks(values.n_units)
    kept = decode(masks, values(masks), decoder="exhaustive").to_basis("kept").to_mapping()
    strongest = sorted((term for term in kept if term), key=lambda term: -abs(kept[term]))
    names = [units.label((unit,)) for unit in range(len(units))]
    return [
        {
            "panel": sentence, "series": "Möbius term", "x": " × ".join(names[u] for u in term),
            "y": kept[term], "low": None, "high": None,
        }
        for term in strongest[:_TERMS]
    ]  # fmt: skip


_PAPER = series(
    "paper: Her acting never fails to impress", "Möbius term",
    ("never × fails × impress", "never × fails", "fails", "never × impress", "never", "impress",
     "to"),
    (0.97, 0.70, -0.61, -0.53, -0.45, 0.37, -0.01), "stated",
)  # fmt: skip


@experiment(FIGURES["never-fails"], (*_PAPER, Published("STII of never × fails", 2.173, "stated")))
def never_fails(asked: Asked) -> Measured:
    rows = [
        row
        for sentence in SENTENCES
        for row in asked.cell({"sentence": sentence}, partial(_cell, asked.model, sentence))
    ]
    found = {(row["sentence"], row["x"]): row["y"] for row in rows}
    pair = next(
        (y for (of, x), y in found.items() if of == SENTENCES[0] and x == "never × fails"), None
    )
    claim = Claim(
        "never × fails is positive: the two words together say what neither does alone",
        None if pair is None else pair > 0,
        "not among the strongest" if pair is None else f"{pair:+.2f} logits",
    )
    return Measured(rows, Axes("", "Möbius term (logits)", kind="bars"), (claim,))
