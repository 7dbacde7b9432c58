"""What single effects, gradients, pruning and interactions say of gates and of backup heads."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from mechspex.core.masks import all_masks
from mechspex.core.value_function import ValueFunction
from mechspex.decoders import decode
from mechspex.experiments.catalogue import FIGURES
from mechspex.experiments.experiment import Asked, Measured, experiment
from mechspex.experiments.paper_figure import Claim, Published
from mechspex.experiments.reproduction import Axes
from mechspex.experiments.unit_scores import (
    Scores,
    largest_terms,
    pruned_greedily,
    single_effects,
    slopes,
)
from mechspex.truth import known_model
from mechspex.truth.brute_force import exact_terms

MODELS = ("and2", "or2", "or3", "adder", "backup")
# A unit is named if its score exceeds this share of the largest change that there is.
COUNTED = 0.01
SINGLES, GRADIENT, PRUNING, TERMS = (
    "single ablations", "gradient", "greedy pruning", "recovered terms",
)  # fmt: skip


def _named(values: ValueFunction, table: np.ndarray) -> Iterator[tuple[str, set[int]]]:
    """The units that each method names."""
    n_units = values.n_units
    least = COUNTED * float(np.ptp(table, axis=0).max())
    answer = decode(all_masks(n_units), table, decoder="automatic", keep=0.5)
    yield SINGLES, _above(least, single_effects(values))
    yield GRADIENT, _above(least, slopes(values))
    yield PRUNING, pruned_greedily(values, least)
    yield TERMS, _above(least, largest_terms(answer))


def _above(least: float, scores: Scores) -> set[int]:
    return set(np.flatnonzero(scores > least).tolist())


def _cell(name: str, seed: int) -> list[dict[str, Any]]:
    values = known_model(name).values("zero", seed=seed)
    table = values(all_masks(values.n_units)).astype(np.float64)
    circuit = _above(0.0, largest_terms(exact_terms(table)))
    return [
        {
            "panel": f"{name}: {len(circuit)} of {values.n_units} heads", "series": method,
            "x": called, "y": share, "low": np.nan, "high": np.nan,
            "heads": " ".join(values.units[unit].name for unit in sorted(named)),
        }
        for method, named in _named(values, table)
        for called, share in (
            ("of the circuit", len(named & circuit) / len(circuit)),
            ("of all others", len(named - circuit) / max(1, values.n_units - len(circuit))),
        )
    ]  # fmt: skip


def _hidden(seed: int) -> list[dict[str, float]]:
    """The effect of the strongest head alone, as a share of that of its strongest pair."""
    values = known_model("backup").values("zero", seed=seed)
    whole = np.ones((1, values.n_units), dtype=bool)
    pairs = [[i, j] for i, j in combinations(range(values.n_units), 2)]
    without = np.ones((len(pairs), values.n_units), dtype=bool)
    np.put_along_axis(without, np.array(pairs), False, axis=1)
    value = values(whole)
    drop = (value - values(without)).mean(axis=1)
    i, j = pairs[int(np.argmax(drop))]
    alone = (value - values(~np.eye(values.n_units, dtype=bool)[[i, j]])).mean(axis=1)
    return [{"share": float(alone.max() / drop.max())}]


_PUBLISHED = (Published("inputs of an OR that pruning keeps", "one", "stated"),)


@experiment(FIGURES["or-gate"], _PUBLISHED)
def or_gate(asked: Asked) -> Measured:
    rows = [
        row
        for name in MODELS
        for row in asked.cell({"model": name, "seed": asked.seed}, partial(_cell, name, asked.seed))
    ]
    found = {
        (row["model"], row["series"]): row["y"] for row in rows if row["x"] == "of the circuit"
    }
    hidden = asked.cell({"of": "backups", "seed": asked.seed}, partial(_hidden, asked.seed))[0][
        "share"
    ]
    claims = (
        Claim(
            "Greedy pruning keeps one of the inputs of an OR",
            found["or2", PRUNING] == 0.5,
            f"{found['or2', PRUNING]:.0%} of an OR of two, {found['or3', PRUNING]:.0%} of three",
        ),
        Claim(
            "What a head does is hidden by its backup",
            hidden < 0.5,
            f"the strongest head alone changes {hidden:.0%} of what it does with its backup",
        ),
    )
    axes = Axes("heads", "share that the method names", kind="bars")
    return Measured(rows, axes, claims)
