"""The token by which a text goes on after a prompt."""

from __future__ import annotations

from mechspex.core.errors import TaskError
from mechspex.models.tokenizer import Tokenizer


def encode(tokenizer: Tokenizer, text: str, prepend_bos: bool | None) -> list[int]:
    """Token ids of a prompt.

    Args:
        tokenizer: the model's tokenizer.
        text: the prompt.
        prepend_bos: whether a BOS token comes first; None leaves it to the tokenizer.

    Raises:
        TaskError: `prepend_bos` is True and the tokenizer has no BOS token; an empty prompt.
    """
    if prepend_bos is None:
        ids = tokenizer(text).input_ids
    else:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        if prepend_bos:
            if tokenizer.bos_token_id is None:
                raise TaskError("prepend_bos = True, but this tokenizer has no BOS token")
            ids = [tokenizer.bos_token_id, *ids]
    if not ids:
        raise TaskError(f"prompt {text!r} has no tokens")
    return ids


def first_piece(tokenizer: Tokenizer, prompt: str, text: str) -> str | None:
    """The beginning of `text` that is the first token after `prompt`; None where they merge.

    Args:
        tokenizer: the model's tokenizer.
        prompt: the text before.
        text: the continuation.
    """
    before = tokenizer(prompt, add_special_tokens=False).input_ids
    after = tokenizer(prompt + text, add_special_tokens=False).input_ids[: len(before) + 1]
    for end in range(1, len(text) + 1):
        if tokenizer(prompt + text[:end], add_special_tokens=False).input_ids == after:
            return text[:end] if after[:-1] == before else None
    return None


def next_token(tokenizer: Tokenizer, prompt: str, text: str, label: str) -> int:
    """The token by which `text` continues `prompt`.

    It is read off the whole sentence, since some tokenizers encode a word alone differently.

    Args:
        tokenizer: the model's tokenizer.
        prompt: the text before.
        text: the continuation.
        label: what the text is called in a complaint, such as ``answer``.

    Raises:
        TaskError: the text is not one token there, or not in the vocabulary.
    """
    before = tokenizer(prompt, add_special_tokens=False).input_ids
    after = tokenizer(prompt + text, add_special_tokens=False).input_ids
    if len(after) != len(before) + 1 or after[:-1] != before:
        alone = tokenizer(text, add_special_tokens=False).input_ids
        tokens = tokenizer.convert_ids_to_tokens(alone)
        raise TaskError(
            f"{label} {text!r} does not continue {prompt!r} by one token: it reads as {tokens}; "
            "choose a one-token word and mind its leading space"
        )
    if after[-1] == tokenizer.unk_token_id:
        raise TaskError(f"{label} {text!r} is not in this model's vocabulary; choose another word")
    return after[-1]
