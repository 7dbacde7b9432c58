"""What a model reads: a context of which units are ablated, and a question that stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mechspex.core.errors import TaskError
from mechspex.prompts.ablated_text import deleted, replaced
from mechspex.prompts.partition import Span
from mechspex.prompts.text_units import TextUnits
from mechspex.prompts.words import BETWEEN

Template = Callable[[list[dict[str, str]]], str]
"""Turns → the text that a model reads of them."""


@dataclass(frozen=True)
class Prompt:
    """One prompt as a function of what is kept of its context.

    Attributes:
        units: the parts of the context.
        question: what follows the context and is never ablated.
        template: the chat template; None where the model reads the text itself.
        replacement: what stands in the place of an ablated unit; None where it is deleted.
    """

    units: TextUnits
    question: str | None = None
    template: Template | None = None
    replacement: str | None = None

    def text(self, kept: Sequence[bool]) -> str:
        """What is read of the context and the question when some units are kept.

        Args:
            kept: whether each unit is kept.
        """
        if self.units.turns is not None:
            return self._conversation(kept)
        text = self._context(kept)
        return text if self.template is None else self.template([_by_user(text)])

    def placed(self) -> tuple[Span, ...]:
        """Where the units stand in the whole prompt.

        Raises:
            TaskError: a chat template that changes what is said.
        """
        if self.template is None:
            return self.units.spans
        everything = [True] * len(self.units)
        whole = self.text(everything)
        if self.units.turns is None:
            begin = _found(whole, self._context(everything), 0)
            return tuple((a + begin, b + begin) for a, b in self.units.spans)
        moved, done = {}, 0
        for _, (begin, end) in self.units.turns:
            place = _found(whole, self.units.text[begin:end], done)
            done = place + end - begin
            moved[begin, end] = place, done
        return tuple(moved[span] for span in self.units.spans)

    def _context(self, kept: Sequence[bool]) -> str:
        """The context and the question, without any template."""
        *between, after = self.units.between
        between = [*between, after + _following(after or self.units.text, self.question)]
        pieces = self.units.pieces
        if self.replacement is None:
            return deleted(between, pieces, kept)
        return replaced(between, pieces, kept, self.replacement)

    def _conversation(self, kept: Sequence[bool]) -> str:
        assert self.units.turns is not None
        assert self.template is not None
        keeps = dict(zip(self.units.spans, kept, strict=True))
        turns = []
        for role, (begin, end) in self.units.turns:
            keep = keeps.get((begin, end), True)
            if keep or self.replacement is not None:
                content = self.units.text[begin:end] if keep else str(self.replacement)
                turns.append({"role": role, "content": content})
        if self.question is not None:
            turns.append(_by_user(self.question))
        return self.template(turns)


def template_of(tokenizer: Any) -> Template:
    """The chat template of a tokenizer, up to where the reply begins.

    Raises:
        TaskError: it has none; or, when it is called, one that refuses the turns.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise TaskError(
            "this model's tokenizer has no chat template; leave out chat=True, and give a "
            "conversation as documents"
        )

    def read(turns: list[dict[str, str]]) -> str:
        asked: Sequence[Mapping[str, str]] = turns
        try:
            return str(
                tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
            )
        except Exception as error:  # templates raise what they like
            roles = ", ".join(turn["role"] for turn in turns)
            raise TaskError(
                f"the chat template refuses the turns {roles or 'of nobody'} ({error}); replace "
                "turns instead of deleting them, or choose by='sentence' in one of them"
            ) from None

    return read


def _by_user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _found(whole: str, text: str, after: int) -> int:
    """Where a text begins in a whole prompt, the blanks at its ends left out or not."""
    begin = whole.find(text.strip(), after)
    if begin < 0:
        raise TaskError(
            f"the chat template changes {text[:60]!r}, so its tokens cannot be found; choose "
            "ablation='delete' or 'replace'"
        )
    return begin - (len(text) - len(text.lstrip()))


def _following(before: str, question: str | None) -> str:
    """The question with what parts it from the context."""
    if question is None:
        return ""
    apart = before[-1:].isspace() or question[:1].isspace()
    return question if apart else BETWEEN + question
