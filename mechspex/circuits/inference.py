"""What values on prompts say of a mean: the prompts are a sample, or all that there are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mechspex.circuits.curve import scorer
from mechspex.core.drawn_outputs import drawn_outputs
from mechspex.core.masks import Stream
from mechspex.core.statistics import (
    Estimate,
    equivalence_margin,
    halfwidth,
    one_sided_p,
    standard_error,
)


class Inference(ABC):
    """Claims about means over prompts."""

    @abstractmethod
    def not_above_zero(self, values: Float[np.ndarray, "*many output"]) -> Float[np.ndarray, ...]:
        """p of "the mean over the last axis is not above zero"."""

    @abstractmethod
    def upper(self, values: Float[np.ndarray, "unit output"]) -> float:
        """What no mean lies above; minus infinity where there is none."""

    @abstractmethod
    def share(
        self, part: Float[np.ndarray, " output"], whole: Float[np.ndarray, " output"]
    ) -> Estimate:
        """The mean of `part` as a share of that of `whole`."""

    @abstractmethod
    def margin(
        self, short: Float[np.ndarray, " output"], whole: Float[np.ndarray, " output"]
    ) -> float:
        """The smallest share of the mean of `whole` that |mean of `short`| is below."""

    @abstractmethod
    def often(self, values: Float[np.ndarray, "unit output"]) -> Float[np.ndarray, " unit"]:
        """How often each mean is zero or more."""

    def differs(
        self, short: Float[np.ndarray, " output"], margin: Float[np.ndarray, " output"]
    ) -> float:
        """p of "|mean of `short`| is not below the mean of `margin`": the larger of two."""
        return float(self.not_above_zero(np.stack([margin - short, margin + short])).max())


@dataclass(frozen=True)
class Sample(Inference):
    """The prompts are drawn from more: Student's t, and prompts drawn again.

    Attributes:
        level: the chance of a bound to be wrong.
        seed: the seed of what is drawn again.
    """

    level: float
    seed: int

    def not_above_zero(self, values: Float[np.ndarray, "*many output"]) -> Float[np.ndarray, ...]:
        """One-sided t tests; what does not vary is known, and zero is not above itself."""
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(one_sided_p(values), nan=1.0)

    def upper(self, values: Float[np.ndarray, "unit output"]) -> float:
        """The largest upper end of one-sided intervals."""
        half = halfwidth(standard_error(values), values.shape[1] - 1, 2 * self.level)
        return float((values.mean(axis=1) + half).max(initial=-np.inf))

    def share(
        self, part: Float[np.ndarray, " output"], whole: Float[np.ndarray, " output"]
    ) -> Estimate:
        """The ratio of means with its bootstrap interval."""
        return scorer(whole, self.seed)(part)

    def margin(
        self, short: Float[np.ndarray, " output"], whole: Float[np.ndarray, " output"]
    ) -> float:
        """See `equivalence_margin`."""
        return equivalence_margin(short, whole, self.level)

    def often(self, values: Float[np.ndarray, "unit output"]) -> Float[np.ndarray, " unit"]:
        """The share of draws of the outputs, with replacement, in which it is."""
        rng = np.random.default_rng((self.seed, Stream.OUTPUTS))
        drawn = drawn_outputs(values.shape[1], rng)
        return (values @ drawn.T >= 0).mean(axis=1)


@dataclass(frozen=True)
class Census(Inference):
    """The prompts are all that there are: means over them are what is claimed, without a doubt."""

    def not_above_zero(self, values: Float[np.ndarray, "*many output"]) -> Float[np.ndarray, ...]:
        """0 where it is above, 1 where not."""
        return 1.0 - (values.mean(axis=-1) > 0)

    def upper(self, values: Float[np.ndarray, "unit output"]) -> float:
        """The largest mean."""
        return float(values.mean(axis=1).max(initial=-np.inf))

    def share(
        self, part: Float[np.ndarray, " output"], whole: Float[np.ndarray, " output"]
    ) -> Estimate:
        """The ratio of means, with no width."""
        ratio = float(part.mean() / whole.mean())
        return Estimate(ratio, ratio, ratio)

    def margin(
        self, short: Float[np.ndarray, " output"], whole: Float[np.ndarray, " output"]
    ) -> float:
        """The ratio of means."""
        return float(abs(short.mean() / whole.mean()))

    def often(self, values: Float[np.ndarray, "unit output"]) -> Float[np.ndarray, " unit"]:
        """1 where it is, 0 where not."""
        return 1.0 * (values.mean(axis=1) >= 0)
