"""Units: the parts that a mask keeps or ablates, in the order of the mask's columns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import nlargest
from itertools import combinations, takewhile
from typing import Any, NamedTuple, overload

from mechspex.core.checks import Whole, told
from mechspex.core.doors import door
from mechspex.core.errors import Refused, UnknownUnitError
from mechspex.core.kinds import ARROW, KINDS, Kind, as_named, find_kind, kind_of_name

# So many names of an unknown one's kind are all listed; of more only those that are most like it.
_LISTED, _NEAREST = 12, 6

Term = tuple[int, ...]
"""A set of units, as their columns in a mask, in rising order."""


class Unit(NamedTuple):
    """One part of a model: a head, a neuron, a whole MLP; or any other part, known by its label.

    Attributes:
        kind: ``head``, ``neuron``, ``mlp``, ``edge``, ``latent``, ``error``, ``word``, ``example``,
            or ``part`` for anything else; a key of `mechspex.core.kinds.KINDS`.
        layer: the block it sits in (0 for what is in no block).
        number: its place in the block (0 for an ``mlp``; its place in the list of the others).
        position: where alone it is ablated: a token position, from the end where it is negative,
            or the name of a span of the prompts; None for all positions.
        label: the name of a ``part``, an edge, a latent, a word, an example.
        span: where a word lies in its text, from one character up to another; None of other kinds.
    """

    kind: Kind
    layer: int
    number: int
    position: int | str | None = None
    label: str = ""
    span: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """``L9H6``, ``L3N1021``, ``L5MLP``, ``L9H6→L10H0.q``; with a position ``L9H6@12``, with a
        span ``L9H6@S2``; a part's label."""
        named = find_kind(self.kind).named
        at = "" if self.position is None else f"@{self.position}"
        return named.format(layer=self.layer, number=self.number, label=self.label) + at


