"""Metrics: what is read off the last token's logits, one number a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechspex.core.errors import TaskError
from mechspex.tasks.metric_names import METRICS

Metric = Callable[[Tensor, Tensor], Tensor]
"""(logits ``[row, vocabulary]``, prompt number ``[row]``) → value ``[row]``."""


@dataclass(frozen=True)
class LogitDifference:
    """logit(answer) − logit(distractor), in logits.

    Attributes:
        answers, distractors: one token id a prompt.
    """

    answers: Int[Tensor, " prompt"]
    distractors: Int[Tensor, " prompt"]

    def __call__(
        self, logits: Float[Tensor, "row vocabulary"], prompts: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        answer = logits.gather(1, self.answers[prompts, None]).float()
        distractor = logits.gather(1, self.distractors[prompts, None]).float()
        return (answer - distractor)[:, 0]

    def reading_few(self) -> tuple[LogitDifference, Int[Tensor, " read"]]:
        """The same metric for logits of those tokens alone that it reads, and these tokens."""
        both = torch.stack([self.answers, self.distractors])
        read, places = both.unique(return_inverse=True)
        return LogitDifference(places[0], places[1]), read


@dataclass(frozen=True)
class AnswerProbability:
    """Σ_a softmax(logits)[a] over the prompt's answers a.

    Attributes:
        answers: token ids, one a prompt or several, filled up with −1.
    """

    answers: Int[Tensor, " prompt *answer"]

    def __call__(
        self, logits: Float[Tensor, "row vocabulary"], prompts: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        return _total(logits.float().softmax(-1), self.answers[prompts])


@dataclass(frozen=True)
class ProbabilityDifference:
    """Σ_a p(a) − Σ_d p(d), p = softmax(logits), over the prompt's answers a and distractors d.

    Greater-than as Hanna et al. 2023 (arXiv:2305.00586) measure it, section 2: the probability of
    the years that are right less that of the years that are wrong.

    Attributes:
        answers, distractors: token ids, one a prompt or several, filled up with −1.
    """

    answers: Int[Tensor, " prompt *answer"]
    distractors: Int[Tensor, " prompt *distractor"]

    def __call__(
        self, logits: Float[Tensor, "row vocabulary"], prompts: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        probabilities = logits.float().softmax(-1)
        right = _total(probabilities, self.answers[prompts])
        return right - _total(probabilities, self.distractors[prompts])


def _total(
    probabilities: Float[Tensor, "row vocabulary"], tokens: Int[Tensor, " row *several"]
) -> Float[Tensor, " row"]:
    """The probability of any of a row's tokens, those below 0 left out."""
    several = tokens.reshape(len(tokens), -1)
    read = probabilities.gather(1, several.clamp(min=0))
    return read.where(several >= 0, 0.0).sum(1)


@dataclass(frozen=True)
class KLDivergence:
    """KL(clean ‖ masked) = Σ_v p_clean(v) (log p_clean(v) − log p_masked(v)), in nats.

    Attributes:
        clean: logits of the untouched model, one row a prompt.
    """

    clean: Float[Tensor, "prompt vocabulary"]

    def __call__(
        self, logits: Float[Tensor, "row vocabulary"], prompts: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        clean = self.clean.float().log_softmax(-1)[prompts]
        return (clean.exp() * (clean - logits.float().log_softmax(-1))).sum(-1)


def bind_metric(
    metric: str | Metric,
    *,
    answers: Int[Tensor, " prompt *answer"],
    distractors: Int[Tensor, " prompt *distractor"] | None,
    clean: Float[Tensor, "prompt vocabulary"],
) -> Metric:
    """The metric of a task, with the tokens it reads.

    Args:
        metric: a name of `METRICS`, or a function (logits ``[row, vocabulary]``, prompt number
            ``[row]``) → value ``[row]``, which is returned as it is.
        answers: token ids, one a prompt or several, filled up with −1.
        distractors: token ids likewise; a metric that is a difference needs them.
        clean: logits of the untouched model, one row a prompt.

    Raises:
        TaskError: an unknown name, a difference without distractors, or a logit difference of
            several answers.
    """
    if callable(metric):
        return metric
    if metric == "answer_probability":
        return AnswerProbability(answers)
    if metric == "kl_divergence":
        return KLDivergence(clean)
    if metric not in METRICS:
        raise TaskError(f"metric {metric!r} is unknown; choose {', '.join(METRICS)} or a function")
    if distractors is None:
        raise TaskError(f"metric {metric!r} needs distractors; give one a prompt")
    if metric == "probability_difference":
        return ProbabilityDifference(answers, distractors)
    if answers.ndim > 1 or distractors.ndim > 1:
        raise TaskError(
            "metric 'logit_difference' reads one answer and one distractor a prompt, and here are "
            "several; choose probability_difference"
        )
    return LogitDifference(answers, distractors)
