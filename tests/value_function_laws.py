"""Laws that every value function keeps; a test calls them with one of them."""

import numpy as np
import pytest

from mechspex.core.masks import sample_masks
from mechspex.core.value_function import ValueFunction
from mechspex.errors import Refused


def check_laws(values: ValueFunction, untouched: np.ndarray, *, tolerance: float = 2e-4) -> None:
    """Check the seam's shape and that a value depends on its mask alone.

    Args:
        untouched: values of the unmasked model, one an output.
        tolerance: rounding of one batch shape against another.
    """
    assert isinstance(values, ValueFunction)
    n = values.n_units
    assert n == len(values.units)
    masks = sample_masks(n, 7, keep=0.6, seed=5)
    masks[0] = True
    batched = values(masks)

    assert batched.dtype in (np.float32, np.float64)
    assert batched.shape == (7, len(values.outputs))
    assert np.abs(batched[0] - untouched).max() <= tolerance, "all-kept is the untouched model"
    one_by_one = np.concatenate([values(mask[None]) for mask in masks])
    assert np.abs(one_by_one - batched).max() <= tolerance, "batched equals one at a time"
    assert np.abs(values(masks[::-1])[::-1] - batched).max() <= tolerance, "order is free"
    twice = values(np.concatenate([masks, masks]))
    assert np.abs(twice[:7] - twice[7:]).max() <= tolerance, "neighbours do not matter"
    assert np.array_equal(values(masks), batched), "the same call gives the same bits"
    assert values(masks[:0]).shape == (0, len(values.outputs)), "no masks, no values"


def check_gradient_laws(values: ValueFunction, *, step: float = 1e-2, rtol: float = 5e-3) -> None:
    """Check gradients against central differences of soft masks; without any, that they are
    refused.

    Args:
        step: of the central differences.
        rtol: of the gradients, in shares of the largest.
    """
    n, n_outputs = values.n_units, len(values.outputs)
    soft = np.random.default_rng(0).uniform(0.2, 0.8, (2, n)).astype(np.float32)
    if not values.differentiable:
        for ask in (values.value_and_gradient, values.value_and_mean_gradient):
            with pytest.raises(Refused, match="has no value_and_gradient"):
                ask(soft)
        return
    value, gradient = values.value_and_gradient(soft)
    assert value.shape == (2, n_outputs)
    assert gradient.shape == (2, n_outputs, n)
    largest = np.abs(gradient).max()
    for unit in range(0, n, max(1, n // 6)):
        above, below = soft.copy(), soft.copy()
        above[:, unit] += step
        below[:, unit] -= step
        apart = values.value_and_gradient(above)[0] - values.value_and_gradient(below)[0]
        error = np.abs(gradient[:, :, unit] - apart / (2 * step)).max()
        assert error <= rtol * largest, "the gradient is the slope"
    of_mean = values.value_and_mean_gradient(soft)
    assert np.allclose(of_mean[0], value, atol=rtol * largest)
    assert of_mean[1].shape == (2, n)
    assert np.allclose(of_mean[1], gradient.mean(axis=1), atol=rtol * largest)
