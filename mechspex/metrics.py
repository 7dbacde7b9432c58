"""Metrics: what is read off the last token's logits, one number a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechspex.errors import TaskError

Metric = Callable[[Tensor, Tensor], Tensor]
"""(logits ``[row, vocabulary]``, prompt number ``[row]``) → value ``[row]``."""

METRICS = {
    "logit_difference": "logit of the answer less logit of the distractor",
    "answer_probability": "probability of the answer",
    "kl_divergence": "KL divergence of the masked model's next token from the clean model's, nats",
}


@dataclass(frozen=True)
class LogitDifference:
    """logit(answer) − logit(distractor), in logits.

    Attributes:
        answers, distractors: token ids, one a prompt.
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
        """The same metric of the logits of no more tokens than it reads, and those tokens."""
        both = torch.stack([self.answers, self.distractors])
        read, places = both.unique(return_inverse=True)
        return LogitDifference(places[0], places[1]), read


@dataclass(frozen=True)
class AnswerProbability:
    """softmax(logits)[answer].

    Attributes:
        answers: token ids, one a prompt.
    """

    answers: Int[Tensor, " prompt"]

    def __call__(
        self, logits: Float[Tensor, "row vocabulary"], prompts: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        return logits.float().softmax(-1).gather(1, self.answers[prompts, None])[:, 0]


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
    answers: Int[Tensor, " prompt"],
    distractors: Int[Tensor, " prompt"] | None,
    clean: Float[Tensor, "prompt vocabulary"],
) -> Metric:
    """The metric of a task, with the tokens it reads.

    Args:
        metric: a name of `METRICS`, or a function (logits ``[row, vocabulary]``, prompt number
            ``[row]``) → value ``[row]``.

    Raises:
        TaskError: an unknown name, or a logit difference without distractors.
    """
    if callable(metric):
        return metric
    if metric == "logit_difference":
        if distractors is None:
            raise TaskError("metric 'logit_difference' needs distractors; give one a prompt")
        return LogitDifference(answers, distractors)
    if metric == "answer_probability":
        return AnswerProbability(answers)
    if metric == "kl_divergence":
        return KLDivergence(clean)
    raise TaskError(f"metric {metric!r} is unknown; choose {', '.join(METRICS)} or a function")
