"""Skipped blocks: those before a pass begins, and those after the last that is run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from mechspex.forward.one_pass import PassAtHand
from mechspex.forward.parted_rows import part_rows


def make_skippable(blocks: Sequence[nn.Module], n_run: int, at_hand: PassAtHand) -> None:
    """Have each block run where the pass has it run; elsewhere it hands on what it is given.

    Between two blocks the pass begins, is recorded, parts its rows, and is edited.

    Args:
        blocks: the blocks of a model, whose forwards are replaced.
        n_run: how many of them are ever run.
        at_hand: the pass.
    """
    returns_tuple = False

    def wrap(number: int, block: nn.Module) -> None:
        run, (enters, leaves) = block.forward, ends_of_block(number)

        def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            nonlocal returns_tuple
            now = at_hand.now
            if number == now.start.block and now.start.entering is not None:
                hidden = now.start.entering
            if number in now.recording.rows:
                now.recording.entering[number] = hidden[now.recording.rows[number]].clone()
            if not now.start.block <= number < n_run:
                # As the blocks that were run do; the clean pass comes first.
                return (hidden,) if returns_tuple else hidden
            if now.parting:
                hidden = part_rows(number, hidden, (args, kwargs), at_hand)
            hidden = at_hand.now.edited(enters, hidden)
            output = run(hidden, *args, **kwargs)
            returns_tuple = isinstance(output, tuple)
            return at_hand.now.edited(leaves, output)

        block.forward = forward

    for number, block in enumerate(blocks):
        wrap(number, block)


def ends_of_block(number: int) -> tuple[str, str]:
    """The hook points at which what enters a block and what leaves it are edited.

    Args:
        number: the number of the block.
    """
    return f"blocks.{number}.hook_in", f"blocks.{number}.hook_out"
