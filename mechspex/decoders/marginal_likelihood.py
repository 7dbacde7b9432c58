"""Marginal likelihood of the ANOVA kernel: its value, its slopes, and its maximum."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import cho_solve, get_lapack_funcs
from scipy.optimize import OptimizeResult, minimize

from mechspex.core.units import Term

# Prior variance of the constant, in variances of the values.
_CONSTANT = 4.0
# log weights, log shares of the orders, log noise stay within these bounds.
_BOUNDS, _NOISE_BOUNDS = (-18.0, 6.0), (-12.0, 1.0)
# With more noise than this (its logarithm), rounding in single precision moves the likelihood by
# less than the gains that end a climb.
_SINGLE = -7.0
# Rows of the kernel matrix that are held at once: they and their polynomials stay in cache.
_ROWS = 128
# The lightest units are left out of a power sum P_j where their w^j add up to this share of the
# noise at most.
_DROWNED = 1e-3
# Plain steps at first. Each multiplies every variance by (misfit / complexity)^_EXPONENT, by e² at
# most. ½ cannot lose where one variance moves alone; all move together, and more is faster.
_PLAIN_STEPS, _EXPONENT, _LONGEST = 4, 0.75, 2.0
# Iterations of L-BFGS after them.
_ITERATIONS = 16
# Nats by which a variance must change the likelihood to be moved; there may be rounding below that.
_NEGLIGIBLE = 1e-6

Gram = Float[np.ndarray, "row other"]
Square = Float[np.ndarray, "mask mask"]
Powers = list[Float[np.ndarray, "mask _"]]


@dataclass(frozen=True)
class Hyperparameters:
    """The prior: a set S of k units has a coefficient of variance c_k ∏_{i∈S} w_i.

    All variances are in units of the variance of the values.

    Attributes:
        weights: w, one weight a unit.
        shares: c_1 … c_K, one share an order.
        noise: the variance of the noise.
    """

    weights: Float[np.ndarray, " unit"]
    shares: Float[np.ndarray, " order"]
    noise: float

    def to_log(self) -> Float[np.ndarray, " parameter"]:
        """The logarithms of weights, shares and noise, in this order."""
        return np.log(np.concatenate([self.weights, self.shares, [self.noise]]))

    @classmethod
    def from_log(cls, log: Float[np.ndarray, " parameter"], n_units: int) -> Hyperparameters:
        """The hyperparameters whose logarithms `to_log` gave; the first `n_units` are weights."""
        exp = np.exp(log)
        return cls(exp[:n_units], exp[n_units:-1], float(exp[-1]))

    def to_precision(self, dtype: np.dtype[Any]) -> Hyperparameters:
        """The same weights and shares as numbers of another type."""
        return replace(self, weights=self.weights.astype(dtype), shares=self.shares.astype(dtype))

    def variance(self, term: Term) -> float:
        """The prior variance of one term's coefficient."""
        share = self.shares[len(term) - 1] if term else _CONSTANT
        return float(share * np.prod(self.weights[list(term)]))


def powers_of(design: Float[np.ndarray, "mask unit"], order: int) -> Powers:
    """z, z², … z^K of the Fourier factors z, from which power sums are made."""
    # Products: raising to the third power takes NumPy hundreds of times as long.
    return list(accumulate([design] * order, np.multiply))


def elementary_symmetric(
    powers: list[Float[np.ndarray, "row _"]],
    weights: list[Float[np.ndarray, " _"]],
    others: list[Float[np.ndarray, "other _"]],
) -> list[Gram]:
    """e_0 … e_K of (w_i z_i z′_i)_i for every two masks, by Newton's identities.

    k·e_k = Σ_{j=1…k} (−1)^{j−1} e_{k−j} P_j with the power sums P_j = Σ_i (w_i z_i z′_i)^j.

    Args:
        powers: z, z², … z^K of some masks, each of the units that its power sum needs.
        weights: w of the same units, power by power.
        others: z′, z′², … z′^K of other masks.
    """
    sums = [
        (z * w**j) @ other.T
        for j, (z, w, other) in enumerate(zip(powers, weights, others, strict=True), start=1)
    ]
    polynomials: list[Gram] = [np.ones_like(sums[0]), sums[0]]
    for k in range(2, len(sums) + 1):
        polynomial = polynomials[k - 1] * sums[0]
        for j in range(2, k):
            polynomial += (-1) ** (j - 1) * (polynomials[k - j] * sums[j - 1])
        polynomial += (-1) ** (k - 1) * sums[k - 1]
        polynomials.append(polynomial / k)
    return polynomials


