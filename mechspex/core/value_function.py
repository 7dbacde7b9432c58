"""The seam between models and mathematics: masks in, values out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.errors import Refused, ShapeError
from mechspex.core.masks import check_masks
from mechspex.core.units import UnitSet


class ValueFunction(ABC):
    """Anything that measures masks; decoders, executors and workflows rely on no more than this.

    A subclass has `units`, `outputs` and `__call__`, and overrides what it can do beyond that. A
    class of the same shape that is no subclass is taken as well, see `as_value_function`.
    """

    @property
    @abstractmethod
    def units(self) -> UnitSet:
        """What the columns of a mask stand for."""

    @property
    @abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """A name for each column of the values (one a prompt, for a model)."""

    @abstractmethod
    def __call__(
        self, masks: Bool[np.ndarray, "mask unit"]
    ) -> Float[np.ndarray, "mask output"]: ...

    @property
    def n_units(self) -> int:
        return len(self.units)

    @property
    def configuration(self) -> dict[str, str]:
        """Everything a value depends on but the mask, by name, so that values are kept safely."""
        return _configuration(self, self.units)

    @property
    def in_own_dtype(self) -> ValueFunction:
        """The same values in the model's own dtype; the value function itself if they are."""
        return self

    @property
    def differentiable(self) -> bool:
        """Whether it is defined between 0 and 1 as well, and knows its slope there."""
        return type(self).value_and_gradient is not ValueFunction.value_and_gradient

    def value_and_gradient(
        self, masks: Float[np.ndarray, "mask unit"]
    ) -> tuple[Float[np.ndarray, "mask output"], Float[np.ndarray, "mask output unit"]]:
        """Values of soft masks, and ∂ value[m, j] / ∂ m_i.

        Raises:
            Refused: the value function has no gradients.
        """
        raise without_gradients(self)

    def value_and_mean_gradient(
        self, masks: Float[np.ndarray, "mask unit"]
    ) -> tuple[Float[np.ndarray, "mask output"], Float[np.ndarray, "mask unit"]]:
        """Values of soft masks, and the gradient of their mean over outputs.

        Raises:
            Refused: the value function has no gradients.
        """
        values, gradients = self.value_and_gradient(masks)
        return values, gradients.mean(axis=1)


def without_gradients(value_function: object) -> Refused:
    """What is raised where gradients are asked of a value function that has none."""
    return Refused(
        f"{type(value_function).__name__} has no value_and_gradient, which this screen needs; "
        "give it one, or screen by 'ablation'"
    )


ValuesLike = ValueFunction | Callable[[np.ndarray], np.ndarray]
"""What doors take: a value function, or an object of its shape (see `as_value_function`)."""


class FunctionValues(ValueFunction):
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
        self._units = units
        self._function = function
        self._clean = self._measure(np.ones((1, len(units)), dtype=bool))[0]
        self._n_outputs = len(self._clean)

    @property
    def units(self) -> UnitSet:
        return self._units

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


class _ForeignValues(ValueFunction):
    """A value function of somebody's own class: it has the shape, and maybe more of the seam."""

    def __init__(self, own: Any) -> None:
        self._own = own

    @property
    def units(self) -> UnitSet:
        return self._own.units

    @property
    def outputs(self) -> tuple[str, ...]:
        return self._own.outputs

    @property
    def configuration(self) -> dict[str, str]:
        told = getattr(self._own, "configuration", None)
        return _configuration(self._own, self.units) if told is None else told

    @property
    def in_own_dtype(self) -> ValueFunction:
        exact = getattr(self._own, "in_own_dtype", self._own)
        return self if exact is self._own else as_value_function(exact)

    @property
    def differentiable(self) -> bool:
        return getattr(self._own, "value_and_gradient", None) is not None

    def __call__(self, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, "mask output"]:
        return self._own(masks)

    def value_and_gradient(
        self, masks: Float[np.ndarray, "mask unit"]
    ) -> tuple[Float[np.ndarray, "mask output"], Float[np.ndarray, "mask output unit"]]:
        if not self.differentiable:
            raise without_gradients(self._own)
        return self._own.value_and_gradient(masks)


def name_of(function: object) -> str:
    """Module and name of a function or method; of the class of any other callable."""
    named = function if isinstance(function, FunctionType | MethodType) else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _configuration(function: object, units: UnitSet) -> dict[str, str]:
    return {"function": name_of(function), "units": " ".join(units.names)}


def configuration_of(value_function: ValuesLike) -> dict[str, str]:
    """What the values depend on, as far as the value function can say."""
    return as_value_function(value_function).configuration


def in_own_dtype(value_function: ValuesLike) -> ValueFunction:
    """The value function that measures in the model's own dtype, where there is a difference."""
    return as_value_function(value_function).in_own_dtype


def as_value_function(value_function: object, units: UnitSet | None = None) -> ValueFunction:
    """`value_function` as a `ValueFunction`, at every door where a user hands one in.

    A `ValueFunction` is returned as it is. An object of the same shape (`units`, `outputs`, and
    callable; maybe `configuration`, `in_own_dtype` and `value_and_gradient`) is wrapped, and so is
    a plain function of masks, together with its `units`.

    Raises:
        Refused: a plain function without units, or something that is none of these.
    """
    if isinstance(value_function, ValueFunction):
        return value_function
    if not callable(value_function):
        raise Refused(
            f"{type(value_function).__name__} is no value function; give ComponentValues(…), or a "
            "function of Boolean masks together with units=mechspex.parts([...])"
        )
    if isinstance(getattr(value_function, "units", None), UnitSet):
        return _ForeignValues(value_function)
    if units is None:
        raise Refused("a plain function does not tell its units; add units=mechspex.parts([...])")
    return FunctionValues(cast(Callable[[np.ndarray], np.ndarray], value_function), units)
