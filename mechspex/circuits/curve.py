"""Faithfulness of circuits of growing size, and the areas below that curve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechspex.core.errors import Refused
from mechspex.core.json_values import plain, read_array, read_estimate, read_number, read_term
from mechspex.core.masks import Stream
from mechspex.core.result import Result
from mechspex.core.statistics import Estimate, ratio_estimator

if TYPE_CHECKING:
    import matplotlib.figure


@dataclass(frozen=True, eq=False, repr=False)
class Curve(Result):
    """Faithfulness of circuits of growing size.

    Attributes:
        sizes: how many units each circuit keeps.
        shares: the sizes as shares of all units; the horizontal axis of both areas.
        scores: the faithfulness at each size.
        cpr: ∫ faithfulness, from the smallest share to 1, by the trapezoidal rule: how much
            behaviour a ranking carries (circuit performance ratio, Mueller et al. 2025).
        cmd: ∫ |1 − faithfulness|: how far the circuits are from the model (circuit-model
            distance).
        gained: f(circuit) − f(∅) for each size and output.
        whole: f(all) − f(∅) for each output.
    """

    schema: ClassVar[str] = "mechspex.curve/1"
    called: ClassVar[str] = "curve"

    sizes: tuple[int, ...]
    shares: tuple[float, ...]
    scores: tuple[Estimate, ...]
    cpr: Estimate
    cmd: Estimate
    gained: Float[np.ndarray, "size output"] = field(compare=False)
    whole: Float[np.ndarray, " output"] = field(compare=False)

    def minus(self, other: Curve, *, seed: int = 0) -> tuple[Estimate, Estimate]:
        """CPR and CMD less those of another curve on the same outputs, with paired intervals.

        Args:
            other: the other curve.
            seed: the seed of the bootstrap.

        Raises:
            Refused: the other is on other outputs, or at other sizes.
        """
        if self.shares != other.shares or self.whole.shape != other.whole.shape:
            raise Refused(
                f"curves at shares {self.shares} on {len(self.whole)} outputs, and at "
                f"{other.shares} on {len(other.whole)}; measure both with the same value function "
                "and the same shares"
            )
        away = np.abs(self.whole - other.whole)
        if away.max() > 1e-2 * np.abs(self.whole).mean():
            place = int(away.argmax())
            raise Refused(
                f"curves on other outputs: output {place} is {self.whole[place]:.4g} and "
                f"{other.whole[place]:.4g}; measure both with the same value function"
            )
        score, both = scorer(self.whole, seed), np.stack([self.gained, other.gained])

        def difference(area: Callable[[np.ndarray], np.ndarray]) -> Estimate:
            return score(
                both,
                lambda curves: np.trapezoid(area(curves[0]) - area(curves[1]), self.shares, axis=0),
            )

        return difference(lambda curve: curve), difference(lambda curve: np.abs(1 - curve))

    def to_pandas(self) -> pd.DataFrame:
        """One row a size."""
        return pd.DataFrame(
            {
                "size": self.sizes,
                "share": self.shares,
                "faithfulness": [score.value for score in self.scores],
                "low": [score.low for score in self.scores],
                "high": [score.high for score in self.scores],
            }
        )

    def plot(self) -> "matplotlib.figure.Figure":
        """Faithfulness against the number of units kept, with its 95% band."""
        from mechspex.figures.sizes import faithfulness_by_size

        return faithfulness_by_size({"circuits": self})

    def to_dict(self) -> dict[str, Any]:
        """Sizes, scores and areas as plain numbers and lists, with a schema name."""
        return {
            "schema": self.schema,
            "sizes": list(self.sizes),
            "shares": list(self.shares),
            "scores": [score.to_list() for score in self.scores],
            "cpr": self.cpr.to_list(),
            "cmd": self.cmd.to_list(),
            "gained": plain(self.gained),
            "whole": plain(self.whole),
        }

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Curve:
        sizes = read_term(record["sizes"])
        shares = tuple(read_number(share) for share in record["shares"])
        scores = tuple(read_estimate(score) for score in record["scores"])
        if not len(sizes) == len(shares) == len(scores):
            raise ValueError(f"{len(sizes)} sizes, {len(shares)} shares, {len(scores)} scores")
        return cls(
            sizes=sizes,
            shares=shares,
            scores=scores,
            cpr=read_estimate(record["cpr"]),
            cmd=read_estimate(record["cmd"]),
            gained=read_array(record["gained"], "size", "output", rows=len(sizes)),
            whole=read_array(record["whole"], "output"),
        )

    @property
    def in_short(self) -> str:
        """Both areas."""
        return f"CPR {self.cpr}   CMD {self.cmd}"

    def __str__(self) -> str:
        rows = [
            f"  {k:5d} units ({share:6.1%})  {score}"
            for k, share, score in zip(self.sizes, self.shares, self.scores, strict=True)
        ]
        return "\n".join([self.in_short, *rows])


def scorer(whole: Float[np.ndarray, " output"], seed: int) -> Callable[..., Estimate]:
    """Shares of the behaviour `whole`, with intervals over outputs; see `ratio_estimator`."""
    return ratio_estimator(whole, np.random.default_rng((seed, Stream.OUTPUTS)))
