"""Kernel decoder: Gaussian-process regression with an ANOVA kernel over units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from scipy.linalg import cho_solve, get_lapack_funcs
from scipy.optimize import minimize

from mechspex.core.units import Term
from mechspex.decoders.decoder import Decoder, Samples
from mechspex.set_functions.bases import features
from mechspex.set_functions.set_function import SetFunction

_LARGEST_ORDER = 3
# Prior variance of the constant, in variances of the values.
_CONSTANT = 4.0
# log weights, log shares of the orders, log noise stay within these bounds.
_BOUNDS, _NOISE_BOUNDS = (-18.0, 6.0), (-12.0, 1.0)
# L-BFGS iterations of each of the two fits.
_STEPS = 20
# Triples are read off among the units with the largest weights only.
_TRIPLE_UNITS = 96

Gram = Float[np.ndarray, "mask other"]


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

    def variance(self, term: Term) -> float:
        """The prior variance of one term's coefficient."""
        share = self.shares[len(term) - 1] if term else _CONSTANT
        return float(share * np.prod(self.weights[list(term)]))


@dataclass(frozen=True, repr=False)
class Kernel(Decoder):
    """Every interaction at once, its prior variance the product of its units' weights.

    In fourier(p), with independent coefficients N(0, c_k ∏_{i∈S} w_i), the values are a Gaussian
    process with the kernel

        k(m, m′) = c_0 + Σ_k c_k e_k(w_1 z_1 z′_1, …, w_n z_n z′_n),

    where e_k is the elementary symmetric polynomial. Newton's identities give e_k from power sums,
    so all pairs and triples cost a few matrix products. Weights, shares c_k and noise maximise the
    marginal likelihood. The posterior mean of a coefficient is
    θ_S = c_k ∏_{i∈S} w_i Σ_n α_n ∏_{i∈S} z_ni with α = (K + noise)⁻¹ f. So a unit that matters
    alone is expected in interactions, and one that does not matter is switched off. The kernel of
    pairs and the read-off follow Agrawal, Trippe, Huggins & Broderick, "The Kernel Interaction
    Trick" (ICML 2019).

    The many small coefficients predict well together, and are no evidence one by one. With noisy
    values some interactions are reported where there are none; `automatic` guards against that.

    Attributes:
        n_terms: how many of the largest coefficients are kept, the constant not counted.
        tuning_masks: the most masks that the hyperparameters are fitted to.
        solved_masks: the most masks that the kernel system is solved on. With more, the terms that
            it gives are refitted to all masks under the same prior.
    """

    name: ClassVar[str] = "kernel"
    most_units: ClassVar[int | None] = 1_000

    n_terms: int = 2000
    tuning_masks: int = 1000
    solved_masks: int = 5000

    def minimum_masks(self, n_units: int) -> int:
        return 20

    def fit(self, samples: Samples) -> SetFunction:
        # Masks may come in some order; the head of them, which is tuned on, should not.
        rows = np.random.default_rng(samples.seed).permutation(samples.n_masks)
        samples = samples.rows(rows)
        singles = [(i,) for i in range(samples.n_units)]
        design = features(samples.masks, singles, basis="fourier", keep=samples.keep)
        mean = samples.values.mean(axis=0)
        scale = (samples.values - mean).std()
        values = (samples.values - mean) / scale
        order = samples.order_up_to(_LARGEST_ORDER)
        prior = self._tune(design, values, order)

        head = design[: self.solved_masks]
        gram = _weigh(elementary_symmetric(_powers(head, order), prior.weights), prior)
        gram[np.diag_indices(len(head))] += prior.noise
        dual = np.linalg.solve(gram, values[: self.solved_masks])
        means = read_off(head, dual, prior, max_terms=self.n_terms)
        if len(design) > self.solved_masks:
            means = _ridge(design, values, list(means), prior)
        terms = {term: scale * coefficients for term, coefficients in means.items()}
        terms[()] = terms.get((), 0.0) + mean
        return samples.function(terms)

    def _tune(
        self,
        design: Float[np.ndarray, "mask unit"],
        values: Float[np.ndarray, "mask output"],
        order: int,
    ) -> Hyperparameters:
        """Fit singles and pairs first, then let triples in.

        Triples from the start can explain everything at once, a poor local optimum. A unit may
        act in triples only, so those that pairs switched off get a second chance.
        """
        n_units = design.shape[1]
        design, values = design[: self.tuning_masks], values[: self.tuning_masks]
        prior = Hyperparameters(
            np.full(n_units, 1 / n_units), np.array([0.9, 0.3][:order]), noise=0.01
        )
        prior = maximise_likelihood(design, values, prior)
        if order > 2:
            shares = np.append(prior.shares, 0.1 * prior.shares[-1])
            weights = np.maximum(prior.weights, 0.1 * prior.weights.mean())
            prior = maximise_likelihood(
                design, values, Hyperparameters(weights, shares, prior.noise)
            )
        return prior


