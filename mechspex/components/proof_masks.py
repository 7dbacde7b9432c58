"""The masks on which forwards are held against each other: both ends, and some between."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from mechspex.components.words import is_word
from mechspex.core.masks import sample_masks
from mechspex.core.units import Unit, UnitSet

_DENSITIES = (0.95, 0.7, 0.3)


def both_ends(units: UnitSet) -> Bool[np.ndarray, "end unit"]:
    """Everything kept, and everything ablated.

    Args:
        units: the columns.
    """
    return np.array([[True] * len(units), [False] * len(units)])


def sample_of(units: UnitSet, n_each: int) -> Bool[np.ndarray, "sample unit"]:
    """Everything kept, random masks of several densities, and those that change least.

    Args:
        units: the columns.
        n_each: how many random masks of each density.
    """
    masks = [sample_masks(len(units), n_each, keep=keep, seed=0) for keep in _DENSITIES]
    words = [unit for unit in units if is_word(unit)]
    others = [unit for unit in units if not is_word(unit)]
    last = [max(words, key=lambda u: u.span or (u.number, 0))] if words else []
    if others:
        last.append(max(others, key=_lateness))
    latest = np.array([[unit != one for unit in units] for one in last])
    return np.concatenate([np.ones_like(latest[:1]), *masks, latest])


def _lateness(unit: Unit) -> tuple[int, int]:
    """Sorting key: by position, as far as that is known, then by layer."""
    return unit.position if isinstance(unit.position, int) else -1, unit.layer