def _needed(powers: Powers, prior: Hyperparameters) -> tuple[list[Int[np.ndarray, " _"]], Powers]:
    """For j = 1 … K the units that the power sum P_j needs, and their z^j: all of them for j = 1.

    The weights sum to about 1, so few of their squares are large. The others drown in the noise.
    """
    lightest_first = np.argsort(prior.weights, kind="stable")
    units = [np.arange(len(prior.weights))]
    for j in range(2, len(powers) + 1):
        added = np.cumsum(prior.weights[lightest_first] ** j)
        units.append(np.sort(lightest_first[added > _DROWNED * prior.noise]))
    return units, [z[:, chosen] for z, chosen in zip(powers, units, strict=True)]


def _triangle(
    powers: Powers, weights: list[Float[np.ndarray, " _"]]
) -> Iterator[tuple[slice, list[Gram]]]:
    """Rows of masks, and e_0 … e_K between them and all masks up to the last of them.

    The kernel is symmetric: what lies right of these blocks need not be computed.
    """
    n_masks = len(powers[0])
    for start in range(0, n_masks, _ROWS):
        rows = slice(start, min(start + _ROWS, n_masks))
        some, others = [z[rows] for z in powers], [z[: rows.stop] for z in powers]
        yield rows, elementary_symmetric(some, weights, others)


def _fill(gram: Square, rows: slice, polynomials: list[Gram], prior: Hyperparameters) -> None:
    """Write Σ_k c_k e_k, and the noise on the diagonal, into some rows."""
    block = gram[rows, : rows.stop]
    block[:] = _CONSTANT
    for share, polynomial in zip(prior.shares, polynomials[1:], strict=True):
        block += share * polynomial
    block[np.arange(len(block)), np.arange(rows.start, rows.stop)] += prior.noise


def _cholesky(gram: Square) -> np.ndarray | None:
    """The factor in place of the lower triangle; None where there is none.

    LAPACK counts columns first: what is below the diagonal here is above it there.
    """
    (potrf,) = get_lapack_funcs(("potrf",), (gram,))
    factor, failed = potrf(gram.T, lower=0, clean=0, overwrite_a=1)
    return None if failed else factor


def dual_of(
    powers: Powers, values: Float[np.ndarray, "mask output"], prior: Hyperparameters
) -> Float[np.ndarray, "mask output"]:
    """α = (K + noise)⁻¹ f; a matrix that is singular to rounding gets more noise.

    Args:
        powers: z, z², … z^K, the powers of the Fourier factors.
        values: f.
        prior: the hyperparameters.
    """
    gram, (units, needed) = np.zeros((len(values), len(values))), _needed(powers, prior)
    for rows, polynomials in _triangle(needed, [prior.weights[chosen] for chosen in units]):
        _fill(gram, rows, polynomials, prior)
    factor = _cholesky(gram)
    if factor is None:
        return dual_of(powers, values, replace(prior, noise=10 * prior.noise))
    return cho_solve((factor, False), values)


