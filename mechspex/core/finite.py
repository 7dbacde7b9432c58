"""Finite values: which masks have them, and a refusal where every mask has to."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.errors import FailedMasksError
from mechspex.core.masks import as_neighbours
from mechspex.core.value_function import ValueFunction


def finite_rows(values: Float[np.ndarray, "mask ..."]) -> Bool[np.ndarray, " mask"]:
    """The masks whose value is finite on every output."""
    return np.asarray(np.isfinite(values).all(axis=tuple(range(1, values.ndim))))


def finite_values(
    value_function: ValueFunction, masks: Bool[np.ndarray, "mask unit"], what: str = "masks"
) -> Float[np.ndarray, "mask output"]:
    """Values as float64, every one of them finite.

    Args:
        value_function: what measures them.
        masks: the masks to measure.
        what: what the masks are, for the message.

    Raises:
        FailedMasksError: a mask has no finite value.
    """
    order = as_neighbours(masks)
    values = value_function(masks[order]).astype(np.float64)[np.argsort(order)]
    failed = int((~finite_rows(values)).sum())
    if failed:
        raise FailedMasksError(
            f"{failed} of {len(masks)} {what} have no finite value; mend the value function"
        )
    return values
