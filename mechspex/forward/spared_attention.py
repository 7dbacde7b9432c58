"""Spared attention: where it writes the same into several rows, it is run for one of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jaxtyping import Int
from torch import Tensor, nn

from mechspex.forward.one_pass import PassAtHand
from mechspex.forward.parted_rows import RowsTogetherError, parts_alike


def make_sparing(number: int, attention: nn.Module, at_hand: PassAtHand) -> None:
    """Have an attention run for those rows alone that the pass names; edits in it see no others.

    Args:
        number: the number of its block.
        attention: the module, whose forward is replaced.
        at_hand: the pass.
    """
    run = attention.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        whole = at_hand.now
        if number not in whole.attending:
            return run(*args, **kwargs)
        rows, taken = whole.attending[number]
        args, kwargs = some_rows(args, kwargs, rows)
        with at_hand.running(replace(whole, rows=len(rows))):
            output = run(*args, **kwargs)
        return as_many(output, taken)

    attention.forward = forward


def some_rows(
    args: tuple[Any, ...], kwargs: dict[str, Any], rows: Int[Tensor, " some"]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What an attention is given, with some of its rows alone.

    Args:
        args, kwargs: the rows first, or as ``hidden_states``.
        rows: the rows that are taken.

    Raises:
        RowsTogetherError: it is given something else for each row.
    """
    others = dict(kwargs)
    hidden = args[0] if args else others.pop("hidden_states", None)
    if not isinstance(hidden, Tensor) or not parts_alike((args[1:], others)):
        raise RowsTogetherError
    hidden = hidden.index_select(0, rows)
    return ((hidden, *args[1:]), kwargs) if args else ((), kwargs | {"hidden_states": hidden})


def as_many(output: Any, taken: Int[Tensor, " row"]) -> Any:
    """What an attention returned, for every row.

    Args:
        output: rows, or a tuple or list that begins with them.
        taken: the row of it that each row takes.
    """
    if isinstance(output, list):
        return [output[0].index_select(0, taken), *output[1:]]
    if isinstance(output, tuple):
        return (output[0].index_select(0, taken), *output[1:])
    return output.index_select(0, taken)
