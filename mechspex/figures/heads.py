"""The map of heads: layer × head, the effect of ablating each alone."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from mechspex.core.errors import Refused
from mechspex.core.units import UnitSet
from mechspex.figures.style import UNKNOWN, Picture


@runtime_checkable
class SingleEffects(Protocol):
    """What ablating each unit alone does: an explanation, a sweep."""

    @property
    def units(self) -> UnitSet: ...

    @property
    def single_effects(self) -> Float[np.ndarray, " unit"]:
        """The effect of ablating each unit, in the order of `units`; NaN where not measured."""
        ...

    @property
    def confirmed_singles(self) -> tuple[int, ...]:
        """Columns of the units whose exact effect is confirmed."""
        ...


def head_map(found: SingleEffects, *, metric: str = "value") -> Figure:
    """Layers × heads, coloured by the effect of ablating each head alone; unmeasured heads grey.

    The effects are the recovered ones of an explanation, the exact ones of a sweep. A head whose
    exact effect is confirmed (its interval over outputs leaves out zero) carries a dot.

    Args:
        found: the explanation or sweep to draw.
        metric: the metric's name, for the colour bar.

    Raises:
        Refused: the units are not all heads.
    """
    units = found.units
    if any(unit.kind != "head" or unit.position is not None for unit in units):
        raise Refused("a head map needs units that are all heads, at all positions")
    layers = sorted({unit.layer for unit in units})
    grid = np.full((max(unit.number for unit in units) + 1, len(layers)), np.nan)
    for unit, effect in zip(units, found.single_effects, strict=True):
        grid[unit.number, layers.index(unit.layer)] = effect
    figure = Picture(
        figsize=(0.28 * len(layers) + 2.2, 0.28 * len(grid) + 1.4), layout="constrained"
    )
    axes = figure.subplots()
    largest = max(np.nanmax(np.abs(grid), initial=0.0), 1e-9)
    image = axes.imshow(
        grid,
        cmap=colormaps["RdBu"].with_extremes(bad=UNKNOWN),
        norm=TwoSlopeNorm(0, -largest, largest),
        origin="lower",
        aspect="equal",
    )
    confirmed = [units[column] for column in found.confirmed_singles]
    axes.plot(
        [layers.index(unit.layer) for unit in confirmed],
        [unit.number for unit in confirmed],
        linestyle="none",
        marker="o",
        markersize=4,
        color="black",
        markeredgecolor="white",
        markeredgewidth=0.5,
    )
    step = max(1, len(layers) // 10)
    axes.set_xticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
    axes.set_yticks(range(0, len(grid), max(1, len(grid) // 6)))
    axes.set(xlabel="layer", ylabel="head")
    axes.set_title("dot: the interval over outputs leaves out zero", loc="left", fontsize=8)
    figure.colorbar(image, ax=axes, label=f"effect of ablation on {metric}", shrink=0.9)
    return figure
