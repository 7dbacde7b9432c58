"""The ANOVA kernel against brute force: polynomials, gradient and read-off."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize

from mechspex.decoders import decode
from mechspex.decoders.kernel import _GAIN, Kernel, _likely_triples, read_off, starting_point, tune
from mechspex.decoders.marginal_likelihood import (
    _SINGLE,
    Hyperparameters,
    complexity_and_misfit,
    dual_of,
    elementary_symmetric,
    maximise_likelihood,
    negative_log_likelihood,
    powers_of,
)
from mechspex.set_functions.set_function import SetFunction

N_UNITS = 5
RNG = np.random.default_rng(0)
MASKS = RNG.random((12, N_UNITS)) < 0.7
DESIGN = (MASKS - 0.7) / np.sqrt(0.21)
POWERS = [DESIGN, DESIGN**2, DESIGN**3]
VALUES = RNG.normal(size=(12, 2))
PRIOR = Hyperparameters(RNG.uniform(0.1, 0.5, N_UNITS), np.array([0.8, 0.3, 0.1]), noise=0.2)
TERMS = [t for k in range(4) for t in combinations(range(N_UNITS), k)]


def test_elementary_symmetric_polynomials_are_sums_over_sets():
    polynomials = elementary_symmetric(POWERS, [PRIOR.weights] * 3, POWERS)
    for order, polynomial in enumerate(polynomials):
        brute = np.zeros_like(polynomial)
        for term in combinations(range(N_UNITS), order):
            column = DESIGN[:, list(term)].prod(axis=1)
            brute += PRIOR.weights[list(term)].prod() * np.outer(column, column)
        np.testing.assert_allclose(polynomial, brute, atol=1e-10)


def test_the_gradient_of_the_likelihood_is_that_of_finite_differences():
    def objective(log: np.ndarray) -> float:
        return negative_log_likelihood(POWERS, VALUES, Hyperparameters.from_log(log, N_UNITS))[0]

    log = PRIOR.to_log()
    gradient = negative_log_likelihood(POWERS, VALUES, PRIOR)[1]
    numerical = np.asarray(approx_fprime(log, objective, 1e-6))
    np.testing.assert_allclose(gradient, numerical, atol=1e-4)


def test_the_read_off_is_the_posterior_mean_of_every_coefficient():
    design = np.stack([DESIGN[:, list(t)].prod(axis=1) for t in TERMS], axis=1)
    variances = np.array([PRIOR.variance(t) for t in TERMS])
    gram = (design * variances) @ design.T + PRIOR.noise * np.eye(len(design))
    dual = np.linalg.solve(gram, VALUES)
    brute = variances[:, None] * (design.T @ dual)
    found = read_off(DESIGN, dual, PRIOR, max_terms=len(TERMS))
    assert set(found) == set(TERMS)
    largest = sorted(TERMS[1:], key=lambda t: -np.linalg.norm(found[t]))[:6]
    assert set(read_off(DESIGN, dual, PRIOR, max_terms=6)) == {(), *largest}
    np.testing.assert_allclose([found[t] for t in TERMS], brute, atol=1e-10)
    answer = SetFunction.from_mapping(N_UNITS, found, basis="fourier", keep=0.7)
    np.testing.assert_allclose(answer.predict_outputs(MASKS), design @ brute, atol=1e-9)


def test_triples_are_read_off_by_their_prior_variance():
    weights = np.array([0.3, 0.01, 0.2, 0.05, 0.4, 0.02])
    by_variance = sorted(combinations(range(6), 3), key=lambda t: -weights[list(t)].prod())
    assert _likely_triples(weights, 7).tolist() == [list(t) for t in by_variance[:7]]
    assert len(_likely_triples(weights, 100)) == 20


def test_outputs_share_the_prior_and_are_solved_each_for_itself():
    """A second output that is a multiple of the first gives the same prior, and its multiple."""
    masks = RNG.random((150, 8)) < 0.5
    values = masks[:, 0] * 1.0 - masks[:, 2] * masks[:, 5] + 0.1 * RNG.normal(size=150)
    one = decode(masks, values, decoder="kernel", keep=0.5)
    two = decode(masks, values[:, None] * np.array([1.0, -1.0]), decoder="kernel", keep=0.5)
    fresh = RNG.random((100, 8)) < 0.5
    expected = one.predict(fresh)
    predicted = two.predict_outputs(fresh)
    np.testing.assert_allclose(predicted, np.stack([expected, -expected], axis=1), atol=1e-6)


def test_the_largest_terms_are_kept():
    masks = RNG.random((150, 8)) < 0.5
    values = masks[:, 0] * 1.0 - masks[:, 2] * masks[:, 5]
    every = decode(masks, values, decoder=Kernel(), keep=0.5)
    few = decode(masks, values, decoder=Kernel(n_terms=4), keep=0.5)
    assert len(few) == 5
    assert few.terms == every.truncate(4).terms
    assert set(few.terms) == {(), (0,), (2,), (5,), (2, 5)}


def _problem(n_masks: int, noise: float):
    """Masks, standardised values and powers: singles, a pair and a triple among 12 units."""
    rng = np.random.default_rng(3)
    masks = rng.random((n_masks, 12)) < 0.7
    values = 1.0 * masks[:, 0] - 2.0 * masks[:, 1] * masks[:, 2] + masks[:, 3:6].all(axis=1)
    values = values + noise * rng.normal(size=n_masks)
    design = (masks - 0.7) / np.sqrt(0.21)
    values = ((values - values.mean()) / values.std())[:, None]
    return design, values, powers_of(design, 3)


def test_the_slopes_are_traces_and_squares_of_derivatives():
    """½ tr(K⁻¹ ∂K) and ½ α′ ∂K α on more masks than a block of rows, the kernel by brute force."""
    design, values, powers = _problem(150, 0.3)
    prior = Hyperparameters(np.linspace(0.05, 0.3, 12), np.array([0.8, 0.3, 0.1]), noise=0.1)

    def kernel(log: np.ndarray) -> np.ndarray:
        at = Hyperparameters.from_log(log, 12)
        terms = [t for k in range(4) for t in combinations(range(12), k)]
        columns = np.stack([design[:, list(t)].prod(axis=1) for t in terms], axis=1)
        variances = np.array([at.variance(t) for t in terms])
        return (columns * variances) @ columns.T + at.noise * np.eye(len(design))

    log, inverse = prior.to_log(), np.linalg.inv(kernel(prior.to_log()))
    value, gradient = negative_log_likelihood(powers, values, prior)
    complexity, misfit = complexity_and_misfit(powers, values, prior)
    np.testing.assert_allclose(complexity - misfit, gradient, atol=1e-8)
    dual = inverse @ values
    np.testing.assert_allclose(dual_of(powers, values, prior), dual, atol=1e-8)
    exact = -0.5 * np.linalg.slogdet(inverse)[1] + 0.5 * (values * dual).sum() + prior.weights.sum()
    assert abs(value - exact) < 1e-8
    for place in (0, 7, 11, 12, 13, 14, 15):
        step = np.zeros(16)
        step[place] = 1e-5
        change = (kernel(log + step) - kernel(log - step)) / 2e-5
        grows = 0.5 * np.vdot(inverse, change) + (prior.weights[place] if place < 12 else 0.0)
        np.testing.assert_allclose(complexity[place], grows, rtol=1e-6)
        np.testing.assert_allclose(misfit[place], 0.5 * dual.T @ change @ dual, rtol=1e-6)


def test_units_too_light_for_a_power_sum_change_less_than_a_thousandth_more_noise():
    """Their squares and cubes are left out, their pairs and triples with heavy units are not."""
    design, values, powers = _problem(150, 0.3)
    weights = np.where(np.arange(12) < 6, 0.2, 2e-3)
    prior = Hyperparameters(weights, np.array([0.8, 0.3, 0.1]), noise=0.1)
    terms = [t for k in range(4) for t in combinations(range(12), k)]
    columns = np.stack([design[:, list(t)].prod(axis=1) for t in terms], axis=1)
    kernel = (columns * [prior.variance(t) for t in terms]) @ columns.T
    dual = np.linalg.solve(kernel + prior.noise * np.eye(len(design)), values)
    exact = 0.5 * np.linalg.slogdet(kernel + prior.noise * np.eye(len(design)))[1]
    exact += 0.5 * (values * dual).sum() + prior.weights.sum()
    value, slopes = negative_log_likelihood(powers, values, prior)
    assert 0 < abs(value - exact) < 1e-3 * abs(slopes[-1])


def test_single_precision_tells_likelihood_and_slopes_where_it_is_used():
    _, values, powers = _problem(500, 0.05)
    noise = float(np.exp(_SINGLE))
    prior = Hyperparameters(np.linspace(0.02, 0.15, 12), np.array([0.6, 0.1, 0.04]), noise)
    value, slopes = negative_log_likelihood(powers, values, prior)
    single = [z.astype(np.float32) for z in powers]
    rounded = negative_log_likelihood(single, values.astype(np.float32), prior)
    assert 0 < abs(rounded[0] - value) < _GAIN * len(values)
    np.testing.assert_allclose(rounded[1], slopes, atol=2e-3 * np.abs(slopes).max())


def test_without_noise_the_climb_goes_on_in_double_precision():
    _, values, powers = _problem(200, 0.0)
    assert tune(powers, values).noise < 0.5 * np.exp(_SINGLE - 1)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_a_short_climb_from_pairs_is_as_good_as_a_long_one_of_all(noise: float):
    """What a general optimiser reaches on all masks, with triples from the start, in 200 steps."""
    design, values, powers = _problem(200, noise)
    start = starting_point(design, values, 2)
    start = replace(start, shares=np.append(start.shares, 0.03))

    def objective(log: np.ndarray) -> tuple[float, np.ndarray]:
        return negative_log_likelihood(powers, values, Hyperparameters.from_log(log, 12))

    bounds = [(-18.0, 6.0)] * 15 + [(-12.0, 1.0)]
    long = minimize(
        objective, start.to_log(), jac=True, method="L-BFGS-B", bounds=bounds,
        options={"maxiter": 200},
    )  # fmt: skip
    tuned = tune(powers, values)
    value = negative_log_likelihood(powers, values, tuned)[0]
    assert value < long.fun + 0.01 * len(values)
    fresh = RNG.random((100, 12)) < 0.7
    found = [
        read_off(design, dual_of(powers, values, prior), prior, max_terms=300)
        for prior in (tuned, Hyperparameters.from_log(long.x, 12))
    ]
    first, second = (
        SetFunction.from_mapping(12, of_it, basis="fourier", keep=0.7).predict(fresh)
        for of_it in found
    )
    assert np.mean((first - second) ** 2) < 0.01 * np.var(second)


def test_a_unit_of_triples_alone_comes_back_after_the_fit_of_pairs():
    """Pairs switch unit 4 off; its weight is lifted before triples are let in."""
    masks = np.random.default_rng(0).random((400, 8)) < 0.5
    z = 2.0 * masks - 1
    values = 2 * z[:, 0] - 1.5 * z[:, 3] + 0.7 * z[:, 6] - 1.2 * z[:, 1] * z[:, 2]
    values += 0.9 * z[:, 0] * z[:, 3] + 0.6 * z[:, 1] * z[:, 4] * z[:, 6]
    values = ((values - values.mean()) / values.std())[:, None]
    powers = powers_of(z, 3)
    pairs = maximise_likelihood(powers[:2], values, starting_point(z, values, 2), small_gain=1e-3)
    weights = tune(powers, values).weights
    assert pairs.weights[4] < 1e-2 * pairs.weights.mean()
    assert weights[4] > 1e-2 * weights.mean()
    assert weights[[5, 7]].max() < 1e-4 * weights.mean()


def test_a_singular_kernel_gets_more_noise():
    """Every mask twice: without noise there is no inverse, and the dual is still finite."""
    masks = np.repeat(MASKS, 2, axis=0)
    powers = powers_of((masks - 0.7) / np.sqrt(0.21), 3)
    dual = dual_of(powers, np.repeat(VALUES, 2, axis=0), replace(PRIOR, noise=1e-30))
    assert np.isfinite(dual).all()


def test_without_single_effects_all_units_start_alike():
    z = 2.0 * np.array(list(product([False, True], repeat=5))) - 1
    start = starting_point(z, z[:, :3].prod(axis=1, keepdims=True), 2)
    np.testing.assert_allclose(start.weights, 0.2)
