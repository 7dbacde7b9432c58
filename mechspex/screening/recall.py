"""What a screen overlooked, estimated from a random sample of what it rejected."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from mechspex.core.checks import Only
from mechspex.core.doors import door
from mechspex.core.errors import FailedMasksError, Refused
from mechspex.core.json_values import plain, read_number, read_whole
from mechspex.core.result import Result
from mechspex.core.statistics import largest_share
from mechspex.core.value_function import ValuesLike
from mechspex.effects.validate import validate
from mechspex.effects.validation import Validation
from mechspex.screening.candidates import Candidates


@dataclass(frozen=True, eq=False, repr=False)
class Missed(Result):
    """How many sets of at least a given effect the screen found, and how many it rejected.

    Attributes:
        at_least: the size of effect that counts.
        n_found: how many tested proposals have an exact effect of that size.
        n_tested: how many rejected sets were tested; those without a finite value do not count.
        n_missed: how many of the tested rejected sets have an effect of that size.
        estimate: how many of all rejected sets have one, by estimate: Σ size · share over strata.
        recall: n_found / (n_found + estimate).
        last_bound: the largest share of the last stratum that a sample of this size could have
            missed, at 95% (Clopper & Pearson 1934). That stratum is the largest: it holds all sets
            that the screen ranked lowest.
    """

    schema: ClassVar[str] = "mechspex.missed/1"
    within: ClassVar[bool] = True
    called: ClassVar[str] = "estimate of what was missed"

    at_least: float
    n_found: int
    n_tested: int
    n_missed: int
    estimate: float
    recall: float
    last_bound: float

    def to_pandas(self) -> pd.DataFrame:
        """One row, a column a number."""
        return pd.DataFrame([asdict(self)])

    def to_dict(self) -> dict[str, Any]:
        """The estimate as plain numbers."""
        return plain(asdict(self))

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Missed:
        floats = ("at_least", "estimate", "recall", "last_bound")
        return cls(
            **{name: read_number(record[name]) for name in floats},
            **{name: read_whole(record[name]) for name in ("n_found", "n_tested", "n_missed")},
        )

    def __str__(self) -> str:
        return self.in_short

    @property
    def in_short(self) -> str:
        """How many were found and missed, and the recall that follows."""
        return (
            f"effects of at least {self.at_least:.3f}: {self.n_found} proposed; {self.n_missed} of "
            f"{self.n_tested} rejected pairs tested, so about {self.estimate:.0f} missed and a "
            f"recall of {self.recall:.2f} (a share of up to {self.last_bound:.1%} of the lowest "
            "ranks cannot be ruled out by a sample of this size)"
        )


@door(candidates=Only((Candidates,), "the candidates of a screen"))
def missed(
    value_function: ValuesLike,
    candidates: Candidates,
    validation: Validation,
    *,
    at_least: float | None = None,
) -> Missed:
    """Test the rejected sets that the screen drew, and estimate how many it missed.

    Args:
        value_function: the value function that tested the proposals.
        candidates: the screen's candidates.
        validation: the exact effects of its proposals.
        at_least: the size of effect that counts; the median of the confirmed pairs if not given.

    Raises:
        Refused: nothing was rejected, or nothing confirmed and `at_least` not given.
        FailedMasksError: no rejected set of some ranks has a finite value.
    """
    strata = candidates.rejected
    if not strata:
        raise Refused("the screen rejected no pairs: there is nothing it can have missed")
    sizes = np.abs(validation.effects)
    pairs = np.array([len(term) == 2 for term in validation.terms], dtype=bool) & ~validation.failed
    if at_least is None:
        confirmed = sizes[pairs & validation.confirmed]
        if not len(confirmed):
            raise Refused("no pair is confirmed; give at_least, the size of effect that counts")
        at_least = float(np.median(confirmed))
    drawn = [term for stratum in strata for term in stratum.drawn]
    exact = np.abs(validate(value_function, drawn).effects)
    ends = np.cumsum([len(stratum.drawn) for stratum in strata])
    # A set without a finite value is none of the sample.
    samples = [part[np.isfinite(part)] for part in np.split(exact, ends[:-1])]
    if not all(map(len, samples)):
        raise FailedMasksError(
            "of some ranks no rejected set has a finite value, so nothing is known of what was "
            "missed there; mend the value function"
        )
    hits = [int((part >= at_least).sum()) for part in samples]
    shares = (hit / len(part) for part, hit in zip(samples, hits, strict=True))
    estimate = sum(s.size * share for s, share in zip(strata, shares, strict=True))
    n_found = int(np.count_nonzero(sizes[pairs] >= at_least))
    return Missed(
        at_least=at_least,
        n_found=n_found,
        n_tested=sum(map(len, samples)),
        n_missed=sum(hits),
        estimate=float(estimate),
        recall=n_found / (n_found + estimate) if n_found + estimate else float("nan"),
        last_bound=largest_share(hits[-1], len(samples[-1])),
    )
