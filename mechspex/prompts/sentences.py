"""Where the sentences of a text end, by a small rule that needs no model."""

from __future__ import annotations

import re

# Words that end in a full stop within a sentence, in lower case and without their last one.
_ABBREVIATIONS = frozenset([
    "dr", "mr", "mrs", "ms", "prof", "sr", "jr", "st", "rev", "hon", "gen", "col", "capt", "lt",
    "sgt", "sen", "rep", "gov", "pres", "no", "vol", "fig", "figs", "eq", "eqs", "sec", "ch",
    "pp", "ed", "eds", "al", "cf", "vs", "viz", "approx", "dept", "est", "inc", "ltd", "co",
    "corp", "e.g", "i.e", "a.m", "p.m", "u.s", "u.k", "u.n", "ph.d", "jan", "feb", "mar", "apr",
    "jun", "jul", "aug", "sept", "sep", "oct", "nov", "dec",
])  # fmt: skip
# Those that end a sentence as well, where a capital letter follows.
_OFTEN_LAST = (
    "al",
    "a.m",
    "p.m",
    "u.s",
    "u.k",
    "u.n",
    "inc",
    "ltd",
    "co",
    "corp",
    "ph.d",
    "jr",
    "sr",
)
_CLOSING = "\"'”’»)\\]}』」）】"
_END = re.compile(
    # Of scripts without blanks between sentences,
    rf"[。！？｡]+[{_CLOSING}]*"
    # of all others, where a blank or the end of the text follows,
    rf"|[.!?…؟۔।]+[{_CLOSING}]*(?=\s|$)"
    # and a line without anything.
    r"|(?=(?>\r\n|\n|\r)[^\S\r\n]*(?:\r|\n))"
)
_LAST_WORD = re.compile(r"[\w.]+$")


def sentence_ends(text: str) -> list[int]:
    """The characters before which the sentences of a text end, in order.

    A sentence ends at ``.``, ``!``, ``?`` or ``…`` with the quotes and brackets that close after
    it, where a blank follows; at their East Asian forms; and at an empty line. A full stop of an
    abbreviation (*Dr.*, *e.g.*), an initial (*J. Doe*) or a number (*3.5*) is no end, nor one
    that a lower-case letter follows.

    >>> text = 'Dr. Lee paid 3.5 dollars. "Why?" she asked.'
    >>> [text[:end] for end in sentence_ends(text)]
    ['Dr. Lee paid 3.5 dollars.', 'Dr. Lee paid 3.5 dollars. "Why?" she asked.']

    Args:
        text: the text.
    """
    ends = [found.end() for found in _END.finditer(text) if _is_end(text, found)]
    return ends if ends and not text[ends[-1] :].strip() else [*ends, len(text)]


def _is_end(text: str, found: re.Match[str]) -> bool:
    mark = found[0]
    following = text[found.end() :].lstrip()[:1]
    if not mark or mark[0] in "。！？｡" or not following:
        return True
    if following.islower():
        return False
    if not mark.startswith(".") or mark.startswith(".."):
        return True
    word = _LAST_WORD.search(text, 0, found.start())
    before = "" if word is None else word[0].lower()
    if before in _ABBREVIATIONS:
        return before in _OFTEN_LAST and following.isupper()
    # An initial, but not the pronoun.
    return not (len(before) == 1 and before.isalpha() and before != "i")
