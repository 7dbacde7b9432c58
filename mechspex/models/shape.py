"""How many layers, heads and neurons a model has: all that naming its units needs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mechspex.core.errors import ModelError, Refused, UnknownUnitError
from mechspex.core.units import Kind, Unit, UnitSet, names_in

# What units of each kind are called.
_NAMES = {"heads": r"L\d+H\d+", "mlps": r"L\d+MLP", "neurons": r"L\d+N\d+"}


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
    """

    name: str
    n_layers: int
    n_heads: int
    d_mlp: int | None
    attention_only: bool = False
    n_experts: int = 0
    architecture: str = ""

    def heads(
        self, layers: Iterable[int] | None = None, positions: Iterable[int] | None = None
    ) -> UnitSet:
        """The attention heads, see `mechspex.heads`."""
        return self._units("head", self.n_heads, layers, positions)

    def neurons(
        self, layers: Iterable[int] | None = None, positions: Iterable[int] | None = None
    ) -> UnitSet:
        """The neurons, see `mechspex.neurons`."""
        self._check_mlps()
        if self.n_experts or self.d_mlp is None:
            raise ModelError(
                f"{self.architecture} routes its MLPs over {self.n_experts} experts: its "
                "hook_post has no fixed neurons; use mlps(model) or heads(model)"
            )
        return self._units("neuron", self.d_mlp, layers, positions)

    def mlps(
        self, layers: Iterable[int] | None = None, positions: Iterable[int] | None = None
    ) -> UnitSet:
        """The whole MLPs, see `mechspex.mlps`."""
        self._check_mlps()
        return self._units("mlp", 1, layers, positions)

    def units(self, named: str | Iterable[str]) -> UnitSet:
        """Units by kind (``heads+mlps``) or by name (``L0H1,L1H3``, or a list of names).

        Raises:
            Refused: neither kinds nor names.
            UnknownUnitError, ModelError: what the model does not have.
        """
        kinds, names = kinds_of(named if isinstance(named, str) else ",".join(named))
        of_kind = {"heads": self.heads, "mlps": self.mlps, "neurons": self.neurons}
        units = UnitSet()
        for kind in kinds:
            units = units + of_kind[kind]()
        return units[names] if names else units

    def _check_mlps(self) -> None:
        if self.attention_only:
            raise ModelError(f"{self.name} is attention-only: it has heads, but no MLPs")

    def _units(
        self,
        kind: Kind,
        per_layer: int,
        layers: Iterable[int] | None,
        positions: Iterable[int] | None,
    ) -> UnitSet:
        chosen = range(self.n_layers) if layers is None else list(layers)
        for layer in chosen:
            if not 0 <= layer < self.n_layers:
                raise UnknownUnitError(
                    f"no layer {layer} in {self.name}; it has layers 0 … {self.n_layers - 1}"
                )
        places = [None] if positions is None else list(positions)
        return UnitSet(
            tuple(
                Unit(kind, layer, number, position)
                for layer in chosen
                for number in range(per_layer)
                for position in places
            )
        )


def kinds_of(units: str) -> tuple[list[str], list[str]]:
    """The kinds that ``heads+mlps`` or ``L0H1,L1H3`` are of, and the names, if those are names.

    Raises:
        Refused: neither.
    """
    asked = [part.strip() for part in units.split("+")]
    if all(kind in _NAMES for kind in asked):
        return asked, []
    names = [name.upper() for name in names_in(units)]
    kinds = [
        kind
        for kind, pattern in _NAMES.items()
        if any(re.fullmatch(pattern, name) for name in names)
    ]
    for name in names:
        if not any(re.fullmatch(_NAMES[kind], name) for kind in kinds):
            bad = next((kind for kind in asked if kind not in _NAMES), units)
            raise Refused(
                f"{bad!r}: choose {', '.join(_NAMES)} or a sum of them, or name units: L0H1,L1H3"
            )
    return kinds, names
