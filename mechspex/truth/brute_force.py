"""The truth about a value function of few units: all 2^n masks, and the exact terms."""

from __future__ import annotations

import numpy as np
from einops import rearrange
from jaxtyping import Float

from mechspex.core.errors import Refused
from mechspex.core.masks import all_masks
from mechspex.core.value_function import ValuesLike, as_value_function
from mechspex.set_functions.bases import Basis, affine
from mechspex.set_functions.set_function import SetFunction

# A coefficient below this share of the values' largest spread is rounding and no term. Masked
# forwards in float32 leave such coefficients everywhere, and so does compiled attention, whose
# softmax is almost hard.
ROUNDING = 1e-3
_MOST_UNITS = 16


def truth(value_function: ValuesLike, basis: Basis | None = None) -> SetFunction:
    """The exact set function, from all 2^n masks.

    A set is a term if its coefficient for any output exceeds a thousandth of the largest spread of
    values of an output.

    Args:
        value_function: the value function, of at most 16 units.
        basis: the basis of the answer. If not given, the one with the fewest terms: ``kept``
            before ``ablated`` before ``fourier`` (p = ½).

    Raises:
        Refused: more than 16 units.
    """
    value_function = as_value_function(value_function)
    if value_function.n_units > _MOST_UNITS:
        raise Refused(
            f"{value_function.n_units} units have 2^{value_function.n_units} masks; brute force "
            f"takes at most {_MOST_UNITS} units"
        )
    return exact_terms(value_function(all_masks(value_function.n_units)), basis)


def exact_terms(table: Float[np.ndarray, "mask output"], basis: Basis | None = None) -> SetFunction:
    """The terms of a complete table of values.

    Args:
        table: the values of all 2^n masks, in the order of `all_masks`.
        basis: the basis of the answer; the one with the fewest terms if not given.
    """
    values = table.astype(np.float64)
    n_units = (len(values) - 1).bit_length()
    threshold = ROUNDING * np.ptp(values, axis=0).max()
    bases = ("kept", "ablated", "fourier") if basis is None else (basis,)
    by_basis = {basis: coefficients(values, basis) for basis in bases}
    present = {basis: np.abs(c).max(axis=1) > threshold for basis, c in by_basis.items()}
    shortest = min(bases, key=lambda basis: present[basis][1:].sum())
    present[shortest][0] = True
    terms = {
        term_of(row): by_basis[shortest][row] for row in np.flatnonzero(present[shortest]).tolist()
    }
    return SetFunction.from_mapping(n_units, terms, basis=shortest)


def coefficients(
    table: Float[np.ndarray, "mask output"], basis: Basis
) -> Float[np.ndarray, "term output"]:
    """The coefficient of every set of units; row b is the set of the bits of b.

    Let φ(m) = a·m + b be the factor of the basis, and f₀ and f₁ the values where one unit is
    ablated and kept. Then c₁ = (f₁ − f₀)/a and c₀ = f₀ − b·c₁. This is done for one unit after the
    other. The constant comes first.

    Args:
        table: the values of all 2^n masks, in the order of `all_masks`.
        basis: the basis of the coefficients.
    """
    slope, offset = affine(basis, 0.5)
    transformed = table.astype(np.float64)
    for unit in range((len(table) - 1).bit_length()):
        # A view, so that what is written to it is written to the table.
        pairs = rearrange(
            transformed, "(above pair below) output -> above pair below output", pair=2,
            below=2**unit,
        )  # fmt: skip
        with_unit = (pairs[:, 1] - pairs[:, 0]) / slope
        pairs[:, 0] -= offset * with_unit
        pairs[:, 1] = with_unit
    return transformed


def term_of(row: int) -> tuple[int, ...]:
    """The set of the bits of a row number."""
    return tuple(unit for unit in range(row.bit_length()) if row >> unit & 1)
