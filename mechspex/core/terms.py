"""Sets of units as users write them: by name, by column, by unit, or as they are printed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

from mechspex.core.checks import number_in, told
from mechspex.core.errors import Refused
from mechspex.core.units import Term, Unit, UnitSet, names_in

Chosen = tuple[int | str, ...]
"""Units by column or by name."""

_WANTED = "names or columns of units, such as ['L0H1', 'L1H3'] or 'L0H1 × L1H3'"


def as_chosen(name: str, given: object) -> Chosen | str:
    """Reads one set of units; text stays as it is, as a label may have commas.

    Raises:
        Refused: no units, or a member that is none.
    """
    if isinstance(given, str):
        return given
    if isinstance(given, Unit):
        return (given.name,)
    if isinstance(given, UnitSet):
        return given.names
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise Refused(f"{name} = {told(given)}: give {_WANTED}")
    return tuple(_member(name, member) for member in given)


def as_terms(name: str, given: object) -> tuple[Chosen | str, ...]:
    """Reads a list of sets of units; one text, unit or column is one set.

    Raises:
        Refused: no list of sets.
    """
    if isinstance(given, str | Unit):
        given = [given]
    if isinstance(given, bytes | dict) or not isinstance(given, Iterable):
        raise Refused(f"{name} = {told(given)}: give a list of sets, each {_WANTED}")
    return tuple(as_chosen(name, [one] if _is_column(one) else one) for one in given)


def as_ranking(name: str, given: object) -> Any:
    """Reads units, best first, or {size: members}; Refused: something else."""
    if isinstance(given, Mapping):
        return given
    chosen = as_chosen(name, given)
    return names_in(chosen) if isinstance(chosen, str) else chosen


def columns_of(chosen: str | Iterable[int | str], units: UnitSet) -> Term:
    """The columns of units given by name or by column, or as they are printed, each once.

    Raises:
        Refused: a column out of range.
        UnknownUnitError: an unknown name.
    """
    if isinstance(chosen, str):
        chosen = [chosen] if chosen in units.column_of else names_in(chosen)
    chosen = list(chosen)
    named = units.columns(unit for unit in chosen if isinstance(unit, str))
    columns = sorted({*named, *(int(unit) for unit in chosen if not isinstance(unit, str))})
    for column in columns:
        if not 0 <= column < len(units):
            raise Refused(f"unit {column} lies outside the columns 0 … {len(units) - 1}")
    return tuple(columns)


def _member(name: str, given: object) -> int | str:
    if isinstance(given, Unit):
        return given.name
    if isinstance(given, str):
        return given
    number = number_in(given)
    if number is None or not math.isfinite(number) or number != int(number):
        raise Refused(f"{name} holds {told(given)}, which is no unit; give {_WANTED}")
    return int(number)


def _is_column(given: object) -> bool:
    return isinstance(given, Integral) and not isinstance(given, bool)
