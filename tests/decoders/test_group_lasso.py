"""The group LASSO against its optimality conditions and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Lasso

from mechspex.decoders.group_lasso import _FINE, Moments, _path_errors, _solve, group_lasso

N_ROWS = 200


def problem(
    n_features: int, n_outputs: int, *, correlated: bool, n_rows: int = N_ROWS, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centred features, orthonormal unless `correlated`, values, and the five rows behind them."""
    rng = np.random.default_rng(seed)
    design = rng.normal(size=(n_rows, n_features))
    if correlated:
        design += 1.5 * design[:, rng.permutation(n_features)] + rng.normal(size=(n_rows, 1))
    else:
        design = np.linalg.qr(design - design.mean(axis=0))[0] * np.sqrt(n_rows)
    design -= design.mean(axis=0)
    truth = np.zeros((n_features, n_outputs))
    truth[:5] = rng.normal(size=(5, n_outputs))
    values = design @ truth + rng.normal(size=(n_rows, n_outputs))
    return design, values - values.mean(axis=0), truth


def solve(design: np.ndarray, values: np.ndarray, penalty: float) -> np.ndarray:
    start = np.zeros((design.shape[1], values.shape[1]))
    return _solve(Moments.of(design, values), penalty, start, _FINE)


@pytest.mark.parametrize(("n_features", "correlated"), [(30, False), (30, True), (500, True)])
@pytest.mark.parametrize("n_outputs", [1, 4])
def test_the_optimality_conditions_hold(n_features: int, n_outputs: int, correlated: bool):
    """Zᵀ(Y − ZB)/N is α B_j/‖B_j‖ where a row is active, and no longer than α elsewhere."""
    design, values, _ = problem(n_features, n_outputs, correlated=correlated)
    largest = np.linalg.norm(design.T @ values, axis=1).max() / N_ROWS
    for penalty in (0.3 * largest, 0.03 * largest):
        found = solve(design, values, penalty)
        gradient = design.T @ (values - design @ found) / N_ROWS
        sizes = np.linalg.norm(found, axis=1)
        active = sizes > 0
        assert 0 < active.sum() < n_features
        np.testing.assert_allclose(
            gradient[active], penalty * found[active] / sizes[active, None], atol=2e-3 * penalty
        )
        assert np.linalg.norm(gradient[~active], axis=1).max() <= 1.002 * penalty


@pytest.mark.parametrize("correlated", [False, True])
def test_one_output_is_the_lasso(correlated: bool):
    design, values, _ = problem(40, 1, correlated=correlated)
    for penalty in (0.02, 0.2):
        expected = Lasso(penalty, fit_intercept=False, tol=1e-10, max_iter=100_000)
        expected.fit(design, values[:, 0])
        np.testing.assert_allclose(solve(design, values, penalty)[:, 0], expected.coef_, atol=1e-4)


def test_orthogonal_features_shrink_towards_zero_together():
    """B_j = (1 − α/‖b_j‖)₊ b_j with b = ZᵀY/N: the closed form of an orthonormal design."""
    design, values, _ = problem(30, 3, correlated=False)
    plain = design.T @ values / N_ROWS
    sizes = np.linalg.norm(plain, axis=1, keepdims=True)
    expected = np.maximum(1 - 0.2 / sizes, 0) * plain
    assert 0 < (sizes < 0.2).sum() < 30
    np.testing.assert_allclose(solve(design, values, 0.2), expected, atol=1e-5)


@pytest.mark.parametrize("n_features", [40, 600])
def test_cross_validation_finds_the_planted_rows(n_features: int):
    design, values, truth = problem(n_features, 3, correlated=n_features > N_ROWS)
    found = group_lasso(design, values, seed=0)
    sizes = np.linalg.norm(found, axis=1)
    assert set(np.argsort(-sizes)[:5]) == set(range(5))
    assert ((found.any(axis=1)) == found.all(axis=1)).all(), "outputs share the support"
    assert np.linalg.norm(found - truth) < 0.25 * np.linalg.norm(truth)


def test_the_penalty_of_pure_noise_leaves_next_to_nothing():
    rng = np.random.default_rng(3)
    design = rng.normal(size=(N_ROWS, 50))
    values = rng.normal(size=(N_ROWS, 2))
    found = group_lasso(design - design.mean(axis=0), values - values.mean(axis=0), seed=0)
    assert ((design @ found) ** 2).sum() < 0.1 * (values**2).sum()


def test_errors_along_the_path_are_those_of_the_held_out_rows():
    design, values, _ = problem(20, 2, correlated=True)
    train, test = slice(0, 150), slice(150, None)
    penalties = np.array([1.0, 0.3, 0.1])
    moments = Moments.of(design, values).without(Moments.of(design[test], values[test]))
    errors = _path_errors(moments, Moments.of(design[test], values[test]), penalties)
    for penalty, error in zip(penalties, errors, strict=True):
        found = solve(design[train], values[train], float(penalty))
        left = ((values[test] - design[test] @ found) ** 2).sum()
        assert error == pytest.approx(left, rel=1e-2)


def test_values_without_signal_and_features_without_variance():
    design, values, _ = problem(20, 2, correlated=True)
    assert not group_lasso(design, np.zeros_like(values), seed=0).any()
    design[:, 7] = 0.0
    assert not group_lasso(design, values, seed=0)[7].any()


def test_the_seed_decides_the_folds():
    design, values, _ = problem(100, 1, correlated=True, n_rows=60)
    first, second = (group_lasso(design, values, seed=4) for _ in range(2))
    assert (first == second).all()
