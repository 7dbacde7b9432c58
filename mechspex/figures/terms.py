"""What the figures of sets of units are drawn from: exact effects, a row a set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechspex.core.checks import Only
from mechspex.core.kinds import KINDS
from mechspex.core.units import Term, UnitSet
from mechspex.figures.style import short


@runtime_checkable
class MeasuredTerms(Protocol):
    """Sets of units whose effects were measured exactly: an explanation, a sweep, a validation."""

    @property
    def units(self) -> UnitSet: ...

    @property
    def terms(self) -> tuple[Term, ...]:
        """The sets, by column."""
        ...

    @property
    def output_effects(self) -> Float[np.ndarray, "term output"]:
        """The effect of each set on every output, in the ``ablated`` basis."""
        ...

    def to_pandas(self) -> pd.DataFrame:
        """A row a set, in the order of `terms`: order, effect, low, high, confirmed."""
        ...


MEASURED = Only((MeasuredTerms,), "exact effects: an explanation, a sweep, a validation")
"""Reads what these figures are drawn from."""


@dataclass(frozen=True)
class DrawnTerm:
    """A set of units with its mean effect, the ends of its interval, and its place in `terms`."""

    row: int
    term: Term
    effect: float
    low: float
    high: float
    confirmed: bool

    @property
    def reach(self) -> tuple[float, float]:
        """How far the interval reaches below and above the effect; 0 without one."""
        ends = (self.effect - self.low, self.high - self.effect)
        return ends if np.isfinite(ends).all() else (0.0, 0.0)


def strongest(
    found: MeasuredTerms, most: int, *, least: int = 1, largest: int | None = None
) -> list[DrawnTerm]:
    """The sets of so many units with the largest effects, strongest first; failed ones left out.

    Args:
        found: the answer.
        most: how many.
        least, largest: the orders.
    """
    frame = found.to_pandas()
    effects, orders = frame["effect"].to_numpy(dtype=float), frame["order"].to_numpy()
    chosen = np.isfinite(effects) & (orders >= least)
    if largest is not None:
        chosen &= orders <= largest
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(-np.abs(effects[rows]), kind="stable")][:most].tolist()
    columns = (frame[name].to_numpy() for name in ("effect", "low", "high"))
    effect, low, high = (column.astype(float).tolist() for column in columns)
    sure = frame["confirmed"].tolist()
    return [
        DrawnTerm(row, found.terms[row], effect[row], low[row], high[row], bool(sure[row]))
        for row in rows
    ]


def layered(units: UnitSet) -> bool:
    """Whether all units lie in layers."""
    return not any(KINDS[unit.kind].labelled for unit in units)


def named(units: UnitSet, term: Term, letters: int = 44) -> str:
    """The units of a set by name, each short enough that all of them fit so many letters."""
    each = max(10, (letters - 3 * (len(term) - 1)) // max(1, len(term)))
    return " × ".join(short(units.names[column], each) for column in term)
