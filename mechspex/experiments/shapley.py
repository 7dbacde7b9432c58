"""Shapley values from few masks, against exact ones: KernelSHAP and the decoders."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.errors import BudgetError
from mechspex.core.masks import sample_masks
from mechspex.core.statistics import paired_difference
from mechspex.decoders import decode
from mechspex.experiments.catalogue import FIGURES
from mechspex.experiments.experiment import Asked, Measured, experiment, mean_rows
from mechspex.experiments.paper_figure import Claim, series
from mechspex.experiments.planted import planted
from mechspex.experiments.reproduction import Axes
from mechspex.set_functions.set_function import SetFunction

ALPHAS = (0.25, 0.5, 0.75, 1.0)
DECODERS = ("proxyspex", "pursuit", "automatic")
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
    masks = sample_masks(n_units, n_masks, keep=0.5, seed=seed)
    values = function.predict(masks)
    for name in DECODERS:
        try:
            answer = decode(masks, values, decoder=name, keep=0.5, seed=seed)
        except BudgetError:
            continue
        yield name, _values(answer)


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
    cells = [
        row
        for n_units in sizes
        for alpha in ALPHAS
        for seed in seeds
        for row in asked.cell(
            {"units": n_units, "alpha": alpha, "seed": asked.seed + seed},
            partial(_cell, n_units, alpha, asked.seed + seed),
        )
    ]
    methods = (KERNEL_SHAP, *DECODERS)
    rows: list[dict[str, Any]] = []
    for quantity, called in (("recall", RECALL), ("error", ERROR)):
        for n_units in sizes:
            for alpha in ALPHAS:
                every = {
                    method: _of(cells, quantity, units=n_units, method=method, alpha=alpha)
                    for method in methods
                }
                # A decoder that had too few masks in some of the draws has no mean.
                whole = {name: each for name, each in every.items() if len(each) == len(seeds)}
                rows += mean_rows(f"{called}, {n_units} units", alpha, whole)
    ours, theirs = (
        _of(cells, "recall", units=sizes[0], method=method, alpha=1.0)
        for method in ("proxyspex", KERNEL_SHAP)
    )
    ahead = paired_difference(ours, theirs[None])
    claim = Claim(
        "ProxySPEX finds more of the ten largest Shapley values than KernelSHAP (α = 1)",
        None if ahead.low <= 0 <= ahead.high else ahead.low > 0,
        f"{ahead:+.2f} of them, {sizes[0]} units",
    )
    return Measured(rows, Axes("masks / (n log₂ n)", "score"), (claim,))


def _of(cells: list[dict[str, Any]], quantity: str, **which: Any) -> Float[np.ndarray, " seed"]:
    found = [
        cell[quantity]
        for cell in cells
        if all(cell[name] == value for name, value in which.items())
    ]
    return np.array(found, dtype=float)
