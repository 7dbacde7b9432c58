"""Masks that are alike up to some block: they are run as one, and part where they differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

# The share of the rows of all blocks that may be left: to copy rows where masks part is not free.
_PAYS = 0.9


@dataclass(frozen=True)
class Branches:
    """The masks that are run in each block: of those that ablate the same up to it, one.

    Attributes:
        masks: {block: their numbers}; all of them in the last block.
        came_from: {block: the place of each of them in the block before}, where that has fewer.
        last: {block: the place there of the one that the last mask is run as}.
    """

    masks: Mapping[int, Int[np.ndarray, " _"]]
    came_from: Mapping[int, Int[np.ndarray, " _"]]
    last: Mapping[int, int]

    @classmethod
    def of(
        cls, masks: Bool[np.ndarray, "mask unit"], layers: Int[np.ndarray, " unit"], blocks: range
    ) -> Branches | None:
        """Where masks part.

        Args:
            masks: the masks, which differ in no unit before the first of `blocks`.
            layers: the block that each unit changes first.
            blocks: the blocks that are run.

        Returns:
            None where masks are too seldom alike for that to pay.
        """
        if len(masks) < 2 or len(blocks) < 2:
            return None
        every = np.arange(len(masks))
        group, first = np.zeros(len(masks), dtype=int), every[:1]
        found, came_from, last = {}, {}, {}
        for block in blocks:
            before, n_before = group, len(first)
            if n_before < len(masks):
                here = np.packbits(masks[:, layers == block], axis=1)
                keys = np.column_stack([before, here])
                _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
                group = group.reshape(-1)
                if len(first) == len(masks) or block == blocks[-1]:
                    first = group = every
            if block > blocks[0] and len(first) > n_before:
                came_from[block] = before[first]
            found[block], last[block] = first, int(group[-1])
        if sum(map(len, found.values())) > _PAYS * len(masks) * len(blocks):
            return None
        return cls(found, came_from, last)

    def rows(self, n_rows: int, device: torch.device) -> dict[int, Int[Tensor, " _"]]:
        """{block: the row of the block before from which each of its rows comes}.

        Args:
            n_rows: how many rows a mask has.
            device: where the rows lie.
        """
        return {block: rows_of(places, n_rows, device) for block, places in self.came_from.items()}


def one_idle(
    keeps: Bool[np.ndarray, " mask"],
) -> tuple[Int[np.ndarray, " _"], Int[np.ndarray, " mask"]] | None:
    """Those that keep something and the first that does not, and which of these each one takes.

    Args:
        keeps: whether each mask keeps something.

    Returns:
        None where fewer than two keep nothing.
    """
    idle = np.flatnonzero(~keeps)
    if len(idle) < 2:
        return None
    some = keeps.copy()
    some[idle[0]] = True
    place = np.cumsum(some) - 1
    return np.flatnonzero(some), np.where(keeps, place, place[idle[0]])


def rows_of(
    places: Int[np.ndarray, " mask"], n_rows: int, device: torch.device
) -> Int[Tensor, " row"]:
    """The rows of some masks.

    Args:
        places: the places of the masks.
        n_rows: how many rows a mask has.
        device: where the rows lie.
    """
    rows = (places[:, None] * n_rows + np.arange(n_rows)).ravel()
    return torch.from_numpy(rows).to(device)
