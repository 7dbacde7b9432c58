"""How often each unit is in the circuit that a search chooses where its prompts are drawn again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from mechspex.circuits.goal import CircuitGoal
from mechspex.core.drawn_outputs import drawn_outputs
from mechspex.core.json_values import read_number
from mechspex.core.masks import Stream
from mechspex.core.units import Term, UnitSet

_DRAWS = 1_000
# Subsets whose values of all draws are held at once.
_AT_ONCE = 512
# Units that a line names, inside the circuit and outside.
_NAMED = 12
_RARE = 0.005


@dataclass(frozen=True, eq=False)
class Membership:
    """The choice of a search on prompts that are drawn again.

    Attributes:
        units: all units.
        members: the columns of the circuit that the search chose.
        probability: the share of draws whose circuit has each unit.
        unreached: the share of draws in which no subset is faithful enough; they have no circuit.
    """

    units: UnitSet
    members: Term
    probability: Float[np.ndarray, " unit"]
    unreached: float

    def to_pandas(self) -> pd.DataFrame:
        """One row a unit that is ever chosen: ``unit``, whether it is a ``member``, and its
        ``probability``; members first."""
        inside = np.isin(np.arange(len(self.units)), self.members)
        table = pd.DataFrame(
            {"unit": self.units.names, "member": inside, "probability": self.probability}
        ).iloc[np.lexsort((-self.probability, ~inside))]
        return table[table["member"] | (table["probability"] > 0)].reset_index(drop=True)

    def __str__(self) -> str:
        table = self.to_pandas()
        # Others that would read 0.00 are in the table alone.
        shown = table["member"] | (table["probability"] >= _RARE)
        inside, outside = (
            _named(table.loc[shown & (table["member"] == member)]) for member in (True, False)
        )
        others = f"; others {outside}" if outside else ""
        none = f"; none is faithful in {self.unreached:.0%}" if self.unreached else ""
        return f"chosen where the prompts of the search are drawn again: {inside}{others}{none}"

    def to_dict(self) -> dict[str, Any]:
        """{unit: probability} of the units that are ever chosen."""
        table = self.to_pandas()
        probability = dict(zip(table["unit"], table["probability"].tolist(), strict=True))
        return {"probability": probability, "unreached": self.unreached}

    @classmethod
    def from_dict(cls, record: dict[str, Any], units: UnitSet, members: Term) -> Membership:
        """The same from a file.

        Args:
            record: what `to_dict` gave.
            units: all units.
            members: the columns of the circuit.
        """
        columns = {name: column for column, name in enumerate(units.names)}
        probability = np.zeros(len(units))
        for name, share in record["probability"].items():
            probability[columns[name]] = read_number(share)
        return cls(units, members, probability, read_number(record["unreached"]))


def _named(table: pd.DataFrame) -> str:
    shown = table.head(_NAMED)
    named = " · ".join(
        f"{unit} {share:.2f}"
        for unit, share in zip(shown["unit"], shown["probability"], strict=True)
    )
    return named + (f" and {len(table) - _NAMED} more" if len(table) > _NAMED else "")


def membership(
    circuit: tuple[UnitSet, Term],
    masks: Bool[np.ndarray, "mask unit"],
    values: Float[np.ndarray, "mask output"],
    sizes: Sequence[int],
    goal: CircuitGoal,
    seed: int,
) -> Membership:
    """Choose a circuit anew for 1,000 draws of the prompts, among all subsets that were measured.

    A draw takes as many prompts as there are, with replacement. In each, the subset of every size
    that is best by the goal is found and the size that the goal asks for is taken, as the search
    does. Which subsets are measured does not change: values are per prompt, so nothing is measured.

    Args:
        circuit: all units, and the columns of those that the search chose.
        masks: all masks that the search measured, the whole and the empty one among them.
        values: their values.
        sizes: the sizes among which the goal chooses, ascending.
        goal: which circuit is looked for.
        seed: draws the prompts.
    """
    rng = np.random.default_rng((seed, Stream.OUTPUTS))
    counts = drawn_outputs(values.shape[1], rng, _DRAWS).T.astype(float)
    values = values.astype(np.float64)
    kept = masks.sum(axis=1)
    clean, empty = (values[np.flatnonzero(kept == k)[0]] for k in (masks.shape[1], 0))
    target = None if goal.objective == "best" else clean
    # [size, draw]: the row of the best subset, and its faithfulness.
    rows, shares = [], []
    with np.errstate(divide="ignore", invalid="ignore"):
        for size in sizes:
            of_size = np.flatnonzero((kept == size) & np.isfinite(values).all(axis=1))
            best = of_size[_best(values[of_size], counts, target)]
            above = (values[best] - empty) * counts.T
            rows.append(best)
            shares.append(above.sum(axis=1) / ((clean - empty) @ counts))
    reached = goal.reached(np.array(shares))
    if goal.size is not None:
        reached = np.array(sizes)[:, None] == goal.size
        reached = np.broadcast_to(reached, np.shape(shares))
    chosen = np.array(rows)[reached.argmax(axis=0), np.arange(_DRAWS)][reached.any(axis=0)]
    often = np.bincount(chosen, minlength=len(masks)) / _DRAWS
    return Membership(*circuit, often @ masks, float(1 - reached.any(axis=0).mean()))


def _best(
    values: Float[np.ndarray, "mask output"],
    counts: Float[np.ndarray, "output draw"],
    target: Float[np.ndarray, " output"] | None,
) -> np.ndarray:
    """The best of some subsets in every draw, as `mechspex.subsets.gradient_climb.good` says."""
    n_outputs = values.shape[1]
    goodness = np.full(counts.shape[1], -np.inf)
    best = np.zeros(counts.shape[1], dtype=int)
    for first in range(0, len(values), _AT_ONCE):
        some = values[first : first + _AT_ONCE]
        if target is None:
            scores = some @ counts / n_outputs
        else:
            away = some - target
            mean = away @ counts / n_outputs
            variance = away**2 @ counts / n_outputs - mean**2
            scores = -(mean**2 + 2 * variance / max(1, n_outputs - 1))
        winner = scores.argmax(axis=0)
        score = scores[winner, np.arange(scores.shape[1])]
        best = np.where(score > goodness, first + winner, best)
        goodness = np.maximum(goodness, score)
    return best
