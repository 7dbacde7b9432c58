"""A way to score units and sets of them cheaply, and what it scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from mechspex.core.backward_rules import CHAIN, BackwardRules
from mechspex.core.errors import Refused
from mechspex.core.units import Term
from mechspex.runs.recorded import RecordedValues
from mechspex.screening.candidates import Stratum


@dataclass
class Scored:
    """What a method scored: see `Candidates`.

    Attributes:
        singles: predicted effect of every unit.
        reach: root of the sum of squares of each unit's predicted pairs.
        terms: the sets proposed.
        scores: their predicted effects.
        considered: how many sets of order 1, 2, … were scored.
        rejected: pairs that were not proposed, by rank.
    """

    singles: Float[np.ndarray, " unit"]
    reach: Float[np.ndarray, " unit"]
    terms: list[Term]
    scores: Float[np.ndarray, " term"]
    considered: list[int]
    rejected: tuple[Stratum, ...] = ()

    @classmethod
    def of_singles(cls, singles: Float[np.ndarray, " unit"], n_terms: int) -> Scored:
        """The strongest single units."""
        order = np.argsort(-np.abs(singles), kind="stable")[:n_terms]
        order = order[singles[order] != 0]
        terms: list[Term] = [(int(i),) for i in order]
        return cls(singles, np.zeros(len(singles)), terms, singles[order], [len(singles)])


class ScreenMethod(ABC):
    """A way to score units and sets of them cheaply.

    Attributes:
        name: the method's name in a call and in an answer.
    """

    name: ClassVar[str]

    @property
    def rules(self) -> BackwardRules:
        """By which its gradients are made."""
        return CHAIN

    @abstractmethod
    def scored(self, recorded: RecordedValues, n_terms: int, seed: int) -> Scored:
        """The best sets of each order.

        Args:
            recorded: the value function.
            n_terms: how many sets of each order.
            seed: the only source of randomness.
        """


def at_least(method: ScreenMethod, **least: int) -> None:
    """Refused: one of these options of a method is below the least that makes sense."""
    for name, smallest in least.items():
        number = getattr(method, name)
        if number < smallest:
            raise Refused(f"{name} = {number}: give a whole number from {smallest} up")
