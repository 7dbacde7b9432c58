"""What is asked of a trained model: its margin, log probability, loss or score on a target."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from mechspex.core.errors import Refused
from mechspex.training.labelled_data import IGNORED

Outcome = Literal["margin", "log_probability", "loss", "score"]

# Of targets whose labels are numbers.
OF_NUMBERS = ("score", "loss")


def check_outcome(outcome: str | None, *, regression: bool) -> Outcome:
    """The outcome that was asked for; of classes ``margin`` if none was, of numbers ``score``.

    Raises:
        Refused: an unknown one, or one that numbers do not have.
    """
    if outcome is None:
        return "score" if regression else "margin"
    allowed = OF_NUMBERS if regression else get_args(Outcome)
    if outcome not in allowed:
        kind = "numbers" if regression else "classes"
        raise Refused(
            f"outcome = {outcome!r}: targets whose labels are {kind} have {', '.join(allowed)}"
        )
    return outcome  # type: ignore[return-value]


def losses(logits: Float[Tensor, "*row"], labels: Tensor) -> Float[Tensor, " row"]:
    """The loss of each row: cross entropy, averaged over labelled positions; squared error.

    Args:
        logits: ``[row, …, class]``; of a regression ``[row]`` or ``[row, 1]``.
        labels: ``int64[row, …]`` or ``float[row]``.
    """
    if labels.is_floating_point():
        return (logits.reshape(len(labels)) - labels).square()
    # Classes before the last axis: of few classes many times as fast as along it.
    flat = logits.reshape(-1, logits.shape[-1]).T.contiguous()[None]
    each = cross_entropy(
        flat, labels.reshape(1, -1), ignore_index=IGNORED, reduction="none"
    ).reshape(labels.shape)
    if labels.ndim == 1:
        return each
    return each.flatten(1).sum(dim=1) / (labels != IGNORED).flatten(1).sum(dim=1)


def outcomes(logits: Float[Tensor, "*row"], labels: Tensor, outcome: Outcome) -> Tensor:
    """What is asked of each row.

    ``log_probability`` is log p of the right class; of a sequence that of all its labelled
    positions, Σ log p. ``margin`` is log p/(1 − p), which of one position is the logit of the right
    class − logsumexp of the others. ``loss`` is what is trained on. ``score`` is the logit of the
    right class, of a regression the prediction.

    Args:
        logits: ``[row, …, class]``; of a regression ``[row]`` or ``[row, 1]``.
        labels: ``int64[row, …]`` or ``float[row]``.
        outcome: what is asked.
    """
    if outcome == "loss":
        return losses(logits, labels)
    if labels.is_floating_point():
        return logits.reshape(len(labels))
    if outcome == "margin" and labels.ndim == 1:
        return _margin(logits, labels)
    counted = labels != IGNORED
    scores = logits if outcome == "score" else logits.log_softmax(dim=-1)
    right = scores.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    summed = torch.where(counted, right, 0).reshape(len(labels), -1).sum(dim=1)
    if outcome != "margin":
        return summed
    # The log of 1 − p, where p is near 1 as well.
    return summed - torch.log(-torch.expm1(summed))


def _margin(logits: Float[Tensor, "row class"], labels: Int[Tensor, " row"]) -> Tensor:
    right = labels[:, None] == torch.arange(logits.shape[-1], device=labels.device)
    others = logits.masked_fill(right, float("-inf")).logsumexp(dim=-1)
    return logits.gather(-1, labels[:, None])[:, 0] - others
