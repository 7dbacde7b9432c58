"""ContextCite's estimator: a LASSO of the logit-scaled probability on masks, a baseline."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float

from mechspex.attribution.attribution import Attribution
from mechspex.core.checks import Whole, number_in
from mechspex.core.doors import door
from mechspex.core.errors import FailedMasksError, Refused, ShapeError
from mechspex.core.finite import finite_rows
from mechspex.core.masks import check_masks
from mechspex.core.units import UnitSet, as_parts
from mechspex.core.value_function import values_of

# A log-probability is known to about this; it is that of single precision.
_ROUNDING = float(np.finfo(np.float32).eps)


def logit_of(
    log_probabilities: Float[np.ndarray, "..."],
) -> Float[np.ndarray, "..."]:
    """log p − log(1 − p) of log-probabilities, in nats; finite where p is 1 to rounding.

    Args:
        log_probabilities: log p, at most 0.

    Raises:
        Refused: a log-probability above 0.
    """
    logs = np.asarray(log_probabilities, dtype=np.float64)
    if np.nanmax(logs, initial=-np.inf) > _ROUNDING:
        raise Refused(f"a log-probability of {np.nanmax(logs):.3g}: it is at most 0")
    # 1 − p of p within rounding of 1 is that rounding.
    logs = np.minimum(logs, -_ROUNDING)
    return logs - np.log(-np.expm1(logs))


def _as_penalty(name: str, given: object) -> float:
    """Reads the weight of the penalty."""
    number = number_in(given)
    if number is None or not 0 <= number < float("inf"):
        raise Refused(f"{name} = {given!r}: give a penalty from 0 up, such as 0.01")
    return float(number)


@door(units=as_parts, n_tokens=Whole(1), penalty=_as_penalty)
def context_cite(
    masks: Bool[np.ndarray, "mask unit"],
    logits: Float[np.ndarray, "mask output"] | np.ndarray,
    *,
    units: UnitSet | Iterable[object] | int | None = None,
    n_tokens: int = 1,
    penalty: float = 0.01,
) -> Attribution:
    """The scores that ContextCite's published code gives from masks and values.

    With X the masks, each column less its mean over its standard deviation, and y the logit of the
    response's probability over its number of tokens,

        w = argmin_w 1/(2N) ‖y − b − X w‖² + penalty · ‖w‖₁,

    brought back to the scale of masks and of whole responses (Cohen-Wang et al. 2024, Section 3;
    the standardised columns, the division and the penalty of 0.01 are those of its code). So the
    longer the response, the stronger the penalty.

    >>> import mechspex as mx
    >>> masks = mx.sample_masks(3, 64)
    >>> mx.context_cite(masks, 2.0 * masks[:, 0] - 1.0 * masks[:, 2]).scores.round(2)
    array([ 1.98,  0.  , -0.98])

    Args:
        masks: True = kept.
        logits: log p − log(1 − p) of the response, ``[mask]`` or ``[mask, output]``; see
            `mechspex.attribution.context_cite.logit_of`. A mask without finite values is left out.
        units: what the columns stand for; numbers if not given.
        n_tokens: how many tokens the response has.
        penalty: the weight of the penalty.

    Raises:
        ShapeError: masks and values that do not go together.
        FailedMasksError: fewer than two masks have finite values.
    """
    from sklearn.linear_model import Lasso

    masks = check_masks(masks)
    targets = values_of(logits, len(masks)).astype(np.float64)
    there = finite_rows(targets)
    if there.sum() < 2:
        raise FailedMasksError(f"{there.sum()} masks have finite values; give at least two")
    named = as_parts("units", masks.shape[1] if units is None else units)
    if len(named) != masks.shape[1]:
        raise ShapeError(f"{len(named)} units and masks of {masks.shape[1]}; give the same units")
    kept = masks[there].astype(np.float64)
    mean, spread = kept.mean(axis=0), kept.std(axis=0)
    # A unit that never changes tells nothing, as in scikit-learn's scaler.
    spread[spread == 0] = 1.0
    lasso = Lasso(alpha=penalty).fit((kept - mean) / spread, targets[there] / n_tokens)
    n_outputs = targets.shape[1]
    scores = n_tokens * np.reshape(lasso.coef_, (n_outputs, -1)).T / spread[:, None]
    intercept = n_tokens * np.reshape(lasso.intercept_, n_outputs) - mean @ scores
    return Attribution(
        method="ContextCite",
        units=named,
        outputs=tuple(f"output {number}" for number in range(n_outputs)),
        output_scores=scores,
        intercept=intercept,
        n_masks=int(there.sum()),
    )
