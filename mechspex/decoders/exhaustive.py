"""Exhaustive decoder: the exact transform of all 2^n values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mechspex.core.errors import BudgetError, Refused
from mechspex.core.units import Term
from mechspex.decoders.decoder import Decoder, Samples
from mechspex.set_functions.r_squared import rounding
from mechspex.set_functions.set_function import SetFunction

_MOST_UNITS = 20


@dataclass(frozen=True, repr=False)
class Exhaustive(Decoder):
    """The Walsh–Hadamard transform, generalised to fourier(p), of a complete table of values.

    One butterfly a unit: (f₀, f₁) → (q·f₀ + p·f₁, σ(f₁ − f₀)), with f₀ and f₁ the values where
    the unit is ablated and kept, q = 1 − p and σ = √(pq). It takes n·2ⁿ operations. Masks that were
    measured more than once count with their mean.
    """

    name: ClassVar[str] = "exhaustive"
    needs_design: ClassVar[bool] = True

    def minimum_masks(self, n_units: int) -> int:
        if n_units > _MOST_UNITS:
            raise Refused(
                f"decoder 'exhaustive' needs all 2^n masks: at most {_MOST_UNITS} units, not "
                f"{n_units}; choose fewer units or another decoder"
            )
        return 2**n_units

    def fit(self, samples: Samples) -> SetFunction:
        n_units, keep = samples.n_units, samples.keep
        index = samples.masks @ (1 << np.arange(n_units))
        counts = np.bincount(index, minlength=2**n_units)
        missing = int((counts == 0).sum())
        if missing:
            raise BudgetError(
                f"{missing} of the 2^{n_units} = {2**n_units} masks are missing, decoder "
                "'exhaustive' needs at least one of each; measure them or choose another decoder"
            )
        table = np.zeros((2**n_units, samples.values.shape[1]))
        np.add.at(table, index, samples.values)
        table /= counts[:, None]
        sigma = np.sqrt(keep * (1 - keep))
        for unit in range(n_units):
            # Bit `unit` of the index is the second axis.
            pairs = table.reshape(-1, 2, 2**unit, samples.values.shape[1])
            ablated, kept = pairs[:, 0].copy(), pairs[:, 1].copy()
            pairs[:, 0] = (1 - keep) * ablated + keep * kept
            pairs[:, 1] = sigma * (kept - ablated)
        largest_order = samples.order_up_to(n_units)
        sizes = np.abs(table).max(axis=1)
        present = np.flatnonzero(sizes > rounding(samples.values))
        terms: dict[Term, np.ndarray] = {}
        for index in present.tolist():
            if index.bit_count() <= largest_order:
                units = tuple(i for i in range(n_units) if index >> i & 1)
                terms[units] = table[index]
        return samples.function({(): table[0]} | terms)
