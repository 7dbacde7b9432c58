"""The seam between models and mathematics: masks in, values out."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, cast

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.backward_rules import BackwardRules
from mechspex.core.checks import told
from mechspex.core.doors import door
from mechspex.core.errors import Refused, ShapeError
from mechspex.core.identity import Identity
from mechspex.core.masks import check_masks
from mechspex.core.recipe import Recipe, import_path, imported
from mechspex.core.units import UnitSet, as_parts


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
        return {"function": str(Identity.of(self)), "units": " ".join(self.units.names)}

    @property
    def recipe(self) -> Recipe:
        """How another process makes the same value function.

        Raises:
            Refused: it cannot.
        """
        raise without_recipe(self)

    @property
    def in_own_dtype(self) -> ValueFunction:
        """The same values in the model's own dtype; the value function itself if they are."""
        return self

    @property
    def first_batch(self) -> int:
        """How many masks are measured before it is known how long one takes."""
        return 1

    def in_turn(self) -> AbstractContextManager[None]:
        """A context in which masks are given a few at a time, in an order in which neighbours begin
        alike: what the last of them left behind may serve the next."""
        return nullcontext()

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

    def with_backward(self, rules: BackwardRules) -> ValueFunction:
        """The same values, with gradients by other rules than the chain rule.

        Raises:
            Refused: it knows no model in which rules could act.
        """
        if not rules:
            return self
        raise Refused(
            f"{type(self).__name__} has gradients by the chain rule alone, not by {rules}; screen "
            "by 'first_order' or 'second_order'"
        )


def without_gradients(value_function: object) -> Refused:
    """What is raised where gradients are asked of a value function that has none."""
    return Refused(
        f"{type(value_function).__name__} has no value_and_gradient, which this screen needs; "
        "give it one, or screen by 'ablation'"
    )


def without_recipe(value_function: object) -> Refused:
    """What is raised where a value function is to be made anew that does not say how."""
    return Refused(
        f"{type(value_function).__name__} does not say how a worker makes it; give it a `recipe`, "
        "a mechspex.Recipe, or measure without an executor"
    )


ValuesLike = ValueFunction | Callable[[np.ndarray], np.ndarray]
"""What doors take: a value function, or an object of its shape (see `as_value_function`)."""


def values_of(
    returned: object, n_masks: int, n_outputs: int | None = None
) -> Float[np.ndarray, "mask output"]:
    """What a function of masks returned as values: in single precision as they were, else in
    double precision, which keeps every digit of whole numbers as well.

    Args:
        returned: ``[mask]`` or ``[mask, output]``; an array, a list or a tensor.
        n_masks: how many masks it was given.
        n_outputs: how many outputs it has; any number if not given.

    Raises:
        ShapeError: numbers of another shape, or no real numbers.
    """
    try:
        array = np.asarray(_on_the_cpu(returned))
    except (ValueError, TypeError, RuntimeError) as error:
        raise ShapeError(f"the function returned no array of numbers ({error})") from None
    if array.dtype.kind not in "biuf":
        raise ShapeError(f"the function returned {array.dtype}; return real numbers")
    expected = "output" if n_outputs is None else n_outputs
    values = array[:, None] if array.ndim == 1 else array
    if values.ndim != 2 or len(values) != n_masks or n_outputs not in (None, values.shape[1]):
        raise ShapeError(
            f"the function returned shape {list(array.shape)} for {n_masks} masks; return "
            f"[{n_masks}] or [{n_masks}, {expected}]"
        )
    return values.astype(np.result_type(values.dtype, np.float32), copy=False)


def _on_the_cpu(returned: Any) -> Any:
    """A tensor as something that NumPy can read, wherever it lies and however short its numbers."""
    if not hasattr(returned, "detach"):
        return returned
    tensor = returned.detach().cpu()
    return tensor.float() if "bfloat16" in str(tensor.dtype) else tensor


def _as_function(name: str, given: object) -> Any:
    """Reads a function of masks."""
    if not callable(given) or isinstance(given, UnitSet):
        raise Refused(f"{name} = {told(given)}: give a function of Boolean masks [mask, unit]")
    return given


