import numpy as np
import pytest

from mechspex.set_functions.r_squared import non_additive_share, r2_interval, r_squared


def test_r_squared_against_its_definition():
    values = np.array([1.0, 2.0, 4.0])
    assert r_squared(values, values) == 1
    assert r_squared(values, np.full(3, values.mean())) == pytest.approx(0)
    assert r_squared(values, np.array([1.0, 2.0, 5.0])) == pytest.approx(1 - 1 / (14 / 3))


def test_r_squared_of_a_constant():
    assert r_squared(np.full(4, 2.5), np.full(4, 2.5)) == 1
    assert r_squared(np.full(4, 2.5), np.full(4, 2.0)) == -np.inf


def test_the_non_additive_share():
    assert non_additive_share(0.965, 0.93) == pytest.approx(0.5)
    assert non_additive_share(0.93, 0.93) == 0
    assert non_additive_share(1.0, 1.0) == 0
    assert non_additive_share(1.0, 1 - 2e-15) == 0, "rounding is not interaction"
    assert r_squared(1e-8 * np.arange(4.0), np.zeros(4)) < 0, "small values are not constant"


def test_r_squared_of_several_outputs_gives_each_its_own_mean():
    values = np.array([[1.0, 10.0], [2.0, 10.0], [4.0, 13.0]])
    predicted = values + np.array([[0.5, 0.0], [0.0, -1.0], [0.0, 0.0]])
    spread = ((values - values.mean(axis=0)) ** 2).sum()
    assert r_squared(values, predicted) == pytest.approx(1 - 1.25 / spread)
    assert r_squared(values, np.tile(values.mean(axis=0), (3, 1))) == pytest.approx(0)


def test_the_interval_of_r_squared_narrows_as_one_over_the_root():
    rng = np.random.default_rng(0)
    widths = []
    for n_masks in (500, 50_000):
        predicted = rng.normal(size=n_masks)
        values = predicted + 0.5 * rng.normal(size=n_masks)
        low, high = r2_interval(values, predicted)
        assert low < r_squared(values, predicted) < high < 1
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(10, rel=0.2)


def test_a_wider_level_has_a_wider_interval():
    rng = np.random.default_rng(1)
    predicted = rng.normal(size=80)
    values = predicted + rng.normal(size=80)
    inner, outer = r2_interval(values, predicted, 0.5), r2_interval(values, predicted, 0.99)
    assert outer[0] < inner[0] < inner[1] < outer[1]


def test_a_perfect_fit_a_constant_and_a_single_mask_have_no_interval():
    values = np.array([1.0, 2.0, 4.0])
    assert r2_interval(values, values) == (1.0, 1.0)
    assert r2_interval(np.full(4, 2.5), np.full(4, 2.5)) == (1.0, 1.0)
    assert r2_interval(np.full(4, 2.5), np.zeros(4)) == (-np.inf, -np.inf)
    assert r2_interval(np.ones(1), np.zeros(1)) == (-np.inf, -np.inf)
