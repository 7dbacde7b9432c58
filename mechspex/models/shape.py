"""How many layers, heads and neurons a model has: all that naming its units needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mechspex.core.errors import Refused, UnknownUnitError
from mechspex.core.kinds import Kind, UnitKind, as_named, find_kind, listed_kinds
from mechspex.core.units import Unit, UnitSet, names_in
from mechspex.models.edges import edges_of


@dataclass(frozen=True)
class Shape:
    """The numbers of a model from which its units follow.

    Attributes:
        name: the model's name in messages.
        n_layers, n_heads: the number of blocks, and of heads in each.
        d_mlp: the number of neurons in each MLP; None where MLPs have no fixed neurons.
        attention_only: whether the model has no MLPs at all.
        n_experts: the number of experts of a mixture in place of the MLPs; 0 without one.
        architecture: the architecture's name in messages.
        absent: {kind: layers without such units}, of models whose layers differ: convolutions or
            state spaces beside attention.
        n_groups: into how many groups of one key and value each the heads fall; None where each
            head has its own.
        parallel: whether an MLP reads what the heads of its layer read, not what they write.
    """

    name: str
    n_layers: int
    n_heads: int
    d_mlp: int | None
    attention_only: bool = False
    n_experts: int = 0
    architecture: str = ""
    absent: Mapping[Kind, frozenset[int]] = field(default_factory=dict)
    n_groups: int | None = None
    parallel: bool = False

    def units(self, named: str | Iterable[str]) -> UnitSet:
        """Units by kind (``heads+mlps``) or by name (``L0H1,L1H3``, or a list of names).

        Each kind, and each name, may say where it is ablated: ``heads@S2``, ``L0H1@-1``.

        Raises:
            Refused: neither kinds nor names.
            UnknownUnitError, ModelError: what the model does not have.
        """
        kinds, names = kinds_of(named if isinstance(named, str) else ",".join(named))
        units = UnitSet()
        for kind, place in kinds:
            units = units + self.of_kind(kind.kind, None, None if place is None else [place])
        if not names:
            return units
        placed = [_part_and_place(name) for name in names]
        columns = units.columns(part for part, _ in placed)
        return UnitSet(
            tuple(
                units[column]._replace(position=place)
                for column, (_, place) in zip(columns, placed, strict=True)
            )
        )

    def of_kind(
        self,
        kind: Kind,
        layers: Iterable[int] | None = None,
        positions: Iterable[int | str] | None = None,
    ) -> UnitSet:
        """The units of one kind, layer by layer; see `mechspex.heads`.

        Args:
            kind: the kind.
            layers: the layers whose units are taken; all if not given.
            positions: token positions, or names of spans; there is then one unit at each.

        Raises:
            UnknownUnitError: a layer that the model does not have.
            ModelError: the model has no such units.
        """
        if kind == "edge":
            edges = edges_of(self, layers)
            return edges if positions is None else at_places(edges, positions)
        described = find_kind(kind)
        per_layer, n_layers = described.per_layer(self), described.n_layers(self)
        absent = self.absent.get(kind, frozenset())
        there = [layer for layer in range(n_layers) if layer not in absent]
        chosen = there if layers is None else list(layers)
        for layer in chosen:
            if not 0 <= layer < n_layers:
                raise UnknownUnitError(
                    f"no layer {layer} in {self.name}; it has layers 0 … {n_layers - 1}"
                )
            if layer in absent:
                raise UnknownUnitError(
                    f"layer {layer} of {self.name} has no {described.plural}; layers with "
                    f"{described.plural}: {', '.join(map(str, there))}"
                )
        units = UnitSet(
            tuple(Unit(kind, layer, number) for layer in chosen for number in range(per_layer))
        )
        return units if positions is None else at_places(units, positions)


def at_places(units: UnitSet, places: Iterable[int | str]) -> UnitSet:
    """Each of some units at each of some places.

    Args:
        units: units of all positions.
        places: positions, or names of spans.
    """
    listed = list(places)
    return UnitSet(tuple(unit._replace(position=place) for unit in units for place in listed))


Place = int | str | None
"""A token position, the name of a span, or all positions."""


def kinds_of(units: str) -> tuple[list[tuple[UnitKind, Place]], list[str]]:
    """The kinds that ``heads+mlps@S2`` or ``L0H1,L1H3`` are of, each with where it is ablated, and
    the names, if those are names.

    Raises:
        Refused: neither.
    """
    known = {kind.asked_for: kind for kind in listed_kinds()}
    asked = [part.strip() for part in units.split("+")]
    placed = [_part_and_place(part) for part in asked]
    if all(kind in known for kind, _ in placed):
        return [(known[kind], place) for kind, place in placed], []
    names = [as_named(name) for name in names_in(units)]
    kinds: list[tuple[UnitKind, Place]] = [
        (kind, None) for kind in known.values() if any(map(kind.is_name, names))
    ]
    for name in names:
        if not any(kind.is_name(name) for kind, _ in kinds):
            bad = next((part for part in asked if _part_and_place(part)[0] not in known), units)
            raise Refused(
                f"{bad!r}: choose {', '.join(known)} or a sum of them, or name units: L0H1,L1H3; "
                "latents of a dictionary: mx.latents, in the shell latents:FOLDER"
            )
    return kinds, names


def names_spans(units: str) -> bool:
    """Whether some of the units that a text names are ablated at named spans.

    Args:
        units: kinds or names, as `kinds_of` reads them.
    """
    kinds, names = kinds_of(units)
    places = [*(place for _, place in kinds), *(_part_and_place(name)[1] for name in names)]
    return any(isinstance(place, str) for place in places)


def _part_and_place(name: str) -> tuple[str, Place]:
    """What a name names, and where: ``L0H1@-1`` is ``L0H1`` at −1."""
    part, _, place = name.partition("@")
    whole = place.removeprefix("-").isdecimal()
    return part, int(place) if whole else place or None
