"""Values of a response: what is made of the probabilities of its tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechspex.core.errors import TaskError
from mechspex.tasks.spans import Span, characters_of
from mechspex.tasks.token_ids import Continuation

METRICS = {
    "log_probability": "log-probability of the response: the sum over its tokens, nats",
    "mean_log_probability": "the same, divided by the number of tokens",
    "logit_probability": "log p − log(1 − p) of the response, as ContextCite measures it",
    "logit_difference": "log-probability of the response less that of the distractor: for single "
    "tokens the difference of their logits",
    "kl_divergence": "KL divergence of the next token from that of the whole prompt, nats",
}
"""{name: what is measured}."""

# Those that may be taken of a span of the response.
OF_SPANS = ("log_probability", "mean_log_probability", "logit_probability")
# log p is no nearer to 0 than this: beyond it float32 tells no probability from 1.
_NEAREST = -(2.0**-24)


@dataclass(frozen=True)
class Response:
    """What should follow one prompt, in tokens.

    Attributes:
        text: the response.
        tokens: its tokens.
        pieces: the tokens of each span of it that is scored; all of them is one.
        distractor: the tokens of what should not follow; None for most metrics.
        distractor_text: the same in words.
    """

    text: str
    tokens: Continuation
    pieces: tuple[range, ...]
    distractor: Continuation | None = None
    distractor_text: str | None = None

    @property
    def continuations(self) -> tuple[Continuation, ...]:
        """Whatever is scored after the prompt."""
        return (self.tokens,) if self.distractor is None else (self.tokens, self.distractor)

    def values(
        self, metric: str, log_p: Sequence[Float[np.ndarray, "row _"]]
    ) -> Float[np.ndarray, "row piece"]:
        """The metric of each span of the response.

        Args:
            metric: a name of `METRICS`, but not the divergence.
            log_p: log-probabilities of the tokens of each continuation.
        """
        if metric == "logit_difference":
            return (log_p[0].sum(1) - log_p[1].sum(1))[:, None]
        own = [log_p[0][:, piece.start : piece.stop] for piece in self.pieces]
        if metric == "mean_log_probability":
            return np.stack([piece.mean(1) for piece in own], axis=1)
        total = np.stack([piece.sum(1) for piece in own], axis=1)
        return total if metric == "log_probability" else log_odds(total)


def log_odds(log_p: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """log p − log(1 − p), from log p; a p that rounds to 1 counts as 1 − 2⁻²⁴.

    As ContextCite scales probabilities (Cohen-Wang et al. 2024, arXiv:2409.00729, section 3), so
    that they range over all numbers.

    Args:
        log_p: log-probabilities, at most 0.
    """
    log_p = np.minimum(log_p, _NEAREST)
    # log(1 − p) loses digits one way where p is small, the other way where it is large.
    near = log_p > -np.log(2)
    with np.errstate(divide="ignore"):
        rest = np.where(near, np.log(-np.expm1(log_p)), np.log1p(-np.exp(log_p)))
    return log_p - rest


def log_probabilities(
    tokens: Sequence[Continuation],
) -> Callable[[Float[Tensor, "row read vocabulary"]], Float[Tensor, "row token"]]:
    """Reads the log-probabilities of continuations of one length, side by side.

    Args:
        tokens: the tokens of each.
    """
    wanted = torch.tensor(tokens)

    def read(logits: Tensor) -> Tensor:
        log_p = logits.float().log_softmax(-1)
        step = torch.arange(log_p.shape[1], device=log_p.device).expand(wanted.shape)
        return log_p[:, step, wanted.to(log_p.device)].flatten(1)

    return read


def divergence(
    clean: Float[Tensor, " vocabulary"],
) -> Callable[[Float[Tensor, "row 1 vocabulary"]], Float[Tensor, "row 1"]]:
    """Reads KL(whole ‖ ablated) = Σ_v p(v) (log p(v) − log q(v)) of the next token, in nats.

    Args:
        clean: logits after the whole prompt.
    """
    log_p = clean.float().log_softmax(-1)

    def read(logits: Tensor) -> Tensor:
        here = log_p.to(logits.device)
        return (here.exp() * (here - logits.float().log_softmax(-1))).sum(-1)

    return read


def text_after(tokenizer: Any, before: int, tokens: Continuation) -> tuple[str, list[int]]:
    """The text of tokens after another one, and where each of them ends in it.

    Args:
        tokenizer: the model's tokenizer.
        before: the token before, beside which a blank at the beginning is not dropped.
        tokens: the tokens.
    """

    def text(n_tokens: int) -> str:
        ids = [before, *tokens[:n_tokens]]
        return tokenizer.decode(ids, **_AS_IT_IS)

    begin = len(text(0))
    return text(len(tokens))[begin:], [len(text(n + 1)) - begin for n in range(len(tokens))]


def pieces_of(text: str, ends: Sequence[int], spans: Sequence[Span] | None) -> tuple[range, ...]:
    """The tokens of each span of a response; all of them where no spans are named.

    Args:
        text: the response.
        ends: where each token of it ends.
        spans: texts that stand in it once, or (first, last + 1) in characters.

    Raises:
        TaskError: a span that is not there, or there more than once, or that covers no token.
    """
    if spans is None:
        return (range(len(ends)),)
    begins, pieces = [0, *ends[:-1]], []
    for span in spans:
        begin, end = characters_of("a span of the response", text, span)
        inside = [
            i for i, (a, b) in enumerate(zip(begins, ends, strict=True)) if a < end and b > begin
        ]
        if not inside:
            raise TaskError(f"span {span!r} of the response {text!r} covers no token")
        pieces.append(range(inside[0], inside[-1] + 1))
    return tuple(pieces)


_AS_IT_IS = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
