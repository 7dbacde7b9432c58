"""How often large Fourier coefficients come with their subsets, in exact spectra."""

from __future__ import annotations

from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from mechspex.core.masks import all_masks
from mechspex.core.units import Term
from mechspex.experiments.catalogue import FIGURES
from mechspex.experiments.experiment import Asked, Measured, experiment
from mechspex.experiments.paper_figure import Claim, Published
from mechspex.experiments.planted import planted
from mechspex.experiments.reproduction import Axes
from mechspex.set_functions.hierarchy import hierarchy_of
from mechspex.truth import known_model
from mechspex.truth.brute_force import coefficients, term_of

MODELS = ("gates12", "gates12b", "dyck1", "backup")
RANDOM = "sets of the same orders at random"
RATES = {"direct_subset": "DSR", "staircase": "SCR", "strong": "SHR"}
_REPEATS = 20
# Coefficients below this share of the largest are rounding.
_ROUNDING = 1e-4


def _spectrum(name: str, seed: int) -> tuple[int, tuple[Term, ...]]:
    """How many units there are, and the sets of the exact spectrum, the strongest first."""
    if name in MODELS:
        values = known_model(name).values("zero", seed=seed)
        table = values(all_masks(values.n_units)).mean(axis=1, keepdims=True)
        spectrum = np.abs(coefficients(table, "fourier")[1:, 0])
        order = np.argsort(-spectrum, kind="stable")
        large = order[spectrum[order] > _ROUNDING * spectrum.max()]
        return values.n_units, tuple(term_of(int(row) + 1) for row in large)
    function = planted(32, "peak" if name == "peak" else "complete hierarchy", seed)
    found = {term: abs(value) for term, value in function.to_mapping().items() if term}
    return 32, tuple(sorted(found, key=lambda term: -found[term]))


def _at_random(n_units: int, terms: tuple[Term, ...], seed: int) -> tuple[Term, ...]:
    """Other sets of the same orders, each order drawn without repeats."""
    rng = np.random.default_rng((seed, len(terms)))
    orders = [len(term) for term in terms]
    pools: dict[int, list[Term]] = {}
    for order in set(orders):
        if n_units <= 12:
            every = list(combinations(range(n_units), order))
            pools[order] = [every[i] for i in rng.permutation(len(every))]
        else:
            drawn: dict[Term, None] = {}
            while len(drawn) < orders.count(order):
                drawn[tuple(sorted(rng.choice(n_units, order, replace=False).tolist()))] = None
            pools[order] = list(drawn)
    return tuple(pools[order].pop() for order in orders)


def _cell(name: str, seed: int) -> list[dict[str, Any]]:
    n_units, terms = _spectrum(name, seed)
    rows = []
    for rates in hierarchy_of(terms):
        repeats = [
            hierarchy_of(_at_random(n_units, terms[: rates.k - 1], repeat))[-1]
            for repeat in range(_REPEATS)
        ]
        for quantity, called in RATES.items():
            chance = [getattr(one, quantity) for one in repeats]
            for series, value in ((called, getattr(rates, quantity)),
                                  (f"{called}, {RANDOM}", float(np.mean(chance)))):  # fmt: skip
                rows.append(
                    {
                        "panel": f"{name}, {n_units} units", "series": series, "x": rates.k,
                        "y": value, "low": None, "high": None,
                    }
                )  # fmt: skip
    return rows


@experiment(
    FIGURES["hierarchy"],
    (
        Published("DSR at all k", "above 80%", "stated"),
        Published("SCR", "about 100%", "stated"),
        Published("SHR", "falls with k", "stated"),
    ),
)
def hierarchy(asked: Asked) -> Measured:
    names = (*MODELS, "complete hierarchy", "peak")
    rows = [
        row
        for name in names
        for row in asked.cell({"of": name, "seed": asked.seed}, partial(_cell, name, asked.seed))
    ]
    direct = [row for row in rows if row["series"] == "DSR" and row["of"] in MODELS]
    chance = [row for row in rows if row["series"] == f"DSR, {RANDOM}" and row["of"] in MODELS]
    least = min(direct, key=lambda row: row["y"])
    claim = Claim(
        "More than 80% of direct subsets are there, for all k",
        least["y"] > 0.8,
        f"least {least['y']:.0%} ({least['of']}, k = {least['x']}); at random "
        f"{min(row['y'] for row in chance):.0%} to {max(row['y'] for row in chance):.0%}",
    )
    return Measured(rows, Axes("k, the largest coefficients", "rate", log=True), (claim,))
