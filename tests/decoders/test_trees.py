"""Boosted trees: their Fourier coefficients against brute force, for LightGBM and the fallback."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from mechspex.core.masks import all_masks, sample_masks
from mechspex.core.units import Term
from mechspex.decoders.trees import (
    BoostTrees,
    Forest,
    _from_lightgbm,
    boost_lightgbm,
    boost_scikit_learn,
    fourier,
    grow,
    grow_while_better,
    join,
)

N_UNITS = 6
BOTH = pytest.mark.parametrize("boost", [boost_lightgbm, boost_scikit_learn])


def planted(keep: float, n_masks: int = 300) -> tuple[np.ndarray, np.ndarray]:
    masks = sample_masks(N_UNITS, n_masks, keep=keep, seed=2)
    rng = np.random.default_rng(0)
    values = masks @ rng.normal(size=N_UNITS) + 2.0 * (masks[:, 0] & masks[:, 4])
    return masks, values + 0.1 * rng.normal(size=n_masks)


def coefficients(forest: Forest, keep: float) -> dict[Term, float]:
    terms, values = fourier([forest], keep)
    sets = [tuple(unit for unit in row if unit >= 0) for row in terms.tolist()]
    assert len(set(sets)) == len(sets)
    return dict(zip(sets, values[:, 0].tolist(), strict=True))


@BOTH
@pytest.mark.parametrize("keep", [0.5, 0.9])
@pytest.mark.parametrize("depth", [1, 3, 5])
def test_fourier_coefficients_of_trees_equal_brute_force(
    boost: BoostTrees, keep: float, depth: int
):
    forest = grow(boost(*planted(keep), depth=depth, rate=0.1, seed=0), 60)
    masks = all_masks(N_UNITS)
    values = forest.predict_trees(masks).sum(axis=0)
    # F(S) = E[f(m) ∏_{i∈S} z_i] over the design, by summing over every mask.
    weights = np.prod(np.where(masks, keep, 1 - keep), axis=1)
    z = (masks - keep) / np.sqrt(keep * (1 - keep))
    found = coefficients(forest, keep)
    for selection in masks:
        term = tuple(np.flatnonzero(selection).tolist())
        brute = float(weights @ (values * np.prod(z[:, selection], axis=1)))
        assert found.get(term, 0.0) == pytest.approx(brute, abs=1e-10)


def test_forests_share_their_terms_and_units_far_apart_stay_apart():
    """Units up to 10⁶ in five splits: the keys of terms overflow an int64 unless compressed."""
    rng = np.random.default_rng(0)
    n_units, forests, expected = 10**6, [], []
    for _ in range(2):
        # Chains: split i leads to a leaf or to split i + 1.
        units = np.append([7, 999_990], rng.choice(n_units, 3, replace=False))
        n = len(units)
        leaves = n + np.arange(n + 1)
        ways = np.r_[np.arange(1, n), 2 * n]
        values = np.r_[np.zeros(n), rng.normal(size=n + 1)]
        forests.append(
            Forest(
                np.array([0]),
                np.r_[units, np.full(n + 1, -1)],
                np.r_[leaves[:-1], leaves],
                np.r_[ways, leaves],
                values,
            )
        )
        expected.append({t for k in range(n + 1) for t in combinations(sorted(units.tolist()), k)})
    terms, found = fourier(forests, 0.7)
    sets = [tuple(unit for unit in row if unit >= 0) for row in terms.tolist()]
    assert len(set(sets)) == len(sets)
    assert set(sets) == expected[0] | expected[1]
    for number, forest in enumerate(forests):
        alone = coefficients(forest, 0.7)
        together = {t: c for t, c in zip(sets, found[:, number].tolist(), strict=True) if c}
        assert together == pytest.approx(alone)


@BOTH
def test_trees_are_those_of_the_library_whatever_the_number_of_blocks(boost: BoostTrees):
    masks, values = planted(0.5)
    short, long = (grow(boost(masks, values, depth=3, rate=0.1, seed=0), n) for n in (60, 130))
    assert (short.n_trees, long.n_trees) == (60, 130)
    predicted = long.predict_trees(masks)
    np.testing.assert_array_equal(short.predict_trees(masks), predicted[:60])
    predicted = predicted.sum(axis=0)
    assert np.corrcoef(predicted, values)[0, 1] > 0.99
    assert predicted.mean() == pytest.approx(values.mean(), abs=1e-6)


def test_lightgbm_predicts_what_its_text_says():
    lightgbm = pytest.importorskip("lightgbm")
    masks, values = planted(0.8)
    options = {"num_threads": 1, "verbosity": -1, "min_data_in_leaf": 5}
    booster = lightgbm.train(options, lightgbm.Dataset(masks.astype(float), values), 30)
    forest = _from_lightgbm(booster.model_to_string())
    everywhere = all_masks(N_UNITS)
    np.testing.assert_allclose(
        forest.predict_trees(everywhere).sum(axis=0), booster.predict(everywhere), atol=1e-12
    )


@BOTH
def test_values_that_no_split_explains_give_a_constant(boost: BoostTrees):
    masks = np.zeros((20, 3), dtype=bool)
    masks[:2, 0] = True
    found = coefficients(
        grow(boost(masks, np.arange(20.0), depth=3, rate=0.1, seed=0), 10), keep=0.3
    )
    assert found == pytest.approx({(): 9.5})


def test_growing_ends_with_the_limit_or_when_held_out_masks_no_longer_profit():
    masks, values = planted(0.5, n_masks=500)

    def grown(n_trees: int, patience: int, target: np.ndarray) -> tuple[Forest, np.ndarray]:
        blocks = boost_lightgbm(masks[:300], target[:300], depth=3, rate=0.1, seed=0)
        return grow_while_better(blocks, n_trees, patience, masks[300:], target[300:])

    forest, errors = grown(130, 1000, values)
    assert forest.n_trees == len(errors) == 130
    staged = np.cumsum(forest.predict_trees(masks[300:]), axis=0)
    np.testing.assert_allclose(errors, ((values[300:] - staged) ** 2).sum(axis=1))
    assert errors.min() < 0.02 * errors[0]
    # Noise: the first trees are the best.
    forest, errors = grown(5000, 100, np.random.default_rng(1).normal(size=500))
    assert forest.n_trees == len(errors) <= 200


def test_joined_forests_are_the_sum_of_their_trees():
    masks, values = planted(0.6)
    one = grow(boost_lightgbm(masks, values, depth=2, rate=0.1, seed=0), 3)
    other = grow(boost_lightgbm(masks, -values, depth=4, rate=0.2, seed=0), 5)
    np.testing.assert_array_equal(
        join([one, other]).predict_trees(masks),
        np.vstack([one.predict_trees(masks), other.predict_trees(masks)]),
    )
