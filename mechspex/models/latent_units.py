"""Units of dictionaries: latents and error terms, which know the dictionaries that they are of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import overload

from mechspex.core.errors import DictionaryError, UnknownUnitError
from mechspex.core.units import Unit, UnitSet
from mechspex.models.dictionary import Dictionary

LATENT, ERROR = "latent", "error"


def is_of_dictionary(unit: Unit) -> bool:
    """Whether a unit is a latent, or the error term, of a dictionary."""
    return unit.kind in (LATENT, ERROR)


def dictionary_of(unit: Unit) -> str:
    """What its dictionary is called, see `Dictionary.called`."""
    return unit.label.partition(".")[0]


class LatentUnits(UnitSet):
    """Latents and error terms, alone or beside units of other kinds.

    Everything that a `UnitSet` can do; parts of it and sums with others know the dictionaries too.

    Attributes:
        dictionaries: {what each is called: the dictionary}.

    Raises:
        DictionaryError: a latent without its dictionary.
    """

    dictionaries: Mapping[str, Dictionary]

    def __init__(
        self, units: tuple[Unit, ...], dictionaries: Mapping[str, Dictionary] | None = None
    ) -> None:
        super().__init__(units)
        named = dictionaries or {}
        wanted = dict.fromkeys(dictionary_of(u) for u in units if is_of_dictionary(u))
        for name in wanted:
            if name not in named:
                raise DictionaryError(
                    f"units of {name} came without their dictionary; take them from "
                    "latents(model, dictionary)"
                )
        self.__dict__["dictionaries"] = {name: named[name] for name in wanted}

    @overload
    def __getitem__(self, index: int) -> Unit: ...
    @overload
    def __getitem__(self, index: slice | str | Iterable[str]) -> UnitSet: ...

    def __getitem__(self, index: int | slice | str | Iterable[str]) -> Unit | UnitSet:
        found = super().__getitem__(index)
        return found if isinstance(found, Unit) else LatentUnits(found.units, self.dictionaries)

    def __add__(self, other: UnitSet) -> LatentUnits:
        return self._joined(self.units + other.units, other)

    def _after(self, first: UnitSet) -> LatentUnits:
        return self._joined(first.units + self.units, first)

    def _joined(self, units: tuple[Unit, ...], other: UnitSet) -> LatentUnits:
        others = getattr(other, "dictionaries", {})
        for name, dictionary in self.dictionaries.items():
            if others.get(name, dictionary).digest != dictionary.digest:
                raise DictionaryError(
                    f"{name} has two dictionaries; one hook point is taken apart by one of them"
                )
        return LatentUnits(units, {**others, **self.dictionaries})

    def __eq__(self, other: object) -> bool:
        # Units that were read from a file no longer know their dictionary.
        return isinstance(other, UnitSet) and self.units == other.units

    __hash__ = UnitSet.__hash__


def units_of_dictionary(
    dictionary: Dictionary,
    chosen: Iterable[int],
    *,
    error: bool = True,
    places: Iterable[int | str] | None = None,
) -> LatentUnits:
    """Latents of a dictionary by number, and its error term.

    Args:
        dictionary: the dictionary.
        chosen: the numbers of the latents.
        error: whether the error term is a unit as well.
        places: token positions or names of spans, a unit each; all positions if not given.

    Raises:
        UnknownUnitError: a number that no latent has.
    """
    called, layer = dictionary.called, dictionary.layer
    names = []
    for number in chosen:
        if not 0 <= number < dictionary.n_latents:
            raise UnknownUnitError(
                f"no latent {number} at {dictionary.writes}; its dictionary has 0 … "
                f"{dictionary.n_latents - 1}"
            )
        names.append((LATENT, number, f"{called}.latent{number}"))
    if error:
        names.append((ERROR, 0, f"{called}.error"))
    where = [None] if places is None else list(places)
    units = (
        Unit(kind, layer, number, position, label)
        for kind, number, label in names
        for position in where
    )
    return LatentUnits(tuple(units), {called: dictionary})
