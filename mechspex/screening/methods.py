"""The methods of a screen by their names."""

from __future__ import annotations

from typing import Any, Literal, get_args

from mechspex.core.checks import Only
from mechspex.core.errors import Refused
from mechspex.screening.coarse_to_fine import CoarseToFine
from mechspex.screening.gradient_attribution import GIM, AtPStar, FirstOrder, Integrated, RelP
from mechspex.screening.iterated import Iterated
from mechspex.screening.screen_method import ScreenMethod
from mechspex.screening.second_order import SecondOrder

MethodName = Literal[
    "first_order", "second_order", "ablation", "integrated", "iterated", "gim", "relp", "atp_star"
]

METHODS: dict[str, type[ScreenMethod]] = {
    method.name: method
    for method in (
        FirstOrder,
        SecondOrder,
        CoarseToFine,
        Integrated,
        Iterated,
        GIM,
        RelP,
        AtPStar,
    )
}


def as_method(name: str, given: object) -> Any:
    """Reads a method of screening, or the name of one; Refused: something else."""
    wanted = f"{', '.join(get_args(MethodName))}, or a method such as SecondOrder(max_order=3)"
    return Only((str, ScreenMethod), wanted)(name, given)


def find_method(method: str | ScreenMethod) -> ScreenMethod:
    """The method of that name; a method is returned as it is.

    Raises:
        Refused: an unknown name.
    """
    if isinstance(method, ScreenMethod):
        return method
    if method not in METHODS:
        raise Refused(f"method = {method!r}: choose {', '.join(get_args(MethodName))}")
    return METHODS[method]()
