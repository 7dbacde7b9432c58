"""An attribution: one score for each unit, which together predict the value of any mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechspex.core.errors import ShapeError
from mechspex.core.json_values import plain, read_array, read_text, read_whole
from mechspex.core.result import Result
from mechspex.core.units import UnitSet
from mechspex.set_functions.set_function import SetFunction

# Rows that the text shows.
_SHOWN = 20


@dataclass(frozen=True, eq=False, repr=False)
class Attribution(Result):
    """One score a unit and output: f(m) ≈ intercept + Σ_i score_i · m_i, m_i = 1 where i is kept.

    Attributes:
        method: what made the scores.
        units: what the scores are of.
        outputs: the names of the value's columns.
        output_scores: what keeping each unit adds to each output, in the units of the value.
        intercept: one number an output; f(∅) by this approximation.
        n_masks: how many masks were measured for it; each gradient counts as one.

    Raises:
        ShapeError: scores or intercepts that do not go with the units and outputs.
    """

    schema: ClassVar[str] = "mechspex.attribution/1"
    called: ClassVar[str] = "attribution"

    method: str
    units: UnitSet
    outputs: tuple[str, ...]
    output_scores: Float[np.ndarray, "unit output"]
    intercept: Float[np.ndarray, " output"]
    n_masks: int

    def __post_init__(self) -> None:
        shape = (len(self.units), len(self.outputs))
        if self.output_scores.shape != shape or self.intercept.shape != shape[1:]:
            raise ShapeError(
                f"scores {list(self.output_scores.shape)} and intercepts "
                f"{list(self.intercept.shape)} for {shape[0]} units and {shape[1]} outputs; give "
                "one score a unit and output, one intercept an output"
            )

    @property
    def scores(self) -> Float[np.ndarray, " unit"]:
        """One score a unit, mean over outputs."""
        return self.output_scores.mean(axis=1)

    @property
    def ranking(self) -> tuple[int, ...]:
        """All units by column, those that raise the value most first."""
        return tuple(np.argsort(-self.scores, kind="stable").tolist())

    @property
    def function(self) -> SetFunction:
        """The additive function of these scores, of every output."""
        terms = ((), *((column,) for column in range(len(self.units))))
        coefficients = np.concatenate([self.intercept[None], self.output_scores])
        return SetFunction(len(self.units), terms, coefficients, "kept")

    def to_pandas(self) -> pd.DataFrame:
        """One row a unit, mean over outputs, the highest first."""
        order = list(self.ranking)
        names = [self.units.names[column] for column in order]
        return pd.DataFrame({"unit": names, "score": self.scores[order]})

    def to_dict(self) -> dict[str, Any]:
        """The scores as plain numbers and lists, with a schema name."""
        return {
            "schema": self.schema,
            "method": self.method,
            "units": self.units.to_list(),
            "outputs": list(self.outputs),
            "output_scores": plain(self.output_scores),
            "intercept": plain(self.intercept),
            "n_masks": self.n_masks,
        }

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Attribution:
        return cls(
            method=read_text(record["method"]),
            units=UnitSet.from_list(record["units"]),
            outputs=tuple(read_text(name) for name in record["outputs"]),
            output_scores=read_array(record["output_scores"], "unit", "output"),
            intercept=read_array(record["intercept"], "output"),
            n_masks=read_whole(record["n_masks"]),
        )

    @property
    def in_short(self) -> str:
        """The method, and of how many units from how many masks."""
        return f"{self.method}: {self.units.description} from {self.n_masks:,} masks"

    def __str__(self) -> str:
        table = self.to_pandas()
        shown = table.head(_SHOWN).to_string(index=False, float_format="{:+.3f}".format)
        left = len(table) - _SHOWN
        return "\n".join([self.in_short, shown, *([f"… and {left:,} lower ones"] * (left > 0))])
