"""Partitions of a text: its words, sentences, lines, paragraphs, or pieces that are marked."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mechspex.core.errors import Refused
from mechspex.prompts.sentences import sentence_ends

Span = tuple[int, int]
"""Characters of a text, from the first up to another."""

_BREAK = r"(?>\r\n|\n|\r)"
_LINE = re.compile(r"[^\r\n]+")
_EMPTY_LINES = re.compile(rf"{_BREAK}[^\S\r\n]*{_BREAK}\s*")
_MARKED = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
# Scripts that put no blanks between words: Thai to Khmer, kana, Han and their neighbours.
_NO_BLANKS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003134f]"
)


def words_of(text: str) -> list[Span]:
    """What stands between blanks, punctuation with its word.

    Scripts without blanks between words are cut at every character, with what belongs to it: signs
    for vowels and tones, and punctuation.
    """
    return [piece for found in re.finditer(r"\S+", text) for piece in _cut(text, *found.span())]


def sentences_of(text: str) -> list[Span]:
    """Its sentences, see `mechspex.prompts.sentences`."""
    ends = sentence_ends(text)
    return _trimmed(text, zip([0, *ends], ends, strict=False))


def lines_of(text: str) -> list[Span]:
    """Its lines with all of their blanks, but no empty ones."""
    return [found.span() for found in _LINE.finditer(text) if found[0].strip()]


def paragraphs_of(text: str) -> list[Span]:
    """What stands between empty lines."""
    between = [found.span() for found in _EMPTY_LINES.finditer(text)]
    begins, ends = [0, *(end for _, end in between)], [*(begin for begin, _ in between), len(text)]
    return _trimmed(text, zip(begins, ends, strict=True))


RULES: Mapping[str, Callable[[str], list[Span]]] = {
    "word": words_of,
    "sentence": sentences_of,
    "line": lines_of,
    "paragraph": paragraphs_of,
}
"""{what a text is parted by: the rule that does it}, of those that need nothing but the text."""


def marked(text: str) -> tuple[str, list[Span]]:
    """A text without its marks ``{{…}}``, and where the marked pieces then stand.

    Raises:
        Refused: no mark, an empty one, one within another, or one that is not closed.
    """
    plain, spans, done = "", [], 0
    for found in _MARKED.finditer(text):
        plain += text[done : found.start()]
        spans.append((len(plain), len(plain) + len(found[1])))
        plain += found[1]
        done = found.end()
    plain += text[done:]
    if "{{" in plain or "}}" in plain:
        raise Refused("a mark {{ is not closed, or stands within another; close each by }} first")
    if not spans:
        raise Refused("by = 'span', and the text marks none; write {{…}} around each")
    if any(not plain[begin:end].strip() for begin, end in spans):
        raise Refused("a mark {{}} is empty; put it around a piece of the text")
    return plain, spans


def tokens_of(text: str, tokenizer: Any) -> list[Span]:
    """Its tokens; those that share a character are one piece.

    Raises:
        Refused: a tokenizer that does not tell where its tokens stand.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise Refused(
            f"{type(tokenizer).__name__} does not tell where its tokens stand; load the fast "
            "tokenizer, or choose by='word'"
        )
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    pieces: list[Span] = []
    for begin, end in read["offset_mapping"]:
        if begin == end:
            continue
        if pieces and begin < pieces[-1][1]:
            pieces[-1] = pieces[-1][0], max(end, pieces[-1][1])
        else:
            pieces.append((begin, end))
    return pieces


def _trimmed(text: str, spans: Iterable[Span]) -> list[Span]:
    """Spans without the blanks at their ends; those of blanks alone are left out."""
    trimmed = []
    for begin, end in spans:
        piece = text[begin:end]
        begin += len(piece) - len(piece.lstrip())
        if piece.strip():
            trimmed.append((begin, begin + len(piece.strip())))
    return trimmed


def _cut(text: str, begin: int, end: int) -> Iterable[Span]:
    """A run without blanks, cut where a script has none."""
    # The last letter: punctuation and signs after it belong to it.
    letter = text[begin]
    for place in range(begin + 1, end):
        before, here = text[place - 1], text[place]
        begins = here.isalnum() or _opens(here)
        if begins and not _opens(before) and any(map(_NO_BLANKS.match, (letter, here))):
            yield begin, place
            begin = place
        letter = here if here.isalnum() else letter
    yield begin, end


def _opens(character: str) -> bool:
    return unicodedata.category(character) in ("Ps", "Pi")
