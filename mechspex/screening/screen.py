"""The screen: every unit and every pair scored cheaply, the best proposed for exact ablation."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from mechspex.core.backward_rules import BackwardRules
from mechspex.core.checks import SEED, WHOLE
from mechspex.core.doors import door
from mechspex.core.errors import MeasurementError, Refused
from mechspex.core.old_keywords import takes_old
from mechspex.core.value_function import ValuesLike, as_value_function, as_values
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.run import Run, as_run
from mechspex.screening.candidates import Candidates
from mechspex.screening.methods import MethodName, as_method, find_method
from mechspex.screening.screen_method import ScreenMethod
from mechspex.screening.second_order import SecondOrder


def _renew(given: dict[str, Any], old: dict[str, Any]) -> None:
    """Put the old keywords of `screen` into its method; those of another method mean nothing."""
    method = find_method(given.get("method", SecondOrder.name))
    own = {field.name for field in fields(method)}  # type: ignore[arg-type]
    options = {name: value for name, value in old.items() if name in own}
    given["method"] = replace(method, **options)  # type: ignore[type-var]


@takes_old(
    {
        "max_order": "method=SecondOrder(max_order=…)",
        "parts": "method=FirstOrder(parts=…)",
        "keep": "method=FirstOrder(keep=…)",
        "n_masks": "method=CoarseToFine(n_masks=…)",
        "rows": "method=SecondOrder(rows=…)",
        "probes": "method=SecondOrder(probes=…)",
        "n_extended": "method=SecondOrder(n_extended=…)",
        "n_rejected": "method=SecondOrder(n_rejected=…)",
    },
    _renew,
)
@door(value_function=as_values, method=as_method, n_terms=WHOLE, run=as_run, seed=SEED)
def screen(
    value_function: ValuesLike,
    method: MethodName | ScreenMethod = "second_order",
    *,
    n_terms: int = 200,
    run: str | Path | Run | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Candidates:
    """Score every unit, or every pair of units and more, cheaply, and propose the best.

    Nothing that is proposed here is measured yet; `validate` does that.

    >>> import mechspex as mx
    >>> def soup(kept):  # salt alone is nothing, salt in water is soup
    ...     return 3.0 * (kept[:, 0] & kept[:, 1]) + 1.0 * kept[:, 2]
    >>> values = mx.FunctionValues(soup, mx.parts(["salt", "water", "bread"]))
    >>> mx.screen(values, "ablation", n_terms=1).ablated_effects()
    {(0,): -3.0, (1,): -3.0, (2,): -1.0, (0, 1): 3.0}

    Args:
        value_function: `ComponentValues`, or anything with its `value_and_gradient`; of a cheaper
            model (fewer prompts, ``bf16``, `ComponentValues.early_exit`) if that is to be the
            proxy; for ``ablation`` any value function.
        method: ``first_order`` proposes single units (`FirstOrder`), ``second_order`` sets of two
            units and more (`SecondOrder`), both by gradients; ``ablation`` proposes single units
            and pairs without any (`CoarseToFine`). Single units by other gradients: ``integrated``
            (`Integrated`), ``gim`` (`GIM`), ``relp`` (`RelP`), ``atp_star`` (`AtPStar`), and to
            rank circuits ``iterated`` (`Iterated`); the same rules for pairs:
            ``SecondOrder(backward=GIM().rules)``.
        n_terms: how many sets of each order are proposed; none whose predicted effect is 0.
        run: name or folder in which every gradient and the answer are kept; the same call goes on
            where an earlier one was stopped.
        seed: the only source of randomness of a method.
        progress: a progress bar on stderr.

    Raises:
        Refused: bad arguments, a value function without gradients, or one that no unit changes.
        MeasurementError: no score is finite.
    """
    if n_terms < 1:
        raise Refused(f"n_terms = {n_terms}: give a whole number from 1 up")
    chosen = find_method(method)
    # What is part of a larger answer is kept with that.
    keeps_answer = isinstance(run, str | Path)
    with Run.open(run, progress=progress) as run:
        recorded = _recorded(run, value_function, chosen.rules)
        scored = chosen.scored(recorded, n_terms, seed)
        scores = np.asarray(scored.scores, dtype=np.float64)
        singles = np.empty(0) if scored.singles is None else np.asarray(scored.singles)
        _check_scores(np.concatenate([scores, singles.ravel()]))
        ranked = np.argsort(-np.abs(scores), kind="stable").tolist()
        order = [row for row in ranked if np.isfinite(scores[row]) and scores[row]]
        candidates = Candidates(
            units=recorded.units,
            terms=tuple(scored.terms[row] for row in order),
            scores=scores[order],
            method=chosen.name,
            considered=tuple(scored.considered),
            single_scores=scored.singles,
            reach=scored.reach,
            rejected=scored.rejected,
            configuration=recorded.configuration,
            cost=run.cost,
        )
    if keeps_answer:
        run.keep(candidates)
    return candidates


def _recorded(run: Run, value_function: ValuesLike, rules: BackwardRules) -> RecordedValues:
    """The value function in a run; gradients of each set of rules lie in a folder of their own."""
    if not rules:
        return run.record(value_function)
    by_rules = as_value_function(value_function).with_backward(rules)
    return run.record(by_rules, f"backward-{rules.digest}")


def _check_scores(scores: np.ndarray) -> None:
    """Refuse scores of which none says anything."""
    finite = np.isfinite(scores)
    if np.any(scores[finite]):
        return
    if not finite.all():
        raise MeasurementError(
            "no score is finite: the value is NaN or infinite with units kept or ablated; mend the "
            "value function, or look at the model's dtype and the metric"
        )
    raise Refused(
        "every score is 0: no unit changes the value when it is ablated; look at the units, the "
        "ablation and the metric"
    )
