"""Maps of a number a unit: layers across, heads and MLPs up, several side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mechspex.core.errors import Refused, ShapeError
from mechspex.core.kinds import KINDS
from mechspex.core.units import Unit, UnitSet
from mechspex.figures.style import (
    INK,
    MUTED,
    PAPER,
    SMALL,
    Colours,
    asked,
    both_ways,
    colour_bar,
    entitle,
    in_ink,
    measured,
    scale,
    sheets,
    wrapped,
)

Numbers = Sequence[float] | Float[np.ndarray, " unit"]
"""One a unit."""

# Rows beyond which a map is no picture any more.
_MOST_ROWS = 128


@runtime_checkable
class SingleEffects(Protocol):
    """What ablating each unit alone does: an explanation, a sweep."""

    @property
    def units(self) -> UnitSet: ...

    @property
    def single_effects(self) -> Float[np.ndarray, " unit"]:
        """The effect of ablating each unit, in the order of `units`; NaN where not known."""
        ...

    @property
    def exact_single_effects(self) -> Float[np.ndarray, " unit"]:
        """The same where it was measured exactly; NaN elsewhere."""
        ...

    @property
    def confirmed_singles(self) -> tuple[int, ...]:
        """Columns of the units whose exact effect is confirmed."""
        ...


def head_map(
    found: SingleEffects,
    *others: SingleEffects,
    metric: str | None = None,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Layers × heads, coloured by the effect of ablating each head alone; unknown heads grey.

    A colour is the exact effect where it was measured, in a frame; without one it is what the
    decoder recovered. A head whose exact effect is confirmed (its interval over outputs leaves out
    zero) carries a dot. Several answers lie side by side, on one scale of colours. MLPs are a row
    of their own, units at one position as well.

    Args:
        found: the explanation or sweep to draw.
        others: more of them, beside it.
        metric: what is measured, in words; the value's metric if not given.
        names: a title for each; task and model if not given.
        ax: the axes to draw on; a new figure if not given, and always for several.

    Raises:
        Refused: units without layers; several answers for one axes.
        ShapeError: another number of names than of answers.
    """
    every = [found, *others]
    for one in every:
        _refuse_unlayered(one.units)
    if ax is not None and others:
        raise Refused(f"{len(every)} maps need as many axes; leave ax out")
    if names is not None and len(names) != len(every):
        raise ShapeError(f"{len(names)} names for {len(every)} maps; give one each")
    quantity = f"effect of ablation on {measured(found, metric)}"
    numbers = [_exact_or_recovered(one) for one in every]
    colours = both_ways(*numbers)
    figure, panels = _panels([one.units for one in every], ax)
    guessed = False
    for panel, one, row in zip(panels, every, numbers, strict=True):
        grid = _Grid(one.units)
        grid.paint(panel, row, colours)
        exact = np.isfinite(one.exact_single_effects)
        if not exact[np.isfinite(row)].all():
            grid.frame(panel, np.flatnonzero(exact).tolist())
            guessed = True
        grid.dot(panel, one.confirmed_singles)
    note = "dot: the interval over outputs leaves out zero"
    if guessed:
        note += "; frame: measured exactly, the others recovered"
    _entitle_all(figure, ax, panels, every, names, note)
    colour_bar(figure, panels, colours, quantity)
    return in_ink(figure, ax)


