"""The truth about a value function of few units: all 2^n masks, and the exact terms."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from mechspex.core.masks import all_masks
from mechspex.core.value_function import ValueFunction
from mechspex.errors import Refused
from mechspex.set_functions.set_function import Basis, SetFunction, affine

# A coefficient below this share of the values' largest spread is rounding and no term: masked
# forwards in float32, and compiled attention that is hard up to a softmax, leave some everywhere.
ROUNDING = 1e-3
_MOST_UNITS = 16


def truth(value_function: ValueFunction, basis: Basis | None = None) -> SetFunction:
    """The exact set function, from all 2^n masks.

    A term counts where its coefficient, of any output, exceeds a thousandth of the largest spread
    of values of an output.

    Args:
        basis: of the answer; the one with the fewest terms if not given, ``kept`` before
            ``ablated`` before ``fourier`` (p = ½).

    Raises:
        Refused: more than 16 units.
    """
    if value_function.n_units > _MOST_UNITS:
        raise Refused(
            f"{value_function.n_units} units have 2^{value_function.n_units} masks; brute force "
            f"takes at most {_MOST_UNITS} units"
        )
    return exact_terms(value_function(all_masks(value_function.n_units)), basis)


def exact_terms(table: Float[np.ndarray, "mask output"], basis: Basis | None = None) -> SetFunction:
    """The terms of a complete table of values, in the order of `all_masks`."""
    values = table.astype(np.float64)
    n_units = (len(values) - 1).bit_length()
    least = ROUNDING * np.ptp(values, axis=0).max()
    bases = ("kept", "ablated", "fourier") if basis is None else (basis,)
    found = {basis: coefficients(values, basis) for basis in bases}
    present = {basis: np.abs(c).max(axis=1) > least for basis, c in found.items()}
    shortest = min(bases, key=lambda basis: present[basis][1:].sum())
    present[shortest][0] = True
    terms = {
        term_of(row): found[shortest][row] for row in np.flatnonzero(present[shortest]).tolist()
    }
    return SetFunction.from_mapping(n_units, terms, basis=shortest)


def coefficients(
    table: Float[np.ndarray, "mask output"], basis: Basis
) -> Float[np.ndarray, "term output"]:
    """The coefficient of every set of units; row b is the set of the bits of b.

    With φ(m) = a·m + b the factor of a basis, f₀ and f₁ the values where one unit is ablated and
    kept: c₁ = (f₁ − f₀)/a, c₀ = f₀ − b·c₁; one unit after the other. The constant comes first.
    """
    slope, offset = affine(basis, 0.5)
    found = table.astype(np.float64)
    for unit in range((len(table) - 1).bit_length()):
        pairs = found.reshape(-1, 2, 2**unit, table.shape[1])
        with_unit = (pairs[:, 1] - pairs[:, 0]) / slope
        pairs[:, 0] -= offset * with_unit
        pairs[:, 1] = with_unit
    return found


def term_of(row: int) -> tuple[int, ...]:
    """The set of the bits of a row number."""
    return tuple(unit for unit in range(row.bit_length()) if row >> unit & 1)
