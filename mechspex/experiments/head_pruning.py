"""Head pruning: what a model does with half, two thirds, five sixths of some layers' heads."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Float

from mechspex.circuits.curve import scorer
from mechspex.circuits.prune_heads import prune_heads
from mechspex.circuits.pruning import Pruning
from mechspex.components.component_values import ComponentValues
from mechspex.core.statistics import (
    Estimate,
    holm,
    mean_estimate,
    paired_difference,
    proportion,
)
from mechspex.core.units import UnitSet
from mechspex.experiments.catalogue import FIGURES
from mechspex.experiments.experiment import Asked, Measured, experiment
from mechspex.experiments.layer_groups import layer_groups
from mechspex.experiments.paper_figure import Claim, Published, series
from mechspex.experiments.reproduction import Axes
from mechspex.models.load_model import Model, load_model
from mechspex.tasks.load_task import load_task
from mechspex.tasks.task import Task

SHARES = (1 / 2, 2 / 3, 5 / 6)
OURS, SAME_SEARCH, UNPRUNED = "recovered", "additive, same search", "unpruned"
RIVALS = (SAME_SEARCH, "additive", "best sampled", "random")
VALUE, MORE, RIGHT = "value", "what recovered has more", "right answers"
_RANDOM, _HELD_OUT = 10, 64

Cell = dict[str, Any]
# Values of each subset that a method chose on each held-out prompt.
Values = Float[np.ndarray, "subset prompt"]


def _prunings(
    searched: Task, held_out: Task, units: UnitSet, model: Model, budget: int, seed: int
) -> tuple[Pruning, Pruning]:
    """The choices of the recovered function, and those of the same search with an additive one."""
    values = ComponentValues(model, searched, units, "zero", rescale=True, precision="auto")
    scored = ComponentValues(model, held_out, units, "zero", rescale=True)
    sizes = {round(share * len(units)): share for share in reversed(SHARES)}
    # Both searches begin with the same random masks, which are measured once.
    with TemporaryDirectory() as folder:
        recovered, additive = (
            prune_heads(
                values, scored, shares=list(sizes.values()), n_masks=budget, decoder=decoder,
                n_random=_RANDOM, run=Path(folder), seed=seed,
            )
            for decoder in ("kernel", "additive")
        )  # fmt: skip
    return recovered, additive


def _cell(model: Model, name: str, group: str, asked: Asked) -> list[Cell]:
    """The held-out values of every choice in one group of layers."""
    # The paper chooses with 120 questions and 5,000 masks.
    n_searched, budget = (32, 5_000) if asked.full else (16, 300)
    drawn = load_task(name, model, n_prompts=n_searched + _HELD_OUT, seed=asked.seed)
    searched, held_out = drawn.split(n_searched, _HELD_OUT)
    units = layer_groups(model)[group]
    pruning, additive = _prunings(searched, held_out, units, model, budget, asked.seed)
    chosen = [(choice.method, choice.size, choice.values) for choice in pruning.choices]
    chosen += [(SAME_SEARCH, size, additive.choice(size).values) for size in additive.sizes]
    return [
        {
            "method": method, "kept": 100 * size / len(units), "values": values.tolist(),
            "whole": pruning.clean.tolist(),
        }
        for method, size, values in chosen
    ]  # fmt: skip


class _Case:
    """One group of layers with one share of its heads kept: the values of every method."""

    def __init__(self, cells: list[Cell]) -> None:
        self.group, self.kept = cells[0]["group"], round(cells[0]["kept"])
        self.whole = np.array(cells[0]["whole"])
        self.values: dict[str, Values] = {
            cell["method"]: np.array(cell["values"]) for cell in cells
        }

    def gained(self, rival: str) -> tuple[Float[np.ndarray, " prompt"], Values]:
        """Both sides of a comparison of values, as shares of the unpruned model's mean."""
        return self.values[OURS][0] / self.whole.mean(), self.values[rival] / self.whole.mean()

    def right(self, rival: str) -> tuple[Float[np.ndarray, " prompt"], Values]:
        """Both sides of a comparison of right answers."""
        return (self.values[OURS][0] > 0) * 1.0, (self.values[rival] > 0) * 1.0

    def rows(self) -> list[dict[str, Any]]:
        share = scorer(self.whole, 0)
        rows = [self._row(VALUE, UNPRUNED, Estimate(1.0, np.nan, np.nan))]
        rows += [self._row(RIGHT, UNPRUNED, proportion(self.whole > 0))]
        for method in (OURS, *RIVALS):
            values = self.values[method]
            rows += [
                self._row(VALUE, method, share(values.mean(axis=0))),
                self._row(RIGHT, method, _share_right(values)),
            ]
            if method != OURS:
                rows.append(self._row(MORE, method, paired_difference(*self.gained(method))))
        return rows

    def _row(self, panel: str, method: str, score: Estimate) -> dict[str, Any]:
        return {
            "panel": f"{panel}, {self.group}", "series": method, "x": self.kept, "y": score.value,
            "low": score.low, "high": score.high,
        }  # fmt: skip


