"""Coarse to fine: groups of units are ablated, from whole layers down to single units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, islice, takewhile
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from mechspex.core.errors import MeasurementError
from mechspex.core.masks import ablate_sets
from mechspex.core.units import Term, UnitSet
from mechspex.runs.recorded import RecordedValues
from mechspex.screening.screen_method import Scored, ScreenMethod, at_least

# Groups that are split between two calls of the value function, so that it can batch.
_AT_ONCE = 8


@dataclass(frozen=True)
class CoarseToFine(ScreenMethod):
    """Single units and pairs without gradients: whole layers are ablated first, then what is in
    those that matter, down to single units, then pairs of the strongest.

    Attributes:
        n_masks: how many masks are measured, half of them for pairs.

    Raises:
        Refused: fewer than one mask.
    """

    name: ClassVar[str] = "ablation"

    n_masks: int = 1_000

    def __post_init__(self) -> None:
        at_least(self, n_masks=1)

    def scored(self, recorded: RecordedValues, n_terms: int, seed: int) -> Scored:
        singles, pairs = coarse_to_fine(recorded, self.n_masks)
        found = Scored.of_singles(singles, n_terms)
        best = sorted(pairs, key=lambda pair: -abs(pairs[pair]))[:n_terms]
        found.terms += best
        found.scores = np.append(found.scores, [pairs[pair] for pair in best])
        found.considered.append(len(pairs))
        for pair, effect in pairs.items():
            found.reach[list(pair)] = np.hypot(found.reach[list(pair)], effect)
        return found


def coarse_to_fine(
    recorded: RecordedValues, n_masks: int
) -> tuple[Float[np.ndarray, " unit"], dict[Term, float]]:
    """Effects of single units, from ablations of groups, and of pairs of the strongest.

    Layers are ablated first, then the kinds of units in each, then halves, down to single units;
    the group whose ablation changes the outputs most (root mean square) is split next. Then pairs
    of the strongest single units are ablated. A group whose units cancel each other is never split,
    nor is one that others stand in for.

    Args:
        recorded: the value function.
        n_masks: the most masks that are measured besides the clean one; half of them go to pairs.
            The first split is measured in any case.

    Returns:
        ablated(i) of every unit, exact where its group was split down to it, else an even share of
        its group's effect, 0 where that is not finite; and {pair: ablated(pair)}, exact, of those
        whose three values are finite.

    Raises:
        MeasurementError: the value with everything kept is not finite.
    """
    units = recorded.units
    recorded.stage = "groups"
    clean = recorded(np.ones((1, len(units)), dtype=bool))[0].astype(np.float64)
    if not np.isfinite(clean).all():
        raise MeasurementError(
            "with every unit kept the value is not finite on every output; mend the value "
            "function, or look at the prompts, the dtype and the metric"
        )

    def effects(sets: list[Term]) -> Float[np.ndarray, "set output"]:
        found = recorded(ablate_sets(len(units), sets)).astype(np.float64) - clean
        return np.where(np.isfinite(found).all(axis=1, keepdims=True), found, np.nan)

    first = split(units, tuple(range(len(units))))
    found = dict(zip(first, effects(first), strict=True))
    spent = len(first)
    while True:
        splits, cost = {}, 0
        for group in sorted((g for g in found if len(g) > 1), key=_size_in(found)):
            parts = split(units, group)
            if len(splits) < _AT_ONCE and spent + cost + len(parts) <= n_masks // 2:
                splits[group], cost = parts, cost + len(parts)
        if not splits:
            break
        parts = [part for group in splits for part in splits[group]]
        found |= dict(zip(parts, effects(parts), strict=True))
        found = {group: effect for group, effect in found.items() if group not in splits}
        spent += cost
    single = np.empty(len(units))
    for group, effect in found.items():
        single[list(group)] = np.nan_to_num(effect).mean() / len(group)
    known = (group for group in found if len(group) == 1 and np.isfinite(found[group]).all())
    alone = sorted(known, key=_size_in(found))
    return single, _pairs(alone, found, effects, max(0, n_masks - spent))


def split(units: UnitSet, group: Term) -> list[Term]:
    """The next finer groups: by layer, else by kind of unit, else two halves."""
    for label in ("layer", "kind"):
        parts: dict[object, list[int]] = {}
        for column in group:
            parts.setdefault(getattr(units[column], label), []).append(column)
        if len(parts) > 1:
            return [tuple(part) for part in parts.values()]
    middle = len(group) // 2
    return [part for part in (group[:middle], group[middle:]) if part]


def _pairs(
    alone: list[Term],
    found: dict[Term, Float[np.ndarray, " output"]],
    effects: Callable[[list[Term]], Float[np.ndarray, "set output"]],
    n_masks: int,
) -> dict[Term, float]:
    """ablated(i, j) for the pairs of as many of the strongest units as the masks allow."""
    n_units = max(takewhile(lambda n: n * (n - 1) // 2 <= n_masks, range(len(alone) + 1)))
    strongest = sorted(unit for (unit,) in islice(alone, n_units))
    pairs = list(combinations(strongest, 2))
    if not pairs:
        return {}
    joint = effects(pairs) - [found[(i,)] + found[(j,)] for i, j in pairs]
    measured = zip(pairs, joint.mean(axis=1).tolist(), strict=True)
    return {pair: effect for pair, effect in measured if np.isfinite(effect)}


def _size_in(found: dict[Term, Float[np.ndarray, " output"]]) -> Callable[[Term], float]:
    # What cannot be measured cannot be followed.
    return lambda group: -float(np.sqrt((np.nan_to_num(found[group]) ** 2).mean()))
