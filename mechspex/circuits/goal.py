"""The goal of a search for a circuit: how large it may be, and what it is to do by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from mechspex.circuits.faithfulness import mib_sizes
from mechspex.core.checks import told
from mechspex.core.errors import Refused

Objective = Literal["match", "best"]

# The smallest sizes, each of which is searched besides those of the MIB benchmark.
_SMALL = 20

_WORDS = {"best": "the best", "match": "the most faithful"}


def as_objective(name: str, given: object) -> Any:
    """Reads what a circuit is to be.

    Raises:
        Refused: something else.
    """
    if given not in get_args(Objective):
        raise Refused(f"{name} = {told(given)}: choose {', '.join(get_args(Objective))}")
    return given


@dataclass(frozen=True)
class CircuitGoal:
    """Which circuit is looked for.

    Attributes:
        size: how many units the circuit has; None for the smallest faithful one.
        target: the faithfulness to reach on the search's outputs.
        objective: ``match``, the circuit is to do what the whole model does: its faithfulness lies
            within 1 ± (1 − target). ``best``, it is to do as much as it can: the best subset of its
            size, which may do more than the whole model as it leaves out what opposes the
            behaviour.
        sizes: the sizes that are searched; 1 … 20 and those of the MIB benchmark if not given.

    Raises:
        Refused: an unknown objective, or a target that makes no sense for it.
    """

    size: int | None = None
    target: float = 0.9
    objective: Objective = "match"
    sizes: Sequence[int] | None = None

    def __post_init__(self) -> None:
        as_objective("objective", self.objective)
        if not 0 < self.target < (np.inf if self.objective == "best" else 1):
            raise Refused(
                f"target = {self.target}: give a faithfulness above 0, below 1 to match the model"
            )

    @property
    def words(self) -> str:
        """What the subset is said to be."""
        return _WORDS[self.objective]

    def sizes_among(self, n_units: int) -> list[int]:
        """The sizes to search, ascending.

        Args:
            n_units: how many units there are.

        Raises:
            Refused: a size that is no part of so many units.
        """
        if self.size is not None and not 1 <= self.size < n_units:
            raise Refused(f"size = {self.size}: choose from 1 to {n_units - 1} units")
        sizes = self.sizes
        if sizes is None:
            sizes = [*range(1, min(_SMALL, n_units - 1) + 1), *mib_sizes(n_units)]
        wanted = {k for k in sizes if k < n_units}
        if self.size is not None:
            wanted.add(self.size)
        if not wanted or min(wanted) < 1:
            raise Refused(f"sizes = {list(sizes)}: give sizes from 1 to {n_units - 1} units")
        return sorted(wanted)

    def size_in(self, front: pd.DataFrame) -> int:
        """The size asked for, or the smallest at which a subset is faithful.

        Args:
            front: one row a size, as in `Discovery.front`.

        Raises:
            Refused: no subset is faithful.
        """
        if self.size is not None:
            return self.size
        share = front["faithfulness" if self.objective == "best" else "matching"].to_numpy()
        sizes = front["size"].to_numpy()
        faithful = self.reached(share)
        if not faithful.any():
            nearest = np.abs(share - 1).argmin()
            raise Refused(
                f"no subset reaches a faithfulness of {self.target}: the nearest has "
                f"{sizes[nearest]} units and {share[nearest]:.3f}; give a size, more masks or "
                "a lower target"
            )
        return int(sizes[faithful].min())

    def reached(self, share: Float[np.ndarray, "*many"]) -> Bool[np.ndarray, "*many"]:
        """Whether circuits with these faithfulnesses do what is asked for.

        Args:
            share: the faithfulness of each.
        """
        if self.objective == "best":
            return share >= self.target
        return np.abs(share - 1) <= 1 - self.target + 1e-12
