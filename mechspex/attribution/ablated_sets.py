"""What is lost when the sets that a method names are ablated: measured, a set a method and size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechspex.attribution.method_scores import MethodScores
from mechspex.core.errors import Refused
from mechspex.core.finite import finite_values
from mechspex.core.json_values import read_term
from mechspex.core.masks import ablate_sets
from mechspex.core.units import Term, UnitSet
from mechspex.core.value_function import ValueFunction


@dataclass(frozen=True, eq=False, repr=False)
class AblatedSets(MethodScores):
    """Scores of sets of units that were ablated: which sets a method named for each size.

    Attributes:
        methods: the names of the methods.
        at: the sizes of the sets.
        outputs: the names of the value's columns.
        scores: one number a method, size and output.
        units: what the columns of a mask stand for.
        sets: the sets by column, one tuple of them a method.
    """

    units: UnitSet
    sets: tuple[tuple[Term, ...], ...]

    def to_pandas(self) -> pd.DataFrame:
        """One row a method and size: the mean over outputs, its interval, and the set."""
        frame = super().to_pandas()
        frame["units"] = [self.units.label(term) for sets in self.sets for term in sets]
        return frame

    def to_dict(self) -> dict[str, Any]:
        """The scores as plain numbers and lists, with a schema name."""
        sets = [[list(term) for term in one] for one in self.sets]
        return super().to_dict() | {"units": self.units.to_list(), "sets": sets}

    @classmethod
    def _fields(cls, record: dict[str, Any]) -> dict[str, Any]:
        found = super()._fields(record)
        units = UnitSet.from_list(record["units"])
        sets = tuple(tuple(read_term(term) for term in one) for one in record["sets"])
        if {len(one) for one in sets} != {len(found["at"])} or len(sets) != len(found["methods"]):
            raise ValueError(f"{len(sets)} lists of sets for {len(found['methods'])} methods")
        units.label(column for one in sets for term in one for column in term)
        return found | {"units": units, "sets": sets}


def checked_sizes(name: str, sizes: Iterable[int], n_units: int) -> list[int]:
    """The sizes, ascending, each once.

    Args:
        name: what they are called, for the message.
        sizes: the sizes of sets of units.
        n_units: how many units there are.

    Raises:
        Refused: none, or one outside 1 … n.
    """
    wanted = sorted(set(sizes))
    if not wanted or not 1 <= wanted[0] <= wanted[-1] <= n_units:
        raise Refused(f"{name} = {wanted}: give sizes from 1 to {n_units} units")
    return wanted


def ablated(
    recorded: ValueFunction, sets: Mapping[str, list[Term]]
) -> tuple[Float[np.ndarray, " output"], Float[np.ndarray, "method at output"]]:
    """The value with everything kept, and with each set ablated; every set is measured once.

    Args:
        recorded: what measures the masks.
        sets: {method: its sets}.

    Raises:
        FailedMasksError: a mask has no finite value.
    """
    every = list(dict.fromkeys([(), *(term for one in sets.values() for term in one)]))
    measured = finite_values(recorded, ablate_sets(recorded.n_units, every), "ablated sets")
    row = {term: number for number, term in enumerate(every)}
    return measured[0], np.array([[measured[row[t]] for t in one] for one in sets.values()])
