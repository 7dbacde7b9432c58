"""The ANOVA kernel against brute force: polynomials, gradient and read-off."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from scipy.optimize import approx_fprime

from mechspex.decoders import decode
from mechspex.decoders.kernel import (
    Hyperparameters,
    Kernel,
    elementary_symmetric,
    negative_log_likelihood,
    read_off,
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
    polynomials = elementary_symmetric(POWERS, PRIOR.weights)
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
