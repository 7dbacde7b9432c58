"""Survivors of a screen: the units that random masks are restricted to, and what they explain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from mechspex.core.json_values import read_number, read_term, read_text, read_whole
from mechspex.core.masks import Stream, sample_masks
from mechspex.core.units import Term
from mechspex.runs.recorded import RecordedValues
from mechspex.screening.agreement import Agreement
from mechspex.screening.candidates import Candidates
from mechspex.screening.recall import Missed

# Random masks from which the share that the survivors explain is estimated.
_MASKS = 60


@dataclass(frozen=True)
class Screening:
    """What a screen did before the search.

    Attributes:
        method: the screen's method.
        considered: how many sets of order 1, 2, … were scored.
        n_units: how many units the whole value function has.
        n_survivors: how many of them the masks of the search ablate; the others are kept.
        explained: how well survivors alone predict the value on random masks of all units: the R²
            of the value with all other units kept, up to a constant.
        terms: the sets proposed and tested exactly, by columns of the survivors.
        scores: their predicted effects.
        seconds: what the screen took when it was run.
        agreement: how the proposals' scores agree with their exact effects, on a sample measured
            before the search; of coarser parts, what the answer predicts of whole parts beside what
            was measured of them. None where the screen was made from neither.
        missed: how many sets as strong as the confirmed ones the screen rejected; None where
            nothing was rejected or nothing confirmed.
        agrees: the numbers behind `agreement`.
    """

    method: str
    considered: tuple[int, ...]
    n_units: int
    n_survivors: int
    explained: float
    terms: tuple[Term, ...]
    scores: tuple[float, ...]
    seconds: float
    agreement: str | None = None
    missed: Missed | None = None
    agrees: Agreement | None = None

    def __str__(self) -> str:
        scored = " and ".join(
            f"{n:,} {'units' if order == 1 else f'sets of {order}'}"
            for order, n in enumerate(self.considered, 1)
        )
        return (
            f"screened by {self.method}: {scored} scored; masks ablate {self.n_survivors:,} of "
            f"{self.n_units:,} units, which explain {self.explained:.2f} of what masks of all do"
        )

    def to_dict(self) -> dict[str, Any]:
        """The screening as plain numbers and lists, its agreement in words."""
        return {name: value for name, value in asdict(self).items() if name != "agrees"}

    def to_record(self) -> dict[str, Any]:
        """`to_dict` with the agreement in numbers."""
        agrees = None if self.agrees is None else self.agrees.to_dict()
        return self.to_dict() | {"agrees": agrees}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Screening:
        """The screening that `to_record`, or `to_dict`, wrote.

        Args:
            record: what either returned, or JSON of it read back.
        """
        missed, agrees = record["missed"], record.get("agrees")
        return cls(
            method=read_text(record["method"]),
            considered=read_term(record["considered"]),
            n_units=read_whole(record["n_units"]),
            n_survivors=read_whole(record["n_survivors"]),
            explained=read_number(record["explained"]),
            terms=tuple(read_term(term) for term in record["terms"]),
            scores=tuple(read_number(score) for score in record["scores"]),
            seconds=read_number(record["seconds"]),
            agreement=None if record["agreement"] is None else read_text(record["agreement"]),
            missed=None if missed is None else Missed.from_dict(missed),
            agrees=None if agrees is None else Agreement.from_dict(agrees),
        )


def survivors(
    recorded: RecordedValues,
    candidates: Candidates,
    *,
    n_units: int,
    most: int,
    target: float,
    keep: float,
    seed: int,
) -> tuple[Int[np.ndarray, " survivor"], float]:
    """The strongest units of a screen and the units of its proposals, and how much they explain.

    Args:
        recorded: the value function of all units.
        candidates: the screen's candidates.
        n_units: how many of the strongest units are tried first; the number then doubles.
        most: the most of the strongest units.
        target: the R² at which the number stops doubling.
        keep: the probability with which a random mask keeps a unit.
        seed: the seed of the random masks.

    Returns:
        Their columns, and how much they explain, see `explaining`.
    """
    proposed = {column for term in candidates.terms for column in term}
    counts = [min(n_units, recorded.n_units)]
    while counts[-1] < min(most, recorded.n_units):
        counts.append(min(2 * counts[-1], most, recorded.n_units))
    nested = [sorted({*candidates.strongest_units(n).tolist(), *proposed}) for n in counts]
    return explaining(recorded, nested, target=target, keep=keep, seed=seed)


def explaining(
    recorded: RecordedValues,
    nested: Sequence[Sequence[int]],
    *,
    target: float,
    keep: float,
    seed: int,
) -> tuple[Int[np.ndarray, " survivor"], float]:
    """The first of some sets of units that explains enough, or the last; and how much it explains.

    R² = 1 − Var(f(m) − f(m with all others kept)) / Var f(m) over random masks m of all units,
    averaged over outputs first.

    Args:
        recorded: the value function of all units.
        nested: the sets, by column, each within the next.
        target: the R² that is enough.
        keep: the probability with which a random mask keeps a unit.
        seed: the seed of the random masks.
    """
    recorded.stage = "what survivors explain"
    masks = sample_masks(recorded.n_units, _MASKS, keep=keep, seed=(seed, Stream.SURVIVORS))
    whole = recorded(masks).mean(axis=1, dtype=np.float64)
    columns, explained = np.empty(0, dtype=np.int64), 0.0
    for members in nested:
        columns = np.array(members, dtype=np.int64)
        restricted = np.ones_like(masks)
        restricted[:, columns] = masks[:, columns]
        part = recorded(restricted).mean(axis=1, dtype=np.float64)
        finite = np.isfinite(whole) & np.isfinite(part)
        spread = np.var(whole[finite])
        explained = 1 - float(np.var((whole - part)[finite]) / spread) if spread else 1.0
        if explained >= target:
            break
    return columns, explained
