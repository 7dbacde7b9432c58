"""What is judged: functions that predict the value of a mask, by the name of their method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mechspex.attribution.attribution import Attribution
from mechspex.core.checks import told
from mechspex.core.errors import Refused, ShapeError
from mechspex.core.units import UnitSet
from mechspex.core.value_function import values_of
from mechspex.set_functions.set_function import SetFunction

Predict = Callable[[Bool[np.ndarray, "mask unit"]], np.ndarray]
"""Boolean masks ``[mask, unit]`` → what is predicted, ``[mask]`` or ``[mask, output]``."""

_WANTED = (
    "a SetFunction, an explanation, an attribution or one score a unit; or several of them, "
    "{method: one of these}"
)


def as_predictions(name: str, given: object) -> dict[str, SetFunction | Predict]:
    """Reads predictions by the name of their method; one alone is named after what it is.

    Raises:
        Refused: something that predicts nothing.
    """
    if not isinstance(given, Mapping):
        given = {_called(given): given}
    if not given:
        raise Refused(f"{name} is empty; give {_WANTED}")
    return {str(method): _predicts(name, one) for method, one in given.items()}


def as_functions(name: str, given: object) -> dict[str, SetFunction]:
    """Reads predictions that are set functions, from which the best sets can be read off.

    Raises:
        Refused: something that is no set function and has none.
    """
    found = as_predictions(name, given)
    for method, one in found.items():
        if not isinstance(one, SetFunction):
            raise Refused(f"{name}[{method!r}] is a plain function of masks; give {_WANTED}")
    return found  # type: ignore[return-value]


def ranked(units: UnitSet, ranking: Sequence[int | str], method: str = "ranking") -> Attribution:
    """A ranking as an attribution: n for the first unit, 1 for the last.

    Args:
        units: the units that are ranked.
        ranking: all of them by column or by name, those that raise the value most first.
        method: what made the ranking.

    Raises:
        Refused: a unit that is missing or listed twice.
    """
    columns = [units.columns([one])[0] if isinstance(one, str) else one for one in ranking]
    if sorted(columns) != list(range(len(units))):
        raise Refused(f"a ranking of {len(columns)} units; list each of {len(units)} units once")
    scores = np.empty((len(units), 1))
    scores[columns, 0] = np.arange(len(units), 0, -1)
    return Attribution(method, units, ("rank",), scores, np.zeros(1), 0)


def predicted(
    method: str, function: SetFunction | Predict, masks: Bool[np.ndarray, "mask unit"], n: int
) -> Float[np.ndarray, "mask output"]:
    """What a method predicts for each mask and output; one for all outputs is repeated.

    Args:
        method: the name of the method, for the message.
        function: what it predicts with.
        masks: True = kept.
        n: how many outputs there are.

    Raises:
        ShapeError: masks of another width, or another number of outputs.
    """
    if isinstance(function, SetFunction):
        found = function.predict_outputs(masks)
    else:
        found = values_of(function(masks), len(masks)).astype(np.float64)
    if found.shape[1] not in (1, n):
        raise ShapeError(f"{method} predicts {found.shape[1]} outputs; the values have {n}")
    return np.broadcast_to(found, (len(masks), n))


def check_widths(functions: Mapping[str, SetFunction | Predict], units: UnitSet) -> None:
    """Refuse set functions of another number of units.

    Raises:
        ShapeError: a function of wider or narrower masks.
    """
    for method, one in functions.items():
        if isinstance(one, SetFunction) and one.n_units != len(units):
            raise ShapeError(
                f"{method} is a function of {one.n_units} units, the values of {len(units)}; give "
                "both the same units"
            )


def _called(given: object) -> str:
    if isinstance(given, Attribution):
        return given.method
    named = type(given).__name__
    return "scores" if isinstance(given, np.ndarray | list | tuple) else named.lower()


def _predicts(name: str, given: Any) -> Any:
    if isinstance(given, SetFunction):
        return given
    # Explanations, recoveries and attributions.
    if isinstance(getattr(given, "function", None), SetFunction):
        return given.function
    if callable(given):
        return given
    try:
        scores = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise Refused(f"{name} = {told(given)}: give {_WANTED}") from None
    if scores.ndim not in (1, 2) or not len(scores) or not np.isfinite(scores).all():
        raise Refused(f"{name} = {told(given)}: give {_WANTED}")
    terms = tuple((column,) for column in range(len(scores)))
    return SetFunction(len(scores), terms, scores, "kept")
