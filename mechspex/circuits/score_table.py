"""What a circuit does under each reference, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from mechspex.core.counted import counted
from mechspex.core.json_values import read_estimate, read_text, read_texts, read_whole
from mechspex.core.result import Result
from mechspex.core.statistics import Estimate

if TYPE_CHECKING:
    import matplotlib.figure


@dataclass(frozen=True, eq=False, repr=False)
class ReferenceScores(Result):
    """What a circuit C does by itself under each reference, with 95% intervals over prompts.

    Attributes:
        scores: {reference: {``faithfulness``, ``completeness``, ``kl_divergence``, and for a
            difference of answer and distractor ``accuracy`` and ``clean_accuracy``}}. The first
            two are those of `mechspex.Faithfulness`; then KL(model ‖ C) of the next token in nats,
            and the share of prompts on which C, or the whole model, prefers the answer.
        refused: {reference: why it has no scores}.
        n_prompts: how many prompts the intervals are about.
    """

    schema: ClassVar[str] = "mechspex.reference_scores/1"
    called: ClassVar[str] = "table of scores"

    scores: Mapping[str, Mapping[str, Estimate]]
    refused: Mapping[str, str]
    n_prompts: int

    def to_pandas(self) -> pd.DataFrame:
        """One row a reference and score: value, low, high."""
        rows = [
            {"reference": reference, "score": name, **vars(score)}
            for reference, row in self.scores.items()
            for name, score in row.items()
        ]
        return pd.DataFrame(rows, columns=["reference", "score", "value", "low", "high"])

    def plot(self) -> "matplotlib.figure.Figure":
        """Faithfulness and completeness under each reference, with their intervals."""
        from mechspex.figures.bars import bars

        shown = {
            f"{reference}: {name}": score
            for reference, row in self.scores.items()
            for name, score in row.items()
            if name in ("faithfulness", "completeness")
        }
        return bars(
            list(shown),
            [score.value for score in shown.values()],
            intervals=np.array([[score.low, score.high] for score in shown.values()]),
            quantity="share of the behaviour",
            heading=f"The circuit under each reference · {counted(self.n_prompts, 'prompt')}",
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, with a schema name."""
        return {
            "schema": self.schema,
            "n_prompts": self.n_prompts,
            "scores": {
                reference: {name: s.to_list() for name, s in row.items()}
                for reference, row in self.scores.items()
            },
            "refused": dict(self.refused),
        }

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> ReferenceScores:
        scores = {
            read_text(reference): {name: read_estimate(score) for name, score in row.items()}
            for reference, row in record["scores"].items()
        }
        return cls(scores, read_texts(record["refused"]), read_whole(record["n_prompts"]))

    @property
    def in_short(self) -> str:
        """Which references, on how many prompts."""
        named = ", ".join(self.scores) or "no reference"
        return f"the circuit under {named}; {counted(self.n_prompts, 'prompt')}"

    def __str__(self) -> str:
        frame = pd.DataFrame(
            [
                {"reference": reference} | {n.replace("_", " "): str(s) for n, s in row.items()}
                for reference, row in self.scores.items()
            ]
        )
        lines = [frame.to_string(index=False)] if len(frame) else []
        return "\n".join(
            [*lines, *(f"{r} has no scores: {why}" for r, why in self.refused.items())]
        )
