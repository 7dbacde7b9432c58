"""Shapley values from few masks, against exact ones: KernelSHAP and the decoders."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.errors import BudgetError
from mechspex.core.masks import Design, sample_masks
from mechspex.core.statistics import paired_difference
from mechspex.decoders import decode
from mechspex.experiments.catalogue import FIGURES
from mechspex.experiments.experiment import Asked, Measured, experiment, mean_rows
from mechspex.experiments.paper_figure import Claim, series
from mechspex.experiments.planted import planted
from mechspex.experiments.reproduction import Axes
from mechspex.experiments.shapiq_estimators import (
    LEFT_OUT,
    NAMES,
    shapiq_estimates,
    shapiq_version,
)
from mechspex.set_functions.set_function import SetFunction

ALPHAS = (0.25, 0.5, 0.75, 1.0)
DECODERS = ("proxyspex", "pursuit", "automatic")
# Every mask followed by its complement.
PAIRED = ("proxyspex", "automatic")
KERNEL_SHAP = "KernelSHAP"
TOP = 10
# Each unit more halves a coefficient, as in language, where single parts explain most.
DECAY = 0.5
RECALL, ERROR = "recall of the ten largest", "squared error, share of the variance"


def kernel_shap(function: SetFunction, n_masks: int, seed: int) -> Float[np.ndarray, " unit"]:
    """KernelSHAP: weighted least squares on masks drawn by their Shapley weight.

    Masks of size s are drawn with probability ∝ (n − 1)/(s(n − s)), each beside its complement;
    minimises Σ (f(m) − f(0) − m·φ)² subject to Σφ = f(1) − f(0) (Lundberg & Lee 2017, Theorem 2;
    drawn in pairs as Covert & Lee 2021).

    Args:
        function: the function.
        n_masks: how many masks may be measured, the two ends among them.
        seed: the seed of the masks.
    """
    n_units = function.n_units
    ends = function.predict(np.array([[False] * n_units, [True] * n_units]))
    masks = _shapley_masks(n_units, n_masks - 2, seed)
    total = ends[1] - ends[0]
    # The last value follows from the sum: one unknown less.
    against = masks[:, :-1].astype(float) - masks[:, -1:]
    values = function.predict(masks) - ends[0] - masks[:, -1] * total
    free, *_ = np.linalg.lstsq(against, values, rcond=None)
    return np.append(free, total - free.sum())


def _shapley_masks(n_units: int, n_masks: int, seed: int) -> Bool[np.ndarray, "mask unit"]:
    rng = np.random.default_rng((seed, n_units))
    sizes = np.arange(1, n_units)
    weight = 1 / (sizes * (n_units - sizes))
    drawn = rng.choice(sizes, size=-(-n_masks // 2), p=weight / weight.sum())
    half = np.zeros((len(drawn), n_units), dtype=bool)
    for row, size in enumerate(drawn):
        half[row, rng.choice(n_units, size, replace=False)] = True
    return np.stack([half, ~half], axis=1).reshape(-1, n_units)[:n_masks]


def _values(function: SetFunction) -> Float[np.ndarray, " unit"]:
    found = np.zeros(function.n_units)
    for (unit,), value in function.indices("shapley").items():
        found[unit] = value
    return found


def _estimates(
    function: SetFunction, alpha: float, seed: int
) -> Iterator[tuple[str, Float[np.ndarray, " unit"]]]:
    """The Shapley values that each method gives from α·n·log₂n masks."""
    n_units = function.n_units
    n_masks = math.ceil(alpha * n_units * math.log2(n_units))
    yield KERNEL_SHAP, kernel_shap(function, n_masks, seed)
    designs: tuple[tuple[Design, tuple[str, ...]], ...] = (("biased", DECODERS), ("paired", PAIRED))
    for design, names in designs:
        masks = sample_masks(n_units, n_masks, keep=0.5, design=design, seed=seed)
        values = function.predict(masks)
        for name in names:
            try:
                answer = decode(masks, values, decoder=name, keep=0.5, seed=seed)
            except BudgetError:
                continue
            yield name if design == "biased" else _paired(name), _values(answer)
    yield from shapiq_estimates(function, n_masks, seed)


def _paired(name: str) -> str:
    return f"{name}, paired masks"


def _cell(n_units: int, alpha: float, seed: int) -> list[dict[str, Any]]:
    function = planted(n_units, "complete hierarchy", seed, decay=DECAY)
    true = _values(function)
    largest = set(np.argsort(-np.abs(true))[:TOP].tolist())
    rows = []
    for method, found in _estimates(function, alpha, seed):
        named = set(np.argsort(-np.abs(found))[:TOP].tolist())
        rows.append(
            {
                "method": method,
                "recall": len(named & largest) / TOP,
                "error": float(np.mean((found - true) ** 2) / np.var(true)),
            }
        )
    return rows


_PANELS = ("paper: Sentiment (recall)", "paper: MS-COCO (recall)")
_PUBLISHED = (
    *series(_PANELS[0], KERNEL_SHAP, ALPHAS, (0.366, 0.490, 0.552, 0.574), "vector graphics"),
    *series(_PANELS[0], "proxyspex", ALPHAS, (0.700, 0.734, 0.748, 0.751), "vector graphics"),
    *series(_PANELS[1], KERNEL_SHAP, ALPHAS, (0.417, 0.526, 0.584, 0.644), "vector graphics"),
    *series(_PANELS[1], "proxyspex", ALPHAS, (0.500, 0.594, 0.628, 0.651), "vector graphics"),
)


@experiment(FIGURES["shapley"], _PUBLISHED)
def shapley(asked: Asked) -> Measured:
    sizes, seeds = ((30, 60, 100), range(10)) if asked.full else ((30,), range(6))
    shapiq = shapiq_version()
    cells = [
        row
        for n_units in sizes
        for alpha in ALPHAS
        for seed in seeds
        for row in asked.cell(
            {"units": n_units, "alpha": alpha, "seed": asked.seed + seed, "shapiq": shapiq},
            partial(_cell, n_units, alpha, asked.seed + seed),
        )
    ]
    panels: dict[str, tuple[str, ...]] = {"": (KERNEL_SHAP, *DECODERS, *map(_paired, PAIRED))}
    if shapiq:
        panels[f", beside shapiq {shapiq}"] = (KERNEL_SHAP, *NAMES)
    rows: list[dict[str, Any]] = []
    axes: dict[str, Axes] = {panel: _axes("recall") for panel in _PANELS}
    for quantity, called in (("recall", RECALL), ("error", ERROR)):
        for n_units in sizes:
            for beside, methods in panels.items():
                panel = f"{called}, {n_units} units{beside}"
                axes[panel] = _axes(quantity)
                rows += _means(panel, cells, quantity, n_units, methods, len(seeds))
    claims = (_ahead(cells, sizes[0]), _in_pairs(cells, sizes[0]))
    left_out = LEFT_OUT[bool(shapiq) :]
    return Measured(rows, _axes("score"), claims, panel_axes=axes, left_out=left_out)


def _axes(unit: str) -> Axes:
    return Axes("masks / (n log₂ n)", unit)


def _means(
    panel: str,
    cells: list[dict[str, Any]],
    quantity: str,
    n_units: int,
    methods: tuple[str, ...],
    n_seeds: int,
) -> list[dict[str, Any]]:
    rows = []
    for alpha in ALPHAS:
        every = {
            method: _of(cells, quantity, units=n_units, method=method, alpha=alpha)
            for method in methods
        }
        # A decoder that had too few masks in some of the draws has no mean.
        whole = {name: each for name, each in every.items() if len(each) == n_seeds}
        rows += mean_rows(panel, alpha, whole)
    return rows


def _ahead(cells: list[dict[str, Any]], n_units: int) -> Claim:
    ours, theirs = (
        _of(cells, "recall", units=n_units, method=method, alpha=1.0)
        for method in ("proxyspex", KERNEL_SHAP)
    )
    ahead = paired_difference(ours, theirs[None])
    return Claim(
        "ProxySPEX finds more of the ten largest Shapley values than KernelSHAP (α = 1)",
        None if ahead.low <= 0 <= ahead.high else ahead.low > 0,
        f"{ahead:+.2f} of them, {n_units} units",
    )


def _in_pairs(cells: list[dict[str, Any]], n_units: int) -> Claim:
    """Complements double what odd coefficients, of which Shapley values are made, are told by."""
    differences = []
    for name in PAIRED:
        each = [
            _of(cells, "error", units=n_units, method=method, alpha=1.0)
            for method in (_paired(name), name)
        ]
        differences.append(paired_difference(each[0], each[1][None]))
    told = ", ".join(f"{name} {one:+.3f}" for name, one in zip(PAIRED, differences, strict=True))
    less = [one.high < 0 for one in differences]
    more = [one.low > 0 for one in differences]
    return Claim(
        "Masks with their complements give smaller errors than masks alone (as in OddSHAP)",
        True if all(less) else False if any(more) else None,
        f"squared error of paired masks less that of others at α = 1: {told}",
    )


def _of(cells: list[dict[str, Any]], quantity: str, **which: Any) -> Float[np.ndarray, " seed"]:
    found = [
        cell[quantity]
        for cell in cells
        if all(cell[name] == value for name, value in which.items())
    ]
    return np.array(found, dtype=float)
