"""What a caller hands in, read once for all doors: what can be understood is taken, the rest is
refused in the same words wherever it is asked for.

A reader takes an argument's name and what was given for it, and returns what is meant or raises a
typed error. `mechspex.core.doors` puts readers before a function.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mechspex.core.errors import Refused

Reader = Callable[[str, Any], Any]
"""(name of the argument, what was given) → what is meant."""

# Whole numbers above this are slips: no count here comes near it.
LARGEST = 10**9
# As 1e300: any larger whole number counts as this one.
_BEYOND = 10**300
_SHOWN = 60
_PLAIN = (str, bytes, int, float, complex, list, tuple, dict, set, np.generic, Path)


def told(given: object) -> str:
    """A value as a message shows it: itself where that is short, else its type and its size."""
    named = type(given).__name__
    shape = getattr(given, "shape", ())
    if isinstance(shape, tuple) and shape:
        return f"{named} of shape {list(shape)}"
    if given is None or isinstance(given, _PLAIN):
        try:
            text = repr(given)
        except (ValueError, RecursionError):  # an integer of 5,000 digits
            return named
        if len(text) <= _SHOWN:
            return text
    if isinstance(given, type):
        return f"the class {given.__name__}"
    return f"{named} of {len(given)}" if isinstance(given, Sized) else named


def quoted(text: str) -> str:
    """A text as a message shows it: itself where that is short, else its beginning and its end."""
    if len(text) <= 2 * _SHOWN:
        return repr(text)
    return f"{text[:_SHOWN]!r} … {text[-_SHOWN // 2 :]!r}"


def number_in(given: object) -> int | float | None:
    """The number that was meant: of numpy, torch or text as well; None of anything else."""
    if isinstance(given, str):
        for read in (int, float):
            try:
                return read(given)
            except ValueError:
                pass
        return None
    if getattr(given, "shape", None) == () and hasattr(given, "item"):
        given = given.item()  # type: ignore[attr-defined]
    if not isinstance(given, int | float) or isinstance(given, bool):
        return None
    # A whole number beyond all floats is above every bound, and cannot be asked whether finite.
    return given if isinstance(given, float) else max(-_BEYOND, min(_BEYOND, given))


def as_number(name: str, given: object) -> float:
    """Reads any finite number."""
    number = number_in(given)
    if number is None or not math.isfinite(number):
        raise Refused(f"{name} = {told(given)}: give numbers")
    return float(number)


@dataclass(frozen=True)
class Whole:
    """Reads a whole number from `least` to `most`; 150.0 and "150" are some.

    Attributes:
        least, most: the bounds.
        wanted: what to give, in words; made of the bounds if not given.
        gap: numbers in between that are refused as well.
        error: what is raised.
    """

    least: int = 0
    most: int = LARGEST
    wanted: str = ""
    gap: tuple[int, ...] = ()
    error: type[Refused] = Refused

    def __call__(self, name: str, given: object) -> int:
        number = number_in(given)
        if number is not None and math.isfinite(number) and number == int(number):
            whole = int(number)
            if self.least <= whole <= self.most and whole not in self.gap:
                return whole
            if whole > self.most:
                raise self.error(f"{name} = {told(given)}: give at most {self.most:,}")
        wanted = self.wanted or f"a whole number from {self.least} up"
        raise self.error(f"{name} = {told(given)}: give {wanted}")


@dataclass(frozen=True)
class Between:
    """Reads a number strictly between 0 and 1."""

    wanted: str = "a probability strictly between 0 and 1"

    def __call__(self, name: str, given: object) -> float:
        number = number_in(given)
        if number is None or not 0 < number < 1:
            raise Refused(f"{name} = {told(given)}: give {self.wanted}")
        return float(number)


@dataclass(frozen=True)
class Only:
    """Lets through what is of some types, as it is.

    Attributes:
        types: these.
        wanted: what to give, in words.
        error: what is raised.
    """

    types: tuple[type, ...]
    wanted: str
    error: type[Refused] = Refused

    def __call__(self, name: str, given: object) -> Any:
        if not isinstance(given, self.types):
            raise self.error(f"{name} = {told(given)}: give {self.wanted}")
        return given


@dataclass(frozen=True)
class Several:
    """Reads a list by reading each of its members; one alone is a list of one.

    Attributes:
        each: the reader of a member.
        wanted: what to give, in words.
        text: whether a text is a member, alone; else it is refused.
    """

    each: Reader
    wanted: str
    text: bool = False

    def __call__(self, name: str, given: object) -> list[Any]:
        if number_in(given) is not None or (isinstance(given, str) and self.text):
            given = [given]
        if isinstance(given, str | bytes) or not isinstance(given, Iterable):
            raise Refused(f"{name} = {told(given)}: give {self.wanted}")
        return [self.each(name, member) for member in given]


SEED = Whole(0, 2**63 - 1)
PROBABILITY = Between()
CONTEXTS = Whole(0, 10**6, "at least 2, or 0 for the whole model alone", gap=(1,))
WHOLE = Whole(-LARGEST, wanted="a whole number")
NUMBERS = Several(WHOLE, "a whole number, or a list of them")
NAMES = Several(Only((str,), "a name, or a list of them"), "a name, or a list of them", text=True)
PATH = Only((str, Path), "the name of a run, a folder or a file")
_TARGET_R2 = Between("a number between 0 and 1")
_ORDER = Whole(1, wanted="an order of at least 1, or None")


def check_memory(n_bytes: int, what: str) -> None:
    """Refuse what this machine's memory cannot hold, before the system ends the process for it.

    Args:
        n_bytes: how much would be allocated.
        what: what for, in words.
    """
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if n_bytes > there:
        raise Refused(
            f"{what} take {n_bytes / 2**30:,.0f} GiB, and this machine has {there / 2**30:,.0f}; "
            "ask for fewer"
        )


def check_level(level: object) -> None:
    """Refuse a false discovery rate that is none."""
    PROBABILITY("level", level)


def check_keep(keep: object) -> None:
    """Refuse a density at which nothing or everything would be kept."""
    PROBABILITY("keep", keep)


def check_contexts(contexts: object) -> None:
    """Refuse a number of contexts that has no spread."""
    CONTEXTS("contexts", contexts)


def check_target_r2(target_r2: object) -> None:
    """Refuse an R² that is reached at once or never."""
    _TARGET_R2("target_r2", target_r2)


def check_max_order(max_order: object) -> None:
    """Refuse sets of no units."""
    _ORDER("max_order", max_order)


def check_seed(seed: object) -> None:
    """Refuse a seed that no generator takes."""
    SEED("seed", seed)


def check_from(least: int, **numbers: object) -> None:
    """Refuse whole numbers below `least`, by name."""
    for name, number in numbers.items():
        Whole(least)(name, number)
