"""Scores of the parts of compiled programs, against the program and against the exact truth."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
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
    pruned_at,
    single_effects,
    slopes,
)
from mechspex.truth import known_model
from mechspex.truth.brute_force import exact_terms
from mechspex.truth.programs import PROGRAMS

SMALL = ("reverse", "xproportion")
ABLATIONS = ("zero", "resample")
SINGLES, GRADIENT, PRUNING, ADDITIVE, TERMS = (
    "single ablations", "gradient", "greedy pruning", "additive", "recovered terms",
)  # fmt: skip


def _scores(values: ValueFunction, table: Any) -> Iterator[tuple[str, Scores]]:
    """How strongly each method says that a unit belongs to the circuit."""
    n_units = values.n_units
    yield SINGLES, single_effects(values)
    yield GRADIENT, slopes(values)
    largest = float(np.ptp(table, axis=0).max())
    yield PRUNING, pruned_at(values, largest * np.geomspace(1e-3, 1, 13))
    # Of very few units all masks are too few for a comparison of decoders, but give every term.
    of_terms = "automatic" if n_units > 5 else "exhaustive"
    for method, decoder in ((ADDITIVE, "additive"), (TERMS, of_terms)):
        answer = decode(all_masks(n_units), table, decoder=decoder, keep=0.5)
        yield method, largest_terms(answer.to_basis("fourier", 0.5))


def _cell(name: str, ablation: str, seed: int) -> list[dict[str, Any]]:
    from sklearn.metrics import roc_auc_score

    known = known_model(name)
    values = known.values(ablation, seed=seed)
    table = values(all_masks(values.n_units)).astype(np.float64)
    in_truth = largest_terms(exact_terms(table)) > 0
    truths = {
        "the program": known.built_of or frozenset(),
        "the exact truth": frozenset(np.flatnonzero(in_truth).tolist()),
    }
    rows = []
    for method, scores in _scores(values, table):
        for against, members in truths.items():
            inside = np.isin(np.arange(values.n_units), sorted(members))
            # Where all units belong to it there is nothing to tell apart.
            area = float(roc_auc_score(inside, scores)) if 0 < inside.sum() < len(inside) else None
            rows.append(
                {
                    "panel": f"{name}: {inside.sum()} of {len(inside)} units are {against}",
                    "series": method, "x": ablation, "y": area, "low": None, "high": None,
                    "against": against,
                }
            )  # fmt: skip
    return rows


_PUBLISHED = tuple(
    Published(f"{program}, {ablation} ablation: ACDC / HISP / SP", value, "stated")
    for program, ablation, value in (
        ("xproportion", "zero", "1.00 / .91 / .88"),
        ("reverse", "zero", "1.00 / .75 / .95"),
        ("xproportion", "random", ".73 / .91 / .72"),
        ("reverse", "random", ".31 / .75 / .53"),
    )
)


@experiment(FIGURES["tracr-auc"], _PUBLISHED)
def tracr_auc(asked: Asked) -> Measured:
    rows = [
        row
        for name in (PROGRAMS if asked.full else SMALL)
        for ablation in ABLATIONS
        for row in asked.cell(
            {"program": name, "ablation": ablation, "seed": asked.seed},
            partial(_cell, name, ablation, asked.seed),
        )
    ]
    lowest = {
        (ablation, against): min(
            (
                row["y"] for row in rows
                if row["series"] == TERMS and row["y"] is not None
                and (row["ablation"], row["against"]) == (ablation, against)
            ),
            default=float("nan"),
        )
        for ablation in ABLATIONS
        for against in ("the program", "the exact truth")
    }  # fmt: skip
    program, truth = (lowest["resample", a] for a in ("the program", "the exact truth"))
    claim = Claim(
        "Scores fall when activations are resampled in place of zeroed",
        bool(program < lowest["zero", "the program"]),
        f"recovered terms, worst program: {program:.2f} against {lowest['zero', 'the program']:.2f}"
        f" by the program, but {truth:.2f} by the exact truth of that ablation",
    )
    return Measured(rows, Axes("ablation", "area under the ROC curve", kind="bars"), (claim,))
