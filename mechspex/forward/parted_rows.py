"""Parted rows: masks that are run as one up to a block become rows of their own there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from mechspex.forward.one_pass import PassAtHand


class RowsTogetherError(Exception):
    """Rows cannot part on the way: a block is given something for each of them."""


def part_rows(number: int, hidden: Tensor, given: object, at_hand: PassAtHand) -> Tensor:
    """The rows that enter a block, of those of the block before; the pass goes on with them.

    Args:
        number: the number of the block.
        hidden: the rows that left the one before.
        given: what else the block is given.
        at_hand: the pass, some of whose rows part.

    Raises:
        RowsTogetherError: `given` holds something for each row.
    """
    if not parts_alike(given):
        raise RowsTogetherError
    rows = at_hand.now.parting.get(number)
    if rows is None:
        return hidden
    at_hand.now = replace(at_hand.now, rows=len(rows))
    return hidden.index_select(0, rows)


def parts_alike(arguments: object) -> bool:
    """Whether what a block is given beside its rows is the same for every row.

    Args:
        arguments: tensors, in tuples, lists or dictionaries; whatever else there is.
    """
    if isinstance(arguments, Tensor):
        return arguments.ndim < 2 or len(arguments) == 1
    if isinstance(arguments, Mapping):
        return all(map(parts_alike, arguments.values()))
    if isinstance(arguments, tuple | list):
        return all(map(parts_alike, arguments))
    return True
