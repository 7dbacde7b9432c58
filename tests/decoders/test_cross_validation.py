"""Folds: what training has seen is not what it is tested on, also where masks repeat."""

from __future__ import annotations

import numpy as np
import pytest

from mechspex.core.masks import all_masks, sample_masks
from mechspex.decoders.cross_validation import disjoint_parts, folds
from mechspex.decoders.decoder import Samples, check_samples
from mechspex.decoders.proxyspex import ProxySpex
from mechspex.decoders.spex.design import SpexDesign
from mechspex.set_functions.r_squared import r_squared

QUICK = ProxySpex(depths=(2, 4), rates=(0.1,), n_trees=250)


def samples_of(masks: np.ndarray, values: np.ndarray | None = None, seed: int = 0) -> Samples:
    told = np.arange(len(masks), dtype=float) if values is None else values
    return check_samples(masks, told, keep=None, max_order=None, seed=seed)


def a_value_a_mask(masks: np.ndarray) -> np.ndarray:
    """Nothing but noise, drawn once a mask: whoever meets the mask again meets the value again."""
    numbers = masks @ (1 << np.arange(masks.shape[1]))
    return np.random.default_rng(4).normal(size=1 << masks.shape[1])[numbers]


@pytest.mark.parametrize("n_masks", [400, 403])
def test_masks_that_differ_are_split_as_rows(n_masks: int):
    samples = samples_of(sample_masks(60, n_masks, seed=1), seed=5)
    plain = np.array_split(np.random.default_rng(5).permutation(n_masks), 5)
    for part, expected in zip(disjoint_parts(samples, 5), plain, strict=True):
        np.testing.assert_array_equal(part, expected)
    # 81 or 80 rows a part: two parts hold 150 test rows.
    splits = folds(samples, 150)
    assert len(splits) == 2
    for (train, test), expected in zip(splits, plain, strict=False):
        np.testing.assert_array_equal(test, expected)
        np.testing.assert_array_equal(train, np.setdiff1d(np.arange(n_masks), expected))


@pytest.mark.parametrize(
    ("n_units", "keep", "n_masks"), [(12, 0.9, 1000), (12, 0.95, 997), (6, 0.9, 300), (30, 0.9, 64)]
)
def test_what_is_tested_has_not_been_seen(n_units: int, keep: float, n_masks: int):
    masks = sample_masks(n_units, n_masks, keep=keep, seed=2)
    samples = samples_of(masks)
    tested: list[bytes] = []
    for train, test in folds(samples, n_masks):
        seen = {mask.tobytes() for mask in masks[train]}
        asked = [mask.tobytes() for mask in masks[test]]
        assert len(train) in {n_masks - n_masks // 5, n_masks - -(-n_masks // 5)}
        assert asked
        assert not seen.intersection(asked)
        tested += asked
    assert len(tested) == len(set(tested)), "each mask is asked once"
    kinds, counts = np.unique(masks, axis=0, return_counts=True)
    dealt = np.count_nonzero(counts > n_masks / 5)
    assert len(tested) >= len(kinds) - dealt - 4, "four cuts part at most four masks"


def test_enough_different_masks_are_tested():
    masks = sample_masks(12, 1000, keep=0.85, seed=1)
    splits = folds(samples_of(masks), 150)
    sizes = [len(test) for _, test in splits]
    assert sum(sizes) >= 150 > sum(sizes[:-1])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_remembered_values_explain_no_mask_that_is_new(seed: int):
    """Negative control: noise that repeats with its mask was explained at R² 0.7."""
    masks = sample_masks(12, 1000, keep=0.9, seed=seed)
    samples = samples_of(masks, a_value_a_mask(masks), seed)
    splits = folds(samples, 250)
    truth = np.concatenate([samples.values[test] for _, test in splits])
    assert r_squared(truth, QUICK.predict_held_out(samples, splits)[0]) < 0.1


def test_where_no_mask_is_new_rows_are_split_as_they_are():
    every = np.concatenate([all_masks(4)] * 20)
    plain = np.array_split(np.random.default_rng(0).permutation(320), 5)
    for (_, test), expected in zip(folds(samples_of(every), 320), plain, strict=True):
        np.testing.assert_array_equal(test, expected)


def test_masks_that_are_all_in_every_part_are_tested_still():
    masks = np.repeat(all_masks(3)[[3, 5, 7]], 50, axis=0)
    splits = folds(samples_of(masks), 150)
    assert sum(len(test) for _, test in splits) == 150


def test_parts_of_a_cross_fit_do_not_look_at_masks():
    """Its estimates are unbiased only where every part is a draw of the design."""
    masks = sample_masks(12, 1000, keep=0.9, seed=2)
    plain = np.array_split(np.random.default_rng(0).permutation(1000), 3)
    for part, expected in zip(disjoint_parts(samples_of(masks), 3), plain, strict=True):
        np.testing.assert_array_equal(part, expected)


def test_groups_of_a_design_stay_parts():
    design = SpexDesign(6, 400, max_order=2, seed=0)
    masks = design.masks
    samples = check_samples(
        masks, np.arange(len(masks)) * 1.0, keep=0.5, max_order=None, seed=0, design=design
    )
    assert len(samples.groups) > 1
    parts = disjoint_parts(samples, 5)
    for group, part in zip(samples.groups, parts, strict=True):
        assert np.isin(group.rows, part).all()
    for (_, test), part in zip(folds(samples, len(masks)), parts, strict=False):
        np.testing.assert_array_equal(test, part)
