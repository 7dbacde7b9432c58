"""Masks: Boolean rows over the units, True = kept; which of them are measured is the design."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from itertools import combinations
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int, UInt8

from mechspex.core.checks import PROBABILITY, SEED, WHOLE, check_memory
from mechspex.core.doors import door
from mechspex.core.errors import Refused, ShapeError

Design = Literal["biased", "mixed", "paired", "stratified"]

# Random numbers drawn at once: bounds memory at 46,080 units without changing what is drawn.
_BLOCK = 1 << 22
# Pairs are counted one by one of so many units, and of more of them a sample is.
_MOST_COUNTED, _PAIRS_DRAWN = 2_000, 100_000


class Stream(IntEnum):
    """Streams of random numbers beside that of the seed itself: ``(seed, Stream.HELD_OUT)``.

    Names of one number draw the same bits from one seed, as they did before they had names: stored
    values rest on the numbers. A new use takes a new number.
    """

    HELD_OUT = 1
    """Masks that score an answer (`explain`)."""
    PROBES = 1
    """Signs of the directions that choose the rows of pairs (`screen`)."""
    AROUND_SUBSETS = 1
    """Masks around the subsets of a search (`find_circuit`, `prune_heads`)."""
    OUTPUTS = 1
    """Outputs drawn again, for the intervals of a circuit's scores (`faithfulness`)."""
    REJECTED = 2
    """Pairs that a screen rejected, to be tested (`screen`)."""
    RESAMPLES = 2
    """Halves of the masks in which terms are selected again (`recover`)."""
    RANDOM_SUBSETS = 2
    """Subsets that a choice is compared with (`prune_heads`)."""
    SURVIVORS = 3
    """Masks that say what a screen's survivors explain (`explain`)."""
    HALF = 3
    """The half of the masks that says whether more of them would pay (`recover`)."""
    AMONG_OTHERS = 4
    """Masks among which a unit's mean effect is taken (`screen` with `keep`)."""
    HALVES = 4
    """Halves of the masks whose answers are compared (`explain`, adaptive)."""
    FRESH = 5
    """Masks that nothing was decoded from, which judge methods (`lds`)."""


def check_masks(masks: object, n_units: int | None = None) -> Bool[np.ndarray, "mask unit"]:
    """Return `masks` if it is a Boolean array of shape ``[mask, unit]``.

    Args:
        masks: what should be masks.
        n_units: the width they must have; any width if not given.

    Raises:
        ShapeError: not two-dimensional, not Boolean, or not `n_units` wide.
    """
    if not isinstance(masks, np.ndarray):
        raise ShapeError(
            f"masks must be a numpy array of shape [mask, unit], got {type(masks).__name__}; "
            "convert it with numpy.asarray(masks, dtype=bool)"
        )
    wanted = f"[mask, {n_units if n_units is not None else 'unit'}]"
    if masks.ndim != 2 or (n_units is not None and masks.shape[1] != n_units):
        raise ShapeError(
            f"masks have shape {list(masks.shape)}, expected {wanted}; one row a mask, "
            "one column a unit"
        )
    if masks.dtype != np.bool_:
        raise ShapeError(
            f"masks of shape {list(masks.shape)} have dtype {masks.dtype}, expected bool; "
            "convert them with masks.astype(bool), True = kept"
        )
    return masks


def _as_seed(name: str, given: object) -> int | tuple[int, ...]:
    """Reads a seed, or a seed and the number of a `Stream`."""
    if isinstance(given, tuple) and given:
        return tuple(SEED(name, part) for part in given)
    return SEED(name, given)


