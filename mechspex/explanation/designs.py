"""Designs: which masks a search measures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Bool

from mechspex.core.checks import Only, check_keep, check_target_r2
from mechspex.core.errors import Refused
from mechspex.core.masks import sample_masks
from mechspex.decoders.spex.design import SpexDesign

DesignName = Literal["random", "mixed", "spex"]

USUAL_KEEP = 0.9
# Where units are few, more of them can be ablated at once, and every pair has to be ablated in so
# many masks: at 0.9 a third of all pairs never are, in 100 masks.
_FEW_UNITS, _MASKS_OF_A_PAIR = 64, 10


def usual_keep(n_units: int, n_masks: int) -> float:
    """The density of random masks where none is given.

    0.9, at which a large model still works. With up to 64 units the largest p of 0.9, 0.8, … 0.5
    at which every pair is ablated in 10 masks, as expected: N·(1 − p)² ≥ 10. That is 0.9 from 1,000
    masks on, 0.8 from 250, 0.7 from 112, 0.6 from 63.

    Args:
        n_units: the width of a mask.
        n_masks: the number N of masks.
    """
    if n_units > _FEW_UNITS:
        return USUAL_KEEP
    # In tenths, as 1 − 0.9 is not quite 0.1.
    ablated = (1, 2, 3, 4)
    enough = [tenths for tenths in ablated if n_masks * tenths**2 >= 100 * _MASKS_OF_A_PAIR]
    return 1 - enough[0] / 10 if enough else 0.5


class MaskDesign(ABC):
    """A way to draw masks, without how many and over how many units.

    Attributes:
        name: the design's name in a call and in a run.
        keep: the density of the masks, the p of the Fourier basis; None where it goes by the
            number of units and masks.
    """

    name: ClassVar[str]
    keep: float | None

    def sized(self, n_units: int, n_masks: int) -> MaskDesign:
        """The design with its density filled in.

        Args:
            n_units: the width of a mask.
            n_masks: the number of masks.
        """
        return self

    @abstractmethod
    def draw(self, n_units: int, n_masks: int, seed: int) -> Bool[np.ndarray, "mask unit"]:
        """So many masks; more of them begin with them, except SPEX's.

        Args:
            n_units: the width of a mask.
            n_masks: the number of masks.
            seed: the only source of randomness.
        """

    def structure(self, n_units: int, n_masks: int, seed: int) -> SpexDesign | None:
        """SPEX's structure in so many masks, where they have one.

        Args:
            n_units: the width of a mask.
            n_masks: the number of masks.
            seed: the only source of randomness.
        """
        return None

    def minimum_masks(self, n_units: int) -> int:
        """The fewest masks that make up the design.

        Args:
            n_units: the width of a mask.
        """
        return 0

    def at_keep(self, n_masks: int) -> Bool[np.ndarray, " mask"]:
        """Which of the masks are independent draws at `keep`.

        Args:
            n_masks: the number of masks.
        """
        return np.ones(n_masks, dtype=bool)


@dataclass(frozen=True)
class RandomMasks(MaskDesign):
    """Masks that keep each unit with probability `keep`, independently.

    Attributes:
        keep: the probability with which a unit is kept, strictly between 0 and 1; `usual_keep` if
            not given.

    Raises:
        Refused: a probability that is not strictly between 0 and 1.
    """

    name: ClassVar[str] = "random"
    _drawn_as: ClassVar[Literal["biased", "mixed"]] = "biased"

    keep: float | None = None

    def __post_init__(self) -> None:
        if self.keep is not None:
            check_keep(self.keep)

    def sized(self, n_units: int, n_masks: int) -> RandomMasks:
        return self if self.keep is not None else replace(self, keep=self._usual(n_units, n_masks))

    def _usual(self, n_units: int, n_masks: int) -> float:
        return usual_keep(n_units, n_masks)

    def draw(self, n_units: int, n_masks: int, seed: int) -> Bool[np.ndarray, "mask unit"]:
        keep = self._usual(n_units, n_masks) if self.keep is None else self.keep
        return sample_masks(n_units, n_masks, keep=keep, design=self._drawn_as, seed=seed)


@dataclass(frozen=True)
class MixedMasks(RandomMasks):
    """Random masks, every second one of them at ½, the others at 0.9 if `keep` is not given.

    There sets of several units show that are hardly ever ablated together at 0.9.
    """

    name: ClassVar[str] = "mixed"
    _drawn_as: ClassVar[Literal["biased", "mixed"]] = "mixed"

    def _usual(self, n_units: int, n_masks: int) -> float:
        return USUAL_KEEP

    def at_keep(self, n_masks: int) -> Bool[np.ndarray, " mask"]:
        return np.arange(n_masks) % 2 == 0


@dataclass(frozen=True)
class SpexMasks(MaskDesign):
    """The masks of `SpexDesign`: they keep every second unit, and show sets of up to `max_order`
    units that have no part in any smaller set.

    Attributes:
        keep: ½, always.
        max_order: the size of the largest set that can be found.
        n_groups, n_bits: the sizes of `SpexDesign`; 0 leaves them to the number of masks.
    """

    name: ClassVar[str] = "spex"
    keep: float | None = field(default=0.5, init=False, repr=False)
    max_order: int = 5
    n_groups: int = 0
    n_bits: int = 0

    def structure(self, n_units: int, n_masks: int, seed: int) -> SpexDesign:
        sizes = (self.max_order, self.n_groups, self.n_bits)
        return SpexDesign(n_units, n_masks, *sizes, seed=seed)

    def draw(self, n_units: int, n_masks: int, seed: int) -> Bool[np.ndarray, "mask unit"]:
        return self.structure(n_units, n_masks, seed).masks

    def minimum_masks(self, n_units: int) -> int:
        return SpexDesign.minimum_masks(n_units, self.max_order)


@dataclass(frozen=True)
class Adaptive:
    """Masks in doubling rounds, each decided on when the one before is measured.

    Attributes:
        masks: how they are drawn.
        target_r2: stop as soon as the held-out R² reaches this; None measures all masks.
        focused: half of each further round are masks around the sets that answers from halves of
            the masks do not agree on.

    Raises:
        Refused: a target outside (0, 1), SPEX's masks, or neither a target nor focused masks.
    """

    masks: MaskDesign = field(default_factory=RandomMasks)
    target_r2: float | None = None
    focused: bool = True

    def __post_init__(self) -> None:
        if self.target_r2 is not None:
            check_target_r2(self.target_r2)
        if isinstance(self.masks, SpexMasks):
            raise Refused(
                "design 'spex' is measured as a whole; leave out target_r2 and adaptive, give "
                "n_masks"
            )
        if self.target_r2 is None and not self.focused:
            raise Refused("rounds that are not focused need a target_r2 to stop at; give one")


Design = MaskDesign | Adaptive


def find_masks(name: str, keep: float | None = None) -> MaskDesign:
    """The masks of that name, at a density of their own if none is given.

    Raises:
        Refused: an unknown name, or a density that the design does not have.
    """
    if name not in get_args(DesignName):
        raise Refused(f"design = {name!r}: choose {', '.join(get_args(DesignName))}")
    if name == SpexMasks.name:
        if keep not in (None, SpexMasks.keep):
            raise Refused(
                f"keep = {keep} with design 'spex', which keeps every second unit; leave keep out"
            )
        return SpexMasks()
    masks = MixedMasks if name == MixedMasks.name else RandomMasks
    return masks() if keep is None else masks(keep)


def design_of(
    name: str | None, *, keep: float | None, target_r2: float | None, adaptive: bool, decoder: str
) -> Design:
    """The design that separate options describe, as a command line has them.

    Raises:
        Refused: options that make no sense, alone or together.
    """
    masks = find_masks(name or _masks_for(decoder), keep)
    in_rounds = target_r2 is not None or adaptive
    return Adaptive(masks, target_r2, focused=adaptive) if in_rounds else masks


def as_design(name: str, given: object) -> Any:
    """Reads a design, or the name of one; Refused: something else."""
    wanted = f"{', '.join(get_args(DesignName))}, or a design such as RandomMasks(keep=0.9)"
    return Only((str, MaskDesign, Adaptive), wanted)(name, given)


def find_design(design: DesignName | Design | None, decoder: str) -> Design:
    """The design of that name, or that goes with the decoder if none is given.

    Raises:
        Refused: an unknown name, or masks that the decoder cannot read.
    """
    chosen = design or _masks_for(decoder)
    if isinstance(chosen, str):
        chosen = find_masks(chosen)
    if decoder == "spex" and not isinstance(chosen, SpexMasks):
        raise Refused("decoder 'spex' reads the masks of its own design; leave design out")
    return chosen


def _masks_for(decoder: str) -> DesignName:
    return "spex" if decoder == "spex" else "random"
