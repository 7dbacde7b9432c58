"""What a model itself writes after a prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mechspex.core.errors import TaskError
from mechspex.models.bridge import edited_logits
from mechspex.models.load_model import Model
from mechspex.tasks.next_token import continuation, encode


@torch.no_grad()
def greedy_answers(
    model: Model, prompts: Sequence[str], n_tokens: int = 1, *, prepend_bos: bool | None = None
) -> list[str]:
    """The likeliest next token of each prompt, again and again: answers for a `mechspex.Task`.

    >>> import mechspex as mx
    >>> model = mx.load_model("tiny")
    >>> mx.greedy_answers(model, ["apple bird boat apple"], 2)
    [' bird boat']

    Args:
        model: a loaded model.
        prompts: the texts that it reads.
        n_tokens: how many tokens it writes; fewer where a text that it wrote would be read as
            other tokens.
        prepend_bos: see `mechspex.Task`.

    Raises:
        TaskError: a prompt that this model cannot read, or a first token that is no text of its
            own, such as the end of the text.
    """
    if n_tokens < 1:
        raise TaskError(f"n_tokens = {n_tokens}: give a whole number from 1 up")
    return [_written(model, prompt, n_tokens, prepend_bos) for prompt in prompts]


def _written(model: Model, prompt: str, n_tokens: int, prepend_bos: bool | None) -> str:
    tokenizer = model.tokenizer
    device = next(model.original_model.parameters()).device
    ids = encode(tokenizer, prompt, prepend_bos)
    written: list[int] = []
    for _ in range(n_tokens):
        row = torch.tensor([[*ids, *written]], device=device)
        written.append(int(edited_logits(model, row, {})[0, -1].argmax()))
    # Tokens of half a character, or that merge with the prompt, are no text to score.
    while written:
        text = str(tokenizer.decode(written))
        try:
            if continuation(tokenizer, prompt, text, "answer") == tuple(written):
                return text
        except TaskError:
            pass
        written.pop()
    raise TaskError(
        f"after {prompt!r} {model.cfg.model_name} writes no text that it would read as the same "
        "tokens; give the answer yourself"
    )
