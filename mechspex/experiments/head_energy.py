"""Head energies: how much of the variance is linear, within a layer and across layers, by depth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from mechspex.components.component_values import ComponentValues
from mechspex.core.masks import sample_masks
from mechspex.core.statistics import Estimate
from mechspex.core.units import UnitSet
from mechspex.experiments.catalogue import FIGURES
from mechspex.experiments.experiment import Asked, Measured, experiment
from mechspex.experiments.layer_energies import chance_within, layer_energies, rescaled_additive
from mechspex.experiments.layer_groups import layer_groups
from mechspex.experiments.paper_figure import Claim, series
from mechspex.experiments.reproduction import Axes
from mechspex.models.load_model import Model, load_model
from mechspex.models.units import heads
from mechspex.tasks.load_task import load_task

PARTS = ("linear", "within a layer", "across layers")
RESCALED, PLAIN = "kept heads rescaled", "not rescaled"
NULL, CHANCE = "additive heads, rescaled", "interactions spread over all pairs"
_ALL = "all heads (within a layer: pairs)"
# Of thirty layers all orders together are noise.
_PAIRS = 2

Cell = dict[str, Any]


@dataclass(frozen=True)
class _Case:
    """Some heads and a density.

    Attributes:
        of: what it is called.
        units: the heads.
        keep: the density.
        rescales: with kept heads rescaled and without, or without alone.
        max_order: the largest order of terms within a layer; all if None.
    """

    of: str
    units: UnitSet
    keep: float
    rescales: tuple[bool, ...]
    max_order: int | None


def _cell(model: Model, asked: Asked, case: _Case, rescale: bool) -> list[Cell]:
    """The shares of the variance, and what they would be of heads that only add up."""
    units, keep = case.units, case.keep
    n_masks, n_prompts = (5_000, 16) if asked.full else (1_000, 5)
    task = load_task(asked.task, model, n_prompts=n_prompts, seed=asked.seed)
    values = ComponentValues(model, task, units, "zero", rescale=rescale, precision="auto")
    masks = sample_masks(len(units), n_masks, keep=keep, seed=asked.seed)
    measured = values(masks).astype(np.float64).mean(axis=1)
    layers = [unit.layer for unit in units]
    found = layer_energies(masks, measured, layers, keep, case.max_order)
    cells = [
        _row(RESCALED if rescale else PLAIN, part, share)
        for part, share in zip(PARTS, (found.linear, found.within, found.across), strict=True)
    ]
    beside: dict[str, tuple[tuple[float, ...], float]] = {}
    if rescale:
        linear, within, fits = rescaled_additive(masks, measured, layers, keep)
        beside[NULL] = ((linear, within, 0.0), fits)
    if rescale == case.rescales[0]:
        spread, inside = 1 - found.linear.value, chance_within(layers)
        shares = (found.linear.value, spread * inside, spread * (1 - inside))
        beside[CHANCE] = (shares, np.nan)
    for what, (shares, fits) in beside.items():
        cells += [
            _row(what, part, Estimate(share, np.nan, np.nan)) | {"fits": fits}
            for part, share in zip(PARTS, shares, strict=True)
        ]
    return cells


def _row(what: str, part: str, share: Estimate) -> Cell:
    return {"series": what, "x": part, "y": share.value, "low": share.low, "high": share.high}


def _difference(one: Cell, other: Cell) -> Estimate:
    """Of two independent estimates; an exact number has no interval."""
    halves = [0.0 if cell["low"] is None else cell["high"] - cell["y"] for cell in (one, other)]
    value, half = one["y"] - other["y"], math.hypot(*halves)
    return Estimate(value, value - half, value + half)


def _sign(estimate: Estimate) -> bool | None:
    return estimate.low > 0 if estimate.leaves_out_zero else None


def _claims(cells: list[Cell], groups: list[str]) -> tuple[Claim, ...]:
    rows = {(cell["of"], cell["series"], cell["x"]): cell for cell in cells}
    linear = [rows[group, RESCALED, PARTS[0]] for group in groups]
    falls = [_difference(one, other) for one, other in pairwise(linear)]
    ends = _difference(linear[0], linear[-1])
    last = groups[-1]
    within, across = (rows[last, RESCALED, part] for part in PARTS[1:])
    # What one has more the other has less: their intervals add up.
    more, half = within["y"] - across["y"], within["high"] - within["y"]
    half += across["high"] - across["y"]
    inside = Estimate(more, more - half, more + half)
    beyond = _difference(within, rows[last, NULL, PARTS[1]])
    unscaled = _difference(within, rows[last, PLAIN, PARTS[1]])
    shares = ", ".join(
        f"{one['y']:.0%} ({group})" for one, group in zip(linear, groups, strict=True)
    )
    steps = [_sign(one) for one in falls]
    return (
        Claim(
            "the linear share falls with depth",
            min(steps, key=[False, None, True].index, default=None),
            f"{shares}; first less last {ends:+z.2f}",
        ),
        Claim(
            "in the last layers interactions lie within layers rather than across",
            _sign(inside),
            f"{within['y']:.0%} within, {across['y']:.0%} across; {inside:+z.2f} ({last})",
        ),
        Claim(
            "they are more than the rescale alone makes of heads that add up (not asked there)",
            _sign(beyond),
            f"{beyond:+z.2f} of the variance, of which such heads explain "
            f"{rows[last, NULL, PARTS[1]]['fits']:.0%} ({last})",
        ),
        Claim(
            "they are there without the rescale as well (not asked there)",
            _sign(Estimate(*(rows[last, PLAIN, PARTS[1]][end] for end in ("y", "low", "high")))),
            f"{rows[last, PLAIN, PARTS[1]]['y']:.0%} within, {unscaled:+z.2f} less ({last})",
        ),
    )


_PAPER = {
    "layers 1–3": (0.80, 0.08, 0.12),
    "layers 14–16": (0.67, 0.23, 0.10),
    "layers 30–32": (0.51, 0.39, 0.10),
}
_PUBLISHED = tuple(
    one
    for layers, shares in _PAPER.items()
    for one in series("paper: Llama-3.1-8B, rescaled, p = 0.5", layers, PARTS, shares, "stated")
)


@experiment(FIGURES["head-energy"], _PUBLISHED)
def head_energy(asked: Asked) -> Measured:
    model = load_model(asked.model) if isinstance(asked.model, str) else asked.model
    by_depth = [
        _Case(f"{group}, p = 0.5", units, 0.5, (True, False), None)
        for group, units in layer_groups(model).items()
    ]
    whole = [
        _Case(f"{_ALL}, p = {keep:g}", heads(model), keep, (False,), _PAIRS)
        for keep in (0.5, 0.9)
        if asked.full
    ]
    cells = [
        cell
        for case in [*by_depth, *whole]
        for rescale in case.rescales
        for cell in asked.cell(
            {"of": case.of, "rescale": rescale}, partial(_cell, model, asked, case, rescale)
        )
    ]
    claims = _claims(cells, [case.of for case in by_depth])
    rows = [{"panel": cell["of"], **cell} for cell in cells]
    return Measured(rows, Axes("", "share of the variance", kind="bars"), claims)
