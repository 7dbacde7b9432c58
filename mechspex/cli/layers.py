"""``--layers``: the units of some layers."""

from __future__ import annotations

import re

from mechspex.core.errors import Refused, UnknownUnitError
from mechspex.core.units import UnitSet


def of_layers(units: UnitSet, layers: str) -> UnitSet:
    """The units of some layers, written 20-29 or 0,3,5.

    Args:
        units: the units of all layers.
        layers: the layers, as the shell takes them.

    Raises:
        Refused: it is not written so.
        UnknownUnitError: a layer without such units.
    """
    wanted: set[int] = set()
    for part in layers.split(","):
        ends = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if ends is None or int(ends[2] or ends[1]) < int(ends[1]):
            raise Refused(f"--layers {layers!r}: write 20-29, or 0,3,5")
        wanted |= set(range(int(ends[1]), int(ends[2] or ends[1]) + 1))
    there = {unit.layer for unit in units}
    if strange := sorted(wanted - there):
        raise UnknownUnitError(
            f"--layers {layers}: no units of layer {strange[0]} here; there are those of layers "
            f"{min(there)} … {max(there)}"
        )
    return UnitSet(tuple(unit for unit in units if unit.layer in wanted))