class FunctionValues(ValueFunction):
    """Any Python function of masks as a value function.

    Args:
        function: Boolean masks ``[mask, unit]`` → values ``[mask]`` or ``[mask, output]``. Its code
            and what that reads tell it from others, unless it has a `configuration`, {name: text}.
        units: what the columns stand for; see `mechspex.parts`.

    Raises:
        Refused: no units.
        ShapeError: the function's values have another shape.
    """

    # What was measured or timed is no part of which function it is.
    _aside: ClassVar = ("_clean", "_seconds", "_changing", "_n_outputs")

    @door(function=_as_function, units=as_parts)
    def __init__(
        self,
        function: Callable[[Bool[np.ndarray, "mask unit"]], np.ndarray],
        units: UnitSet | Iterable[object] | int,
    ) -> None:
        units = as_parts("units", units)
        if not len(units):
            raise Refused("there are no units; a value function needs at least one")
        self._units = units
        self._function = function
        before = _identity(function)
        start = time.perf_counter()
        self._clean = values_of(function(np.ones((1, len(units)), dtype=bool)), 1)[0]
        self._seconds = time.perf_counter() - start
        self._changing = () if before is None else before.differing(Identity.of(function))
        self._n_outputs = len(self._clean)

    @property
    def units(self) -> UnitSet:
        return self._units

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(f"output {number}" for number in range(self._n_outputs))

    @property
    def first_batch(self) -> int:
        """As many masks as take about a second."""
        return max(1, int(1 / max(self._seconds, 1e-9)))

    @property
    def configuration(self) -> dict[str, str]:
        clean = " ".join(f"{value:.5g}" for value in self._clean)
        told = _configuration(self._function, self.units, self._changing)
        return told | {"clean": clean}

    @property
    def recipe(self) -> Recipe:
        given = {"function": import_path(self._function), "units": self._units.to_list()}
        return Recipe(import_path(_function_values), given)

    def __call__(self, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, "mask output"]:
        masks = check_masks(masks, self.n_units)
        # A copy: what the function writes into its masks is no mask that was asked for.
        return values_of(self._function(masks.copy()), len(masks), self._n_outputs)


def _function_values(function: str, units: list[list[Any]]) -> FunctionValues:
    """Follows the recipe of `FunctionValues`."""
    return FunctionValues(imported(function), UnitSet.from_list(units))


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
    def recipe(self) -> Recipe:
        told = getattr(self._own, "recipe", None)
        if told is None:
            raise without_recipe(self._own)
        return told

    @property
    def in_own_dtype(self) -> ValueFunction:
        exact = getattr(self._own, "in_own_dtype", self._own)
        return self if exact is self._own else as_value_function(exact)

    @property
    def differentiable(self) -> bool:
        return getattr(self._own, "value_and_gradient", None) is not None

    def __call__(self, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, "mask output"]:
        return self._own(masks.copy())

    def value_and_gradient(
        self, masks: Float[np.ndarray, "mask unit"]
    ) -> tuple[Float[np.ndarray, "mask output"], Float[np.ndarray, "mask output unit"]]:
        if not self.differentiable:
            raise without_gradients(self._own)
        return self._own.value_and_gradient(masks.copy())


def _configuration(
    function: object, units: UnitSet, changing: Collection[str] = ()
) -> dict[str, str]:
    """What a function says that its values depend on, else which function it is.

    Args:
        function: the function.
        units: what it is a function of.
        changing: what it reads and changes itself as it is called, such as a counter.
    """
    identity = _identity(function)
    if identity is None:
        told = cast(Any, function).configuration
    else:
        told = {"function": str(identity.without(changing))}
    return told | {"units": " ".join(units.names)}


def _identity(function: object) -> Identity | None:
    """Which function it is; None where it says itself what its values depend on."""
    told = getattr(function, "configuration", None)
    return None if isinstance(told, dict) else Identity.of(function)


def configuration_of(value_function: ValuesLike) -> dict[str, str]:
    """What the values depend on, as far as the value function can say."""
    return as_value_function(value_function).configuration


def in_own_dtype(value_function: ValuesLike) -> ValueFunction:
    """The value function that measures in the model's own dtype, where there is a difference."""
    return as_value_function(value_function).in_own_dtype


def as_values(name: str, given: object) -> Any:
    """Reads a value function, or a plain function of masks that is still to get its units.

    Raises:
        Refused: something that is neither.
    """
    if isinstance(given, ValueFunction):
        return given
    if hasattr(given, "state_dict") and not hasattr(given, "units"):
        raise Refused(
            f"{name} = {told(given)} is a model; make it a value function of a task and units: "
            "ComponentValues(model, task, heads(model))"
        )
    if not callable(given):
        raise Refused(
            f"{name} = {told(given)}: {type(given).__name__} is no value function; give "
            "ComponentValues(…), or a "
            "function of Boolean masks together with units=mechspex.parts([...])"
        )
    return given


def as_value_function(value_function: object, units: object = None) -> ValueFunction:
    """`value_function` as a `ValueFunction`, at every door where a user hands one in.

    A `ValueFunction` is returned as it is. An object of the same shape (`units`, `outputs`, and
    callable; maybe `configuration`, `in_own_dtype` and `value_and_gradient`) is wrapped, and so is
    a plain function of masks, together with its `units`.

    Raises:
        Refused: a plain function without units, or something that is none of these.
    """
    if isinstance(value_function, ValueFunction):
        return value_function
    value_function = as_values("value_function", value_function)
    if isinstance(getattr(value_function, "units", None), UnitSet):
        return _ForeignValues(value_function)
    if units is None:
        raise Refused("a plain function does not tell its units; add units=mechspex.parts([...])")
    function = cast(Callable[[np.ndarray], np.ndarray], value_function)
    return FunctionValues(function, as_parts("units", units))
