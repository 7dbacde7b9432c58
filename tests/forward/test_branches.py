"""Masks that are alike up to a block are run as one: which these are, by brute force."""

import numpy as np
import pytest
import torch

from mechspex.forward.branches import Branches, one_idle, rows_of

N_BLOCKS, PER_BLOCK = 5, 3
LAYERS = np.repeat(np.arange(N_BLOCKS), PER_BLOCK)


def that_part_late(n_masks, seed):
    """Masks of which most ablate the same in early blocks."""
    rng = np.random.default_rng(seed)
    masks = rng.random((n_masks, len(LAYERS))) < 0.5
    masks[:, LAYERS < 2] = masks[rng.integers(0, 2, n_masks)][:, LAYERS < 2]
    masks[:, LAYERS == 2] = masks[rng.integers(0, 3, n_masks)][:, LAYERS == 2]
    return masks


@pytest.mark.parametrize("seed", range(5))
def test_each_mask_is_led_through_the_blocks_by_one_that_ablates_the_same(seed):
    masks = that_part_late(9, seed)
    branches = Branches.of(masks, LAYERS, range(N_BLOCKS))
    assert branches is not None
    assert set(branches.masks) == set(range(N_BLOCKS))
    for block in range(N_BLOCKS):
        led = branches.masks[block]
        came_from = branches.came_from.get(block, np.arange(len(led)))
        up_to = block >= LAYERS
        if block < N_BLOCKS - 1:
            different = {mask.tobytes() for mask in masks[:, up_to]}
            assert len(led) == len(different) == len({m.tobytes() for m in masks[led][:, up_to]})
        if block:
            before = branches.masks[block - 1]
            earlier = block > LAYERS
            assert (masks[led][:, earlier] == masks[before[came_from]][:, earlier]).all()
    assert led.tolist() == list(range(len(masks)))


def test_masks_that_part_at_once_or_stand_alone_are_no_branches():
    masks = np.random.default_rng(0).random((8, len(LAYERS))) < 0.5
    masks[:, :3] = list(np.ndindex(2, 2, 2))
    assert Branches.of(masks, LAYERS, range(N_BLOCKS)) is None
    late = that_part_late(9, 0)
    assert Branches.of(late[:1], LAYERS, range(N_BLOCKS)) is None
    assert Branches.of(late, LAYERS, range(4, 5)) is None


def test_what_the_last_blocks_do_not_tell_apart_leaves_them_as_often_as_it_was_asked_for():
    masks = np.tile(that_part_late(9, 0)[:1], (4, 1))
    masks[:, -1] = [True, False, True, False]
    branches = Branches.of(masks, LAYERS, range(N_BLOCKS - 1))
    assert [len(branches.masks[block]) for block in range(N_BLOCKS - 1)] == [1, 1, 1, 4]
    assert branches.came_from[N_BLOCKS - 2].tolist() == [0, 0, 0, 0]


def test_one_stands_for_all_that_keep_nothing():
    some, taken = one_idle(np.array([False, True, False, True, False]))
    assert some.tolist() == [0, 1, 3]
    assert some[taken].tolist() == [0, 1, 0, 3, 0]
    assert one_idle(np.array([True, False, True])) is None
    rows = rows_of(np.array([2, 0]), 3, torch.device("cpu"))
    assert rows.tolist() == [6, 7, 8, 0, 1, 2]
