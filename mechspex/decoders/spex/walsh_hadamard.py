"""The fast Walsh–Hadamard transform."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from mechspex.core.errors import ShapeError


def walsh_hadamard(values: Float[np.ndarray, "point ..."]) -> Float[np.ndarray, "bin ..."]:
    """U[j] = 2^{−b} Σ_ℓ values[ℓ] (−1)^{⟨j, ℓ⟩} along the first axis, in b·2^b additions.

    ⟨j, ℓ⟩ counts the bits that j and ℓ share. Transforming U again gives 2^{−b} times the values.

    Args:
        values: 2^b points along the first axis; any other axes are transformed one by one.

    Raises:
        ShapeError: the first axis is not a power of two long.
    """
    n_points = len(values)
    if n_points < 1 or n_points & (n_points - 1):
        raise ShapeError(
            f"values of shape {list(values.shape)}: the first axis must be a power of two long"
        )
    result = values
    width = 1
    while width < n_points:
        pairs = result.reshape(-1, 2, width, *values.shape[1:])
        even, odd = pairs[:, 0], pairs[:, 1]
        result = np.stack([even + odd, even - odd], axis=1).reshape(values.shape)
        width *= 2
    return result / n_points