def maximise_likelihood(
    design: Float[np.ndarray, "mask unit"],
    values: Float[np.ndarray, "mask output"],
    start: Hyperparameters,
) -> Hyperparameters:
    """Climb the marginal likelihood by L-BFGS; stopping early guards against fitting its noise.

    Args:
        design: the Fourier factors z.
        values: values of mean 0 and variance 1.
        start: the hyperparameters to start from; its shares say how many orders there are.
    """
    n_units = design.shape[1]
    powers = _powers(design, len(start.shares))

    def objective(log: np.ndarray) -> tuple[float, np.ndarray]:
        return negative_log_likelihood(powers, values, Hyperparameters.from_log(log, n_units))

    bounds = [_BOUNDS] * (n_units + len(start.shares)) + [_NOISE_BOUNDS]
    lower, upper = np.array(bounds).T
    optimum = minimize(
        objective,
        np.clip(start.to_log(), lower, upper),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": _STEPS},
    )
    return Hyperparameters.from_log(optimum.x, n_units)


def negative_log_likelihood(
    powers: list[Float[np.ndarray, "mask unit"]],
    values: Float[np.ndarray, "mask output"],
    prior: Hyperparameters,
) -> tuple[float, Float[np.ndarray, " parameter"]]:
    """−log p(values | prior) − log p(weights) up to a constant, and its gradient in the logs.

    Several outputs share one prior. Their likelihoods are averaged and not multiplied, since they
    are far from independent. The weights have an exponential prior of mean 1: it holds back weights
    that grow only to make up for a share that shrinks. With G = ½(K⁻¹ − αα′), the gradient in w_i
    is Σ_nm G_nm ∂K_nm/∂w_i, where ∂e_k/∂w_i = z z′ (e_{k−1} − w z z′ e_{k−2} + …): one matrix
    product for each power of z.

    Args:
        powers: z, z², … z^K, the powers of the Fourier factors.
        values: values of mean 0 and variance 1.
        prior: the hyperparameters.

    Returns:
        The negative logarithm and its gradient, in the order of `Hyperparameters.to_log`; infinity
        and zeros where the kernel matrix is not positive definite.
    """
    (n_masks, n_outputs), order = values.shape, len(prior.shares)
    polynomials = elementary_symmetric(powers, prior.weights)
    gram = _weigh(polynomials, prior)
    gram[np.diag_indices(n_masks)] += prior.noise
    potrf, potri = get_lapack_funcs(("potrf", "potri"), (gram,))
    factor, failed = potrf(gram, lower=1, clean=1)
    if failed:
        return np.inf, np.zeros(len(prior.weights) + order + 1)
    dual = cho_solve((factor, True), values)
    inverse, _ = potri(factor, lower=1)
    inverse += np.tril(inverse, -1).T
    fit = 0.5 * (values * dual).sum() / n_outputs
    likelihood = fit + np.log(np.diag(factor)).sum() + prior.weights.sum()

    slope = 0.5 * (inverse - dual @ dual.T / n_outputs)
    by_weight = np.ones_like(prior.weights)
    for j, power in enumerate(powers):
        inner = sum(prior.shares[k - 1] * polynomials[k - 1 - j] for k in range(j + 1, order + 1))
        column_sums = np.einsum("mi,mi->i", power, (slope * inner) @ power)
        by_weight += (-prior.weights) ** j * column_sums
    by_share = [np.vdot(slope, e) for e in polynomials[1:]]
    gradient = np.concatenate([by_weight, by_share, [np.trace(slope)]])
    return float(likelihood), gradient * np.exp(prior.to_log())


