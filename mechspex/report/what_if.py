"""What the page needs to say what any mask would do: the function, its error, measured masks."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.json_values import plain
from mechspex.core.masks import both_ends, pack
from mechspex.explanation.explanation import Explanation
from mechspex.explanation.held_out_masks import held_out_masks
from mechspex.runs.measured import measured_masks
from mechspex.set_functions.bases import affine
from mechspex.set_functions.r_squared import r_squared
from mechspex.set_functions.set_function import SetFunction

LEVEL = 0.95
# What a unit without an effect of its own counts.
_LEAST_WEIGHT = 0.25
# Beyond so many terms the function would take megabytes of the page, and so would masks beyond
# so many bits.
_MOST_TERMS, _MOST_MASKS, _MOST_BITS = 20_000, 2_000, 4_000_000


@dataclass(frozen=True, eq=False)
class PredictionInterval:
    """How far predictions lie from what is measured: ± (at_clean + rate·√off(m)).

    off(m) = Σ w_i over the units that m ablates, with w_i ∝ |a_i| + ¼·mean|a|, mean 1, where a_i is
    the recovered effect of ablating unit i alone: the error of f̂ with every unit kept is known,
    and it grows with how much of the behaviour is switched off. Were the effects that f̂ misses
    independent, with variances in proportion to w, its variance would be proportional to off(m).

    The rate is that of split conformal prediction (Lei et al. 2018, theorem 2.2) with the masks
    that scored the function, none of which it was recovered from: the ⌈(N + 1)·level⌉-th smallest
    of (|f̂(m) − f(m)| − at_clean) / √off(m). On masks of the same design the interval holds the
    measured value with at least that probability, whatever the weights are; these matter for other
    masks. Where more is off than in any mask tested, or more units are, nothing is known.

    Attributes:
        level: the probability.
        at_clean: |f̂ − f| with every unit kept.
        rate: see above, in the units of the value.
        weights: w_i of each unit.
        largest: the largest off(m) that was tested.
        n_masks: the number N of masks it rests on; 0 where all masks were measured.
        fewest, most: the smallest and the largest number of units that these masks ablate.
    """

    level: float
    at_clean: float
    rate: float
    weights: Float[np.ndarray, " unit"]
    largest: float
    n_masks: int
    fewest: int
    most: int

    def half_width(self, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, " mask"]:
        """Half the width of the interval at each mask; NaN where more is off than was tested, by
        what units count or by their number.

        Args:
            masks: True = kept.
        """
        off = ~masks @ self.weights
        known = (off <= self.largest * (1 + 1e-9)) & ((~masks).sum(axis=1) <= self.most)
        return np.where(known, self.at_clean + self.rate * np.sqrt(off), np.nan)


def _weights(function: SetFunction) -> Float[np.ndarray, " unit"]:
    """w_i, with few digits, as the page has them; all 1 for a function without single effects."""
    effects = function.ablated_effects()
    sizes = np.array([abs(effects.get((column,), 0.0)) for column in range(function.n_units)])
    if not sizes.any():
        return np.ones(function.n_units)
    return np.round((sizes / sizes.mean() + _LEAST_WEIGHT) / (1 + _LEAST_WEIGHT), 4)


def conformal(
    function: SetFunction,
    masks: Bool[np.ndarray, "mask unit"],
    values: Float[np.ndarray, " mask"],
    *,
    clean: float,
    level: float = LEVEL,
) -> PredictionInterval | None:
    """The interval of a function's predictions, from masks that it was not recovered from.

    Args:
        function: the recovered function f̂.
        masks: these masks, independent draws of one design; True = kept.
        values: their values, mean over outputs.
        clean: the value with every unit kept.
        level: how often the interval holds the value of another mask.

    Returns:
        The interval; None where the masks are too few for that level.
    """
    rank = math.ceil((len(masks) + 1) * level)
    if rank > len(masks):
        return None
    weights, n_off = _weights(function), (~masks).sum(axis=1)
    off = ~masks @ weights
    (whole, _) = function.predict(both_ends(function.n_units))
    at_clean = abs(float(whole) - clean)
    beyond = np.abs(function.predict(masks) - values) - at_clean
    # A mask that keeps everything has no error beyond.
    scores = np.sort(beyond / np.sqrt(np.where(n_off > 0, off, 1.0)))
    return PredictionInterval(
        level=level,
        at_clean=at_clean,
        rate=max(0.0, float(scores[rank - 1])),
        weights=weights,
        largest=float(off.max()),
        n_masks=len(masks),
        fewest=int(n_off.min()),
        most=int(n_off.max()),
    )


def prediction_interval(
    explanation: Explanation,
    masks: Bool[np.ndarray, "mask unit"],
    values: Float[np.ndarray, "mask output"],
) -> PredictionInterval | None:
    """The interval of an explanation's predictions, from the held-out masks among its run's.

    Args:
        explanation: the answer.
        masks, values: all that its run has measured.

    Returns:
        The interval; None where the held-out masks are not known: they would score the function
        with the R² that the answer has.
    """
    recovery, function = explanation.recovery, explanation.function
    if recovery.exact:
        return _of_all_masks(function, masks, values.mean(axis=1))
    drawn = held_out_masks(explanation)
    if drawn is None:
        return None
    row_of = {mask.tobytes(): row for row, mask in enumerate(masks)}
    rows = [row_of[mask.tobytes()] for mask in drawn if mask.tobytes() in row_of]
    if len(rows) != recovery.n_test:
        return None
    test, truth = masks[rows], values[rows].mean(axis=1)
    if not math.isclose(r_squared(truth, function.predict(test)), recovery.r2, abs_tol=1e-6):
        return None
    return conformal(function, test, truth, clean=explanation.clean)


def _of_all_masks(
    function: SetFunction, masks: np.ndarray, values: np.ndarray
) -> PredictionInterval | None:
    """Where every mask was measured the largest error is known."""
    n_units = function.n_units
    if len(masks) < 2**n_units:
        return None
    worst = float(np.abs(function.predict(masks) - values).max())
    return PredictionInterval(1.0, worst, 0.0, np.ones(n_units), float(n_units), 0, 0, n_units)


def what_if(
    function: SetFunction, folder: Path | None, explanation: Explanation | None = None
) -> dict[str, Any] | None:
    """All that the page needs to predict the value of a mask, and to show measured ones near it.

    Args:
        function: the recovered function.
        folder: the folder of its run; None where its values were kept in memory.
        explanation: the answer that it is of, for the interval.

    Returns:
        Plain numbers and lists; None for a function of too many terms.
    """
    if len(function) > _MOST_TERMS:
        return None
    masks, values = np.empty((0, function.n_units), dtype=bool), np.empty((0, function.n_outputs))
    if folder is not None:
        masks, values = measured_masks(folder, function.n_units, function.n_outputs)
    interval = None if explanation is None else prediction_interval(explanation, masks, values)
    slope, offset = affine(function.basis, function.keep)
    ends = function.predict(both_ends(function.n_units)).tolist()
    if explanation is not None:
        ends = [explanation.clean, explanation.ablated]
    return {
        # One factor a unit: where it is kept, and where it is ablated.
        "kept": slope + offset,
        "ablated": offset,
        "terms": [list(term) for term in function.terms],
        "coefficients": function.coefficients.tolist(),
        "ends": ends,
        "interval": None if interval is None else plain(vars(interval)),
        "measured": _some(masks, values.mean(axis=1)),
    }


def _some(masks: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    """Measured masks as packed bits in base64; a random sample where they are many."""
    most = min(_MOST_MASKS, _MOST_BITS // masks.shape[1])
    rows = np.sort(np.random.default_rng(0).permutation(len(masks))[:most])
    ends = np.flatnonzero(masks.all(axis=1) | ~masks.any(axis=1))
    rows = np.union1d(rows, ends)
    return {
        "n": len(masks),
        "masks": base64.b64encode(pack(masks[rows]).tobytes()).decode(),
        "values": [float(f"{value:.7g}") for value in values[rows].tolist()],
    }
