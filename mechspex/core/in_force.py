"""Which executor measures: the one of the innermost ``with`` block; none where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from mechspex.core.value_function import ValueFunction


@runtime_checkable
class Streams(Protocol):
    """A value function whose answers come in any order, as its workers are done with them."""

    @property
    def seconds_a_mask(self) -> float:
        """The seconds a mask takes once all workers are there, by the last answer."""
        ...

    def as_they_come(
        self, masks: Bool[np.ndarray, "mask unit"]
    ) -> Iterator[tuple[Int[np.ndarray, " row"], Float[np.ndarray, "row output"]]]:
        """Rows of `masks` and their values; every row once."""
        ...


@runtime_checkable
class Spreads(Protocol):
    """What an executor does with a value function."""

    def on(self, values: ValueFunction) -> ValueFunction:
        """The same value function, measured by the executor's workers."""
        ...


IN_FORCE: ContextVar[Spreads | None] = ContextVar("executor", default=None)


def spread(values: ValueFunction) -> ValueFunction:
    """The value function, measured by the executor in force; as it is where there is none."""
    executor = IN_FORCE.get()
    return values if executor is None or isinstance(values, Streams) else executor.on(values)
