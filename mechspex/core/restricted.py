"""A value function of some of its units: the others are always kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from mechspex.core.errors import ShapeError
from mechspex.core.masks import check_masks
from mechspex.core.recipe import Recipe, import_path
from mechspex.core.units import UnitSet
from mechspex.core.value_function import ValueFunction, ValuesLike, as_value_function


class RestrictedValues(ValueFunction):
    """The value function with all units but `columns` kept.

    Args:
        value_function: the value function of all units.
        columns: the units that masks here keep or ablate, in this order.
    """

    def __init__(self, value_function: ValuesLike, columns: Sequence[int]) -> None:
        self._whole = as_value_function(value_function)
        self._columns = np.asarray(columns, dtype=np.int64)
        self._units = UnitSet(tuple(self._whole.units[int(column)] for column in columns))

    @property
    def units(self) -> UnitSet:
        return self._units

    @property
    def outputs(self) -> tuple[str, ...]:
        return self._whole.outputs

    @property
    def in_own_dtype(self) -> RestrictedValues:
        """The same values in the model's own dtype."""
        own = self._whole.in_own_dtype
        return self if own is self._whole else RestrictedValues(own, self._columns.tolist())

    @property
    def configuration(self) -> dict[str, str]:
        """That of the whole, and which units it is restricted to."""
        return self._whole.configuration | {"restricted to": " ".join(self.units.names)}

    @property
    def recipe(self) -> Recipe:
        whole = self._whole.recipe
        given = {"whole": whole.to_dict(), "columns": self._columns.tolist()}
        return Recipe(import_path(_restricted), given, whole.loads)

    @property
    def first_batch(self) -> int:
        return self._whole.first_batch

    @property
    def differentiable(self) -> bool:
        return self._whole.differentiable

    def __call__(self, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, "mask output"]:
        return self._whole(self.widened(check_masks(masks, self.n_units)))

    def value_and_gradient(
        self, masks: Float[np.ndarray, "mask unit"]
    ) -> tuple[Float[np.ndarray, "mask output"], Float[np.ndarray, "mask output unit"]]:
        values, gradients = self._whole.value_and_gradient(self._soft(masks))
        return values, gradients[..., self._columns]

    def value_and_mean_gradient(
        self, masks: Float[np.ndarray, "mask unit"]
    ) -> tuple[Float[np.ndarray, "mask output"], Float[np.ndarray, "mask unit"]]:
        values, gradients = self._whole.value_and_mean_gradient(self._soft(masks))
        return values, gradients[:, self._columns]

    def _soft(self, masks: Float[np.ndarray, "mask unit"]) -> Float[np.ndarray, "mask all_units"]:
        if masks.ndim != 2 or masks.shape[1] != self.n_units:
            raise ShapeError(
                f"soft masks have shape {list(masks.shape)}, expected [mask, {self.n_units}]"
            )
        return self.widened(masks.astype(np.float32))

    def widened(
        self, masks: Shaped[np.ndarray, "mask unit"]
    ) -> Shaped[np.ndarray, "mask all_units"]:
        """The masks, Boolean or soft, over all units."""
        whole = np.ones((len(masks), self._whole.n_units), dtype=masks.dtype)
        whole[:, self._columns] = masks
        return whole


def _restricted(whole: Mapping[str, Any], columns: list[int]) -> RestrictedValues:
    """Follows the recipe of `RestrictedValues`."""
    return RestrictedValues(Recipe(**whole).make(), columns)