def unit_map(
    units: UnitSet,
    numbers: Numbers | Mapping[str, Numbers],
    *,
    quantity: str = "value",
    heading: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Layers × heads, coloured by any number a unit; several side by side on one scale.

    >>> import mechspex as mx
    >>> units = mx.UnitSet(tuple(mx.Unit("head", layer, 0) for layer in range(3)))
    >>> figure = mx.figures.unit_map(units, [0.1, -0.4, 0.9], quantity="attention to BOS")

    Args:
        units: heads, MLPs or neurons.
        numbers: one a unit, NaN where unknown; or {title: one a unit}.
        quantity: what the numbers are, with their unit, for the colour bar.
        heading: the title above all.
        ax: the axes to draw on; a new figure if not given, and always for several.

    Raises:
        Refused: units without layers; several maps for one axes.
        ShapeError: another number of numbers than of units.
    """
    _refuse_unlayered(units)
    maps = numbers if isinstance(numbers, Mapping) else {"": numbers}
    arrays = {title: np.asarray(row, dtype=float) for title, row in maps.items()}
    for title, row in arrays.items():
        if row.shape != (len(units),):
            raise ShapeError(
                f"numbers of shape {list(row.shape)}{f' of {title!r}' if title else ''} for "
                f"{len(units)} units; give one a unit"
            )
    if ax is not None and len(arrays) > 1:
        raise Refused(f"{len(arrays)} maps need as many axes; leave ax out")
    colours = scale(*arrays.values())
    figure, panels = _panels([units] * len(arrays), ax)
    for panel, (title, row) in zip(panels, arrays.items(), strict=True):
        _Grid(units).paint(panel, row, colours)
        panel.set_title(title, loc="left", fontsize=SMALL, color=MUTED)
    entitle(figure, ax, panels[0], heading)
    colour_bar(figure, panels, colours, quantity)
    return in_ink(figure, ax)


def paint(
    axes: Axes, units: UnitSet, numbers: Float[np.ndarray, " unit"], colours: Colours
) -> None:
    """A cell a unit: its layer across, its number upwards.

    Args:
        axes: drawn on.
        units: units of layers.
        numbers: one a unit.
        colours: the colour of each number.
    """
    _Grid(units).paint(axes, numbers, colours)


class _Grid:
    """Where each unit lies: its layer across; its number, and MLPs above, upwards."""

    def __init__(self, units: UnitSet) -> None:
        self.layers = sorted({unit.layer for unit in units})
        self.rows = sorted({_row(unit) for unit in units})
        at_layer = {layer: place for place, layer in enumerate(self.layers)}
        at_row = {row: place for place, row in enumerate(self.rows)}
        self.places = [(at_layer[unit.layer], at_row[_row(unit)]) for unit in units]
        self.kinds = sorted({KINDS[unit.kind].plural for unit in units})

    def paint(self, axes: Axes, numbers: Float[np.ndarray, " unit"], colours: Colours) -> None:
        """A cell a unit, and the axes that name them."""
        grid = np.full((len(self.rows), len(self.layers)), np.nan)
        for (across, up), number in zip(self.places, numbers.tolist(), strict=True):
            grid[up, across] = number
        axes.imshow(
            grid, cmap=colours.cmap, norm=colours.norm, origin="lower", aspect="equal",
            interpolation="nearest",
        )  # fmt: skip
        step = max(1, -(-len(self.layers) // 12))
        axes.set_xticks(range(0, len(self.layers), step), [str(n) for n in self.layers[::step]])
        step = max(1, -(-len(self.rows) // 12))
        shown = list(range(0, len(self.rows), step))
        if self.rows[-1][0] == "mlp" and step > 1:
            shown = [row for row in shown if row + step <= len(self.rows)] + [len(self.rows) - 1]
        axes.set_yticks(shown, [_row_name(self.rows[row]) for row in shown])
        single = self.kinds[0].removesuffix("s") if len(self.kinds) == 1 else "unit"
        axes.set(xlabel="layer", ylabel="" if self.kinds == ["MLPs"] else single)

    def frame(self, axes: Axes, columns: Iterable[int]) -> None:
        """A frame around the cells whose number was measured exactly, among others."""
        for column in columns:
            across, up = self.places[column]
            axes.add_patch(
                Rectangle(
                    (across - 0.5, up - 0.5), 1, 1, facecolor="none", edgecolor=INK, linewidth=1.1,
                    zorder=3,
                )
            )  # fmt: skip

    def dot(self, axes: Axes, columns: Iterable[int]) -> None:
        """A dot on the cells whose number is confirmed."""
        places = [self.places[column] for column in columns]
        axes.plot(
            [across for across, _ in places],
            [up for _, up in places],
            linestyle="none", marker="o", markersize=4, color=INK, markeredgecolor=PAPER,
            markeredgewidth=0.7,
        )  # fmt: skip


_Row = tuple[str, int, int, str]


def _row(unit: Unit) -> _Row:
    """What tells units of a layer apart: kind, number, position (none is first), span."""
    place = unit.position
    position = place if isinstance(place, int) else -(10**6)
    span = place if isinstance(place, str) else ""
    return unit.kind, 0 if unit.kind == "mlp" else unit.number, position, span


def _row_name(row: _Row) -> str:
    kind, number, position, span = row
    at = f"@{span}" if span else "" if position == -(10**6) else f"@{position}"
    return f"{'MLP' if kind == 'mlp' else number}{at}"


def _refuse_unlayered(units: UnitSet) -> None:
    if not len(units) or any(KINDS[unit.kind].labelled for unit in units):
        raise Refused(
            f"a map needs units that all lie in layers (heads, MLPs, neurons), not "
            f"{units.description or 'none'}; draw the strongest with figures.interactions"
        )
    n_rows = len({_row(unit) for unit in units})
    if n_rows > _MOST_ROWS:
        raise Refused(
            f"a map of {n_rows:,} rows cannot be read, {_MOST_ROWS} is the most; restrict the "
            "answer to fewer units, or draw the strongest with figures.interactions"
        )


def _exact_or_recovered(found: SingleEffects) -> Float[np.ndarray, " unit"]:
    exact = found.exact_single_effects
    return np.where(np.isnan(exact), found.single_effects, exact)


def _panels(every: Sequence[UnitSet], ax: Axes | None) -> tuple[Figure, list[Axes]]:
    """An axes for each, of cells of the same size."""
    grids = [_Grid(units) for units in every]
    across = max(len(grid.layers) for grid in grids)
    up = max(len(grid.rows) for grid in grids)
    cell = 0.28 if up > 4 else 0.4
    width, height = cell * across + 1.9, cell * up + 1.4
    return sheets(ax, len(every), max(width, 3.6), max(height, 2.6))


def _entitle_all(
    figure: Figure,
    ax: Axes | None,
    panels: Sequence[Axes],
    every: Sequence[SingleEffects],
    names: Sequence[str] | None,
    note: str,
) -> None:
    """Task and model above one map, or above each of several; what marks mean below."""
    heading = "Effect of each unit alone"
    if len(every) == 1:
        about = asked(every[0]) if names is None else names[0]
        entitle(figure, ax, panels[0], " · ".join(filter(None, [heading, about])), note)
        return
    entitle(figure, ax, panels[0], heading, note)
    for number, (panel, one) in enumerate(zip(panels, every, strict=True)):
        about = asked(one) if names is None else names[number]
        width = 0.8 * figure.get_figwidth() * panel.get_position().width
        panel.set_title(wrapped(about, width), loc="left", fontsize=SMALL, color=MUTED)
