"""A value function of some of its units: the others are always kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.masks import check_masks
from mechspex.core.units import UnitSet
from mechspex.core.value_function import ValueFunction, configuration_of, in_own_dtype


class RestrictedValues:
    """The value function with all units but `columns` kept.

    Args:
        value_function: of all units.
        columns: the units that masks here keep or ablate, in this order.
    """

    def __init__(self, value_function: ValueFunction, columns: Sequence[int]) -> None:
        self._whole = value_function
        self._columns = np.asarray(columns, dtype=np.int64)
        self.units = UnitSet(tuple(value_function.units[int(column)] for column in columns))

    @property
    def n_units(self) -> int:
        return len(self.units)

    @property
    def outputs(self) -> tuple[str, ...]:
        return self._whole.outputs

    @property
    def in_own_dtype(self) -> RestrictedValues:
        """The same values in the model's own dtype."""
        own = in_own_dtype(self._whole)
        return self if own is self._whole else RestrictedValues(own, self._columns.tolist())

    @property
    def configuration(self) -> dict[str, str]:
        """That of the whole, and which units it is restricted to."""
        return configuration_of(self._whole) | {"restricted to": " ".join(self.units.names)}

    def __call__(self, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, "mask output"]:
        return self._whole(self.widened(check_masks(masks, self.n_units)))

    def widened(self, masks: Bool[np.ndarray, "mask unit"]) -> Bool[np.ndarray, "mask all_units"]:
        """The masks over all units."""
        whole = np.ones((len(masks), self._whole.n_units), dtype=bool)
        whole[:, self._columns] = masks
        return whole
