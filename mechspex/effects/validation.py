"""What was measured exactly: effects of sets of units, their intervals, and which are confirmed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from mechspex.core.units import Term, UnitSet


@dataclass(frozen=True)
class Validation:
    """Exact effects of sets of units in the whole model.

    Attributes:
        units: what the terms' indices stand for.
        terms: the sets, of order 1 and up.
        output_effects: ablated(T) for every term and output, in the units of the value.
        intervals: the interval of each mean effect over outputs, one row ``[low, high]`` a term.
        confirmed: whether the interval leaves out zero.
        level: the false discovery rate: the expected share of false terms among the confirmed.
    """

    units: UnitSet
    terms: tuple[Term, ...]
    output_effects: Float[np.ndarray, "term output"]
    intervals: Float[np.ndarray, "term 2"]
    confirmed: Bool[np.ndarray, " term"]
    level: float

    @property
    def effects(self) -> Float[np.ndarray, " term"]:
        """ablated(T), mean over outputs: a single is the effect of ablating that unit, a pair the
        joint effect less the two single ones, and so on."""
        return self.output_effects.mean(axis=1)

    @property
    def failed(self) -> Bool[np.ndarray, " term"]:
        """Terms that could not be measured: a mask of theirs has no finite value."""
        return ~np.isfinite(self.effects)

    @property
    def confirmed_singles(self) -> tuple[int, ...]:
        """Columns of the units whose own effect is confirmed."""
        pairs = zip(self.terms, self.confirmed, strict=True)
        return tuple(term[0] for term, holds in pairs if holds and len(term) == 1)

    @property
    def kept_effects(self) -> Float[np.ndarray, " term"]:
        """kept(T) in the whole model, the derivative of the value by T: (−1)^{|T|} ablated(T)."""
        return self.effects * np.array([(-1.0) ** len(term) for term in self.terms])

    def ablated_effects(self) -> dict[Term, float]:
        """{term: its coefficient in the ``ablated`` basis, mean over outputs}."""
        return dict(zip(self.terms, self.effects.tolist(), strict=True))

    def to_pandas(self) -> pd.DataFrame:
        """A frame with one row a term, in the order of `terms`."""
        return pd.DataFrame(
            {
                "units": [self.units.label(term) for term in self.terms],
                "order": [len(term) for term in self.terms],
                "effect": self.effects,
                "low": self.intervals[:, 0],
                "high": self.intervals[:, 1],
                "confirmed": self.confirmed,
            }
        )

    def rows(self, chosen: Sequence[int]) -> Validation:
        """The validation of some of the terms.

        Args:
            chosen: the places of these terms.
        """
        return replace(
            self,
            terms=tuple(self.terms[row] for row in chosen),
            output_effects=self.output_effects[chosen],
            intervals=self.intervals[chosen],
            confirmed=self.confirmed[chosen],
        )

    def to_dict(self) -> dict[str, Any]:
        """Terms, effects and intervals as plain lists."""
        return {
            "terms": [list(term) for term in self.terms],
            "output_effects": self.output_effects.tolist(),
            "intervals": self.intervals.tolist(),
            "level": self.level,
        }

    @classmethod
    def from_dict(cls, units: UnitSet, record: dict[str, Any]) -> Validation:
        """What `to_dict` gave, of the same units; null stands for a number that is not finite."""
        intervals = np.array(record["intervals"], dtype=np.float64).reshape(-1, 2)
        effects = np.array(record["output_effects"], dtype=np.float64)
        return cls(
            units=units,
            terms=tuple(tuple(term) for term in record["terms"]),
            output_effects=effects if len(effects) else effects.reshape(0, 1),
            intervals=intervals,
            confirmed=(intervals[:, 0] > 0) | (intervals[:, 1] < 0),
            level=record["level"],
        )

    def _repr_html_(self) -> str:
        return self.to_pandas().to_html(index=False, float_format="{:+.3f}".format)
