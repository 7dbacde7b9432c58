"""How strongly a method says that each unit belongs to a circuit."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from mechspex.core.value_function import ValueFunction
from mechspex.set_functions.set_function import SetFunction

Scores = Float[np.ndarray, " unit"]


def single_effects(values: ValueFunction) -> Scores:
    """The largest change of an output where one unit is ablated and all others kept.

    Args:
        values: the value function.
    """
    whole = np.ones((1, values.n_units), dtype=bool)
    without = ~np.eye(values.n_units, dtype=bool)
    return np.abs(values(whole) - values(without)).max(axis=1)


def slopes(values: ValueFunction) -> Scores:
    """The largest slope of an output in each unit of the whole.

    Args:
        values: a value function with gradients.
    """
    whole = np.ones((1, values.n_units), dtype=np.float32)
    _, gradient = values.value_and_gradient(whole)
    return np.abs(gradient[0]).max(axis=0)


def largest_terms(function: SetFunction) -> Scores:
    """The largest coefficient of an output over all terms that a unit is in.

    Args:
        function: a set function, in the basis whose terms count.
    """
    scores = np.zeros(function.n_units)
    sizes = np.abs(function.output_coefficients).max(axis=1)
    for term, size in zip(function.terms, sizes.tolist(), strict=True):
        for unit in term:
            scores[unit] = max(scores[unit], size)
    return scores


def pruned_greedily(values: ValueFunction, threshold: float) -> set[int]:
    """The units that greedy pruning keeps.

    From the last to the first a unit goes for good if the values then change by less than the
    threshold (Conmy et al. 2023, Algorithm 1, on heads).

    Args:
        values: the value function; of several outputs the largest change counts.
        threshold: the change that keeps a unit.
    """
    mask = np.ones((1, values.n_units), dtype=bool)
    value = values(mask)
    for unit in reversed(range(values.n_units)):
        without = mask.copy()
        without[0, unit] = False
        changed = values(without)
        if np.abs(changed - value).max() < threshold:
            mask, value = without, changed
    return set(np.flatnonzero(mask[0]).tolist())


def pruned_at(values: ValueFunction, thresholds: Float[np.ndarray, " threshold"]) -> Scores:
    """The largest threshold at which greedy pruning keeps each unit, 0 where none does.

    Args:
        values: the value function.
        thresholds: the changes of the value that keep a unit.
    """
    scores = np.zeros(values.n_units)
    for threshold in np.sort(thresholds):
        scores[sorted(pruned_greedily(values, float(threshold)))] = threshold
    return scores