def negative_log_likelihood(
    powers: Powers, values: Float[np.ndarray, "mask output"], prior: Hyperparameters
) -> tuple[float, Float[np.ndarray, " parameter"]]:
    """−log p(values | prior) − log p(weights) up to a constant, and its gradient in the logs.

    It is the complexity ½ log|K| + Σ_i w_i and the misfit ½ f′K⁻¹f. Several outputs share one
    prior. Their likelihoods are averaged and not multiplied, since they are far from independent.
    The weights have an exponential prior of mean 1: it holds back weights that grow only to make up
    for a share that shrinks. Only lower triangles are computed: with N masks, n units and order K,
    2 K n N² + N³ operations at most, and (K + 2) N² numbers are held.

    Args:
        powers: z, z², … z^K, the powers of the Fourier factors.
        values: values of mean 0 and variance 1.
        prior: the hyperparameters.

    Returns:
        The negative logarithm and its gradient, in the order of `Hyperparameters.to_log`; infinity
        and zeros where the kernel matrix is not positive definite.
    """
    value, slopes = _evaluate(powers, values, prior, apart=False)
    return value, slopes[0]


def complexity_and_misfit(
    powers: Powers, values: Float[np.ndarray, "mask output"], prior: Hyperparameters
) -> tuple[Float[np.ndarray, " parameter"], Float[np.ndarray, " parameter"]]:
    """How fast the complexity grows, ½ tr(K⁻¹ ∂K), and how fast the misfit falls, ½ α′ ∂K α.

    Their difference is the gradient of `negative_log_likelihood`. For a weight w_i the complexity
    includes its prior.

    Args:
        powers: z, z², … z^K, the powers of the Fourier factors.
        values: values of mean 0 and variance 1.
        prior: the hyperparameters.
    """
    _, slopes = _evaluate(powers, values, prior, apart=True)
    return slopes[0], slopes[1]


def _evaluate(
    powers: Powers, values: np.ndarray, prior: Hyperparameters, *, apart: bool
) -> tuple[float, Float[np.ndarray, "part parameter"]]:
    """The negative logarithm, and its gradient whole or apart as complexity and misfit."""
    (n_masks, n_outputs), n_units = values.shape, len(prior.weights)
    prior = prior.to_precision(powers[0].dtype)
    gram, blocks = np.zeros((n_masks, n_masks), powers[0].dtype), []
    units, needed = _needed(powers, prior)
    for rows, polynomials in _triangle(needed, [prior.weights[chosen] for chosen in units]):
        _fill(gram, rows, polynomials, prior)
        blocks.append((rows, polynomials))
    slopes = np.zeros((1 + apart, n_units + len(prior.shares) + 1))
    factor = _cholesky(gram)
    if factor is None:
        return np.inf, slopes
    dual = cho_solve((factor, False), values)
    value = 0.5 * (values * dual).sum() / n_outputs + np.log(np.diag(factor)).sum()
    (potri,) = get_lapack_funcs(("potri",), (factor,))
    inverse = potri(factor, lower=0, overwrite_c=1)[0].T
    for rows, polynomials in blocks:
        trace, square = inverse[rows, : rows.stop], dual[rows] @ dual[: rows.stop].T / n_outputs
        matrices = np.stack([trace, square]) if apart else (trace - square)[None]
        slopes += _slopes(matrices, units, needed, rows, polynomials, prior)
    slopes *= 0.5 * np.exp(prior.to_log())
    slopes[0, :n_units] += prior.weights
    return float(value + prior.weights.sum()), slopes


def _slopes(
    matrices: Float[np.ndarray, "matrix row other"],
    units: list[Int[np.ndarray, " _"]],
    powers: Powers,
    rows: slice,
    polynomials: list[Gram],
    prior: Hyperparameters,
) -> Float[np.ndarray, "matrix parameter"]:
    """What some rows add to Σ_nm M_nm ∂K_nm/∂θ, for symmetric matrices M and every θ.

    ∂e_k/∂w_i = z z′ (e_{k−1} − w z z′ e_{k−2} + …): one matrix product for each power of z.
    """
    order = len(prior.shares)
    # Entries below the diagonal stand for those above it too.
    twice = 2.0 * matrices
    twice[..., rows.start :] = np.tril(twice[..., rows.start :])
    diagonal = np.arange(rows.stop - rows.start), np.arange(rows.start, rows.stop)
    twice[:, *diagonal] *= 0.5
    by_weight = np.zeros((len(matrices), len(prior.weights)))
    for j, (chosen, power) in enumerate(zip(units, powers, strict=True)):
        inner = sum(prior.shares[k - 1] * polynomials[k - 1 - j] for k in range(j + 1, order + 1))
        products = (twice * inner) @ power[: rows.stop]
        summed = np.einsum("mi,bmi->bi", power[rows], products)
        by_weight[:, chosen] += (-prior.weights[chosen]) ** j * summed
    by_share = np.stack([np.tensordot(twice, e, axes=2) for e in polynomials[1:]], axis=1)
    by_noise = twice[:, *diagonal].sum(axis=1, keepdims=True)
    return np.concatenate([by_weight, by_share, by_noise], axis=1)


