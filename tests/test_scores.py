import numpy as np
import pytest

from mechspex.scores import non_additive_share, r_squared


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
