"""A text, a list of documents or a conversation as units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mechspex.core.checks import Only, told
from mechspex.core.doors import door
from mechspex.core.errors import Refused
from mechspex.prompts.partition import RULES, Span, marked, tokens_of
from mechspex.prompts.text_units import TextUnits, text_units

PARTITIONS = ("token", *RULES, "document", "turn", "span")
"""What a text can be parted by."""

# Between documents, and between turns where they are shown as one text.
BETWEEN = "\n\n"
# Whose turns are instructions: always kept.
_INSTRUCTING = ("system", "developer")

Context = str | Sequence[str] | Sequence[Mapping[str, str]]
"""A text, several documents, or a conversation: ``[{"role": …, "content": …}]``."""


def as_context(name: str, given: object) -> Any:
    """Reads a text, a list of texts, or a list of turns.

    Raises:
        Refused: something else, an empty text among them.
    """
    if isinstance(given, TextUnits):
        return given
    wanted = "a text, a list of documents, or a list of turns {'role': …, 'content': …}"
    if isinstance(given, Path):
        raise Refused(f"{name} = {told(given)} is a path; give its text: path.read_text()")
    if isinstance(given, str):
        _refuse_empty(name, given)
        return given
    if not isinstance(given, Sequence) or isinstance(given, bytes):
        raise Refused(f"{name} = {told(given)}: give {wanted}")
    parts = list(given)
    if all(isinstance(part, Mapping) and {"role", "content"} <= set(part) for part in parts):
        texts = [part["content"] for part in parts]
    else:
        texts = parts
    if not texts or not all(isinstance(text, str) for text in texts):
        raise Refused(f"{name} = {told(given)}: give {wanted}")
    for number, text in enumerate(texts):
        _refuse_empty(f"{name}[{number}]", text)
    return parts


def as_partition(name: str, given: object) -> Any:
    """Reads what a text is parted by.

    Raises:
        Refused: no name of `PARTITIONS`.
    """
    if not isinstance(given, str) or given not in PARTITIONS:
        raise Refused(f"{name} = {told(given)}: choose {', '.join(PARTITIONS)}")
    return given


def as_tokenizer(name: str, given: object) -> Any:
    """Reads a tokenizer; that of a model, a name or a folder as well.

    Raises:
        Refused: something that has no tokenizer.
    """
    if isinstance(given, str | Path):
        from mechspex.models.load_model import load_model

        given = load_model(given)
    given = getattr(given, "tokenizer", given)
    return Only((object,), "a model or its tokenizer")(name, given)


@door(text=as_context, by=as_partition, tokenizer=as_tokenizer)
def words(
    text: Context | TextUnits, by: str = "word", *, hidden: bool = False, tokenizer: Any = None
) -> TextUnits:
    """The parts of a text as units, each with its label and the characters it spans.

    Spans are disjoint and in order; with what lies between them (blanks, what was not marked,
    instructions), which no mask ablates, they give the text back. Labels that are alike are
    numbered.

    >>> import mechspex as mx
    >>> units = mx.words("Never say never. Dr. Lee did.", by="sentence")
    >>> units, units[1].span
    (UnitSet(2: Never say never., Dr. Lee did.), (17, 29))
    >>> mx.words("to be or not to be").names
    ('to', 'be', 'or', 'not', 'to (2)', 'be (2)')

    Args:
        text: a text; several documents; or the turns of a conversation, as chat templates take
            them: ``[{"role": "user", "content": "…"}, …]``. Units are taken as they are.
        by: ``token``; ``word``, what stands between blanks (a character, in scripts without them);
            ``sentence``, by their marks and a list of abbreviations; ``line``; ``paragraph``, what
            stands between empty lines; ``document``, of several; ``turn``, of a conversation, but
            not the system's; ``span``, what is marked ``{{…}}``: the marks are taken out.
        hidden: whether the units are hidden from attention instead of ablated where they enter.
        tokenizer: the model or tokenizer whose tokens are meant, for ``token``.

    Raises:
        Refused: an empty text, one without such parts, or no tokenizer where one is needed.
    """
    if isinstance(text, TextUnits):
        return text
    if by == "turn":
        return _turns(text, hidden)
    if not isinstance(text, str) and isinstance(text[0], Mapping):
        raise Refused(f"by = {by!r}: a conversation is parted by 'turn'")
    if isinstance(text, str):
        if by == "document":
            raise Refused("by = 'document' needs several; give a list of texts")
        whole, spans = _parted(text, by, tokenizer)
    else:
        whole, spans = _in_each(text, by, tokenizer)
    if not spans:
        raise Refused(f"by = {by!r}: {whole[:60]!r} has no such part")
    return text_units(whole, spans, by, hidden=hidden)


def _parted(text: str, by: str, tokenizer: Any) -> tuple[str, list[Span]]:
    if by == "span":
        return marked(text)
    if by == "token":
        if tokenizer is None:
            raise Refused("by = 'token' needs the model whose tokens are meant; add tokenizer=…")
        return text, tokens_of(text, tokenizer)
    return text, [(0, len(text))] if by == "document" else RULES[by](text)


def _in_each(texts: Sequence[Any], by: str, tokenizer: Any) -> tuple[str, list[Span]]:
    """Documents one after another, each parted by itself: no part reaches over two."""
    if by in ("span", "token"):
        return _parted(BETWEEN.join(texts), by, tokenizer)
    whole, spans = "", []
    for number, text in enumerate(texts):
        whole += BETWEEN if number else ""
        spans += [
            (begin + len(whole), end + len(whole)) for begin, end in _parted(text, by, tokenizer)[1]
        ]
        whole += text
    return whole, spans


def _turns(text: Any, hidden: bool) -> TextUnits:
    if isinstance(text, str) or not isinstance(text[0], Mapping):
        raise Refused("by = 'turn' needs a conversation: [{'role': 'user', 'content': '…'}, …]")
    whole, turns = "", []
    for number, turn in enumerate(text):
        whole += BETWEEN if number else ""
        turns.append((str(turn["role"]), (len(whole), len(whole) + len(turn["content"]))))
        whole += turn["content"]
    spans = [span for role, span in turns if role not in _INSTRUCTING]
    if not spans:
        raise Refused("by = 'turn': every turn is an instruction, which is never ablated")
    return text_units(whole, spans, "turn", hidden=hidden, turns=tuple(turns))


def _refuse_empty(name: str, text: str) -> None:
    if not text.strip():
        raise Refused(f"{name} = {text!r} is empty; give a text with at least two parts")
