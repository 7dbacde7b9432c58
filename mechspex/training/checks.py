"""Numbers that ways to train are told, checked in the same words everywhere."""

from __future__ import annotations

import math

from mechspex.core.checks import number_in, told
from mechspex.core.errors import Refused


def check_positive(name: str, given: object, *, zero: bool = False) -> None:
    """Refuse what is not a finite number above zero, or at zero where that is allowed."""
    number = number_in(given)
    if number is None or not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        least = "of at least 0" if zero else "above 0"
        raise Refused(f"{name} = {told(given)}: give a number {least}")
