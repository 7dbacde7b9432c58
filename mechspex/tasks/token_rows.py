"""What a model reads of a prompt, token by token."""

from __future__ import annotations

from collections.abc import Iterable
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
    prompt = ids.prompts[0]
    half = _TOKENS // 2
    shown = _tokens(tokenizer, prompt)
    if len(prompt) > _TOKENS:
        ends = (_tokens(tokenizer, prompt[:half]), _tokens(tokenizer, prompt[-half:]))
        shown = f" … {len(prompt) - _TOKENS} more … ".join(ends)
    wrong = "" if ids.distractors is None else f"  (not {_any(tokenizer, ids.distractors[0])})"
    return f"{shown} → {_any(tokenizer, ids.answers[0])}{wrong}"


def _any(tokenizer: Tokenizer, continuations: tuple[tuple[int, ...], ...]) -> str:
    shown = " or ".join(_tokens(tokenizer, ids) for ids in continuations[:_ANSWERS])
    more = len(continuations) - _ANSWERS
    return f"{shown} or {more} more" if more > 0 else shown


def _tokens(tokenizer: Tokenizer, ids: Iterable[int]) -> str:
    return "".join(f"[{_text(tokenizer, number)}]" for number in ids)


def _text(tokenizer: Any, number: int) -> str:
    token = str(tokenizer.convert_ids_to_tokens([number])[0])
    # Decoding drops this sign of a space at the beginning.
    text = token.replace("▁", " ") if "▁" in token else str(tokenizer.decode([number]))
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