def elementary_symmetric(
    powers: list[Float[np.ndarray, "mask unit"]],
    weights: Float[np.ndarray, " unit"],
    others: list[Float[np.ndarray, "other unit"]] | None = None,
) -> list[Gram]:
    """e_0 … e_K of (w_i z_i z′_i)_i for every two masks, by Newton's identities.

    k·e_k = Σ_{j=1…k} (−1)^{j−1} e_{k−j} P_j with the power sums P_j = Σ_i (w_i z_i z′_i)^j.

    Args:
        powers: z, z², … z^K of some masks.
        weights: w.
        others: the powers z′, z′², … of other masks; those of the same masks if not given.
    """
    others = powers if others is None else others
    sums = [
        (z * weights**j) @ other.T
        for j, (z, other) in enumerate(zip(powers, others, strict=True), start=1)
    ]
    polynomials: list[Gram] = [np.ones_like(sums[0]), sums[0]]
    for k in range(2, len(sums) + 1):
        polynomial = polynomials[k - 1] * sums[0]
        for j in range(2, k):
            polynomial += (-1) ** (j - 1) * (polynomials[k - j] * sums[j - 1])
        polynomial += (-1) ** (k - 1) * sums[k - 1]
        polynomials.append(polynomial / k)
    return polynomials


def read_off(
    design: Float[np.ndarray, "mask unit"],
    dual: Float[np.ndarray, "mask output"],
    prior: Hyperparameters,
    *,
    max_terms: int,
) -> dict[Term, Float[np.ndarray, " output"]]:
    """The posterior means θ_S = c_k ∏ w_i Σ_n α_n ∏ z_ni of the constant and the largest terms.

    Args:
        design: the Fourier factors z.
        dual: α = (K + noise)⁻¹ f.
        prior: the hyperparameters.
        max_terms: how many terms besides the constant.

    Returns:
        {term: posterior mean of each output}, in standard deviations of the values.
    """
    n_units, shares = len(prior.weights), prior.shares
    scaled = design * prior.weights
    sets = [np.arange(n_units)[:, None]]
    means = [shares[0] * scaled.T @ dual]
    if len(shares) > 1:
        sets.append(np.stack(np.triu_indices(n_units, 1), axis=1))
        means.append(shares[1] * _products(scaled, dual))
    if len(shares) > 2:
        hubs = np.sort(np.argsort(-prior.weights, kind="stable")[:_TRIPLE_UNITS])
        for place, hub in enumerate(hubs[:-2]):
            rest = hubs[place + 1 :]
            pairs = rest[np.stack(np.triu_indices(len(rest), 1), axis=1)]
            sets.append(np.insert(pairs, 0, hub, axis=1))
            means.append(shares[2] * _products(scaled[:, rest], dual * scaled[:, [hub]]))
    sizes = np.concatenate([(block**2).sum(axis=1) for block in means])
    largest = np.argsort(-sizes, kind="stable")[:max_terms]
    ends = np.cumsum([len(block) for block in means])
    largest_means: dict[Term, np.ndarray] = {(): _CONSTANT * dual.sum(axis=0)}
    for place in largest[sizes[largest] > 0]:
        block = int(np.searchsorted(ends, place, side="right"))
        row = place - (ends[block] - len(means[block]))
        largest_means[tuple(sets[block][row].tolist())] = means[block][row]
    return largest_means


def _products(
    scaled: Float[np.ndarray, "mask unit"], dual: Float[np.ndarray, "mask output"]
) -> Float[np.ndarray, "pair output"]:
    """Σ_n α_n z_ni z_nj for every pair i < j, in the order of np.triu_indices."""
    above = np.triu_indices(scaled.shape[1], 1)
    return np.stack([((scaled.T * column) @ scaled)[above] for column in dual.T], axis=1)


def _ridge(
    design: Float[np.ndarray, "mask unit"],
    values: Float[np.ndarray, "mask output"],
    terms: list[Term],
    prior: Hyperparameters,
) -> dict[Term, Float[np.ndarray, " output"]]:
    """The posterior mean given all masks, over `terms` only."""
    products = np.stack([design[:, list(term)].prod(axis=1) for term in terms], axis=1)
    scale = np.sqrt([prior.variance(term) for term in terms])
    products *= scale
    normal = products.T @ products
    normal[np.diag_indices(len(terms))] += prior.noise
    coefficients = scale[:, None] * np.linalg.solve(normal, products.T @ values)
    return dict(zip(terms, coefficients, strict=True))


def _powers(design: Float[np.ndarray, "mask unit"], order: int) -> list[np.ndarray]:
    return [design**k for k in range(1, order + 1)]


def _weigh(polynomials: list[Gram], prior: Hyperparameters) -> Gram:
    """Σ_k c_k e_k, the kernel."""
    gram = np.full_like(polynomials[0], _CONSTANT)
    for share, polynomial in zip(prior.shares, polynomials[1:], strict=True):
        gram += share * polynomial
    return gram
