"""Candidates: what a screen proposes for exact ablation, best first."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from mechspex.core.json_values import (
    plain,
    read_array,
    read_term,
    read_text,
    read_texts,
    read_whole,
)
from mechspex.core.units import Term, UnitSet
from mechspex.runs.cost import Cost
from mechspex.runs.result import RunResult
from mechspex.runs.run import CANDIDATES
from mechspex.runs.text import subject
from mechspex.set_functions.set_function import SetFunction

if TYPE_CHECKING:
    import matplotlib.figure

SCHEMA = "mechspex.candidates/1"
# Rows that the text shows.
_SHOWN = 20


@dataclass(frozen=True)
class Stratum:
    """Sets of neighbouring ranks that the screen scored and rejected, and a sample of them.

    Attributes:
        first_rank: the rank of its best set among all sets of that order; 0 is the best of all.
        size: how many sets the stratum holds.
        drawn: the sample, each set with the same probability.
    """

    first_rank: int
    size: int
    drawn: tuple[Term, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Candidates(RunResult):
    """Sets of units that a screen proposes, best first.

    A score only proposes: measure with `mechspex.validate` before you believe one.

    Attributes:
        units: what the terms' indices stand for.
        terms: the proposed sets.
        scores: the predicted coefficient of each in the ``ablated`` basis, mean over outputs.
        method: the screen's method.
        considered: how many sets of order 1, 2, … were scored.
        single_scores: the predicted effect of ablating each unit alone.
        reach: for each unit the root of the sum of squares of its predicted pairs; zeros where
            pairs were not scored.
        rejected: samples of the sets that were scored and not proposed. From them `missed`
            estimates what the screen overlooked.
        configuration: everything the values depend on but the mask.
        cost: how many masks and seconds the screen took; a gradient counts as a mask.
    """

    schema: ClassVar[str] = SCHEMA
    called: ClassVar[str] = "screen"
    file: ClassVar[str] = CANDIDATES
    made_by: ClassVar[str] = "mechspex screen"

    units: UnitSet
    terms: tuple[Term, ...]
    scores: Float[np.ndarray, " term"]
    method: str
    considered: tuple[int, ...]
    single_scores: Float[np.ndarray, " unit"]
    reach: Float[np.ndarray, " unit"]
    cost: Cost
    rejected: tuple[Stratum, ...] = ()
    configuration: dict[str, str] = field(default_factory=dict)

    def strongest_units(self, n_units: int) -> Int[np.ndarray, " unit"]:
        """The units with the largest predicted effects of all orders, √(single² + reach²).

        Args:
            n_units: how many units.

        Returns:
            Their columns, ascending.
        """
        strength = np.hypot(self.single_scores, self.reach)
        return np.sort(np.argsort(-strength, kind="stable")[:n_units])

    @property
    def function(self) -> SetFunction:
        """The function that the screen predicts, up to a constant; a prior for `mechspex.recover`.

        Σ_i ablated(i) (1 − m_i) + Σ_T ablated(T) Π_{i∈T} (1 − m_i), over all units i and the
        proposed sets T of two units and more.
        """
        singles = {(i,): effect for i, effect in enumerate(self.single_scores.tolist())}
        pairs = zip(self.terms, self.scores.tolist(), strict=True)
        sets = {term: score for term, score in pairs if len(term) > 1}
        return SetFunction.from_mapping(len(self.units), singles | sets, basis="ablated")

    def ablated_effects(self) -> dict[Term, float]:
        """{term: its coefficient in the ``ablated`` basis, mean over outputs}."""
        return self.function.ablated_effects()

    def to_pandas(self) -> pd.DataFrame:
        """A frame with one row a term, best first."""
        return pd.DataFrame(
            {
                "units": [self.units.label(term) for term in self.terms],
                "order": [len(term) for term in self.terms],
                "score": self.scores,
            }
        )

    @property
    def in_short(self) -> str:
        """What was asked, by which method, and how many sets are proposed."""
        asked = subject(self.configuration, self.units)
        return f"{asked}; screened by {self.method}, {len(self.terms):,} sets proposed"

    def __str__(self) -> str:
        frame = self.to_pandas()
        width = max((len(units) for units in frame["units"]), default=0)
        scored = ", ".join(
            f"{number:,} of order {order}" for order, number in enumerate(self.considered, 1)
        )
        lines = [
            subject(self.configuration, self.units),
            f"screened by {self.method}: {scored} scored, {len(self.terms):,} proposed",
            "",
            f"  {'':{width}} order   {self._quantity}",
        ]
        for row in frame.head(_SHOWN).to_dict("records"):
            lines.append(f"  {row['units']:{width}} {row['order']:5d} {row['score']:+11.3f}")
        if len(frame) > _SHOWN:
            lines.append(f"  … and {len(frame) - _SHOWN:,} weaker ones")
        cost = self.cost
        lines += [
            "",
            f"{cost.measured:,} gradients or masks in {cost.seconds_measuring:.0f} s; "
            f"{cost.seconds:.0f} s in all. Predicted, not measured: {self._decided_by}",
        ]
        return "\n".join(lines)

    @property
    def _quantity(self) -> str:
        return "effect in circuits" if self._in_circuits else "predicted (basis: ablated)"

    @property
    def _decided_by(self) -> str:
        if self._in_circuits:
            return "how much of the task the best carry, mx.faithfulness_curve says"
        return "mechspex validate decides"

    @property
    def _in_circuits(self) -> bool:
        """Whether the scores are those of gradients at circuits, not of the whole model."""
        return self.method == "iterated"

    def plot(self, metric: str | None = None) -> "matplotlib.figure.Figure":
        """The proposed sets by what is predicted of each.

        Args:
            metric: what is measured, in words; the value's metric if not given.
        """
        from mechspex.figures.bars import bars
        from mechspex.figures.style import measured

        frame = self.to_pandas()
        return bars(
            frame["units"].tolist(),
            frame["score"].to_numpy(),
            quantity=f"predicted effect {'in circuits ' if self._in_circuits else ''}on "
            f"{measured(self, metric)}",
            heading=f"Proposed · {subject(self.configuration, self.units)}",
        )

    def to_dict(self) -> dict[str, Any]:
        """The candidates as plain numbers and lists, with a schema name; JSON can hold it."""
        return {
            "schema": SCHEMA,
            "method": self.method,
            "configuration": self.configuration,
            "considered": list(self.considered),
            "terms": [
                {"units": [self.units.names[column] for column in term], "score": plain(score)}
                for term, score in zip(self.terms, self.scores, strict=True)
            ],
            "rejected": [
                {"first_rank": s.first_rank, "size": s.size, "drawn": [list(t) for t in s.drawn]}
                for s in self.rejected
            ],
            "cost": asdict(self.cost),
        }

    def to_record(self) -> dict[str, Any]:
        """`to_dict` with the units, and what is predicted of each alone."""
        return self.to_dict() | {
            "units": self.units.to_list(),
            "columns": [list(term) for term in self.terms],
            "single_scores": plain(self.single_scores),
            "reach": plain(self.reach),
        }

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Candidates:
        units = UnitSet.from_list(record["units"])
        terms = tuple(read_term(stored) for stored in record["columns"])
        units.label(column for term in terms for column in term)
        scores = [stored["score"] for stored in record["terms"]]
        return cls(
            units=units,
            terms=terms,
            scores=read_array(scores, "term", rows=len(terms)),
            method=read_text(record["method"]),
            considered=read_term(record["considered"]),
            single_scores=read_array(record["single_scores"], "unit", rows=len(units)),
            reach=read_array(record["reach"], "unit", rows=len(units)),
            cost=Cost.from_dict(record["cost"]),
            rejected=tuple(
                Stratum(
                    read_whole(stored["first_rank"]),
                    read_whole(stored["size"]),
                    tuple(read_term(term) for term in stored["drawn"]),
                )
                for stored in record["rejected"]
            ),
            configuration=read_texts(record["configuration"]),
        )
