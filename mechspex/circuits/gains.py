"""What each unit adds to a circuit, measured exactly on every prompt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.finite import finite_values
from mechspex.core.json_values import plain, read_array, read_term, read_whole
from mechspex.core.masks import keep_only
from mechspex.core.statistics import discovery_halfwidths, standard_error
from mechspex.core.units import Term
from mechspex.core.value_function import ValueFunction
from mechspex.set_functions.r_squared import rounding


@dataclass(frozen=True, eq=False)
class Gains:
    """What units add to a circuit C: g_i = f(C ∪ {i}) − f(C ∖ {i}), exact.

    Of a member this is what the circuit loses without it, of another unit what it gains with it.
    Each unit has one test, Student's t over outputs, and all units are one family: those that were
    not measured count as not discovered, so the strongest may be chosen by anything.

    Attributes:
        columns: the units that were measured, ascending.
        outputs: g_i of each on every output.
        intervals: the interval of each mean, ``[low, high]``, corrected for the false discovery
            rate; it leaves out zero where the mean is discovered.
        n_tests: how many units there are.
    """

    columns: Term
    outputs: Float[np.ndarray, "unit output"]
    intervals: Float[np.ndarray, "unit 2"]
    n_tests: int

    @property
    def means(self) -> Float[np.ndarray, " unit"]:
        """g_i, mean over outputs."""
        return self.outputs.mean(axis=1)

    @property
    def sure(self) -> Bool[np.ndarray, " unit"]:
        """Which of them are discovered: their interval leaves out zero."""
        return (self.intervals[:, 0] > 0) | (self.intervals[:, 1] < 0)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return {
            "columns": list(self.columns),
            "outputs": plain(self.outputs),
            "intervals": plain(self.intervals),
            "n_tests": self.n_tests,
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Gains:
        """What `to_dict` wrote."""
        columns = read_term(record["columns"])
        return cls(
            columns,
            read_array(record["outputs"], "unit", "output", rows=len(columns)),
            read_array(record["intervals"], "unit", "end", rows=len(columns)).reshape(-1, 2),
            read_whole(record["n_tests"]),
        )


def gains(
    value_function: ValueFunction,
    members: Iterable[int],
    others: Iterable[int],
    level: float,
    *,
    census: bool = False,
) -> Gains:
    """Measure what each member and each of some other units adds to a circuit.

    Args:
        value_function: the model on outputs that were not used to find the circuit.
        members: the columns of the circuit.
        others: the columns of units outside of it.
        level: the false discovery rate among all units.
        census: whether the outputs are all that there are: intervals are as wide as rounding.

    Raises:
        FailedMasksError: a mask has no finite value.
    """
    inside = set(members)
    columns = tuple(sorted({*inside, *others}))
    changed = [inside ^ {column} for column in columns]
    kept = keep_only(value_function.n_units, [inside, *changed])
    alone, *others_alone = finite_values(value_function, kept, "masks around the circuit")
    signs = np.array([1.0 if column in inside else -1.0 for column in columns])
    found = signs[:, None] * (alone - np.array(others_alone).reshape(len(columns), len(alone)))
    rounded = 2 * rounding(np.stack([alone, *others_alone]))
    means = found.mean(axis=1)
    if census:
        half = np.full(len(columns), 4 * rounded)
    else:
        half = _halfwidths(found, value_function.n_units, level, rounded)
    intervals = np.stack([means - half, means + half], axis=1)
    return Gains(columns, found, intervals, value_function.n_units)


def _halfwidths(
    found: Float[np.ndarray, "unit output"], n_tests: int, level: float, rounded: float
) -> Float[np.ndarray, " unit"]:
    """Intervals of the measured among all: those not measured have mean 0, and are no discovery."""
    beside = np.zeros(n_tests - len(found))
    means = np.concatenate([found.mean(axis=1), beside])
    errors = np.concatenate([standard_error(found), beside + 1])
    rounding_of = np.full(n_tests, 4 * rounded)
    degrees = max(1, found.shape[1] - 1)
    half = discovery_halfwidths(means, errors, degrees, level=level, rounding=rounding_of)
    return half[: len(found)]
