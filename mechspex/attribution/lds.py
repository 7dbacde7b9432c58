"""The linear datamodelling score: does a prediction order fresh masks as the value does?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from mechspex.attribution.method_scores import MethodScores
from mechspex.attribution.predictions import as_predictions, check_widths, predicted
from mechspex.core.checks import PROBABILITY, SEED, Several, Whole
from mechspex.core.doors import door
from mechspex.core.errors import FailedMasksError
from mechspex.core.finite import finite_rows
from mechspex.core.json_values import read_term, read_whole
from mechspex.core.masks import Stream, sample_masks
from mechspex.core.statistics import Estimate, rank_correlation, rank_correlation_estimate
from mechspex.core.value_function import ValuesLike, as_value_function, as_values
from mechspex.runs.run import Run, as_run

# Of fewer masks a rank correlation says nothing.
_FEWEST = 4


@dataclass(frozen=True, eq=False, repr=False)
class LDS(MethodScores):
    """Rank correlations of predicted and measured values on fresh masks.

    The interval is Student's over outputs. With one output it is that of Spearman's correlation
    over masks (Bonett & Wright 2000).

    Attributes:
        methods: the names of the predictions.
        at: the densities: with which probability a mask keeps each unit.
        outputs: the names of the value's columns.
        scores: Spearman's correlation of each output. NaN where the value does not vary; 0 where
            only the prediction does not.
        n_masks: how many fresh masks of each density were measured.
        n_failed: how many masks in all were left out, as a value of theirs is not finite.
        n_scored: how many masks of each density were not; none in answers of earlier versions.
    """

    schema: ClassVar[str] = "mechspex.lds/1"
    called: ClassVar[str] = "linear datamodelling score"
    quantity: ClassVar[str] = "LDS"
    against: ClassVar[str] = "keep"

    n_masks: int
    n_failed: int
    n_scored: tuple[int, ...] = ()

    def estimate(self, method: str, at: int | float) -> Estimate:
        """The mean over outputs with its interval; of one output, the interval over masks.

        Args:
            method: the name of the method.
            at: the density.
        """
        if len(self.outputs) > 1:
            return super().estimate(method, at)
        score = float(self._of(method, at)[0])
        n_masks = self.n_scored[self.at.index(at)] if self.n_scored else self.n_masks
        return rank_correlation_estimate(score, n_masks)

    def to_dict(self) -> dict[str, Any]:
        """The scores as plain numbers and lists, with a schema name."""
        counts = {"n_masks": self.n_masks, "n_failed": self.n_failed}
        return super().to_dict() | counts | {"n_scored": list(self.n_scored)}

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> LDS:
        n_masks, n_failed = read_whole(record["n_masks"]), read_whole(record["n_failed"])
        fields, n_scored = cls._fields(record), read_term(record.get("n_scored", []))
        if n_scored and len(n_scored) != len(fields["at"]):
            raise ValueError(f"n_scored {n_scored} of {len(fields['at'])} densities")
        return cls(**fields, n_masks=n_masks, n_failed=n_failed, n_scored=n_scored)


@door(
    predictions=as_predictions,
    values=as_values,
    keep=Several(PROBABILITY, "a probability strictly between 0 and 1, or a list of them"),
    n_masks=Whole(_FEWEST),
    run=as_run,
    seed=SEED,
)
def lds(
    predictions: Any,
    values: ValuesLike,
    *,
    keep: float | Sequence[float] = 0.5,
    n_masks: int = 100,
    run: str | Path | Run | None = None,
    seed: int = 0,
    progress: bool = False,
) -> LDS:
    """The linear datamodelling score of predictions, all on the same fresh masks.

    LDS = ρ({f(m_j)}, {f̂(m_j)}), Spearman's rank correlation over masks m_j that keep each unit
    with probability `keep` (Ilyas et al. 2022; Park et al. 2023, Definition 2.3; for contexts
    Cohen-Wang et al. 2024). There f̂ is a sum of scores of single units; here it may have
    interactions. Every output has its own correlation.

    The masks are fresh: they are drawn from a stream of their own, which `explain` does not decode.

    >>> import mechspex as mx
    >>> def soup(kept):  # salt alone is nothing, salt in water is soup
    ...     return 3.0 * (kept[:, 0] & kept[:, 1]) + 1.0 * kept[:, 2]
    >>> values = mx.FunctionValues(soup, mx.parts(["salt", "water", "bread"]))
    >>> methods = {"explain": mx.explain(values), "leave one out": mx.leave_one_out(values)}
    >>> print(mx.lds(methods, values).to_pandas()[["method", "LDS"]].round(2))
              method   LDS
    0        explain  1.00
    1  leave one out  0.82

    Args:
        predictions: a `SetFunction`, what has one (an explanation, a recovery, an attribution), one
            score a unit ``[unit]`` or ``[unit, output]``, or a function of masks; or
            {method: one of these}.
        values: what measures the masks.
        keep: with which probability a mask keeps a unit; several are scored one by one.
        n_masks: how many masks of each density are measured.
        run: name or folder in which every value is kept, so that no mask is measured twice.
        seed: the seed of the masks.
        progress: a progress bar on stderr.

    Raises:
        ShapeError: a prediction of other units or outputs.
        FailedMasksError: fewer than four masks of a density have finite values.
    """
    function = as_value_function(values)
    check_widths(predictions, function.units)
    densities = tuple(keep) if isinstance(keep, Sequence) else (keep,)
    scores = np.empty((len(predictions), len(densities), len(function.outputs)))
    n_scored = []
    with Run.open(run, progress=progress) as opened:
        recorded = opened.record(function)
        recorded.stage = "fresh masks"
        for place, density in enumerate(densities):
            stream = (seed, Stream.FRESH)
            masks = sample_masks(recorded.n_units, n_masks, keep=density, seed=stream)
            measured = recorded(masks).astype(np.float64)
            there = finite_rows(measured)
            n_scored.append(int(there.sum()))
            if there.sum() < _FEWEST:
                raise FailedMasksError(
                    f"{there.sum()} of {n_masks} masks at keep = {density:g} have finite values, "
                    f"and a rank correlation needs {_FEWEST}; mend the value function"
                )
            for row, (method, one) in enumerate(predictions.items()):
                expected = predicted(method, one, masks[there], measured.shape[1])
                scores[row, place] = _correlations(measured[there], expected)
    return LDS(
        methods=tuple(predictions),
        at=densities,
        outputs=tuple(function.outputs),
        scores=scores,
        n_masks=n_masks,
        n_failed=len(densities) * n_masks - sum(n_scored),
        n_scored=tuple(n_scored),
    )


def _correlations(
    measured: Float[np.ndarray, "mask output"], expected: Float[np.ndarray, "mask output"]
) -> Float[np.ndarray, " output"]:
    """Spearman's correlation of each output; a prediction that does not vary orders nothing: 0."""
    pairs = zip(measured.T, expected.T, strict=True)
    return np.array(
        [
            0.0 if np.ptp(f) > 0 and np.ptp(f_hat) == 0 else rank_correlation(f, f_hat)
            for f, f_hat in pairs
        ]
    )