@door(n_units=WHOLE, n_masks=WHOLE, keep=PROBABILITY, seed=_as_seed)
def sample_masks(
    n_units: int,
    n_masks: int,
    *,
    keep: float = 0.5,
    design: Design = "biased",
    seed: int | tuple[int, ...] = 0,
) -> Bool[np.ndarray, "mask unit"]:
    """Draw random masks; the first rows of a longer draw are the shorter draw with the same seed.

    Designs:

    * ``biased``: each unit is kept with probability `keep`, independently of the others.
    * ``mixed``: like ``biased``, but with probability ½ in every second mask. Near `keep` = 1 sets
      of several units are hardly ever ablated together; at ½ they show.
    * ``paired``: like ``biased`` with `keep` = ½, and every mask is followed by its complement.
    * ``stratified``: the number of ablated units cycles through 1 … 2(1 − `keep`)·n, so that every
      density around the mean 1 − `keep` is met equally often. Which units are ablated is uniform.

    >>> import mechspex as mx
    >>> mx.sample_masks(4, 3, keep=0.75, seed=1)
    array([[ True, False,  True, False],
           [ True,  True, False,  True],
           [ True,  True, False,  True]])

    Args:
        n_units: the width of a mask, at least 1.
        n_masks: the number of masks.
        keep: the probability with which a unit is kept, strictly between 0 and 1.
        design: ``biased``, ``mixed``, ``paired`` or ``stratified``.
        seed: the only source of randomness.

    Returns:
        One mask a row, True = kept.

    Raises:
        Refused: a size, density or design that makes no sense.
    """
    if n_units < 1:
        raise Refused(f"n_units = {n_units}: a mask needs at least one unit")
    if n_masks < 0:
        raise Refused(f"n_masks = {n_masks}: ask for zero masks or more")
    check_memory(n_units * n_masks, f"{n_masks:,} masks of {n_units:,} units")
    rng = np.random.default_rng(seed)
    if design == "biased":
        return _bernoulli(rng, n_masks, n_units, keep)
    if design == "mixed":
        half = -(-n_masks // 2)
        drawn = zip(rng.spawn(2), (keep, 0.5), strict=True)
        halves = [_bernoulli(own, half, n_units, density) for own, density in drawn]
        return np.stack(halves, axis=1).reshape(-1, n_units)[:n_masks]
    if design == "paired":
        if keep != 0.5:
            raise Refused(
                f"keep = {keep} with design 'paired': complements balance only keep = 0.5"
            )
        half = _bernoulli(rng, -(-n_masks // 2), n_units, keep)
        return np.stack([half, ~half], axis=1).reshape(-1, n_units)[:n_masks]
    if design == "stratified":
        return _stratified(rng, n_masks, n_units, keep)
    raise Refused(f"design = {design!r}: choose 'biased', 'mixed', 'paired' or 'stratified'")


def _bernoulli(
    rng: np.random.Generator, n_masks: int, n_units: int, keep: float
) -> Bool[np.ndarray, "mask unit"]:
    masks = np.empty((n_masks, n_units), dtype=bool)
    rows = max(1, _BLOCK // n_units)
    for start in range(0, n_masks, rows):
        block = masks[start : start + rows]
        np.less(rng.random(block.shape), keep, out=block)
    return masks


def _stratified(
    rng: np.random.Generator, n_masks: int, n_units: int, keep: float
) -> Bool[np.ndarray, "mask unit"]:
    most = min(n_units, max(1, round(2 * (1 - keep) * n_units)))
    masks = np.ones((n_masks, n_units), dtype=bool)
    for row in range(n_masks):
        ablated = rng.permutation(n_units)[: 1 + row % most]
        masks[row, ablated] = False
    return masks


def all_masks(n_units: int) -> Bool[np.ndarray, "mask unit"]:
    """All 2^n masks; row b keeps unit j where bit j of b is 1.

    Args:
        n_units: the width n of a mask.

    Raises:
        Refused: more than 24 units, 16 million masks.
    """
    if not 0 < n_units <= 24:
        raise Refused(f"n_units = {n_units}: all 2^n masks are listed for 1 … 24 units")
    return (np.arange(2**n_units)[:, None] >> np.arange(n_units) & 1).astype(bool)


def ablate_sets(n_units: int, sets: Iterable[Iterable[int]]) -> Bool[np.ndarray, "mask unit"]:
    """One mask a set: that set is ablated and every other unit kept.

    Args:
        n_units: the width of a mask.
        sets: the sets, by column.
    """
    rows = [list(units) for units in sets]
    masks = np.ones((len(rows), n_units), dtype=bool)
    for mask, units in zip(masks, rows, strict=True):
        mask[units] = False
    return masks


def turn_sets(
    context: Bool[np.ndarray, " unit"], sets: Iterable[Iterable[int]]
) -> Bool[np.ndarray, "mask unit"]:
    """One mask a set: the context with that set turned over, so that what it keeps is ablated and
    what it ablates is kept.

    Args:
        context: the mask that sets all units.
        sets: the sets, by column.
    """
    return ablate_sets(len(context), sets) == context


def keep_only(n_units: int, sets: Iterable[Iterable[int]]) -> Bool[np.ndarray, "mask unit"]:
    """One mask a set: that set is kept and every other unit ablated."""
    return ~ablate_sets(n_units, sets)


def both_ends(n_units: int) -> Bool[np.ndarray, "2 unit"]:
    """The mask that keeps every unit, and the one that ablates every unit."""
    return np.repeat([[True], [False]], n_units, axis=1)


def single_ablations(n_units: int) -> Bool[np.ndarray, "unit unit"]:
    """Every unit ablated alone: row i ablates unit i.

    >>> import mechspex as mx
    >>> mx.single_ablations(3).astype(int)
    array([[0, 1, 1],
           [1, 0, 1],
           [1, 1, 0]])

    Args:
        n_units: the width of a mask.
    """
    return ~np.eye(n_units, dtype=bool)


def pair_ablations(
    n_units: int, among: Iterable[int] | None = None
) -> Bool[np.ndarray, "mask unit"]:
    """Every pair of units ablated alone, in lexicographic order.

    >>> import mechspex as mx
    >>> mx.pair_ablations(4, among=[0, 2, 3]).astype(int)
    array([[0, 1, 0, 1],
           [0, 1, 1, 0],
           [1, 1, 0, 0]])

    Args:
        n_units: the width of a mask.
        among: the columns of the units that are paired; all if not given.
    """
    units = range(n_units) if among is None else sorted(among)
    return ablate_sets(n_units, combinations(units, 2))


def factorial_masks(
    context: Bool[np.ndarray, " unit"], units: tuple[int, ...]
) -> Bool[np.ndarray, "mask unit"]:
    """All 2^k settings of k units, the rest as in one mask.

    Row b keeps ``units[j]`` where bit j of b is 1. So row 0 ablates all k units and the last row
    keeps them.

    Args:
        context: the mask that sets the other units.
        units: the columns of the k units.
    """
    masks = np.repeat(context[None, :], 2 ** len(units), axis=0)
    masks[:, list(units)] = all_masks(len(units))
    return masks


def unseen_pairs(masks: Bool[np.ndarray, "mask unit"]) -> float:
    """The share of all pairs of units of which no mask ablates both.

    Of more than 2,000 units it is that of 100,000 pairs drawn at random.

    Args:
        masks: True = kept.
    """
    n_units = masks.shape[1]
    if n_units < 2:
        return 0.0
    ablated = (~masks).astype(np.float32)
    if n_units <= _MOST_COUNTED:
        together = ablated.T @ ablated > 0
        return float(1 - together[np.triu_indices(n_units, 1)].mean())
    rng = np.random.default_rng(0)
    one = rng.integers(n_units, size=_PAIRS_DRAWN)
    other = (one + rng.integers(1, n_units, size=_PAIRS_DRAWN)) % n_units
    together = np.zeros(_PAIRS_DRAWN, dtype=bool)
    for mask in masks:
        together |= ~(mask[one] | mask[other])
    return float(1 - together.mean())


def pack(masks: Bool[np.ndarray, "mask unit"]) -> UInt8[np.ndarray, "mask byte"]:
    """Eight units a byte, the form in which masks travel and are stored."""
    return np.packbits(masks, axis=1)


def as_neighbours(masks: Bool[np.ndarray, "mask unit"]) -> Int[np.ndarray, " mask"]:
    """The order in which masks that begin alike are next to each other: a model runs these as one,
    or one from where the other is, up to where they part."""
    return np.lexsort(pack(masks).T[::-1])


def unpack(packed: UInt8[np.ndarray, "mask byte"], n_units: int) -> Bool[np.ndarray, "mask unit"]:
    """The masks that `pack` packed.

    Args:
        packed: what `pack` returned.
        n_units: the width of a mask.

    Raises:
        ShapeError: the rows do not hold `n_units` bits.
    """
    if packed.ndim != 2 or packed.shape[1] != -(-n_units // 8):
        raise ShapeError(
            f"packed masks have shape {list(packed.shape)}, {n_units} units need "
            f"[mask, {-(-n_units // 8)}]"
        )
    return np.unpackbits(packed, axis=1, count=n_units).astype(bool)
