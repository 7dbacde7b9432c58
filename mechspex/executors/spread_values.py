"""A value function that an executor's workers measure: the same seam."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from mechspex.core.errors import ShapeError
from mechspex.core.masks import check_masks, pack
from mechspex.core.recipe import Recipe
from mechspex.core.units import UnitSet
from mechspex.core.value_function import ValueFunction, without_gradients
from mechspex.executors.measurer import EACH, MEAN, VALUES
from mechspex.executors.messages import packed
from mechspex.executors.work import Pace, Work


@runtime_checkable
class Answers(Protocol):
    """What measures: `mechspex.executors.pool.Pool`."""

    @property
    def n_workers(self) -> int: ...

    def answers(self, work: Work) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]: ...


class SpreadValues(ValueFunction):
    """A value function whose masks are measured by workers; what it is, is asked of the own one.

    A value is the worker's: bit for bit that of the value function here where a mask's value does
    not depend on the batch, up to rounding where it does (a product of other sizes may take another
    order of sums).

    Args:
        values: the value function; it has a recipe.
        pool: the workers.

    Raises:
        Refused: another process cannot make the value function.
    """

    def __init__(self, values: ValueFunction, pool: Answers) -> None:
        self._values = values
        self._pool = pool
        self._recipe = values.recipe
        self._sent = self._recipe.to_dict()
        self._paces = {
            ask: Pace(max(1, first))
            for ask, first in ((VALUES, values.first_batch), (EACH, 1), (MEAN, 1))
        }

    @property
    def units(self) -> UnitSet:
        return self._values.units

    @property
    def outputs(self) -> tuple[str, ...]:
        return self._values.outputs

    @property
    def configuration(self) -> dict[str, str]:
        return self._values.configuration

    @property
    def recipe(self) -> Recipe:
        return self._recipe

    @property
    def in_own_dtype(self) -> ValueFunction:
        own = self._values.in_own_dtype
        return self if own is self._values else SpreadValues(own, self._pool)

    @property
    def first_batch(self) -> int:
        return self._values.first_batch

    @property
    def differentiable(self) -> bool:
        return self._values.differentiable

    @property
    def seconds_a_mask(self) -> float:
        """The seconds a mask when all workers measure, by the last answer; 0 before the first."""
        return self._paces[VALUES].each / self._pool.n_workers

    def as_they_come(
        self, masks: Bool[np.ndarray, "mask unit"]
    ) -> Iterator[tuple[Int[np.ndarray, " row"], Float[np.ndarray, "row output"]]]:
        """Rows of `masks` and their values, in the order in which workers have them.

        Raises:
            WorkerError: workers are lost again and again.
        """
        masks = check_masks(masks, self.n_units)
        for rows, (values,) in self._answers(VALUES, pack(masks)):
            yield rows, values

    def __call__(self, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, "mask output"]:
        masks = check_masks(masks, self.n_units)
        if not len(masks):
            return self._values(masks)
        return self._in_order(VALUES, pack(masks))[0]

    def value_and_gradient(
        self, masks: Float[np.ndarray, "mask unit"]
    ) -> tuple[Float[np.ndarray, "mask output"], Float[np.ndarray, "mask output unit"]]:
        values, gradients = self._in_order(EACH, self._soft(masks))
        return values, gradients

    def value_and_mean_gradient(
        self, masks: Float[np.ndarray, "mask unit"]
    ) -> tuple[Float[np.ndarray, "mask output"], Float[np.ndarray, "mask unit"]]:
        values, gradients = self._in_order(MEAN, self._soft(masks))
        return values, gradients

    def _soft(self, masks: np.ndarray) -> np.ndarray:
        if not self.differentiable:
            raise without_gradients(self._values)
        soft = np.ascontiguousarray(masks, dtype=np.float32)
        if soft.ndim != 2 or soft.shape[1] != self.n_units or not len(soft):
            raise ShapeError(
                f"soft masks have shape {list(soft.shape)}, expected [mask, {self.n_units}], "
                "one mask or more"
            )
        return soft

    def _in_order(self, ask: str, masks: np.ndarray) -> list[np.ndarray]:
        parts = list(self._answers(ask, masks))
        order = np.argsort(np.concatenate([rows for rows, _ in parts]))
        arrays = zip(*(arrays for _, arrays in parts), strict=True)
        return [np.concatenate(alike)[order] for alike in arrays]

    def _answers(
        self, ask: str, masks: np.ndarray
    ) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        # Read anew: weights and hooks may have changed since the workers made theirs.
        made_by = _made_by(self._sent, self.configuration)
        return self._pool.answers(Work(made_by, ask, masks, self._paces[ask]))


def _made_by(recipe: dict[str, object], configuration: dict[str, str]) -> tuple[str, bytes]:
    """The name of a value function among workers, and the request by which one makes it."""
    text = json.dumps([recipe, configuration], sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    return name, packed({"recipe": recipe, "configuration": configuration, "of": name})
