"""Which decoder recovers which planted function, from how many masks."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.errors import BudgetError
from mechspex.core.masks import sample_masks
from mechspex.decoders import decode
from mechspex.decoders.spex.design import SpexDesign
from mechspex.experiments.catalogue import FIGURES
from mechspex.experiments.experiment import (
    Asked,
    Measured,
    experiment,
    mean_rows,
    processors,
)
from mechspex.experiments.paper_figure import Claim, Published
from mechspex.experiments.planted import Structure, f1, planted
from mechspex.experiments.reproduction import Axes
from mechspex.set_functions.r_squared import r_squared

STRUCTURES: tuple[Structure, ...] = ("complete hierarchy", "peak")
OURS = ("proxyspex", "pursuit", "kernel", "automatic")
SPEX = "spex, own masks"
HELD_OUT = 2000

Masks = Bool[np.ndarray, "mask unit"]
Values = Float[np.ndarray, " mask"]


def _lasso() -> Any:
    from sklearn.linear_model import LassoCV

    return LassoCV(cv=5, alphas=100, max_iter=5000)


def _forest() -> Any:
    from sklearn.ensemble import RandomForestRegressor

    # A third of the units at a split, as Breiman has it for regression: 500 trees that see all
    # units gain up to .03 of R² (.18 for .15 on a hierarchy of 100) and take fifteen times as long.
    return RandomForestRegressor(100, max_features=1 / 3, random_state=0)


def _network(n_units: int) -> Any:
    from sklearn.neural_network import MLPRegressor

    return MLPRegressor(
        hidden_layer_sizes=(2 * (n_units // 4),),
        early_stopping=True,
        max_iter=500,
        random_state=0,
        solver="adam",
    )


def _trees(full: bool) -> Any:
    from lightgbm import LGBMRegressor

    return LGBMRegressor(
        n_estimators=1000 if full else 500, max_depth=5, learning_rate=0.1, n_jobs=1, verbosity=-1,
        min_child_samples=5,
    )  # fmt: skip


def _rivals(n_units: int, full: bool) -> Iterator[tuple[str, Any]]:
    """Models of scikit-learn and boosted trees, as the paper compares them."""
    yield "LASSO", _lasso()
    yield "random forest", _forest()
    yield "network", _network(n_units)
    try:
        yield "boosted trees", _trees(full)
    except ImportError:
        return


def _fitted(model: Any, masks: Masks, values: Values) -> Callable[[Masks], Values]:
    signs = 1.0 - 2.0 * masks
    with warnings.catch_warnings():
        # Not all fits come to their end; they are judged by what they predict.
        warnings.simplefilter("ignore")
        model.fit(signs, values)
    return lambda others: model.predict(1.0 - 2.0 * others)


def _cell(
    n_units: int, structure: Structure, noise_db: float | None, alpha: float, full: bool, seed: int
) -> list[dict[str, Any]]:
    function = planted(n_units, structure, seed)
    n_masks = math.ceil(alpha * n_units * math.log2(n_units))
    rng = np.random.default_rng((seed, n_masks))
    spread = float(np.sqrt(np.sum(function.coefficients**2)))
    noise = 0.0 if noise_db is None else spread * 10 ** (-noise_db / 20)
    fresh = sample_masks(n_units, HELD_OUT, keep=0.5, seed=(seed, 1))
    truth = function.predict(fresh)

    def measured(masks: Masks) -> Values:
        return function.predict(masks) + noise * rng.standard_normal(len(masks))

    masks = sample_masks(n_units, n_masks, keep=0.5, seed=seed)
    values = measured(masks)
    rows: list[dict[str, Any]] = []

    def score(method: str, predicted: Values, start: float, **more: float) -> None:
        seconds = time.perf_counter() - start
        rows.append(
            {"method": method, "r2": float(r_squared(truth, predicted)), "seconds": seconds} | more
        )

    for method, model in _rivals(n_units, full):
        start = time.perf_counter()
        score(method, _fitted(model, masks, values)(fresh), start)
    for method in (*OURS, SPEX):
        start, given, answers, design = time.perf_counter(), masks, values, None
        try:
            if method == SPEX:
                design = SpexDesign(n_units, n_masks, seed=seed)
                given, answers = design.masks, measured(design.masks)
            name = method.split(",")[0]
            found = decode(given, answers, decoder=name, design=design, keep=0.5, seed=seed)
        except BudgetError:
            continue
        score(method, found.predict(fresh), start, f1=f1(found, function))
    return rows


_PUBLISHED = (
    Published("best on the complete hierarchy", "boosted trees", "stated"),
    Published("on peaks", "boosted trees fail", "stated"),
)


@experiment(FIGURES["recovery"], _PUBLISHED)
def recovery(asked: Asked) -> Measured:
    # {units: how many functions of each kind}
    repeats = {64: 5, 100: 5, 270: 3} if asked.full else {64: 2}
    noises, alphas = ((None, 10.0), (0.5, 1, 2, 4, 8)) if asked.full else ((None,), (0.5, 1, 2, 4))
    every = product(repeats, noises, STRUCTURES, map(float, alphas))
    # At 270 units a function takes minutes: noise is added to the smaller ones alone.
    points = [point for point in every if point[0] < 270 or point[1] is None]
    todo = [
        (
            {
                "units": n_units, "noise": noise, "structure": structure, "alpha": alpha,
                "seed": seed,
            },
            partial(_cell, n_units, structure, noise, alpha, asked.full, seed),
        )
        for n_units, noise, structure, alpha in points
        for seed in range(asked.seed, asked.seed + repeats[n_units])
    ]  # fmt: skip
    at: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for cell in asked.cells(todo, processors() if asked.full else 1):
        place = cell["units"], cell["noise"], cell["structure"], cell["alpha"]
        at.setdefault(place, []).append(cell)
    rows = []
    for n_units, noise, structure, alpha in points:
        of = f"{structure}, {n_units} units" + ("" if noise is None else f", {noise:g} dB")
        rows += _means(of, alpha, at[n_units, noise, structure, alpha])
    return Measured(rows, Axes("masks / (n log₂ n)", "R² on fresh masks", log=True), _claims(rows))


def _means(panel: str, alpha: float, cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    methods = dict.fromkeys(cell["method"] for cell in cells)
    own = {method: [cell for cell in cells if cell["method"] == method] for method in methods}
    r2 = {method: [cell["r2"] for cell in of_it] for method, of_it in own.items()}
    return [
        row
        | {
            name: float(np.mean([cell.get(name, np.nan) for cell in own[row["series"]]]))
            for name in ("f1", "seconds")
        }
        for row in mean_rows(panel, alpha, r2)
    ]


def _claims(rows: list[dict[str, Any]]) -> tuple[Claim, ...]:
    """Trees on hierarchies and on peaks, at the largest number of masks."""
    most = max(row["x"] for row in rows)
    at = {(row["panel"], row["series"]): row["y"] for row in rows if row["x"] == most}
    hierarchy, peak = (next(p for p, _ in at if p.startswith(s)) for s in STRUCTURES)
    trees = "boosted trees"
    if (hierarchy, trees) not in at:
        return ()
    others = {m: at[hierarchy, m] for m in ("LASSO", "random forest", "network")}
    best = max(others, key=lambda method: others[method])
    return (
        Claim(
            "Boosted trees are best of the four learners on a complete hierarchy",
            at[hierarchy, trees] > others[best],
            f"R² {at[hierarchy, trees]:.2f}, next {best} {others[best]:.2f}, at α = {most:g}",
        ),
        Claim(
            "Boosted trees fail on peaks",
            at[peak, trees] < 0.5,
            f"R² {at[peak, trees]:.2f} at α = {most:g}; SPEX with masks of its own "
            f"{at.get((peak, SPEX), float('nan')):.2f}",
        ),
    )
