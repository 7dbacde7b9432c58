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


def loss_slopes(
    logits: Float[Tensor, "mask row *rest"], labels: Tensor, weights: Float[Tensor, "mask row"]
) -> Tensor:
    """What Σ_r w_mr ℓ_mr changes by with each logit, with ℓ as in `losses`: of classes
    w (softmax − 1[right]), of numbers 2 w (prediction − label).

    Args:
        logits: the logits of each mask on the same rows.
        labels: ``int64[row, …]`` or ``float[row]``.
        weights: the weight of each row's loss.
    """
    if labels.is_floating_point():
        error = logits.reshape(weights.shape) - labels
        return error.mul_(weights).mul_(2).reshape(logits.shape)
    if labels.ndim > 1:
        # A row's loss is the mean over its labelled positions.
        counted = (labels != IGNORED).flatten(1).to(weights)
        counted /= counted.sum(dim=1, keepdim=True)
        weights = (weights[..., None] * counted).flatten(1)
    flat = labels.clamp(min=0).reshape(1, -1)
    n_classes = logits.shape[-1]
    right = torch.zeros(n_classes, flat.shape[1]).to(logits).scatter_(0, flat, 1)
    # Classes before rows: of few classes many times as fast as along the last axis.
    p = logits.reshape(len(logits), -1, n_classes).mT.softmax(dim=1)
    return p.sub_(right).mul_(weights[:, None]).mT.reshape(logits.shape)


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
