"""Scores of several methods on the same outputs: a number a method, place and output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechspex.core.errors import Refused
from mechspex.core.json_values import plain, read_array, read_number, read_text
from mechspex.core.result import Result
from mechspex.core.statistics import Difference, Estimate, mean_estimate, paired_difference

if TYPE_CHECKING:
    import matplotlib.figure


@dataclass(frozen=True, eq=False, repr=False)
class MethodScores(Result):
    """How well methods do, each judged in several places (sizes, densities) on each output.

    Intervals are Student's over outputs; those of one output alone have no width unless a kind of
    score knows better. A score that is not finite is left out.

    Attributes:
        methods: the names of the methods.
        at: the places, such as numbers of units or densities.
        outputs: the names of the value's columns.
        scores: one number a method, place and output.
        quantity: what the numbers are.
        against: what the places are.
    """

    quantity: ClassVar[str]
    against: ClassVar[str]

    methods: tuple[str, ...]
    at: tuple[int | float, ...]
    outputs: tuple[str, ...]
    scores: Float[np.ndarray, "method at output"]

    def estimate(self, method: str, at: int | float) -> Estimate:
        """The mean over outputs with its interval.

        Args:
            method: the name of the method.
            at: the place.

        Raises:
            Refused: no such method or place.
        """
        scores = self._of(method, at)
        scores = scores[np.isfinite(scores)]
        return mean_estimate(scores) if len(scores) else Estimate(*[float("nan")] * 3)

    def difference(self, method: str, other: str, at: int | float) -> Difference:
        """How much higher one method scores than another, paired over outputs.

        Args:
            method: the name of the method.
            other: the name of the method that it is compared with.
            at: the place.

        Raises:
            Refused: no such method or place, or fewer than two outputs.
        """
        both = np.stack([self._of(method, at), self._of(other, at)])
        both = both[:, np.isfinite(both).all(axis=0)]
        if both.shape[1] < 2:
            raise Refused(
                f"{both.shape[1]} outputs have both scores: a paired difference needs two or more"
            )
        return paired_difference(both[0], both[1:])

    def _of(self, method: str, at: int | float) -> Float[np.ndarray, " output"]:
        if method not in self.methods or at not in self.at:
            raise Refused(
                f"no scores of {method!r} at {at}; there are {', '.join(self.methods)} at "
                f"{', '.join(f'{place:g}' for place in self.at)}"
            )
        return self.scores[self.methods.index(method), self.at.index(at)]

    def plot(self) -> "matplotlib.figure.Figure":
        """A line a method over the places, with its intervals."""
        from mechspex.figures.method_lines import method_lines

        return method_lines(self)

    def to_pandas(self) -> pd.DataFrame:
        """One row a method and place: the mean over outputs and its interval."""
        rows = [(method, at) for method in self.methods for at in self.at]
        found = [self.estimate(method, at) for method, at in rows]
        return pd.DataFrame(
            {
                "method": [method for method, _ in rows],
                self.against: [at for _, at in rows],
                self.quantity: [estimate.value for estimate in found],
                "low": [estimate.low for estimate in found],
                "high": [estimate.high for estimate in found],
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """The scores as plain numbers and lists, with a schema name."""
        return {
            "schema": self.schema,
            "methods": list(self.methods),
            "at": list(self.at),
            "outputs": list(self.outputs),
            "scores": plain(self.scores),
        }

    @classmethod
    def _fields(cls, record: dict[str, Any]) -> dict[str, Any]:
        """The fields of a record that all kinds of scores have."""
        methods = tuple(read_text(name) for name in record["methods"])
        at = tuple(
            place if isinstance(place, int) else read_number(place) for place in record["at"]
        )
        outputs = tuple(read_text(name) for name in record["outputs"])
        scores = read_array(record["scores"], "method", "at", "output")
        if scores.shape != (len(methods), len(at), len(outputs)):
            raise ValueError(
                f"scores {scores.shape} of {len(methods)} × {len(at)} × {len(outputs)}"
            )
        return {"methods": methods, "at": at, "outputs": outputs, "scores": scores}

    def _best(self) -> tuple[str, int | float, Estimate]:
        """The method with the highest score at the last place."""
        at = self.at[-1]
        means = [np.nan_to_num(self.estimate(m, at).value, nan=-np.inf) for m in self.methods]
        best = self.methods[int(np.argmax(means))]
        return best, at, self.estimate(best, at)

    @property
    def in_short(self) -> str:
        """The method with the highest score at the last place."""
        best, at, estimate = self._best()
        return (
            f"{self.quantity} of {len(self.methods)} methods on {len(self.outputs)} outputs; "
            f"{best} at {self.against} {at:g}: {estimate}"
        )

    def __str__(self) -> str:
        width = max(len(method) for method in self.methods)
        lines = [
            f"  {method:{width}}  {self.against} {at:<6g} {self.estimate(method, at)}"
            for method in self.methods
            for at in self.at
        ]
        return "\n".join([self.in_short, *lines])