@dataclass(frozen=True)
class UnitSet(Sequence[Unit]):
    """Ordered units, one a mask column; slice them, add them, select them by name.

    >>> units = UnitSet((Unit("head", 0, 0), Unit("head", 0, 1), Unit("mlp", 0, 0)))
    >>> units["L0H1"] + units[2:]
    UnitSet(2: L0H1, L0MLP)

    Attributes:
        units: the units, in the order of the mask's columns.

    Raises:
        Refused: two units of the same name, or one with half of a character that takes two
            (a lone surrogate), which no file and no table can hold.
    """

    units: tuple[Unit, ...] = ()

    def __post_init__(self) -> None:
        for unit in self.units:
            if not unit.label.isascii() and re.search("[\ud800-\udfff]", unit.label):
                raise Refused(
                    f"unit {unit.label!r} holds a lone surrogate, which no file can hold; read the "
                    "text with errors='replace', or give another label"
                )
        if len(self.column_of) == len(self.units):
            return
        seen: set[str] = set()
        for name in self.names:
            if name in seen:
                raise Refused(f"unit {name!r} is listed twice; list every unit once")
            seen.add(name)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The unit names, in order."""
        return tuple(unit.name for unit in self.units)

    @cached_property
    def column_of(self) -> dict[str, int]:
        """{name: mask column}."""
        return {name: column for column, name in enumerate(self.names)}

    @property
    def description(self) -> str:
        """How many of which kind: ``270 heads + 30 MLPs``."""
        counts = Counter(unit.kind for unit in self.units)
        return " + ".join(f"{count} {KINDS[kind].plural}" for kind, count in counts.items())

    @property
    def named_spans(self) -> bool:
        """Whether some units are ablated at named spans of the prompts."""
        return any(isinstance(unit.position, str) for unit in self.units)

    def __len__(self) -> int:
        return len(self.units)

    @overload
    def __getitem__(self, index: int) -> Unit: ...
    @overload
    def __getitem__(self, index: slice | str | Iterable[str]) -> UnitSet: ...

    def __getitem__(self, index: int | slice | str | Iterable[str]) -> Unit | UnitSet:
        """A unit by column; a set by slice, by one name (``"L9H6"``) or by several names."""
        if isinstance(index, int):
            return self.units[index]
        if isinstance(index, slice):
            return UnitSet(self.units[index])
        names = [index] if isinstance(index, str) else index
        return UnitSet(tuple(self.units[column] for column in self.columns(names)))

    def __add__(self, other: UnitSet) -> UnitSet:
        return other._after(self)

    def _after(self, first: UnitSet) -> UnitSet:
        """The sum with others in front; of units that know more than their names, so does it."""
        return UnitSet(first.units + self.units)

    def columns(self, names: Iterable[str]) -> tuple[int, ...]:
        """The mask columns of units given by name.

        Args:
            names: the names of the units.

        Raises:
            UnknownUnitError: a name that is not among these units.
        """
        columns = []
        for name in names:
            # Heads and the like are also read in lower case; labels of parts are not.
            known = name if name in self.column_of else as_named(name)
            if known not in self.column_of:
                raise UnknownUnitError(f"no unit {name!r} here; {self._valid_range(name)}")
            columns.append(self.column_of[known])
        return tuple(columns)

    def to_list(self) -> list[list[Any]]:
        """The units as JSON can hold them; a span only where a unit has one."""
        return [
            [*unit[:5], *([] if unit.span is None else [list(unit.span)])] for unit in self.units
        ]

    @classmethod
    def from_list(cls, stored: list[list[Any]]) -> UnitSet:
        """The units that `to_list` listed; `TypeError` and the like where it is something else.

        Args:
            stored: what `to_list` returned, or JSON of it read back.
        """
        return cls(tuple(_checked(_with_span(*unit)) for unit in stored))

    def label(self, term: Iterable[int]) -> str:
        """A term in names: ``L2H1 × L9H6``.

        Args:
            term: the units' columns.
        """
        return " × ".join(self.names[column] for column in term)

    def _valid_range(self, name: str) -> str:
        if not self.units:
            return "the set is empty"
        kind = kind_of_name(as_named(name))
        alike = [unit for unit in self.units if unit.kind == kind]
        name = as_named(name).replace("->", ARROW)
        if not alike and ARROW in name:
            alike = [unit for unit in self.units if ARROW in unit.name]
        alike = alike or list(self.units)
        described = KINDS[alike[0].kind]
        if described.labelled:
            return _names_like(name, [unit.name for unit in alike], described.plural)
        layers = [unit.layer for unit in alike]
        numbers = [unit.number for unit in alike]
        plural = described.plural
        within = f", {plural} {min(numbers)} … {max(numbers)}" if described.numbered else ""
        return f"it has {plural} of layers {min(layers)} … {max(layers)}{within}"

    def __repr__(self) -> str:
        shown = ", ".join(self.names[:4]) + (", …" if len(self) > 4 else "")
        return f"UnitSet({len(self)}: {shown})"


def _names_like(name: str, names: Sequence[str], plural: str) -> str:
    """Which names there are: all of a few, and of many those that begin and end most like one."""
    if len(names) <= _LISTED:
        return f"its units are {', '.join(names)}"

    def shared(other: str) -> int:
        return _same_at_first(name, other) + _same_at_first(name[::-1], other[::-1])

    nearest = nlargest(_NEAREST, names, key=shared)
    return f"of its {len(names):,} {plural} the nearest are {', '.join(nearest)}"


def _same_at_first(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    alike = (a == b for a, b in zip(one, other, strict=False))
    return sum(takewhile(bool, alike))


def names_in(text: str) -> tuple[str, ...]:
    """The names of a set of units, as a user writes it or as it is printed.

    >>> names_in("L0H1,L1H3") == names_in("L0H1 × L1H3") == names_in("L0H1+L1H3")
    True
    """
    return tuple(name.strip() for name in re.split(r",|×|\*|\+| x ", text))


def _as_labels(name: str, given: object) -> Iterable[object]:
    """Reads labels; a number is how many there are."""
    if isinstance(given, Iterable) and not isinstance(given, bytes):
        return given
    wanted = "a list of labels, or how many there are"
    return range(Whole(1, 10**6, wanted)(name, given))


def as_parts(name: str, given: object) -> UnitSet:
    """Reads the units of a plain function of masks: labels, text with commas, or how many.

    Raises:
        Refused: no labels.
    """
    if isinstance(given, UnitSet):
        return given
    if isinstance(given, str):
        if len(names_in(given)) < 2:
            raise Refused(f"{name} = {told(given)} is one text; give a list of labels")
        given = names_in(given)
    labels = list(_as_labels(name, given))
    units = [label for label in labels if isinstance(label, Unit)]
    return UnitSet(tuple(units)) if len(units) == len(labels) else parts(labels)


@door(labels=_as_labels)
def parts(labels: Iterable[object] | int) -> UnitSet:
    """Units known by label alone: words, examples, or the arguments of any function of a mask.

    >>> import mechspex as mx
    >>> mx.parts(["flour", "water", "salt"])
    UnitSet(3: flour, water, salt)

    Args:
        labels: a label for each unit, in the order of the mask's columns; or how many there are.

    Raises:
        Refused: no labels, or one that stands twice.
    """
    assert not isinstance(labels, int)
    return UnitSet(
        tuple(Unit("part", 0, place, None, str(label)) for place, label in enumerate(labels))
    )


def check_same_units(one: str, units: UnitSet, other: str, others: UnitSet) -> None:
    """Refuse two things that are to be used together and have different units.

    Args:
        one: what has `units`, for the message.
        units: the units of one of them.
        other: what has `others`, for the message.
        others: the units of the other.

    Raises:
        Refused: the units differ.
    """
    if units != others:
        raise Refused(f"{one} has {units}, {other} {others}; give both the same units")


def text_of(units: UnitSet, configuration: Mapping[str, str]) -> str | None:
    """The text in which all the units lie; None where there is none, or it is not known.

    Args:
        units: the units.
        configuration: what their values depend on.
    """
    if not len(units) or any(unit.span is None for unit in units):
        return None
    text = getattr(units, "text", None) or configuration.get("text")
    ends = [unit.span[1] for unit in units if unit.span is not None]
    return text if isinstance(text, str) and max(ends) <= len(text) else None


def by_order(term: Term) -> tuple[int, Term]:
    """Sorting key of terms: by order, then by units."""
    return len(term), term


def subsets_of(term: Term, largest: int | None = None) -> Iterator[Term]:
    """All subsets of a term, from the empty one up, by order and then by units.

    Args:
        term: the units.
        largest: the largest order; that of the term if not given.
    """
    most = len(term) if largest is None else min(len(term), largest)
    for size in range(most + 1):
        yield from combinations(term, size)


def _with_span(*fields: Any) -> Unit:
    """The unit of a record, in which a span is a list."""
    return Unit(*fields[:5], *(tuple(span) for span in fields[5:]))


def _checked(unit: Unit) -> Unit:
    """The unit, of whose fields a record may hold anything."""
    whole = [unit.layer, unit.number]
    whole += [] if isinstance(unit.position, str | None) else [unit.position]
    whole += unit.span or ()
    # True and False are whole numbers to Python.
    if (
        not all(type(number) is int for number in whole)
        or unit.kind not in KINDS
        or not isinstance(unit.label, str)
        or (unit.span is not None and len(unit.span) != 2)
    ):
        raise TypeError(
            f"{list(unit)} is no unit: give kind, layer, number, position, label, and span if any"
        )
    return unit
