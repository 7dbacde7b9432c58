"""A recovered function as shapiq's `InteractionValues`: all its plots work on it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from mechspex.core.errors import Refused
from mechspex.core.units import Term
from mechspex.set_functions.set_function import SetFunction

# Its names of the indices that a function has exactly.
INDICES = ("SV", "BV", "Moebius", "SII", "k-SII", "FBII")
INSTALL = "pip install 'shapiq>=1.3,<1.5'"


def interaction_values(function: SetFunction, index: str = "k-SII", order: int = 2) -> Any:
    """A `shapiq.InteractionValues` of an index of every set of units, exact for the function.

    Args:
        function: the function.
        index: shapiq's name of it. ``k-SII`` and ``SV`` sum to f(all) − f(∅), as its force and
            waterfall plots ask; ``Moebius`` sums to it with all orders.
        order: the size of the largest sets, for ``SII``, ``k-SII`` and ``FBII``.

    Raises:
        Refused: shapiq is not installed, or it has no index of that name here.
    """
    if index not in INDICES:
        raise Refused(f"index = {index!r}: choose one of {', '.join(INDICES)}")
    try:
        shapiq = import_module("shapiq")
        aggregation = import_module("shapiq.game_theory.aggregation")
    except ImportError as error:
        raise Refused(f"shapiq is not installed ({error}); {INSTALL}") from None
    values, largest = _indices(function, index, order)
    n_units = function.n_units
    empty = float(function.predict(np.zeros((1, n_units), dtype=bool))[0])
    options: dict[str, Any] = {
        "max_order": largest, "min_order": 0, "n_players": n_units, "baseline_value": empty,
        "estimated": False,
    }  # fmt: skip
    if index != "k-SII":
        return shapiq.InteractionValues(values | {(): empty}, index=index, **options)
    base = shapiq.InteractionValues(values | {(): empty}, index="SII", **options)
    return aggregation.aggregate_base_interaction(base, order=largest)


def _indices(function: SetFunction, index: str, order: int) -> tuple[dict[Term, float], int]:
    """{set: index}, and the size of the largest sets."""
    if index == "SV":
        return function.indices("shapley"), 1
    if index == "BV":
        return function.indices("banzhaf"), 1
    if index == "Moebius":
        return _without_empty(function.indices("moebius")), max(function.max_order, 1)
    kind = "faith_banzhaf" if index == "FBII" else "shapley_interaction"
    return _without_empty(function.indices(kind, order)), order


def _without_empty(values: dict[Term, float]) -> dict[Term, float]:
    return {term: value for term, value in values.items() if term}
