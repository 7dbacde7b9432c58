"""What a model reads of a prompt, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mechspex.models.tokenizer import Tokenizer
from mechspex.tasks.task import Task
from mechspex.tasks.token_ids import token_ids

# Of many answers, and in the middle of a long prompt, these are shown.
_ANSWERS, _TOKENS = 3, 60


def read_as(task: Task, tokenizer: Tokenizer, number: int = 0) -> str:
    """A prompt with its answers and distractors, each token in brackets.

    Special tokens, blanks at the ends of tokens and line breaks are seen as they are read.

    >>> import mechspex as mx
    >>> model = mx.load_model("tiny")
    >>> print(read_as(mx.Task(["key cow key"], [" cow bird"], [" key"]), model.tokenizer))
    [<bos>][ key][ cow][ key] → [ cow][ bird]  (not [ key])

    Args:
        task: the task.
        tokenizer: the model's tokenizer.
        number: the number of the prompt.
    """
    ids = token_ids(task[number : number + 1], tokenizer, with_corrupted=False)
    shown = in_brackets(tokenizer, ids.prompts[0], most=_TOKENS)
    wrong = "" if ids.distractors is None else f"  (not {_any(tokenizer, ids.distractors[0])})"
    return f"{shown} → {_any(tokenizer, ids.answers[0])}{wrong}"


def _any(tokenizer: Tokenizer, continuations: tuple[tuple[int, ...], ...]) -> str:
    shown = " or ".join(in_brackets(tokenizer, ids) for ids in continuations[:_ANSWERS])
    more = len(continuations) - _ANSWERS
    return f"{shown} or {more} more" if more > 0 else shown


def in_brackets(tokenizer: Tokenizer, ids: Sequence[int], most: int | None = None) -> str:
    """Tokens, each in brackets, as they are read.

    Args:
        tokenizer: the model's tokenizer.
        ids: the tokens.
        most: how many are shown, half of them at either end; all if not given.
    """
    if most is not None and len(ids) > most:
        ends = (in_brackets(tokenizer, ids[: most // 2]), in_brackets(tokenizer, ids[-most // 2 :]))
        return f" … {len(ids) - most // 2 * 2} more … ".join(ends)
    return "".join(f"[{_text(tokenizer, number)}]" for number in ids)


def _text(tokenizer: Any, number: int) -> str:
    token = str(tokenizer.convert_ids_to_tokens([number])[0])
    # Decoding drops this sign of a space at the beginning.
    text = token.replace("▁", " ") if "▁" in token else str(tokenizer.decode([number]))
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