def maximise_likelihood(
    powers: Powers,
    values: Float[np.ndarray, "mask output"],
    start: Hyperparameters,
    *,
    small_gain: float,
) -> Hyperparameters:
    """Climb the marginal likelihood; stopping early guards against fitting its noise.

    At the maximum the misfit falls as fast as the complexity grows, for every variance. So the
    first steps multiply each by a power of misfit / complexity. With the power ½ and one variance
    at a time this is the MM algorithm of Zhou, Hu, Zhou & Lange, "MM Algorithms for Variance
    Components Models" (2019). L-BFGS goes on from there. Logarithms are scaled to it by the roots
    of these slopes, so that its first steps are of the same kind.

    The climb is in single precision, which takes half of the time, and goes on in double only where
    the noise falls below 1e-3 of the variance.

    Args:
        powers: z, z², … z^K, the powers of the Fourier factors.
        values: values of mean 0 and variance 1.
        start: the hyperparameters to start from; its shares say how many orders there are.
        small_gain: nats a mask; two iterations that gain less in the mean end the climb.
    """
    least, most = _NOISE_BOUNDS
    if np.log(start.noise) > _SINGLE:
        single = [z.astype(np.float32) for z in powers]
        start = _climb(single, values.astype(np.float32), start, small_gain, (_SINGLE - 1, most))
        if np.log(start.noise) > _SINGLE:
            return start
    return _climb(powers, values, start, small_gain, (least, most))


def _climb(
    powers: Powers,
    values: Float[np.ndarray, "mask output"],
    start: Hyperparameters,
    small_gain: float,
    noise_bounds: tuple[float, float],
) -> Hyperparameters:
    n_units = len(start.weights)
    bounds = [_BOUNDS] * (n_units + len(start.shares)) + [noise_bounds]
    lower, upper = np.array(bounds).T
    log = np.clip(start.to_log(), lower, upper)
    scale = np.ones_like(log)
    for _ in range(_PLAIN_STEPS):
        at = Hyperparameters.from_log(log, n_units)
        slopes = np.maximum(complexity_and_misfit(powers, values, at), 0.0) + _NEGLIGIBLE
        step = _EXPONENT * np.log(slopes[1] / slopes[0])
        log = np.clip(log + np.clip(step, -_LONGEST, _LONGEST), lower, upper)
        scale = np.sqrt(slopes.max(axis=0) / _EXPONENT)

    def objective(scaled: np.ndarray) -> tuple[float, np.ndarray]:
        at = Hyperparameters.from_log(scaled / scale, n_units)
        value, gradient = negative_log_likelihood(powers, values, at)
        return value, gradient / scale

    reached: list[float] = []

    def stop_early(intermediate_result: OptimizeResult) -> None:
        reached.append(intermediate_result.fun)
        if len(reached) > 2 and reached[-3] - reached[-1] < 2 * small_gain * len(values):
            raise StopIteration

    optimum = minimize(
        objective,
        log * scale,
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(lower * scale, upper * scale, strict=True)),
        options={"maxiter": _ITERATIONS},
        callback=stop_early,
    )
    return Hyperparameters.from_log(optimum.x / scale, n_units)
