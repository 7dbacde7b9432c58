"""SPEX's design: masks whose Walsh–Hadamard transform aliases the terms into bins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b

import numpy as np
from jaxtyping import Bool, Int

from mechspex.core.errors import BudgetError, Refused
from mechspex.core.masks import check_masks, pack, sample_masks
from mechspex.decoders.spex.bch import BchCode

# A term that shares a bin in one group must be alone in another for peeling to start; with fewer
# than three groups that fails at a few terms already. Twice three groups pay for twice the bins.
_FEWEST_GROUPS = 3
_MOST_GROUPS = 5
_FEWEST_BITS = 2
_MOST_BITS = 20


@dataclass(frozen=True, eq=False)
class AliasedGroup:
    """One group: the masks M·ℓ + d for every delay d and all ℓ ∈ F₂^b.

    The delays are `offset`, and `offset` plus each parity row of the code. So the transform of the
    values along ℓ is U[d, j] = Σ_{S: Mᵀ1_S = j} F(S) (−1)^{⟨1_S, d⟩}. The signs of a term that is
    alone in its bin, relative to its sign at the first delay, are its parities (SPEX, Kang et al.
    2025).

    Attributes:
        code: the code that finds a set of units from its parities.
        matrix: the matrix M.
        offset: the first delay.
        rows: the row of the mask array that holds M·ℓ + d; bit i of ℓ is its i-th coordinate.
    """

    code: BchCode
    matrix: Bool[np.ndarray, "unit bit"]
    offset: Bool[np.ndarray, " unit"]
    rows: Int[np.ndarray, "delay point"]

    @property
    def delays(self) -> Bool[np.ndarray, "delay unit"]:
        """All delays, the offset first."""
        return np.vstack([self.offset, self.offset ^ self.code.parities.T])

    def restricted(self, new_row_of: Int[np.ndarray, " row"]) -> AliasedGroup | None:
        """The group in an array of fewer masks; None if some of its masks are gone.

        Args:
            new_row_of: the new row of every mask; −1 where the mask is gone.
        """
        rows = new_row_of[self.rows]
        return None if (rows < 0).any() else replace(self, rows=rows)


@dataclass(frozen=True)
class SpexDesign:
    """Aliased masks for the decoder ``spex``, and random ones for what the budget leaves.

    There are G groups of 1 + P delays of 2^b masks each (SPEX, Kang et al. 2025). P is the number
    of parities of a BCH code that corrects t = `max_order` errors, about t·log₂(n). If b is not
    given, it is the largest with which three groups fit the budget. If G is not given, it is the
    number of groups of that size that fit, three to five.

    >>> import mechspex as mx
    >>> design = mx.SpexDesign(n_units=60, n_masks=2_000)
    >>> print(design)
    SPEX design: 3 groups × 36 delays × 2^4 bins = 1,728 masks, and 272 random ones
    >>> design.masks.shape
    (2000, 60)

    Attributes:
        n_units: the width of a mask, at least 2.
        n_masks: the budget; exactly this many masks are made.
        max_order: the size t of the largest set that can be found.
        n_groups: the number G of groups; 0 leaves it to the budget.
        n_bits: the number b, so that a group has 2^b bins; 0 leaves it to the budget.
        seed: the only source of randomness.

    Raises:
        BudgetError: fewer masks than the structure needs; the message names how many.
        Refused: a size that makes no sense.
    """

    n_units: int
    n_masks: int
    max_order: int = 5
    n_groups: int = 0
    n_bits: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_units < 2:
            raise Refused(f"n_units = {self.n_units}: an aliased design needs at least two units")
        most_bits = min(self.n_units, _MOST_BITS)
        if not 0 <= self.n_bits <= most_bits or self.n_groups < 0:
            raise Refused(
                f"n_bits = {self.n_bits}, n_groups = {self.n_groups}: give up to {most_bits} bits, "
                "and no negative numbers; 0 leaves the choice to the budget"
            )
        fewest_groups = self.n_groups or _FEWEST_GROUPS
        fewest_bits = self.n_bits or _FEWEST_BITS
        per_bin = 1 + self.code.n_parities
        needed = (fewest_groups * per_bin) << fewest_bits
        if self.n_masks < needed:
            raise BudgetError(
                f"{self.n_masks} masks of {self.n_units} units are too few for SPEX up to order "
                f"{self.max_order}: {fewest_groups} groups × {per_bin} delays × 2^{fewest_bits} "
                f"bins need {needed:,}; measure as many, or lower max_order"
            )
        bins = self.n_masks // (fewest_groups * per_bin)
        n_bits = self.n_bits or min(bins.bit_length() - 1, most_bits)
        fitting = self.n_masks // (per_bin << n_bits)
        object.__setattr__(self, "n_bits", n_bits)
        object.__setattr__(self, "n_groups", self.n_groups or min(fitting, _MOST_GROUPS))

    @staticmethod
    def minimum_masks(n_units: int, max_order: int = 5) -> int:
        """The smallest budget: three groups of four bins.

        Args:
            n_units: the width of a mask.
            max_order: the size of the largest set that can be found.
        """
        per_bin = 1 + BchCode(n_units, max_order).n_parities
        return (_FEWEST_GROUPS * per_bin) << _FEWEST_BITS

    @cached_property
    def code(self) -> BchCode:
        """The code whose parity rows are the delays."""
        return BchCode(self.n_units, self.max_order)

    @property
    def n_structured(self) -> int:
        """How many of the masks are aliased; they come first."""
        return (self.n_groups * (1 + self.code.n_parities)) << self.n_bits

    def __str__(self) -> str:
        return (
            f"SPEX design: {self.n_groups} groups × {1 + self.code.n_parities} delays × "
            f"2^{self.n_bits} bins = {self.n_structured:,} masks, and "
            f"{self.n_masks - self.n_structured:,} random ones"
        )

    @cached_property
    def groups(self) -> tuple[AliasedGroup, ...]:
        """The groups, with the rows of `masks` that hold them."""
        shape = (self.n_groups, 1 + self.code.n_parities, 1 << self.n_bits)
        rows = np.arange(self.n_structured).reshape(shape)
        return tuple(
            AliasedGroup(self.code, *self._matrix_and_offset(number), rows[number])
            for number in range(self.n_groups)
        )

    @cached_property
    def masks(self) -> Bool[np.ndarray, "mask unit"]:
        """Group by group and delay by delay, then the random masks; read-only."""
        masks = np.empty((self.n_masks, self.n_units), dtype=bool)
        for group in self.groups:
            points = _span(group.matrix)
            for delay, rows in zip(group.delays, group.rows, strict=True):
                np.bitwise_xor(points, delay, out=masks[rows[0] : rows[-1] + 1])
        n_random = self.n_masks - self.n_structured
        masks[self.n_structured :] = sample_masks(
            self.n_units, n_random, seed=(self.seed, self.n_groups)
        )
        masks.setflags(write=False)
        return masks

    def groups_in(self, masks: Bool[np.ndarray, "mask unit"]) -> tuple[AliasedGroup, ...]:
        """The groups that are complete in an array of masks.

        Args:
            masks: some or all of the design's masks, in any order, among others.

        Raises:
            ShapeError: masks of another width or dtype.
        """
        row_of = {key: row for row, key in enumerate(_keys(check_masks(masks, self.n_units)))}
        new_row_of = np.array([row_of.get(key, -1) for key in _keys(self.masks)])
        restricted = (group.restricted(new_row_of) for group in self.groups)
        return tuple(group for group in restricted if group is not None)

    def _matrix_and_offset(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """M has full rank, so that a group's masks differ, and no zero row: every unit is used."""
        rng = np.random.default_rng((self.seed, number))
        offset = rng.random(self.n_units) < 0.5
        while True:
            labels = rng.integers(1, 1 << self.n_bits, size=self.n_units)
            if _rank(labels) == self.n_bits:
                return (labels[:, None] >> np.arange(self.n_bits) & 1).astype(bool), offset


def _span(matrix: Bool[np.ndarray, "unit bit"]) -> Bool[np.ndarray, "point unit"]:
    """M·ℓ for all ℓ, each coordinate doubling what is there."""
    points = np.zeros((1, len(matrix)), dtype=bool)
    for column in matrix.T:
        points = np.concatenate([points, points ^ column])
    return points


def _rank(labels: Int[np.ndarray, " row"]) -> int:
    """Rank over F₂ of rows written as integers."""
    pivots: list[int] = []
    for label in labels.tolist():
        for pivot in pivots:
            label = min(label, label ^ pivot)
        if label:
            pivots.append(label)
    return len(pivots)


def _keys(masks: Bool[np.ndarray, "mask unit"]) -> list[bytes]:
    """A short key of each mask."""
    return [blake2b(row.tobytes(), digest_size=16).digest() for row in pack(masks)]