def _share_right(values: Values) -> Estimate:
    """The share of prompts; of several subsets the mean share, with its spread over prompts."""
    right = values > 0
    return proportion(right[0]) if len(right) == 1 else mean_estimate(right.mean(axis=0))


def _claim(says: str, cases: list[_Case], quantity: str, rival: str) -> Claim:
    """Whether recovered is ahead of a rival, over the same prompts and all cases."""
    pairs = [case.right(rival) if quantity == RIGHT else case.gained(rival) for case in cases]
    each = [paired_difference(*pair) for pair in pairs]
    adjusted = holm(np.array([one.p_value for one in each])) < 0.05
    ours, theirs = (np.mean([pair[side] for pair in pairs], axis=0) for side in (0, 1))
    ahead = paired_difference(ours, theirs)
    signs = np.sign([one.value for one in each])[adjusted]
    unit = "of the prompts" if quantity == RIGHT else "of the unpruned value"
    return Claim(
        says,
        None if ahead.low <= 0 <= ahead.high else ahead.low > 0,
        f"{ahead:+z.3f} {unit}; of {len(cases)} cases ahead in {(signs > 0).sum()}, behind in "
        f"{(signs < 0).sum()} (Holm)",
    )


def _claims(cases: list[_Case]) -> tuple[Claim, ...]:
    ahead = (
        (RIGHT, "additive", "more right answers than the heads of an additive function"),
        (RIGHT, "best sampled", "more right answers than the best of all sampled masks"),
        (VALUE, "additive", "more value than the heads of an additive function"),
        (VALUE, "best sampled", "more value than the best of all sampled masks"),
        (
            VALUE,
            SAME_SEARCH,
            "more value than by the same search without interactions",
        ),
    )
    return tuple(
        _claim(f"the heads of the recovered function have {what}", cases, quantity, rival)
        for quantity, rival, what in ahead
    )


_KEPT = (50, 67, 83)
_PAPER = {
    "1–3": ((0.7833, 0.8417, 0.8667), (0.7083, 0.8250, 0.8333), (0.7375, 0.7625, 0.7625)),
    "14–16": ((0.8750, 0.8583, 0.8917), (0.8250, 0.8500, 0.8500), (0.7750, 0.8000, 0.8125)),
    "30–32": ((0.8667, 0.8667, 0.8667), (0.8583, 0.8417, 0.8417), (0.8125, 0.7875, 0.7875)),
}
_METHODS = (OURS, "additive", "best sampled")
_PUBLISHED = (
    *(
        one
        for layers, bars in _PAPER.items()
        for method, values in (*zip(_METHODS, bars, strict=True), (UNPRUNED, (0.8583,) * 3))
        for one in series(
            f"paper: right answers, layers {layers}", method, _KEPT, values, "vector graphics"
        )
    ),
    Published("more right answers than LASSO, relative (1–3)", "+11, +2, +4 %", "stated"),
    Published("more right answers than LASSO, relative (14–16)", "+6, +1, +5 %", "stated"),
    Published("more right answers than LASSO, relative (30–32)", "+1, +3, +3 %", "stated"),
    Published(
        "the questions of the bars",
        "multiples of 1/120 for ProxySPEX, LASSO and unpruned, of 1/80 for Best-of-N: 120 of the "
        "231 questions chose, so these are no test questions, nor the same; one question is 0.8 "
        "points",
        "computed",
    ),
)  # fmt: skip


@experiment(FIGURES["head-pruning"], _PUBLISHED)
def head_pruning(asked: Asked) -> Measured:
    model = load_model(asked.model) if isinstance(asked.model, str) else asked.model
    cells = [
        cell
        for group in layer_groups(model, first=asked.full)
        for cell in asked.cell({"group": group}, partial(_cell, model, asked.task, group, asked))
    ]
    places = dict.fromkeys((cell["group"], cell["kept"]) for cell in cells)
    cases = [
        _Case([cell for cell in cells if (cell["group"], cell["kept"]) == place])
        for place in places
    ]
    by_panel = sorted(
        (row for case in cases for row in case.rows()),
        key=lambda row: [VALUE, MORE, RIGHT].index(row["panel"].split(", ")[0]),
    )
    of_prompts = {row["panel"] for row in by_panel if row["panel"].startswith(RIGHT)}
    of_prompts |= {one.panel for one in _PUBLISHED if one.panel}
    return Measured(
        by_panel,
        Axes("heads kept (%)", "share of the unpruned value"),
        _claims(cases),
        panel_axes=dict.fromkeys(sorted(of_prompts), Axes("heads kept (%)", "share of prompts")),
    )
