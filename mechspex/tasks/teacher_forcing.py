"""Teacher forcing: prompts followed by their continuations, read at every token of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mechspex.tasks.token_ids import Continuation
from mechspex.tasks.tokens import Tokens


@dataclass(frozen=True)
class ForcedRows:
    """Prompts of one length, each with the rows in which its continuations are read.

    A row is the prompt and a continuation without its last token: what comes after token t is read
    at token t. Continuations that begin alike share a row. Rows are filled up at their end, which
    no causal model looks at.

    Attributes:
        prompts: their numbers in the task.
        length: the length of the prompts, in tokens.
        rows: token ids.
        real: False where a row was filled up.
    """

    prompts: tuple[int, ...]
    length: int
    rows: Int[Tensor, "prompt sequence pos"]
    real: Bool[Tensor, "prompt sequence pos"]

    @property
    def n_sequences(self) -> int:
        """Rows a prompt."""
        return self.rows.shape[1]

    @property
    def n_read(self) -> int:
        """How many of the last positions are read."""
        return self.rows.shape[2] - self.length + 1


@dataclass(frozen=True)
class Places:
    """Where the continuations of each prompt are read.

    Attributes:
        sequence: the row of its prompt in which a continuation is read.
        token: its tokens, filled up with −1.
        right: whether it is an answer; else a distractor, or nothing at all.
    """

    sequence: Int[Tensor, "prompt continuation"]
    token: Int[Tensor, "prompt continuation step"]
    right: Bool[Tensor, "prompt continuation"]

    def to(self, device: torch.device) -> Places:
        """The same on another device."""
        return Places(self.sequence.to(device), self.token.to(device), self.right.to(device))


def forced_rows(tokens: Tokens, *, read_continuations: bool) -> tuple[ForcedRows, ...]:
    """The rows of a task, those of prompts of one length and with as many rows together.

    Args:
        tokens: the task in tokens.
        read_continuations: whether the metric reads more than the token after the prompt.
    """
    by_shape: dict[tuple[int, int], list[tuple[int, list[Continuation]]]] = {}
    for number, prompt in enumerate(tokens.prompts):
        before = _rows_of(tokens.continuations(number)) if read_continuations else [()]
        by_shape.setdefault((len(prompt), len(before)), []).append((number, before))
    return tuple(
        _filled(tokens, length, members) for (length, _), members in sorted(by_shape.items())
    )


def places(tokens: Tokens) -> Places:
    """Where each continuation is read, in the rows of `forced_rows`."""
    prompts = range(len(tokens.prompts))
    many = max(len(tokens.continuations(number)) for number in prompts)
    long = max(len(c) for number in prompts for c in tokens.continuations(number))
    sequence = torch.zeros(len(prompts), many, dtype=torch.long)
    token = torch.full((len(prompts), many, long), -1)
    right = torch.zeros(len(prompts), many, dtype=torch.bool)
    for number in prompts:
        rows = _rows_of(tokens.continuations(number))
        right[number, : len(tokens.answers[number])] = True
        for column, ids in enumerate(tokens.continuations(number)):
            token[number, column, : len(ids)] = torch.tensor(ids)
            begins = [row[: len(ids) - 1] == ids[:-1] for row in rows]
            sequence[number, column] = begins.index(True)
    return Places(sequence, token, right)


def _rows_of(continuations: Sequence[Continuation]) -> list[Continuation]:
    """What follows the prompt in each of its rows: no row is the beginning of another one."""
    before = list(dict.fromkeys(ids[:-1] for ids in continuations))
    return [
        one
        for one in before
        if not any(other != one and other[: len(one)] == one for other in before)
    ]


def _filled(
    tokens: Tokens, length: int, members: list[tuple[int, list[Continuation]]]
) -> ForcedRows:
    longest = max(len(ids) for _, before in members for ids in before)
    rows = torch.empty(len(members), len(members[0][1]), length + longest, dtype=torch.long)
    real = torch.zeros(rows.shape, dtype=torch.bool)
    for place, (number, before) in enumerate(members):
        prompt = tokens.prompts[number]
        # Any token would do; one that the prompt has cannot be a special one.
        rows[place] = prompt[-1]
        rows[place, :, :length] = prompt
        for sequence, ids in enumerate(before):
            end = length + len(ids)
            rows[place, sequence, length:end] = torch.tensor(ids, dtype=torch.long)
            real[place, sequence, :end] = True
    return ForcedRows(tuple(number for number, _ in members), length, rows, real)
