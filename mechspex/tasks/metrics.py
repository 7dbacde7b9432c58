"""Metrics: what is read off the logits, one number a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechspex.core.errors import TaskError
from mechspex.tasks.metric_names import DIFFERENCES, METRICS
from mechspex.tasks.teacher_forcing import Places, places
from mechspex.tasks.tokens import Tokens, first_tokens

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


@dataclass(frozen=True)
class Continuations:
    """A metric of whole continuations, from the log-probability of each.

    log p(c | prompt) = Σ_t log softmax(logits after c_1 … c_{t−1})[c_t], the sum over all tokens of
    the continuation; divided by their number with `per_token`. Then, of the answers a and the
    distractors d,

    - ``logit_difference``: log Σ_a p(a) − log Σ_d p(d), which for single tokens is logit(a) −
      logit(d), their common normaliser being the same;
    - ``probability_difference``: Σ_a p(a) − Σ_d p(d);
    - ``answer_probability``: Σ_a p(a);
    - ``answer_log_probability``: log Σ_a p(a).

    Attributes:
        metric: the name of one of these.
        places: where the continuations are read.
        per_token: whether log-probabilities are divided by the number of tokens.
    """

    metric: str
    places: Places
    per_token: bool = False

    def __call__(
        self,
        logits: Float[Tensor, "row sequence read vocabulary"],
        prompts: Int[Tensor, " row"],
    ) -> Float[Tensor, " row"]:
        each = self.log_probabilities(logits, prompts)
        right = self.places.right[prompts]
        wrong = ~right & (self.places.token[prompts][..., 0] >= 0)
        nothing = torch.full_like(each, -torch.inf)
        answers = each.where(right, nothing).logsumexp(1)
        if self.metric == "answer_log_probability":
            return answers
        if self.metric == "answer_probability":
            return answers.exp()
        distractors = each.where(wrong, nothing).logsumexp(1)
        if self.metric == "probability_difference":
            return answers.exp() - distractors.exp()
        return answers - distractors

    def log_probabilities(
        self,
        logits: Float[Tensor, "row sequence read vocabulary"],
        prompts: Int[Tensor, " row"],
    ) -> Float[Tensor, "row continuation"]:
        """log p of every continuation of a row's prompt, in nats; 0 where there is none."""
        log_p = logits.float().log_softmax(-1)
        token = self.places.token[prompts, :, : log_p.shape[2]]
        row = torch.arange(len(log_p), device=log_p.device)[:, None, None]
        step = torch.arange(token.shape[2], device=log_p.device)
        read = log_p[row, self.places.sequence[prompts][..., None], step, token.clamp(min=0)]
        there = token >= 0
        total = read.where(there, 0.0).sum(-1)
        return total / there.sum(-1).clamp(min=1) if self.per_token else total


@dataclass(frozen=True)
class AllPositions:
    """A metric of your own that sees the logits after every token of the prompt.

    Attributes:
        metric: (logits ``[row, pos, vocabulary]``, prompt number ``[row]``) → value ``[row]``.
            Rows of one call are of one length.
    """

    metric: Callable[[Tensor, Tensor], Tensor]

    def __call__(
        self, logits: Float[Tensor, "row pos vocabulary"], prompts: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        return self.metric(logits, prompts)


def reads_continuations(metric: str | Metric, tokens: Tokens) -> bool:
    """Whether a metric has to read more than the one token after each prompt."""
    return isinstance(metric, str) and metric != "kl_divergence" and not tokens.of_one_token


def bind_metric(
    metric: str | Metric,
    *,
    tokens: Tokens,
    clean: Float[Tensor, "prompt vocabulary"],
    per_token: bool = False,
) -> Metric:
    """The metric of a task, with the tokens it reads, on the device of `clean`.

    Args:
        metric: a name of `METRICS`, or a function (logits ``[row, vocabulary]``, prompt number
            ``[row]``) → value ``[row]``, which is returned as it is.
        tokens: answers and distractors; a metric that is a difference needs both.
        clean: logits of the untouched model after each prompt.
        per_token: whether the log-probability of a continuation is divided by its length.

    Raises:
        TaskError: an unknown name, or a difference without distractors.
    """
    if callable(metric):
        return metric
    if metric == "kl_divergence":
        return KLDivergence(clean)
    if metric not in METRICS:
        raise TaskError(f"metric {metric!r} is unknown; choose {', '.join(METRICS)} or a function")
    if tokens.distractors is None and metric in DIFFERENCES:
        raise TaskError(
            f"metric {metric!r} needs distractors; give one a prompt, or choose "
            "answer_log_probability"
        )
    device = clean.device
    answers = first_tokens(tokens.answers).to(device)
    wrong = None if tokens.distractors is None else first_tokens(tokens.distractors).to(device)
    of_single = _of_single_tokens(metric, answers, wrong) if tokens.of_one_token else None
    if of_single is not None:
        return of_single
    return Continuations(metric, places(tokens).to(device), per_token)


def _of_single_tokens(metric: str, answers: Tensor, distractors: Any) -> Metric | None:
    """The same number by less arithmetic, where every continuation is a single token."""
    if metric == "answer_probability":
        return AnswerProbability(answers)
    if metric == "probability_difference":
        return ProbabilityDifference(answers, distractors)
    if metric == "logit_difference" and answers.ndim == distractors.ndim == 1:
        return LogitDifference(answers, distractors)
    return None
