"""Random scores: what no knowledge at all achieves, a baseline."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mechspex.attribution.attribution import Attribution
from mechspex.core.checks import SEED
from mechspex.core.doors import door
from mechspex.core.units import UnitSet, as_parts


@door(units=as_parts, seed=SEED)
def random_scores(units: UnitSet | Iterable[object] | int, *, seed: int = 0) -> Attribution:
    """One standard normal number a unit.

    Args:
        units: the units, their labels, or how many there are.
        seed: the only source of randomness.
    """
    units = as_parts("units", units)
    scores = np.random.default_rng(seed).standard_normal((len(units), 1))
    return Attribution("random", units, ("random",), scores, np.zeros(1), 0)
