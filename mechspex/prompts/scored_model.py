"""A model that is asked some questions: what it should say after them, and the forwards that
measure it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechspex.components.context import check_context
from mechspex.core.errors import TaskError
from mechspex.core.masks import sample_masks
from mechspex.models.load_model import Model
from mechspex.models.positions import most_positions
from mechspex.prompts.asked import Asked
from mechspex.prompts.prompt import Prompt
from mechspex.prompts.row_batches import Row
from mechspex.prompts.row_forward import RowForward
from mechspex.prompts.scoring import (
    Response,
    divergence,
    log_probabilities,
    pieces_of,
    text_after,
)
from mechspex.tasks.next_token import continuation, encode
from mechspex.tasks.reading import spaced
from mechspex.tasks.task import Task
from mechspex.tasks.token_ids import Continuation
from mechspex.tasks.token_rows import in_brackets
from mechspex.tasks.tokens import Tokens

# Positions at whose logits the copy is held against the bridge.
_PROVED = 8


@dataclass(frozen=True, eq=False)
class ScoredModel:
    """A model, the prompts it is asked, and the responses whose probability is measured.

    Attributes:
        model: the bridge.
        asked: what the user asks.
        prepend_bos: whether a BOS token comes first; None for the tokenizer's own way.
        forward: the rows' forwards.
        responses: what should follow each prompt.
        clean: logits after each whole prompt, for the divergence from it; else none.
    """

    model: Model
    asked: Asked
    prepend_bos: bool | None
    forward: RowForward
    responses: tuple[Response, ...]
    clean: tuple[Tensor, ...]

    @classmethod
    def of(cls, model: Model, asked: Asked, prepend_bos: bool | None) -> ScoredModel:
        """Read the prompts, prove the forwards, and write the responses that are not given.

        Raises:
            TaskError, ModelError, MeasurementError: see `PromptValues`.
        """
        prepend_bos = _bos_of(model, asked, prepend_bos)
        whole = [_row(model, p.text([True] * len(asked.units)), prepend_bos) for p in asked.prompts]
        longest = max(map(len, whole))
        n_read = _n_read(model, asked, longest)
        forward = RowForward(model, longest + n_read, n_read)
        unread = cls(model, asked, prepend_bos, forward, (), ())
        if asked.responses is not None:
            responses = unread._given(asked.responses)
            unread._check_context(responses)
            unread._prove()
        else:
            unread._check_context([((0,) * n_read, None)] * len(whole))
            unread._prove()
            responses = unread._written(whole, n_read)
        read = replace(unread, responses=unread._in_pieces(whole, responses))
        return replace(read, clean=read._clean(whole))

    def as_it_is_now(self) -> ScoredModel:
        """The same responses of the model as it is now."""
        forward = RowForward(self.model, self._longest, self._n_read)
        now = replace(self, forward=forward)
        now._prove()
        return replace(now, clean=now._clean(now.whole))

    @property
    def whole(self) -> list[Row]:
        """The tokens of the whole prompts."""
        kept = [True] * len(self.asked.units)
        return [self._row(prompt.text(kept)) for prompt in self.asked.prompts]

    @property
    def texts(self) -> tuple[str, ...]:
        """The responses."""
        return tuple(response.text for response in self.responses)

    @property
    def outputs(self) -> tuple[str, ...]:
        """A name for each column: question, or response; and the span of it."""
        names = []
        for question, response in zip(self.asked.questions, self.responses, strict=True):
            name = response.text if question is None else question
            spans = self.asked.spans
            names += [name] if spans is None else [f"{name}: {_shown(s, response)}" for s in spans]
        return tuple(names)

    @property
    def read(self) -> tuple[str, ...]:
        """The tokens of each whole prompt and of what is scored after it, in brackets."""
        return tuple(self.read_as(number) for number in range(len(self.responses)))

    def read_as(self, number: int, most: int | None = None) -> str:
        """The same of one question.

        Args:
            number: the question's.
            most: how many tokens of the prompt are shown, half of them at either end.
        """
        tokenizer, response = self.model.tokenizer, self.responses[number]
        wrong = response.distractor
        against = "" if wrong is None else f"  (not {in_brackets(tokenizer, wrong)})"
        prompt = in_brackets(tokenizer, self.whole[number].tolist(), most)
        return f"{prompt} → {in_brackets(tokenizer, response.tokens)}{against}"

    def split(self, response: Response) -> tuple[list[str], list[str]]:
        """The text of a response before each of its pieces, and that of the piece.

        Args:
            response: one of `responses`.
        """
        row = self.whole[self.responses.index(response)]
        text, ends = text_after(self.model.tokenizer, int(row[-1]), response.tokens)
        begins = [0, *ends]
        before = [text[: begins[piece.start]] for piece in response.pieces]
        spans = zip(before, response.pieces, strict=True)
        return before, [text[len(past) : begins[piece.stop]] for past, piece in spans]

    def values(self, number: int, texts: Sequence[str]) -> Float[np.ndarray, "text piece"]:
        """The metric of one question's response after some texts.

        Args:
            number: the question's.
            texts: what is read in the place of the whole prompt.
        """
        rows = [self._row(text) for text in texts]
        if self.asked.metric == "kl_divergence":
            return self.forward(rows, 1, divergence(self.clean[number]))
        response = self.responses[number]
        log_p: dict[Continuation, np.ndarray] = {}
        for before in dict.fromkeys(ids[:-1] for ids in response.continuations):
            # Continuations that differ in their last token alone share a row.
            alike = [ids for ids in response.continuations if ids[:-1] == before]
            forced = np.array(before, dtype=np.int32)
            followed = [np.concatenate([row, forced]) for row in rows]
            n_read = len(before) + 1
            found = self.forward(followed, n_read, log_probabilities(alike)).astype(np.float64)
            each = found.reshape(len(rows), len(alike), n_read)
            log_p |= {ids: each[:, place] for place, ids in enumerate(alike)}
        every = [log_p[ids] for ids in response.continuations]
        return response.values(self.asked.metric, every).astype(np.float32)

    def _row(self, text: str) -> Row:
        return _row(self.model, text, self.prepend_bos)

    @property
    def _n_read(self) -> int:
        return max(len(ids) for one in self.responses for ids in one.continuations)

    @property
    def _longest(self) -> int:
        return max(map(len, self.whole)) + self._n_read

    def _prove(self) -> None:
        """Hold the copy against the bridge on the whole prompts and on some without units."""
        n = len(self.asked.units)
        last = np.arange(n) != n - 1
        masks = [np.ones(n, dtype=bool), *sample_masks(n, 2, keep=0.5, seed=0), last]
        rows = [self._row(self.asked.prompts[0].text(mask.tolist())) for mask in masks]
        self.forward.prove(rows, min(_PROVED, *map(len, rows)))

    def _given(self, texts: Sequence[str]) -> list[tuple[Continuation, Continuation | None]]:
        """The tokens of responses and distractors that the user gave."""
        wrong = self.asked.distractors or (None,) * len(texts)
        found = []
        for prompt, right, other in zip(self.asked.prompts, texts, wrong, strict=True):
            whole = prompt.text([True] * len(self.asked.units))
            several = [right] if other is None else [right, other]
            labels = ("response", "distractor")
            tokens = [
                continuation(self.model.tokenizer, whole, text, label)
                for text, label in zip(self._joined(prompt, whole, several), labels, strict=False)
            ]
            if len(tokens) == 2 and tokens[0] == tokens[1]:
                raise TaskError(f"response and distractor are both {right!r}; change one of them")
            found.append((tokens[0], None if other is None else tokens[1]))
        return found

    def _joined(self, prompt: Prompt, whole: str, texts: Sequence[str]) -> Sequence[str]:
        """Texts as they follow a prompt: a reply begins without a space, a word with one."""
        return texts if prompt.template is not None else spaced(whole, texts)

    def _written(
        self, whole: Sequence[Row], n_tokens: int
    ) -> list[tuple[Continuation, Continuation | None]]:
        """What the model itself says after each whole prompt."""
        own: Any = self.model.original_model
        ends = getattr(getattr(own, "generation_config", None), "eos_token_id", None)
        stop = {self.model.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
        found = []
        for prompt, row in zip(self.asked.prompts, whole, strict=True):
            written = tuple(self.forward.written(row, n_tokens, stop - {None}))
            if self.asked.one_line and self.asked.metric != "kl_divergence":
                written = self._first_line(row, written)
            found.append((self._as_text(prompt, row, written), None))
        return found

    def _first_line(self, row: Row, written: Continuation) -> Continuation:
        """What was written up to the end of its first line that is not empty."""
        text, ends = text_after(self.model.tokenizer, int(row[-1]), written)
        begin = len(text) - len(text.lstrip())
        line = text[begin:].splitlines()[:1]
        length = begin + len(line[0]) if line else 0
        return written[: sum(end <= length for end in ends)]

    def _as_text(self, prompt: Prompt, row: Row, written: Continuation) -> Continuation:
        """What was written as far as it is a text that would be read as the same tokens."""
        whole, tokenizer = prompt.text([True] * len(self.asked.units)), self.model.tokenizer
        for n_tokens in range(len(written), 0, -1):
            tokens = written[:n_tokens]
            text, _ = text_after(tokenizer, int(row[-1]), tokens)
            try:
                if continuation(tokenizer, whole, text, "response") == tokens:
                    return tokens
            except TaskError:  # half a character, or a token that merges with the prompt
                continue
        raise TaskError(
            f"{self.model.cfg.model_name} writes no text after the prompt that it would read as "
            "the same tokens; give the response yourself, or another question"
        )

    def _in_pieces(
        self, whole: Sequence[Row], tokens: Sequence[tuple[Continuation, Continuation | None]]
    ) -> tuple[Response, ...]:
        responses = []
        for row, (right, wrong) in zip(whole, tokens, strict=True):
            tokenizer, last = self.model.tokenizer, int(row[-1])
            text, ends = text_after(tokenizer, last, right)
            other = None if wrong is None else text_after(tokenizer, last, wrong)[0]
            pieces = pieces_of(text, ends, self.asked.spans)
            responses.append(Response(text, right, pieces, wrong, other))
        return tuple(responses)

    def _clean(self, whole: Sequence[Row]) -> tuple[Tensor, ...]:
        if self.asked.metric != "kl_divergence":
            return ()
        every = self.forward(list(whole), 1, lambda logits: logits[:, 0])
        return tuple(torch.from_numpy(every))

    def _check_context(self, responses: Sequence[tuple[Continuation, Continuation | None]]) -> None:
        """Refuse what the model cannot read: prompts and responses beyond its vocabulary or its
        positions."""
        prompts = [prompt.text(_longest_mask(prompt, self._row)) for prompt in self.asked.prompts]
        rows = tuple(torch.from_numpy(self._row(text)).long() for text in prompts)
        answers = tuple((right,) if wrong is None else (right, wrong) for right, wrong in responses)
        task = Task(prompts, [" "] * len(prompts), metric="answer_log_probability", name="prompt")
        check_context(self.model, task, Tokens(rows, None, answers, None))


def _longest_mask(prompt: Prompt, row: Any) -> list[bool]:
    """The mask under which most is read: a replacement may be longer than what it replaces."""
    if prompt.replacement is None:
        return [True] * len(prompt.units)
    return [len(piece) >= len(prompt.replacement) for piece in prompt.units.pieces]


def _row(model: Model, text: str, prepend_bos: bool | None) -> Row:
    return np.array(encode(model.tokenizer, text, prepend_bos), dtype=np.int32)


def _n_read(model: Model, asked: Asked, longest: int) -> int:
    """How many tokens are scored, or written, after prompts of at most `longest` tokens."""
    if asked.metric == "kl_divergence":
        return 1
    if asked.responses is not None:
        return max(len(text) for text in (*asked.responses, *(asked.distractors or ())))
    positions = most_positions(model)
    if not asked.one_line or positions is None:
        return asked.n_written
    # As much of a line as there is room for.
    return min(asked.n_written, max(1, positions - longest + 1))


def _bos_of(model: Model, asked: Asked, prepend_bos: bool | None) -> bool | None:
    """Whether a BOS token comes first: it does where nothing would be left to read else.

    Raises:
        TaskError: nothing would be left all the same.
    """
    for prompt in asked.prompts:
        nothing = prompt.text([False] * len(asked.units))
        try:
            encode(model.tokenizer, nothing, prepend_bos)
        except TaskError:
            if nothing.strip():
                raise
            if prepend_bos is None and model.tokenizer.bos_token_id is not None:
                return True
            raise TaskError(
                "with every unit deleted nothing is left to read; give a question, "
                "prepend_bos=True, or ablation='replace'"
            ) from None
    return prepend_bos


def _shown(span: Any, response: Response) -> str:
    return span if isinstance(span, str) else response.text[span[0] : span[1]]
