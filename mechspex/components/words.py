"""Words of a prompt as sites of the masked forward: at their embeddings, or as keys of attention.

A unit of kind ``word`` is ablated where its tokens enter the model, before positions are added to
them, in every architecture alike: embedding = m · embedding + (1 − m) · reference. One of kind
``hidden_word`` is hidden from attention: no other position reads it in any block, while it reads
what it always read, and all positions stay. What is read at a hidden position itself does not
change, so hiding the last token of a prompt changes nothing but what is forced after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Int, Shaped
from torch import Tensor

from mechspex.core.checks import quoted
from mechspex.core.errors import AblationError
from mechspex.core.kinds import KINDS
from mechspex.core.units import Unit, UnitSet
from mechspex.models.hidden_keys import HiddenKeys
from mechspex.models.tokenizer import Tokenizer
from mechspex.tasks.spans import tokens_within
from mechspex.tasks.task import Task
from mechspex.tasks.teacher_forcing import ForcedRows
from mechspex.tasks.tokens import Tokens

WORD, HIDDEN = "word", "hidden_word"
# The hook point at which words are replaced.
EMBEDDING = str(KINDS[WORD].hook)

Places = Mapping[int, Sequence[int]]
"""{mask column of a word: the positions of its tokens in a prompt}."""


def is_word(unit: Unit) -> bool:
    """Whether a unit is a word of a prompt."""
    return unit.kind in (WORD, HIDDEN)


def hides_any(units: UnitSet) -> bool:
    """Whether some units are hidden from attention."""
    return any(unit.kind == HIDDEN for unit in units)


def places_of_words(
    units: UnitSet, task: Task, tokens: Tokens, tokenizer: Tokenizer
) -> list[Places]:
    """Where the words among some units lie, in every prompt.

    A word with a span lies at those characters of the prompt; one without is the named span of its
    label, in each prompt where that is.

    Args:
        units: the columns of the masks.
        task: the prompts, in words.
        tokens: the prompts, in tokens.
        tokenizer: the model's tokenizer.

    Raises:
        AblationError: units from another text, words that overlap, or one without a token.
        TaskError: a tokenizer that does not tell where its tokens stand.
    """
    words = [(column, unit) for column, unit in enumerate(units) if is_word(unit)]
    return [_in_prompt(number, words, task, tokens, tokenizer) for number in range(len(task))]


def _in_prompt(
    number: int,
    words: Sequence[tuple[int, Unit]],
    task: Task,
    tokens: Tokens,
    tokenizer: Tokenizer,
) -> Places:
    places: dict[int, Sequence[int]] = {}
    for kind in (WORD, HIDDEN):
        members = [(column, unit) for column, unit in words if unit.kind == kind]
        with_span = [(column, unit.span) for column, unit in members if unit.span is not None]
        _check_text(number, task, [unit for _, unit in members])
        if with_span:
            pieces = [span for _, span in with_span]
            ids = tokens.prompts[number].tolist()
            found = tokens_within(tokenizer, task.prompts[number], ids, pieces)
            places |= zip((column for column, _ in with_span), found, strict=True)
        for column, unit in members:
            if unit.span is None:
                places[column] = _named(number, unit, tokens)
        _check_tokens(number, task, members, places)
    return places


def _named(number: int, unit: Unit, tokens: Tokens) -> Sequence[int]:
    named: Mapping[str, range] = {} if tokens.spans is None else tokens.spans[number]
    if unit.label not in named:
        raise AblationError(
            f"prompt {number} has no span {unit.label!r}, and the unit says nowhere else where it "
            f"lies; it has {', '.join(named) or 'none'}: take units from words(prompt) or "
            "spans(task)"
        )
    return named[unit.label]


def _check_text(number: int, task: Task, words: Sequence[Unit]) -> None:
    """Refuse words of another text, and those that share characters."""
    text, done = task.prompts[number], 0
    for unit in sorted((u for u in words if u.span is not None), key=lambda u: u.span or (0, 0)):
        begin, end = unit.span or (0, 0)
        if not 0 <= begin < end <= len(text) or not _is_called(text[begin:end], unit.label):
            raise AblationError(
                f"unit {unit.name!r} is from another text: characters {begin} … {end} of prompt "
                f"{number} are {text[begin:end]!r}; take the units from that prompt, "
                "words(prompt), or give the task prompts and spans, spans(task)"
            )
        if begin < done:
            raise AblationError(
                f"unit {unit.name!r} shares characters with the one before it in prompt {number}; "
                "take words that do not overlap"
            )
        done = end


def _is_called(piece: str, label: str) -> bool:
    """Whether a label is that of a piece of a text; it may be cut short by … or end in a number."""
    called, piece = " ".join(label.split()), " ".join(piece.split())
    begin, cut, _ = called.partition("…")
    if cut and begin and piece.startswith(begin.rstrip()):
        return True
    return called.startswith(piece) and not called[len(piece) :][:1].isalpha()


def _check_tokens(
    number: int, task: Task, words: Sequence[tuple[int, Unit]], places: Places
) -> None:
    """Refuse a word without a token of its own, or with one of another word."""
    taken: dict[int, str] = {}
    for column, unit in words:
        if not places[column]:
            raise AblationError(
                f"unit {unit.name!r} has no token of its own in prompt {number}: "
                f"{quoted(task.prompts[number])}; join it with the word that shares its token"
            )
        for position in places[column]:
            if position in taken:
                raise AblationError(
                    f"units {taken[position]!r} and {unit.name!r} share a token of prompt "
                    f"{number}: {quoted(task.prompts[number])}; take words that do not overlap"
                )
            taken[position] = unit.name


@dataclass(frozen=True, eq=False)
class PlacedWords:
    """Which word each token of some rows belongs to.

    Attributes:
        at: {kind: the mask column of the word ``[row, pos]``, −1 where there is none}, of the kinds
            that occur.
    """

    at: Mapping[str, Int[Tensor, "row pos"]]

    @classmethod
    def of(
        cls, units: UnitSet, places: Sequence[Places], forced: ForcedRows, device: torch.device
    ) -> PlacedWords:
        """The words in the rows of some prompts.

        Args:
            units: the columns of the masks.
            places: where words lie in every prompt of the task.
            forced: the prompts and their rows.
            device: where the model computes.
        """
        at = {}
        for kind in sorted({unit.kind for unit in units if is_word(unit)}):
            owner = torch.full(forced.rows.shape, -1)
            for place, number in enumerate(forced.prompts):
                for column, positions in places[number].items():
                    if units[column].kind == kind:
                        owner[place, :, list(positions)] = column
            at[kind] = rearrange(owner, "prompt sequence pos -> (prompt sequence) pos").to(device)
        return cls(at)

    def kept(self, kind: str, masks: Tensor, rows: slice) -> Shaped[Tensor, "mask row pos"]:
        """How much of each token's word is kept, 1 where it belongs to none.

        Args:
            kind: the kind of the words.
            masks: ``[mask, 1 or row, unit]``.
            rows: the rows that are run.
        """
        owner = self.at[kind][rows].to(masks.device)
        masks = torch.cat([masks, torch.ones_like(masks[..., :1])], dim=-1)
        owner = owner.where(owner >= 0, masks.shape[-1] - 1)
        wide = masks.expand(-1, len(owner), -1)
        return wide.gather(-1, owner.expand(len(masks), -1, -1))

    def hidden(self, masks: Tensor, rows: slice) -> HiddenKeys | None:
        """The keys that masks hide, of the same arguments as `kept`; None where they hide none."""
        if HIDDEN not in self.at:
            return None
        seen = self.kept(HIDDEN, masks, rows)
        if not seen.requires_grad and bool((seen == 1).all()):
            return None
        return HiddenKeys(rearrange(seen, "mask row pos -> (mask row) pos").float())

    def first_positions(self, n_units: int) -> Int[np.ndarray, " unit"]:
        """The first position that each word takes in any row; 0 of other units."""
        first = np.zeros(n_units, dtype=int)
        for owner in self.at.values():
            owner = owner.cpu().numpy()
            for column in np.unique(owner[owner >= 0]):
                first[column] = np.flatnonzero((owner == column).any(axis=0))[0]
        return first


def embedding_names(tokens: Tokens, special: frozenset[int] = frozenset()) -> list[list[str]]:
    """What the positions of prompts are called in a mean of embeddings: words, or marks.

    An embedding knows of no position, so those of all words are one, and a word is what stands in
    for any token.

    Args:
        tokens: the prompts.
        special: the tokens that are no words.
    """
    return [
        ["mark" if token in special else "word" for token in row.tolist()] for row in tokens.prompts
    ]
