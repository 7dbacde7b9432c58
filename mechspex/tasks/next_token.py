"""The tokens of a prompt, and those by which a text goes on after it."""

from __future__ import annotations

from typing import Any

from mechspex.core.checks import quoted
from mechspex.core.errors import TaskError
from mechspex.models.tokenizer import Tokenizer, own_tokenizer

# After these a word begins with a space.
_ENDS = tuple(".,;:!?)")
_FIRST_OF_EAST_ASIA = "\u2e80"
# Words or tokens that a message names.
_NAMED = 12


def encode(tokenizer: Tokenizer, text: str, prepend_bos: bool | None) -> list[int]:
    """Token ids of a prompt.

    Never two BOS tokens in a row: a chat template may have written one already. An EOS token that
    the tokenizer puts at the end is left out, since the text goes on.

    Args:
        tokenizer: the model's tokenizer.
        text: the prompt.
        prepend_bos: whether a BOS token comes first; None for the tokenizer's own way.

    Raises:
        TaskError: `prepend_bos` is True and the tokenizer has no BOS token; an empty prompt, words
            that are not in the vocabulary, or half a character.
    """
    plain = _plain(tokenizer, text)
    _refuse_unknown(tokenizer, text, plain)
    bos = tokenizer.bos_token_id
    if prepend_bos is None:
        # A bridge's tokenizer is re-made to put BOS first, whatever the model's own does. What the
        # user has added to it since, the model's own does not know.
        own = own_tokenizer(tokenizer)
        if list(own(text, add_special_tokens=False).input_ids) != plain:
            own = tokenizer
        ids = list(own(text).input_ids)
        if len(ids) > len(plain) and ids[-1] == getattr(own, "eos_token_id", None):
            ids = ids[:-1]
    elif prepend_bos:
        if bos is None:
            raise TaskError("prepend_bos = True, but this tokenizer has no BOS token")
        ids = [bos, *plain]
    else:
        ids = plain
    while len(ids) > 1 and ids[0] == ids[1] == bos:
        ids = ids[1:]
    if not ids:
        raise TaskError(f"prompt {text!r} has no tokens")
    return ids


def _plain(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text alone, without any token that marks its ends."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TaskError(
            f"{text!r} has half a character (a lone surrogate) at place {error.start}, which is no "
            "text; remove it, or read its file as UTF-8"
        ) from None
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def _refuse_unknown(tokenizer: Tokenizer, text: str, ids: list[int]) -> None:
    """Refuse words that a tokenizer would replace by its token for unknown ones."""
    unknown = tokenizer.unk_token_id
    # Some tokenizers use a token that can be written, such as an end of text, for both.
    if unknown not in ids or str(tokenizer.convert_ids_to_tokens([unknown])[0]) in text:
        return
    if text[-1:].isspace() and unknown not in _plain(tokenizer, text.rstrip()):
        raise TaskError(
            f"prompt {quoted(text)} ends in a space, for which this model's vocabulary has no "
            "token; remove it there and begin the answer with it"
        )
    words = [word for word in text.split() if unknown in _plain(tokenizer, word)]
    named = ", ".join(map(repr, words[:_NAMED])) + " …" * (len(words) > _NAMED)
    raise TaskError(
        f"{named or quoted(text)} in prompt {quoted(text)}: not in this model's "
        "vocabulary; choose other words or another model"
    )


def continuation(tokenizer: Tokenizer, prompt: str, text: str, label: str) -> tuple[int, ...]:
    """The tokens by which `text` continues `prompt`.

    They are read off the whole sentence, since some tokenizers encode a text alone differently.

    Args:
        tokenizer: the model's tokenizer.
        prompt: the text before.
        text: the continuation.
        label: what the text is called in a complaint, such as ``answer``.

    Raises:
        TaskError: the text is empty, joins the last token of the prompt, or is not in the
            vocabulary.
    """
    before, after = _plain(tokenizer, prompt), _plain(tokenizer, prompt + text)
    if len(after) <= len(before) or after[: len(before)] != before:
        raise TaskError(_why_it_does_not_continue(tokenizer, prompt, text, label, after))
    if tokenizer.unk_token_id in after[len(before) :]:
        raise TaskError(f"{label} {text!r} is not in this model's vocabulary; choose another word")
    return tuple(after[len(before) :])


def _why_it_does_not_continue(
    tokenizer: Tokenizer, prompt: str, text: str, label: str, after: list[int]
) -> str:
    if not text:
        return f"the {label} of {quoted(prompt)} is an empty text; give it a word"
    if prompt[-1:].isspace():
        return (
            f"prompt {quoted(prompt)} ends in a space, which this tokenizer joins with the word "
            f"that follows; remove it there and begin the {label} with it: {' ' + text.lstrip()!r}"
        )
    return (
        f"{label} {text!r} does not continue {quoted(prompt)}: together they read as "
        f"{'… ' * (len(after) > _NAMED)}{tokenizer.convert_ids_to_tokens(after[-_NAMED:])}, where "
        "the prompt's last token is another one; "
        f"begin the {label} with a space, or end the prompt where a word ends"
    )


def runs_on(prompt: str, text: str) -> bool:
    """Whether a continuation lacks the space that parts it from the last word of its prompt.

    Two digits make one number, and scripts of East Asia put no spaces.

    >>> runs_on("The author of Emma is", "Jane Austen"), runs_on("from 16", "48")
    (True, False)
    """
    before, after = prompt[-1:], text[:1]
    if not (before.isalnum() or before in _ENDS) or not after.isalnum():
        return False
    return max(before, after) < _FIRST_OF_EAST_ASIA and not (before.isdigit() and after.isdigit())


def next_token(tokenizer: Tokenizer, prompt: str, text: str, label: str) -> int:
    """The one token by which `text` continues `prompt`.

    Args:
        tokenizer, prompt, text, label: see `continuation`.

    Raises:
        TaskError: the text is not one token there, or not in the vocabulary.
    """
    try:
        tokens = continuation(tokenizer, prompt, text, label)
    except TaskError:
        if prompt[-1:].isspace() or tokenizer.unk_token_id in _plain(tokenizer, prompt + text):
            raise
        tokens = ()
    if len(tokens) != 1:
        alone: Any = tokenizer.convert_ids_to_tokens(_plain(tokenizer, text))
        raise TaskError(
            f"{label} {text!r} does not continue {quoted(prompt)} by one token: it reads as "
            f"{alone}; choose a one-token word and mind its leading space"
        )
    return tokens[0]


def first_piece(tokenizer: Tokenizer, prompt: str, text: str) -> str | None:
    """The beginning of `text` that is the first token after `prompt`; None where they merge.

    Args:
        tokenizer: the model's tokenizer.
        prompt: the text before.
        text: the continuation.
    """
    before = _plain(tokenizer, prompt)
    after = _plain(tokenizer, prompt + text)[: len(before) + 1]
    for end in range(1, len(text) + 1):
        if _plain(tokenizer, prompt + text[:end]) == after:
            return text[:end] if after[:-1] == before else None
    return None
