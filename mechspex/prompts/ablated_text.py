"""A text without some of its units, or with another word in their place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_BLANKS_BEFORE, _BLANKS_AFTER = re.compile(r"^\s*"), re.compile(r"\s*\Z")
_LINE_BREAK = re.compile(r"\r\n|\n|\r")
# No blank stands before these, or after those that open.
_CLOSING, _OPENING = ",.;:!?)]}’”»", "([{‘“«"


def deleted(between: Sequence[str], pieces: Sequence[str], kept: Iterable[bool]) -> str:
    """The text without the units that are not kept, as one would write it.

    Where units go, the blanks on either side become one: the wider of them (line breaks first, so
    that a paragraph still ends), none at the ends of the text or before a comma. Blanks within
    units that stay are never touched.

    >>> deleted(["", " ", " ", ""], ["One.", "Two.", "Three."], [True, False, True])
    'One. Three.'

    Args:
        between: what lies before, between and after the units.
        pieces: the text of each unit.
        kept: whether each unit is kept.
    """
    text, gap = "", between[0]
    last = len(pieces) - 1
    for number, (piece, after, keep) in enumerate(zip(pieces, between[1:], kept, strict=True)):
        if keep:
            text, gap = text + gap + piece, after
        else:
            gap = _closed(text, gap, after, is_last=number == last)
    return text + gap


def replaced(
    between: Sequence[str], pieces: Sequence[str], kept: Iterable[bool], replacement: str
) -> str:
    """The text with another word in the place of each unit that is not kept.

    Args:
        between, pieces, kept: see `deleted`.
        replacement: the word.
    """
    chosen = (piece if keep else replacement for piece, keep in zip(pieces, kept, strict=True))
    return between[0] + "".join(a + b for a, b in zip(chosen, between[1:], strict=True))


def _closed(text: str, before: str, after: str, *, is_last: bool) -> str:
    """What remains between two neighbours of a unit that is gone.

    Args:
        text: all that is kept before.
        before, after: what lay before the unit, and after it.
        is_last: whether nothing but `after` follows.
    """
    end, begin = _blanks(before, _BLANKS_AFTER), _blanks(after, _BLANKS_BEFORE)
    left, right = before[: len(before) - len(end)], after[len(begin) :]
    if not text and not left:
        return end + right
    if is_last and not right:
        return left + begin
    blanks = max(end, begin, key=lambda one: (len(_LINE_BREAK.findall(one)), len(one)))
    if (not begin and right[:1] in tuple(_CLOSING)) or (not end and (text + left)[-1] in _OPENING):
        blanks = ""
    return left + blanks + right


def _blanks(text: str, pattern: re.Pattern[str]) -> str:
    found = pattern.search(text)
    return "" if found is None else found[0]
