"""Pairs of a circuit's members, and how two of them act together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mechspex.core.statistics import Estimate

Relation = Literal["together", "backup", "opposed"]


@dataclass(frozen=True)
class MemberPair:
    """A confirmed pair of members.

    Write a_T for ablated(T); a single effect that is not confirmed counts as 0.

    * ``opposed``: a_i and a_j have opposite signs. One unit undoes what the other writes.
    * ``backup``: |a_i + a_j + a_ij| > |a_i| + |a_j|. Ablating both does more than either: each
      stands in for the other, as in an OR.
    * ``together``: ablating both does no more than that: each needs the other, as in an AND.

    Attributes:
        members: the columns i and j.
        joint: a_ij, in the units of the value.
        relation: one of the three above.
    """

    members: tuple[int, int]
    joint: Estimate
    relation: Relation

    @property
    def effect(self) -> float:
        """a_ij without its interval."""
        return self.joint.value

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends of the interval of a_ij."""
        return self.joint.low, self.joint.high


def relation_of(one: float, other: float, joint: float) -> Relation:
    """The relation of two units.

    Args:
        one, other: their effects alone, 0 where not confirmed.
        joint: the effect of the pair beyond these.
    """
    if one * other < 0:
        return "opposed"
    return "backup" if abs(one + other + joint) > abs(one) + abs(other) else "together"
