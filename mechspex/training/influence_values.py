"""What is predicted of values without retraining: an expansion in the units that are left out."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.errors import ShapeError
from mechspex.core.masks import check_masks
from mechspex.core.units import UnitSet
from mechspex.core.value_function import ValueFunction


class InfluenceValues(ValueFunction):
    """f(m) ≈ f(all) + Σ_i r_i f_i + ½ Σ_ij r_i r_j f_ij with r_i = 1 where unit i is left out.

    It is a value function, so that it can be scored (`mechspex.lds`) and explained like any other.

    Args:
        method: what made it.
        units: the units.
        outputs: the names of the value's columns.
        clean: f(all), one an output.
        singles: f_i, what leaving out each unit adds.
        pairs: f_ij; none of a first order.

    Raises:
        ShapeError: arrays that do not go with the units and outputs.
    """

    def __init__(
        self,
        method: str,
        units: UnitSet,
        outputs: tuple[str, ...],
        clean: Float[np.ndarray, " output"],
        singles: Float[np.ndarray, "unit output"],
        pairs: Float[np.ndarray, "output unit unit"] | None = None,
    ) -> None:
        n, n_outputs = len(units), len(outputs)
        if singles.shape != (n, n_outputs) or clean.shape != (n_outputs,):
            raise ShapeError(
                f"effects {list(singles.shape)} and values {list(clean.shape)} for {n} units and "
                f"{n_outputs} outputs; give one a unit and output, one an output"
            )
        self.method, self.clean, self.singles, self.pairs = method, clean, singles, pairs
        self._units, self._outputs = units, outputs

    @property
    def units(self) -> UnitSet:
        return self._units

    @property
    def outputs(self) -> tuple[str, ...]:
        return self._outputs

    @property
    def first_batch(self) -> int:
        """Nothing is trained."""
        return 1024

    def __call__(self, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, "mask output"]:
        """What is predicted of masks.

        Raises:
            ShapeError: masks of another width or dtype.
        """
        left_out = (~check_masks(masks, self.n_units)).astype(np.float64)
        found = self.clean + left_out @ self.singles
        if self.pairs is not None:
            for output, pairs in enumerate(self.pairs):
                found[:, output] += 0.5 * ((left_out @ pairs) * left_out).sum(axis=1)
        return found
