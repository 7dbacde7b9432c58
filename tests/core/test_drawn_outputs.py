"""Outputs drawn again: as many as there are, each equally often, with replacement."""

import numpy as np
import pytest

from mechspex.core.drawn_outputs import drawn_outputs


def test_a_draw_takes_as_many_outputs_as_there_are():
    drawn = drawn_outputs(7, np.random.default_rng(0), 500)
    assert drawn.shape == (500, 7)
    assert set(drawn.sum(axis=1)) == {7}
    assert len(drawn_outputs(7, np.random.default_rng(0))) == 2_000


def test_counts_have_the_moments_of_drawing_with_replacement():
    """Mean 1, variance 1 − 1/n, covariance −1/n; a shuffle would have no variance."""
    n_outputs, n_draws = 5, 100_000
    drawn = drawn_outputs(n_outputs, np.random.default_rng(1), n_draws)
    expected = np.eye(n_outputs) - 1 / n_outputs
    assert drawn.mean(axis=0) == pytest.approx(np.ones(n_outputs), abs=0.02)
    assert np.cov(drawn.T) == pytest.approx(expected, abs=0.02)


def test_another_seed_draws_others():
    first, again, other = (drawn_outputs(6, np.random.default_rng(s), 50) for s in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
