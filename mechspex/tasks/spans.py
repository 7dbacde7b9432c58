"""Named spans of prompts: which tokens a piece of a text covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mechspex.core.checks import quoted
from mechspex.core.errors import TaskError
from mechspex.models.tokenizer import Tokenizer

Span = str | tuple[int, int]
"""A piece of a prompt: a text that stands in it once, or (first, last + 1) in characters."""


def token_spans(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    ids: Sequence[Sequence[int]],
    spans: Sequence[Mapping[str, Span]] | None,
) -> tuple[Mapping[str, range], ...] | None:
    """{name: the positions of its tokens} of each text; None where no spans are named.

    Args:
        tokenizer: the model's tokenizer.
        texts: the texts.
        ids: their token ids, with what marks their ends.
        spans: {name: a piece of the text} of each text.

    Raises:
        TaskError: a piece that is not there, or there more than once; spans that overlap; a
            tokenizer that does not tell where its tokens stand.
    """
    if spans is None:
        return None
    return tuple(
        _spans_of(tokenizer, number, text, list(row), named)
        for number, (text, row, named) in enumerate(zip(texts, ids, spans, strict=True))
    )


def tokens_within(
    tokenizer: Tokenizer, text: str, ids: Sequence[int], pieces: Sequence[tuple[int, int]]
) -> list[list[int]]:
    """The positions of the tokens that belong to each piece of a text.

    A token belongs to the piece that holds its first character that is no blank, so that none
    belongs to two pieces: a leading blank goes with its word, and an emoji's bytes with the emoji.
    A token of blanks alone belongs to the piece that holds its first one.

    Args:
        tokenizer: the model's tokenizer.
        text: the text.
        ids: its token ids, with what marks its ends.
        pieces: (first, last + 1) in characters, of pieces that do not overlap.

    Raises:
        TaskError: a tokenizer that does not tell where its tokens stand.
    """
    offsets, first = _offsets(tokenizer, text, list(ids))
    owner = {place: number for number, piece in enumerate(pieces) for place in range(*piece)}
    found: list[list[int]] = [[] for _ in pieces]
    for place, (begin, end) in enumerate(offsets):
        shown = (c for c in range(begin, end) if not text[c].isspace())
        number = owner.get(next(shown, begin))
        if number is not None:
            found[number].append(first + place)
    return found


def _spans_of(
    tokenizer: Tokenizer, number: int, text: str, ids: list[int], named: Mapping[str, Span]
) -> Mapping[str, range]:
    offsets, first = _offsets(tokenizer, text, ids)
    found: dict[str, range] = {}
    for name, span in named.items():
        begin, end = characters_of(f"span {name!r} of prompt {number}", text, span)
        inside = [i for i, (a, b) in enumerate(offsets) if a < end and b > begin]
        if not inside:
            raise TaskError(f"span {name!r} of prompt {number} covers no token: {quoted(text)}")
        tokens = range(first + inside[0], first + inside[-1] + 1)
        for other, taken in found.items():
            if tokens.start < taken.stop and taken.start < tokens.stop:
                raise TaskError(
                    f"spans {other!r} and {name!r} of prompt {number} overlap: {quoted(text)}"
                )
        found[name] = tokens
    return dict(sorted(found.items(), key=lambda item: item[1].start))


def characters_of(label: str, text: str, span: Span) -> tuple[int, int]:
    """Where a piece of a text stands in it.

    Args:
        label: what the piece is called in a complaint.
        text: the text.
        span: the piece, a text or its characters.

    Raises:
        TaskError: it is not there, or there more than once.
    """
    if isinstance(span, str):
        there = text.count(span) if span else 0
        if there != 1:
            times = "is not there" if not there else f"is there {there} times"
            raise TaskError(
                f"{label}: {span!r} {times} in {quoted(text)}; give a piece "
                "that is there once, or (first, last + 1) in characters"
            )
        return text.index(span), text.index(span) + len(span)
    begin, end = span
    if not 0 <= begin < end <= len(text):
        raise TaskError(
            f"{label} is ({begin}, {end}), and {quoted(text)} has {len(text)} characters"
        )
    return begin, end


def _offsets(
    tokenizer: Tokenizer, text: str, ids: list[int]
) -> tuple[Sequence[tuple[int, int]], int]:
    """The characters of each token of the text, and the position of the first of them."""
    asked: Any = tokenizer
    if not getattr(tokenizer, "is_fast", False):
        raise TaskError(
            f"{type(tokenizer).__name__} does not tell where its tokens stand, so spans cannot be "
            "found; load the fast tokenizer"
        )
    read = asked(text, add_special_tokens=False, return_offsets_mapping=True)
    plain = list(read.input_ids)
    at = [i for i in range(len(ids) + 1) if ids[i : i + len(plain)] == plain]
    if not at:
        raise TaskError(
            f"{type(tokenizer).__name__} reads {quoted(text)} otherwise where it marks its ends, "
            "so spans cannot be found; give the task prepend_bos=True or False"
        )
    return read.offset_mapping, at[0]
