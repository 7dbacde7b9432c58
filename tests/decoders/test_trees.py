"""Boosted trees: their Fourier coefficients against brute force, for LightGBM and the fallback."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest

from mechspex.core.masks import all_masks, sample_masks
from mechspex.core.units import Term
from mechspex.decoders.boosting import (
    STEP,
    Boosting,
    BoostTrees,
    _from_lightgbm,
    boost_lightgbm,
    boost_scikit_learn,
    cross_validated_errors,
)
from mechspex.decoders.trees import Forest, fourier, join

N_UNITS = 6
BOTH = pytest.mark.parametrize("boost", [boost_lightgbm, boost_scikit_learn])


def planted(keep: float, n_masks: int = 300) -> tuple[np.ndarray, np.ndarray]:
    masks = sample_masks(N_UNITS, n_masks, keep=keep, seed=2)
    rng = np.random.default_rng(0)
    values = masks @ rng.normal(size=N_UNITS) + 2.0 * (masks[:, 0] & masks[:, 4])
    return masks, values + 0.1 * rng.normal(size=n_masks)


def grown(
    boost: BoostTrees, masks: np.ndarray, values: np.ndarray, n_trees: int, *, depth: int = 3
) -> Forest:
    """Trees of all masks, none held out."""
    boosting = boost((masks, values), (masks[:0], values[:0]), depth=depth, rate=0.1, seed=0)
    assert boosting.grow(n_trees) == 0.0
    return boosting.forest(n_trees)


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
    forest = grown(boost, *planted(keep), 60, depth=depth)
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
def test_the_first_trees_of_a_larger_forest_are_the_smaller_forest(boost: BoostTrees):
    masks, values = planted(0.5)
    short, long = (grown(boost, masks, values, n_trees) for n_trees in (60, 130))
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


def test_a_forest_of_several_texts_is_that_of_one(monkeypatch: pytest.MonkeyPatch):
    masks, values = planted(0.8)
    one = grown(boost_lightgbm, masks, values, 23)
    monkeypatch.setattr("mechspex.decoders.boosting._TREES_A_TEXT", 5)
    several = grown(boost_lightgbm, masks, values, 23)
    assert several.n_trees == 23
    for column in ("roots", "unit", "ablated", "kept", "value"):
        np.testing.assert_array_equal(getattr(several, column), getattr(one, column))


@BOTH
def test_values_that_no_split_explains_give_a_constant(boost: BoostTrees):
    masks = np.zeros((20, 3), dtype=bool)
    masks[:2, 0] = True
    found = coefficients(grown(boost, masks, np.arange(20.0), 10), keep=0.3)
    assert found == pytest.approx({(): 9.5})


@BOTH
def test_errors_are_those_of_the_staged_forest_on_held_out_masks(boost: BoostTrees):
    masks, values = planted(0.5, n_masks=500)
    train, held_out = (masks[:300], values[:300]), (masks[300:], values[300:])
    boosting = boost(train, held_out, depth=3, rate=0.1, seed=0)
    errors = [boosting.grow(1) for _ in range(130)]
    staged = np.cumsum(boosting.forest(130).predict_trees(masks[300:]), axis=0)
    np.testing.assert_allclose(errors, ((values[300:] - staged) ** 2).sum(axis=1), rtol=1e-6)
    assert min(errors) < 0.02 * errors[0]


class Scripted(Boosting):
    """Trees whose held-out errors are known beforehand."""

    def __init__(self, errors: Callable[[int], float]) -> None:
        self._errors, self.n_trees = errors, 0

    def grow(self, n_trees: int) -> float:
        self.n_trees += n_trees
        return self._errors(self.n_trees)

    def forest(self, n_trees: int) -> Forest:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("errors", "to_beat", "most", "grown"),
    [
        (lambda t: 1 / t, np.inf, 130, 130),  # ends with the most trees
        (lambda t: 1 / t, np.inf, 132, 132),  # the last of them are two
        (lambda t: abs(t - 50) + 1.0, np.inf, 5000, 150),  # 100 trees after the last gain
        (lambda t: 1.0 - 1e-6 * t, np.inf, 5000, 105),  # falls, but by nothing that matters
        (lambda t: 0.999**t, 1e-30, 5000, 105),  # would need 69,000 trees
        (lambda t: 0.999**t, 0.1, 5000, 5000),  # gets there
    ],
)
def test_trees_grow_for_as_long_as_held_out_masks_profit(
    errors: Callable[[int], float], to_beat: float, most: int, grown: int
):
    """Folds grow together: that of one fold rises for ever, which the sum does not notice."""
    folds = [Scripted(errors), Scripted(lambda t: 1e-9 * t)]
    found = cross_validated_errors(folds, most, 0.1, to_beat)
    assert folds[0].n_trees == folds[1].n_trees == grown
    looks = [min(t, grown) for t in range(STEP, grown + STEP, STEP)]
    np.testing.assert_allclose(found[:, 0], [errors(t) for t in looks])


def test_noise_takes_few_trees():
    masks, _ = planted(0.5, n_masks=500)
    values = np.random.default_rng(1).normal(size=500)
    train, held_out = (masks[:300], values[:300]), (masks[300:], values[300:])
    boosting = boost_lightgbm(train, held_out, depth=3, rate=0.1, seed=0)
    errors = cross_validated_errors([boosting], 5000, 0.1)
    assert STEP * np.argmin(errors) < 20
    assert STEP * len(errors) < 130


def test_joined_forests_are_the_sum_of_their_trees():
    masks, values = planted(0.6)
    one = grown(boost_lightgbm, masks, values, 3, depth=2)
    other = grown(boost_lightgbm, masks, -values, 5, depth=4)
    np.testing.assert_array_equal(
        join([one, other]).predict_trees(masks),
        np.vstack([one.predict_trees(masks), other.predict_trees(masks)]),
    )
