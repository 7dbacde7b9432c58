"""Gradient × input: the slope of the value in each unit of the whole, a baseline."""

from __future__ import annotations

import numpy as np

from mechspex.attribution.attribution import Attribution
from mechspex.core.doors import door
from mechspex.core.value_function import (
    ValuesLike,
    as_value_function,
    as_values,
    without_gradients,
)


@door(values=as_values)
def gradient_times_input(values: ValuesLike) -> Attribution:
    """score_i = ∂f/∂m_i · m_i with every unit kept, m_i = 1, from one gradient.

    The mask scales what a unit contributes, so by the chain rule this is the gradient at that
    contribution times its difference from the ablated one (Shrikumar et al. 2017, Section 2).

    Args:
        values: a value function with gradients.

    Raises:
        Refused: the value function has no gradients.
    """
    function = as_value_function(values)
    if not function.differentiable:
        raise without_gradients(function)
    whole = np.ones((1, function.n_units), dtype=np.float32)
    value, gradient = function.value_and_gradient(whole)
    scores = gradient[0].T.astype(np.float64)
    return Attribution(
        method="gradient × input",
        units=function.units,
        outputs=tuple(function.outputs),
        output_scores=scores,
        intercept=value[0].astype(np.float64) - scores.sum(axis=0),
        n_masks=1,
    )
