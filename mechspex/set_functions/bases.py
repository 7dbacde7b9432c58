"""The three bases of set functions: products of one affine factor a unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.errors import Refused
from mechspex.core.units import Term

Basis = Literal["fourier", "kept", "ablated"]


def affine(basis: Basis, keep: float) -> tuple[float, float]:
    """Slope a and offset b of the factor a·m_i + b of a basis.

    Args:
        basis: ``fourier``, ``kept`` or ``ablated``.
        keep: the probability p of the Fourier basis.

    Raises:
        Refused: an unknown basis, or p outside (0, 1).
    """
    if basis == "fourier":
        if not 0 < keep < 1:
            raise Refused(f"keep = {keep}: a Fourier basis needs a probability between 0 and 1")
        sigma = math.sqrt(keep * (1 - keep))
        return 1 / sigma, -keep / sigma
    if basis == "kept":
        return 1.0, 0.0
    if basis == "ablated":
        return -1.0, 1.0
    raise Refused(f"basis = {basis!r}: choose 'fourier', 'kept' or 'ablated'")


def features(
    masks: Bool[np.ndarray, "mask unit"],
    terms: Sequence[Term],
    *,
    basis: Basis,
    keep: float = 0.5,
) -> Float[np.ndarray, "mask term"]:
    """φ_S(m) for every mask and term; see `SetFunction` for the bases.

    Args:
        masks: True = kept.
        terms: the sets S.
        basis: ``fourier``, ``kept`` or ``ablated``.
        keep: the probability p of the Fourier basis.
    """
    slope, offset = affine(basis, keep)
    kept, ablated = slope + offset, offset
    design = np.empty((len(masks), len(terms)))
    orders = np.array([len(term) for term in terms], dtype=int)
    for order in np.unique(orders).tolist():
        columns = np.flatnonzero(orders == order).tolist()
        product = np.ones((len(masks), len(columns)))
        members = np.array([terms[c] for c in columns], dtype=int).reshape(len(columns), order)
        for j in range(order):
            product *= np.where(masks[:, members[:, j]], kept, ablated)
        design[:, columns] = product
    return design
