"""The value function of a prompt's parts: what a model says when some of them are missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.doors import door
from mechspex.core.errors import AblationError, MeasurementError, Refused
from mechspex.core.masks import both_ends, check_masks
from mechspex.core.recipe import Recipe
from mechspex.core.units import UnitSet
from mechspex.core.value_function import ValueFunction, values_of, without_gradients
from mechspex.models.load_model import Model
from mechspex.models.lock import lock_of
from mechspex.prompts.ablated_tokens import AblatedTokens
from mechspex.prompts.asked import (
    ON_TOKENS,
    Asked,
    as_ablation,
    as_metric,
    as_model_or_none,
    as_parting,
    as_response,
    as_spans,
    as_texts,
)
from mechspex.prompts.attention_paid import attention_paid
from mechspex.prompts.provenance import provenance_of
from mechspex.prompts.scored_model import ScoredModel
from mechspex.prompts.words import Context, as_context, words
from mechspex.tasks.spans import Span

Texts = Callable[[list[str]], Any]
"""Texts → a value each, or several."""


class PromptValues(ValueFunction):
    """What a model says after a prompt when parts of its context are missing.

    value[m, j] = metric of the j-th output (the response to a question, or a span of it) when unit
    i of the context is kept where m_i is True, and ablated where m_i is False. The question is
    never ablated.

    With ``delete`` and ``replace`` the value is that of the model on the shortened text itself,
    tokenised anew. The tokens of the response are those that follow the whole prompt, and are
    scored all at once (teacher forcing).

    Values are measured on a copy of the model without its bridge, which shares the weights, once
    that is proved to give the bridge's own logits on some of these prompts; else, and while the
    bridge carries hooks of yours, through the bridge. What masks have in common at the beginning
    of their texts is computed once, and a text that several masks leave is measured once.

    >>> import mechspex as mx
    >>> model = mx.load_model("tiny")
    >>> values = mx.PromptValues(model, "apple bird boat apple", by="word", response=" bird")
    >>> print(values.read[0])
    [<bos>][ apple][ bird][ boat][ apple] → [ bird]
    >>> values.units.names
    ('apple', 'bird', 'boat', 'apple (2)')

    Args:
        model: a bridge of a causal model, or the name of one to load; None where the metric is a
            function of the text alone.
        context: the text whose parts are ablated; several documents; the turns of a conversation;
            or units of a text from `mechspex.words`, whose other parts are always kept.
        question: what follows the context and is always kept (a question, an instruction,
            choices); or several, which then are asked under the same masks, an output each. Of a
            conversation without one the last turn is the question.
        by: what the context is parted by, see `mechspex.words`; or units of this very text.
        response: what the model should say, one for each question; or how many tokens it writes
            itself, the likeliest each time, unless its text ends before. If not given, it writes
            one line of at most 32 tokens.
        distractor: what it should not say, for ``logit_difference``; one for each question.
        ablation: ``delete``; ``replace``, by "_", or ``("replace", "a word of yours")``; or what
            leaves all positions as they are: ``hide``, the unit's tokens are hidden from the
            attention of others; ``zero`` or ``mean``, their embeddings are zero, or the mean over
            the prompt's.
        metric: ``log_probability`` of the response, ``mean_log_probability`` (per token),
            ``logit_probability`` (log p − log(1 − p)), ``logit_difference``, ``kl_divergence`` of
            the next token from that of the whole prompt; or a function of your own of a list of
            texts, which returns a value, or several, for each.
        spans: pieces of the response that are scored in its place, an output each: texts that
            stand in it once, or (first, last + 1) in characters.
        chat: whether the chat template of the tokenizer is put round context and question; it
            always is round a conversation.
        prepend_bos: whether a BOS token comes first; None for the tokenizer's own way, and for one
            where nothing would be left to read else.

    Raises:
        Refused: an empty text, fewer than two units, units of another text, or bad arguments.
        TaskError: a prompt or response that does not fit the tokenizer or the model's context.
        ModelError: a model that is no causal one.
        AblationError: an ablation that changes no value.
        MeasurementError: a clean value that is not finite.
    """

    @door(
        model=as_model_or_none,
        context=as_context,
        question=as_texts,
        by=as_parting,
        response=as_response,
        distractor=as_texts,
        ablation=as_ablation,
        metric=as_metric,
        spans=as_spans,
    )
    def __init__(
        self,
        model: Model | str | Path | None,
        context: Context | UnitSet,
        question: str | Sequence[str] | None = None,
        *,
        by: str | UnitSet = "sentence",
        response: str | Sequence[str] | int | None = None,
        distractor: str | Sequence[str] | None = None,
        ablation: str | tuple[str, str] = "delete",
        metric: str | Texts = "log_probability",
        spans: Sequence[Span] | None = None,
        chat: bool = False,
        prepend_bos: bool | None = None,
    ) -> None:
        assert model is None or isinstance(model, Model)
        asked = Asked.of(
            model, context, question, by, response, distractor, ablation, metric, spans, chat
        )
        self._asked = asked
        self._scored = self._tokens = None
        if model is not None:
            with lock_of(model):
                self._scored = ScoredModel.of(model, asked, prepend_bos)
                if asked.ablation in ON_TOKENS:
                    self._tokens = AblatedTokens.of(self._scored)
                self._ends = self._checked_ends()
        else:
            self._ends = None
            self._n_outputs = self(np.ones((1, self.n_units), dtype=bool)).shape[1]

    @property
    def units(self) -> UnitSet:
        return self._asked.units

    @property
    def outputs(self) -> tuple[str, ...]:
        """The questions, or the responses where there are none; with spans, each of them."""
        if self._scored is None:
            return tuple(f"output {number}" for number in range(self._n_outputs))
        return self._scored.outputs

    @property
    def model(self) -> Model | None:
        """The bridge; None of a function of the text."""
        return None if self._scored is None else self._scored.model

    @property
    def text(self) -> str:
        """The context, in whose characters the spans of the units are."""
        return self._asked.units.text

    @property
    def prompts(self) -> tuple[str, ...]:
        """The whole prompts, a text for each question, as the model reads them."""
        return tuple(prompt.text([True] * self.n_units) for prompt in self._asked.prompts)

    @property
    def responses(self) -> tuple[str, ...]:
        """What is scored after each of them; nothing of a function of the text."""
        return () if self._scored is None else self._scored.texts

    @property
    def read(self) -> tuple[str, ...]:
        """What exactly the model reads of each whole prompt: its tokens in brackets, special ones
        as well, and after the arrow those that are scored."""
        return self.prompts if self._scored is None else self._scored.read

    @property
    def through_bridge(self) -> str | None:
        """Why values are measured through the bridge; None where they are not."""
        if self._tokens is not None:
            return self._tokens.outputs[0].through_bridge
        return None if self._scored is None else self._scored.forward.through_bridge

    @property
    def tokens_run(self) -> int:
        """How many tokens of forwards all values took so far, the proof's among them."""
        return 0 if self._scored is None else self._scored.forward.tokens_run

    @property
    def configuration(self) -> dict[str, str]:
        """Everything a value depends on but the mask; and what was read, in words."""
        self._renew()
        return provenance_of(self._asked, self._scored, self._ends).to_configuration()

    @property
    def recipe(self) -> Recipe:
        """How another process makes the same values: by the model's name and the texts.

        Raises:
            Refused: a metric of yours that cannot be imported.
        """
        from mechspex.prompts.recipe import recipe_of

        return recipe_of(self)

    @property
    def first_batch(self) -> int:
        """Forwards are cut to the memory anyway."""
        return 32

    def ablated(self, mask: Bool[np.ndarray, " unit"]) -> tuple[str, ...]:
        """What the model reads under a mask, a text for each question; the whole prompts where
        their tokens are ablated.

        Args:
            mask: True = kept.
        """
        (kept,) = check_masks(np.asarray(mask)[None], self.n_units).tolist()
        if self._tokens is not None:
            return self.prompts
        return tuple(prompt.text(kept) for prompt in self._asked.prompts)

    def __call__(self, masks: np.ndarray) -> Float[np.ndarray, "mask output"]:
        """Values ``float32[mask, output]`` of masks ``bool[mask, unit]``, in the metric's units.

        Raises:
            ShapeError: masks of another width or dtype.
            TaskError: a text that the tokenizer cannot read.
            MeasurementError: out of memory even for one mask on one prompt.
        """
        rows = check_masks(masks, self.n_units).tolist()
        if not rows:
            return np.empty((0, len(self.outputs)), dtype=np.float32)
        if self._tokens is not None:
            return self._tokens.values(masks)
        self._renew()
        parts = []
        for number, prompt in enumerate(self._asked.prompts):
            # Masks that leave the same text have the same value.
            places: dict[str, int] = {}
            each = [places.setdefault(prompt.text(kept), len(places)) for kept in rows]
            parts.append(self._values(number, list(places))[each])
        return np.concatenate(parts, axis=1)

    @property
    def differentiable(self) -> bool:
        """Whether masks may lie between 0 and 1: where tokens are ablated, and none left out; not
        where they are hidden from a model of TransformerLens' own."""
        return self._tokens is not None and self._tokens.outputs[0].differentiable

    def value_and_gradient(
        self, masks: Float[np.ndarray, "mask unit"]
    ) -> tuple[Float[np.ndarray, "mask output"], Float[np.ndarray, "mask output unit"]]:
        """Values of soft masks and ∂ value[m, j] / ∂ m_i, where tokens are ablated.

        Args:
            masks: between 0, ablated, and 1, kept.

        Raises:
            Refused: a text is either there or not, with ``delete`` and ``replace``.
            ShapeError: masks of another width.
        """
        if self._tokens is None:
            raise without_gradients(self)
        return self._tokens.values_and_gradients(masks)

    def parted(self, by: str) -> PromptValues:
        """The same responses to the same prompts, of other parts of the context: of sentences, say,
        which tell in what words an answer lies (``mechspex.explain(words, screen=…)``).

        Args:
            by: what the context is parted by, see `mechspex.words`.

        Raises:
            Refused: a conversation, or a context without such parts.
        """
        asked = self._asked
        if asked.units.turns is not None:
            raise Refused("a conversation has no other parts than its turns; give a text")
        replacement = asked.replacement
        return PromptValues(
            self.model,
            words(asked.units.text, by, tokenizer=self.model and self.model.tokenizer),
            None if asked.questions == (None,) else [str(one) for one in asked.questions],
            response=self.responses or None,
            distractor=asked.distractors,
            ablation=asked.ablation if replacement is None else (asked.ablation, replacement),
            metric=asked.metric,
            spans=asked.spans,
            chat=asked.prompts[0].template is not None,
            prepend_bos=None if self._scored is None else self._scored.prepend_bos,
        )

    def attention_paid(self) -> Float[np.ndarray, "unit output"]:
        """The mean attention to each unit from where each output is predicted, see
        `mechspex.attention_scores`.

        Raises:
            Refused: a function of the text, which reads without attention.
            ModelError: a model that does not show its attention.
        """
        if self._scored is None:
            raise Refused("a function of the text pays no attention; give PromptValues a model")
        with lock_of(self._scored.model):
            return attention_paid(self._scored)

    def _values(self, number: int, texts: list[str]) -> Float[np.ndarray, "text piece"]:
        """The outputs of one question on some texts."""
        metric = self._asked.metric
        if callable(metric):
            return values_of(metric(list(texts)), len(texts))
        assert self._scored is not None
        with lock_of(self._scored.model):
            return self._scored.values(number, texts)

    def _renew(self) -> None:
        """Prepare and prove anew where the model's weights or hooks have changed since."""
        if self._scored is not None and self._scored.forward.has_changed:
            with lock_of(self._scored.model):
                self._scored = self._scored.as_it_is_now()

    def _checked_ends(self) -> tuple[float, float]:
        """The mean values of the whole prompts and of those without any unit."""
        kept, empty = self(both_ends(self.n_units)).astype(np.float64)
        if not np.isfinite(kept).all():
            raise MeasurementError(
                f"the value of the whole prompt is {kept.tolist()}; give a response that can follow"
            )
        if np.array_equal(kept, empty):
            raise AblationError(
                f"ablating all {self.n_units} units ({self._asked.ablation!r}) changes no value; "
                "choose another ablation or response"
            )
        return float(kept.mean()), float(empty.mean())
