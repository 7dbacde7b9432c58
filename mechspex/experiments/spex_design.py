"""What SPEX's own masks cost: R² and F1 against the number of bins, by hard and soft decoding."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import numpy as np

from mechspex.core.masks import sample_masks
from mechspex.decoders import decode
from mechspex.decoders.spex.decoder import Spex
from mechspex.decoders.spex.design import SpexDesign
from mechspex.experiments.catalogue import FIGURES
from mechspex.experiments.experiment import Asked, Measured, experiment, mean_rows
from mechspex.experiments.paper_figure import Claim, Published
from mechspex.experiments.planted import f1, planted
from mechspex.experiments.reproduction import Axes
from mechspex.set_functions.r_squared import r_squared

# Words tried a bin: one is hard decoding.
DECODING = {"hard": 1, "soft": 512}
GROUPS, ORDER = 3, 5
SETS, NOISES = (20, 100), (None, 10.0)


def _cell(
    n_units: int, n_sets: int, noise_db: float | None, n_bits: int, seed: int
) -> list[dict[str, Any]]:
    function = planted(n_units, "peak", seed, n_sets=n_sets)
    spread = float(np.sqrt(np.sum(function.coefficients**2)))
    noise = 0.0 if noise_db is None else spread * 10 ** (-noise_db / 20)
    per_bin = 1 + SpexDesign(n_units, 1 << 20, max_order=ORDER).code.n_parities
    n_masks = (GROUPS * per_bin) << n_bits
    design = SpexDesign(
        n_units, n_masks, max_order=ORDER, n_groups=GROUPS, n_bits=n_bits, seed=seed
    )
    fresh = sample_masks(n_units, 2000, keep=0.5, seed=(seed, 1))
    rng = np.random.default_rng((seed, n_bits))
    values = function.predict(design.masks) + noise * rng.standard_normal(n_masks)
    rows = []
    for decoding, n_words in DECODING.items():
        answer = decode(
            design.masks, values, decoder=Spex(n_words=n_words), design=design, keep=0.5, seed=seed
        )
        r2 = float(r_squared(function.predict(fresh), answer.predict(fresh)))
        rows.append({"decoding": decoding, "masks": n_masks, "r2": r2, "f1": f1(answer, function)})
    return rows


@experiment(
    FIGURES["spex-design"],
    (
        Published("Sentiment, 64 to 127 words, soft, R² at b = 3 … 8",
                  ".423 .592 .706 .780 .834 .872", "result files"),
        Published("Sentiment, 256 to 511 words, soft, R² at b = 3 … 8",
                  ".158 .305 .466 .594 .690 .762", "result files"),
        Published("defaults", "b = 8, C = 3, t = 5", "stated"),
    ),
)  # fmt: skip
def spex_design(asked: Asked) -> Measured:
    sizes, seeds, most = ((64, 270), 10, 8) if asked.full else ((64,), 3, 6)
    rows: list[dict[str, Any]] = []
    for n_units, n_sets, noise in product(sizes, SETS, NOISES):
        told = f"{n_units} units, {n_sets} sets" + ("" if noise is None else f", {noise:g} dB")
        for n_bits in range(2, most + 1):
            cells = [
                row
                for seed in range(asked.seed, asked.seed + seeds)
                for row in asked.cell(
                    {"units": n_units, "sets": n_sets, "noise": noise, "bits": n_bits,
                     "seed": seed},
                    partial(_cell, n_units, n_sets, noise, n_bits, seed),
                )
            ]  # fmt: skip
            for quantity, called in (("r2", "R²"), ("f1", "F1")):
                scores = {
                    f"{called}, {decoding}": [
                        cell[quantity] for cell in cells if cell["decoding"] == decoding
                    ]
                    for decoding in DECODING
                }
                found = mean_rows(told, n_bits, scores)
                rows += [row | {"masks": cells[0]["masks"], "sets": n_sets} for row in found]
    return Measured(rows, Axes("b, bits of a bin", "score"), (_claim(rows),))


def _claim(rows: list[dict[str, Any]]) -> Claim:
    """From how many bins on the many sets are found without noise."""
    many = [
        row for row in rows
        if row["series"] == "R², soft" and row["sets"] == max(SETS) and "dB" not in row["panel"]
    ]  # fmt: skip
    reached = next((row for row in many if row["y"] > 0.99), None)
    said = f"R² {many[-1]['y']:.2f} at b = {many[-1]['x']}"
    if reached is not None:
        said = (
            f"R² above .99 from b = {reached['x']} on: {2 ** reached['x']} bins in each of "
            f"{GROUPS} groups, {reached['masks']:,} masks"
        )
    return Claim(f"{max(SETS)} sets are found with as many bins", reached is not None, said)
