"""The seam between models and mathematics: masks in, values out."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Protocol, cast, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.masks import check_masks
from mechspex.core.units import UnitSet
from mechspex.errors import Refused, ShapeError


@runtime_checkable
class ValueFunction(Protocol):
    """Anything that measures masks; decoders, executors and workflows rely on no more than this.

    Attributes:
        units: what the columns of a mask stand for.
        outputs: a name for each column of the values (one a prompt, for a model).
    """

    @property
    def units(self) -> UnitSet: ...

    @property
    def n_units(self) -> int: ...

    @property
    def outputs(self) -> tuple[str, ...]: ...

    def __call__(
        self, masks: Bool[np.ndarray, "mask unit"]
    ) -> Float[np.ndarray, "mask output"]: ...


@runtime_checkable
class Configured(Protocol):
    """A value function that can say what it depends on, so that its values can be kept safely."""

    @property
    def configuration(self) -> dict[str, str]:
        """Everything a value depends on but the mask, by name."""
        ...


@runtime_checkable
class InAnotherPrecision(Protocol):
    """A value function that may measure in another precision than the model's own."""

    @property
    def in_own_dtype(self) -> ValueFunction:
        """The same values in the model's own dtype; the value function itself if they are."""
        ...


@runtime_checkable
class Differentiable(Protocol):
    """A value function that is defined between 0 and 1 as well, and knows its slope there."""

    def value_and_gradient(
        self, masks: Float[np.ndarray, "mask unit"]
    ) -> tuple[Float[np.ndarray, "mask output"], Float[np.ndarray, "mask output unit"]]:
        """Values of soft masks, and ∂ value[m, j] / ∂ m_i."""
        ...


class FunctionValues:
    """Any Python function of masks as a value function.

    Args:
        function: Boolean masks ``[mask, unit]`` → values ``[mask]`` or ``[mask, output]``.
        units: what the columns stand for; see `mechspex.parts`.

    Raises:
        Refused: no units.
        ShapeError: the function's values have another shape.
    """

    def __init__(
        self, function: Callable[[Bool[np.ndarray, "mask unit"]], np.ndarray], units: UnitSet
    ) -> None:
        if not len(units):
            raise Refused("there are no units; a value function needs at least one")
        self.units = units
        self._function = function
        self._clean = self._measure(np.ones((1, len(units)), dtype=bool))[0]
        self._n_outputs = len(self._clean)

    @property
    def n_units(self) -> int:
        return len(self.units)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(f"output {number}" for number in range(self._n_outputs))

    @property
    def configuration(self) -> dict[str, str]:
        # A function that was edited keeps its name; its clean value mostly tells.
        clean = " ".join(f"{value:.5g}" for value in self._clean)
        named = name_of(self._function)
        return {"function": named, "clean": clean, "units": " ".join(self.units.names)}

    def __call__(self, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, "mask output"]:
        masks = check_masks(masks, self.n_units)
        values = self._measure(masks)
        if values.shape[1] != self._n_outputs:
            raise ShapeError(
                f"the function returned {values.shape[1]} outputs a mask, {self._n_outputs} before"
            )
        return values

    def _measure(self, masks: np.ndarray) -> np.ndarray:
        returned = np.asarray(self._function(masks), dtype=np.float32)
        values = returned[:, None] if returned.ndim == 1 else returned
        if values.ndim != 2 or len(values) != len(masks):
            raise ShapeError(
                f"the function returned shape {list(returned.shape)} for masks of shape "
                f"{list(masks.shape)}; return [{len(masks)}] or [{len(masks)}, output]"
            )
        return values


def name_of(function: object) -> str:
    """Module and name of a function or method; of the class of any other callable."""
    named = function if isinstance(function, FunctionType | MethodType) else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def configuration_of(value_function: ValueFunction) -> dict[str, str]:
    """What the values depend on, as far as the value function can say."""
    if isinstance(value_function, Configured):
        return value_function.configuration
    return {"function": name_of(value_function), "units": " ".join(value_function.units.names)}


def in_own_dtype(value_function: ValueFunction) -> ValueFunction:
    """The value function that measures in the model's own dtype, where there is a difference."""
    if isinstance(value_function, InAnotherPrecision):
        return value_function.in_own_dtype
    return value_function


def as_value_function(value_function: object, units: UnitSet | None = None) -> ValueFunction:
    """`value_function` itself, or a plain function of masks together with its `units`.

    Raises:
        Refused: a plain function without units, or something that is neither.
    """
    if isinstance(value_function, ValueFunction):
        return value_function
    if not callable(value_function):
        raise Refused(
            f"{type(value_function).__name__} is no value function; give ComponentValues(…), or a "
            "function of Boolean masks together with units=mechspex.parts([...])"
        )
    if units is None:
        raise Refused("a plain function does not tell its units; add units=mechspex.parts([...])")
    return FunctionValues(cast(Callable[[np.ndarray], np.ndarray], value_function), units)
