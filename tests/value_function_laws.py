"""Laws that every value function keeps; a test calls `check_laws` with one of them."""

import numpy as np

from mechspex.core.masks import sample_masks
from mechspex.core.value_function import ValueFunction


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

    assert batched.dtype == np.float32
    assert batched.shape == (7, len(values.outputs))
    assert np.abs(batched[0] - untouched).max() <= tolerance, "all-kept is the untouched model"
    one_by_one = np.concatenate([values(mask[None]) for mask in masks])
    assert np.abs(one_by_one - batched).max() <= tolerance, "batched equals one at a time"
    assert np.abs(values(masks[::-1])[::-1] - batched).max() <= tolerance, "order is free"
    twice = values(np.concatenate([masks, masks]))
    assert np.abs(twice[:7] - twice[7:]).max() <= tolerance, "neighbours do not matter"
    assert np.array_equal(values(masks), batched), "the same call gives the same bits"
    assert values(masks[:0]).shape == (0, len(values.outputs)), "no masks, no values"
