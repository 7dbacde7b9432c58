"""Climbing on the model itself: gradients at a subset propose exchanges, exact values decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from jaxtyping import Bool, Float

Mask = Bool[np.ndarray, " unit"]
Measure = Callable[[Bool[np.ndarray, "mask unit"]], Float[np.ndarray, "mask output"]]
Slopes = Callable[[Float[np.ndarray, "mask unit"]], Float[np.ndarray, "mask unit"]]

# Rounds of exchanges; most sizes stop earlier by themselves.
_ROUNDS = 10
# Exchanges that bring one subset near a target: beyond them the slope no longer holds.
_MOST_EXCHANGES = 64


def climb(
    measure: Measure,
    slopes: Slopes,
    starts: Mapping[int, tuple[int, ...]],
    n_units: int,
    *,
    target: Float[np.ndarray, " output"] | None = None,
) -> dict[int, tuple[int, ...]]:
    """Better subsets of the sizes of `starts`, by exchanges that the slope proposes.

    Let g = ∂f/∂m be the slope at a subset S (m = 1 on S, 0 elsewhere). Exchanging i in S for j
    outside it changes f by g_j − g_i in first order. Two kinds of subsets are proposed: S after
    its 1, 2, 4, … best exchanges, and the subsets of the neighbouring sizes with the best units
    added or the worst taken away (towards a target, the units with the largest and the least |g|).
    All are measured. The best becomes the next S, as long as it is better, so each answer is at
    least as good as its start.

    Args:
        measure: gives the values of masks; a mask without a finite value is never taken.
        slopes: gives ∂f/∂m, f the mean over outputs, at masks of 0 and 1.
        starts: {size: members by column}.
        n_units: the width of a mask.
        target: the values to come near to, see `good`; if not given, the mean of f is to be large.

    Returns:
        {size: members by column, ascending}.
    """
    sizes = sorted(starts)
    kept = np.zeros((len(sizes), n_units), dtype=bool)
    for row, size in enumerate(sizes):
        kept[row, list(starts[size])] = True
    values = measure(kept).astype(np.float64)
    slope = np.zeros((len(sizes), n_units))
    moving = np.arange(len(sizes))
    for _ in range(_ROUNDS):
        slope[moving] = np.nan_to_num(slopes(kept[moving].astype(np.float32)))
        rows, proposals = [], []
        for row in range(len(sizes)):
            worth = slope if target is None else np.abs(slope)
            masks = _resized(kept, worth, row, set(moving.tolist()))
            if row in moving:
                gap = None if target is None else float((target - values[row]).mean())
                masks += _exchanged(kept[row], slope[row], gap)
            rows += [row] * len(masks)
            proposals += masks
        if not proposals:
            break
        measured = measure(np.array(proposals)).astype(np.float64)
        scores, best = good(measured, target), good(values, target)
        moved = set()
        for place, row in enumerate(rows):
            if scores[place] > best[row]:
                kept[row], values[row], best[row] = proposals[place], measured[place], scores[place]
                moved.add(row)
        if not moved:
            break
        moving = np.array(sorted(moved))
    return {
        size: tuple(np.flatnonzero(mask).tolist()) for size, mask in zip(sizes, kept, strict=True)
    }


def good(
    values: Float[np.ndarray, "mask output"], target: Float[np.ndarray, " output"] | None
) -> Float[np.ndarray, " mask"]:
    """How good each mask is: the mean over outputs, or minus the distance from a target.

    With d = f − target on n outputs, the distance is mean(d)² + 2 var(d)/n. That is the squared
    mean difference to expect on n other outputs: the mean of either n has a variance of var(d)/n.
    So of two subsets that are equally near in the mean, the one that is near on every output wins.

    Args:
        values: f of each mask.
        target: the value of each output to come near to; None scores the mean of f.

    Returns:
        One score a mask, larger is better; −∞ for a mask without a finite value.
    """
    if target is None:
        scores = values.mean(axis=1)
    else:
        away, n_outputs = values - target, len(target)
        with np.errstate(invalid="ignore"):
            spread = away.var(axis=1, ddof=1) / n_outputs if n_outputs > 1 else 0.0
            scores = -(away.mean(axis=1) ** 2 + 2 * spread)
    return np.where(np.isfinite(scores), scores, -np.inf)


def _resized(
    kept: Bool[np.ndarray, "size unit"],
    worth: Float[np.ndarray, "size unit"],
    row: int,
    moving: set[int],
) -> list[Mask]:
    """The subsets of the neighbouring sizes that have just changed, brought to this row's size."""
    masks = []
    for neighbour in sorted({row - 1, row + 1} & moving):
        mask = kept[neighbour].copy()
        missing = int(kept[row].sum() - mask.sum())
        candidates = np.flatnonzero(mask != (missing > 0))
        order = np.argsort(-np.sign(missing) * worth[neighbour, candidates], kind="stable")
        mask[candidates[order[: abs(missing)]]] = missing > 0
        masks.append(mask)
    return masks


def _exchanged(kept: Mask, slope: Float[np.ndarray, " unit"], gap: float | None) -> list[Mask]:
    """The subset after 1, 2, 4, … exchanges, and after all that help."""
    pairs = list(_best_pairs(kept, slope) if gap is None else _nearest_pairs(kept, slope, gap))
    numbers = {1 << power for power in range(len(pairs).bit_length())} | {len(pairs)}
    masks = []
    for number in sorted(numbers - {0}):
        mask = kept.copy()
        mask[np.ravel(pairs[:number])] ^= True
        masks.append(mask)
    return masks


def _best_pairs(kept: Mask, slope: Float[np.ndarray, " unit"]) -> Iterator[tuple[int, int]]:
    """The unit of least slope inside for that of the largest outside, and so on while it gains."""
    inside, outside = np.flatnonzero(kept), np.flatnonzero(~kept)
    inside = inside[np.argsort(slope[inside], kind="stable")]
    outside = outside[np.argsort(-slope[outside], kind="stable")]
    for i, j in zip(inside.tolist(), outside.tolist(), strict=False):
        if not slope[j] > slope[i]:
            return
        yield i, j


def _nearest_pairs(
    kept: Mask, slope: Float[np.ndarray, " unit"], gap: float
) -> Iterator[tuple[int, int]]:
    """The exchange that leaves least of the gap, and so on while it gets smaller."""
    inside, outside = np.flatnonzero(kept), np.flatnonzero(~kept)
    outside = outside[np.argsort(slope[outside], kind="stable")]
    for _ in range(_MOST_EXCHANGES):
        if not len(inside) or not len(outside):
            return
        wanted = slope[inside] + gap
        above = np.searchsorted(slope[outside], wanted).clip(0, len(outside) - 1)
        below = (above - 1).clip(0)
        either = np.stack([below, above])
        gaps = np.abs(wanted - slope[outside][either])
        side, place = np.unravel_index(np.argmin(gaps), gaps.shape)
        if not gaps[side, place] < abs(gap):
            return
        other = either[side, place]
        gap -= float(slope[outside[other]] - slope[inside[place]])
        yield int(inside[place]), int(outside[other])
        inside, outside = np.delete(inside, place), np.delete(outside, other)
