"""How many coefficients of a recovered function are worth keeping, and in which basis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.errors import BudgetError
from mechspex.decoders import decode
from mechspex.experiments.catalogue import FIGURES
from mechspex.experiments.experiment import Asked, Measured, experiment, processors
from mechspex.experiments.ioi_masks import ioi_heads, shared
from mechspex.experiments.paper_figure import Claim, Published
from mechspex.experiments.r2_samples import held_out_masks, sizes, training_masks
from mechspex.experiments.reproduction import Axes
from mechspex.set_functions.bases import Basis
from mechspex.set_functions.r_squared import r2_interval, r_squared

DECODERS = ("proxyspex", "pursuit", "kernel")
BASES: tuple[Basis, ...] = ("fourier", "kept", "ablated")
KEPT = (1, 2, 5, 10, 20, 50, 100, 200, 500)
# What the paper says suffices, and the share of R² that shall count as enough.
SAID, ENOUGH = 200, 0.95


def relative_r2(
    masks: Bool[np.ndarray, "mask unit"],
    values: Float[np.ndarray, "mask prompt"],
    fresh: Bool[np.ndarray, "other unit"],
    truth: Float[np.ndarray, " other"],
    decoder: str,
    keep: float,
    seed: int,
) -> list[dict[str, Any]]:
    """Rows with the share of R² that stays with the largest coefficients of a basis alone.

    No row where the masks are too few for the decoder.

    Args:
        masks, values: what the decoder is given.
        fresh: the masks that judge.
        truth: their values, mean over prompts.
        decoder: the decoder's name.
        keep: the density of the masks.
        seed: the decoder's seed.
    """
    try:
        found = decode(masks, values, decoder=decoder, keep=keep, seed=seed)
    except BudgetError:
        return []
    whole = r_squared(truth, found.predict(fresh))
    rows = []
    for basis in BASES:
        function = found.to_basis(basis)
        for n_terms in KEPT:
            predicted = function.truncate(n_terms).predict(fresh)
            low, high = r2_interval(truth, predicted)
            rows.append(
                {
                    "basis": basis, "x": n_terms, "y": max(r_squared(truth, predicted) / whole, 0),
                    "low": max(low / whole, 0), "high": max(high / whole, 0), "r2": whole,
                }
            )  # fmt: skip
    return rows


@experiment(
    FIGURES["sparsity"],
    (Published("coefficients that suffice, Sentiment and MS-COCO, α = 2 to 8", "about 200",
               "stated"),),
)  # fmt: skip
def sparsity(asked: Asked) -> Measured:
    todo = []
    heads = ioi_heads(asked)
    with shared(asked, heads) as values:
        n_units = values.n_units
        for keep, numbers in sizes(n_units, asked.full).items():
            fresh = held_out_masks(n_units, keep, asked.seed)
            truth = values(fresh).mean(axis=1).astype(np.float64)
            masks = training_masks(n_units, numbers[-1], keep, asked.seed)
            given = masks, values(masks), fresh, truth
            for decoder in DECODERS:
                key = {"series": decoder, "keep": keep, "masks": len(masks)}
                todo.append((key, partial(relative_r2, *given, decoder, keep, asked.seed)))
    rows = asked.cells(todo, processors() if asked.full else 1)
    for row in rows:
        row["panel"] = f"{row['basis']} basis, {row['masks']:,} masks at p = {row['keep']:g}"
        row["alpha"] = row["masks"] / (n_units * math.log2(n_units))
    axes = Axes("largest coefficients kept", "share of the R² of all", log=True)
    return Measured(rows, axes, tuple(_claim(rows, keep) for keep in (0.5, 0.9)))


def _claim(rows: Sequence[Mapping[str, Any]], keep: float) -> Claim:
    """ProxySPEX in its own basis."""
    own = [row for row in rows
           if row["series"] == "proxyspex" and row["keep"] == keep]  # fmt: skip
    fourier = {row["x"]: row for row in own if row["basis"] == "fourier"}
    at = fourier[SAID]
    told = []
    for basis in BASES:
        enough = [row["x"] for row in own if row["basis"] == basis and row["y"] >= ENOUGH]
        told += [f"{min(enough)} {basis}" if enough else f"more than {KEPT[-1]} {basis}"]
    return Claim(
        f"About 200 coefficients of ProxySPEX suffice (for {ENOUGH:.0%} of R², p = {keep:g})",
        True if at["low"] >= ENOUGH else False if at["high"] < ENOUGH else None,
        f"{at['y']:.3f} [{at['low']:.3f}, {at['high']:.3f}] of R² {at['r2']:.3f}; of the numbers "
        f"tried the first to suffice are {', '.join(told)}",
    )
