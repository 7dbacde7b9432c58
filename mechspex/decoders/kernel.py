"""Kernel decoder: Gaussian-process regression with an ANOVA kernel over units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from mechspex.core.units import Term
from mechspex.decoders.decoder import Decoder, Samples
from mechspex.decoders.marginal_likelihood import (
    Hyperparameters,
    dual_of,
    maximise_likelihood,
    powers_of,
)
from mechspex.set_functions.bases import features
from mechspex.set_functions.set_function import SetFunction

_LARGEST_ORDER = 3
# Where the climb starts: shares of singles and pairs, noise, and the least weight in usual ones.
_SHARES, _NOISE, _LEAST_WEIGHT = (0.9, 0.3), 0.2, 0.1
# The share of triples at first, in shares of pairs.
_TRIPLE_SHARE = 0.1
# Masks that pairs are fitted to, in the fit that triples start from.
_PAIR_MASKS = 500
# The gains, in nats a mask, that end the fit of pairs, which is rough, and that of triples.
_PAIR_GAIN, _GAIN = 5e-3, 5e-4
# Triples are read off among the units with the largest weights, and of those the ones with the
# largest prior variance, in blocks. Of 2,000 terms on recorded heads none was behind the first 910.
_TRIPLE_UNITS, _TRIPLES, _TRIPLE_BLOCK = 96, 5_000, 500


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

    With N masks, n units and order K, an evaluation of the likelihood takes 2 K n N² + N³
    operations at most and holds (K + 2) N² numbers, N at most `tuning_masks`. About 23 are needed
    on measured values, at most some 50; the first half of them, for pairs, on 500 masks. The system
    holds N² numbers, N at most `solved_masks`, 0.2 GB.
    More masks than that cost no more, but for the last ridge.

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
        tuned, solved = slice(self.tuning_masks), slice(self.solved_masks)
        prior = tune(powers_of(design[tuned], order), values[tuned])

        head = design[solved]
        dual = dual_of(powers_of(head, order), values[solved], prior)
        means = read_off(head, dual, prior, max_terms=self.n_terms)
        if len(design) > self.solved_masks:
            means = _ridge(design, values, list(means), prior)
        terms = {term: scale * coefficients for term, coefficients in means.items()}
        terms[()] = terms.get((), 0.0) + mean
        return samples.function(terms)


def tune(
    powers: list[Float[np.ndarray, "mask unit"]], values: Float[np.ndarray, "mask output"]
) -> Hyperparameters:
    """Fit singles and pairs first, then let triples in.

    Triples from the start can explain everything at once, a poor local optimum. A unit may
    act in triples only, so those that pairs switched off get a second chance. So the first fit can
    be rough, and to some of the masks.

    Args:
        powers: z, z², … z^K, the powers of the Fourier factors.
        values: values of mean 0 and variance 1.
    """
    start = starting_point(powers[0], values, min(len(powers), 2))
    if len(powers) < 3:
        return maximise_likelihood(powers, values, start, small_gain=_GAIN)
    some = slice(_PAIR_MASKS)
    few = [z[some] for z in powers[:2]]
    pairs = maximise_likelihood(few, values[some], start, small_gain=_PAIR_GAIN)
    weights = np.maximum(pairs.weights, _LEAST_WEIGHT * pairs.weights.mean())
    shares = np.append(pairs.shares, _TRIPLE_SHARE * pairs.shares[-1])
    start = Hyperparameters(weights, shares, pairs.noise)
    return maximise_likelihood(powers, values, start, small_gain=_GAIN)


def starting_point(
    design: Float[np.ndarray, "mask unit"], values: Float[np.ndarray, "mask output"], order: int
) -> Hyperparameters:
    """Weights in proportion to squared effects, (z′f / N)², whose sum is 1.

    Args:
        design: the Fourier factors z.
        values: values of mean 0 and variance 1.
        order: how many orders there are.
    """
    squares = ((design.T @ values / len(design)) ** 2).mean(axis=1)
    # By chance alone a square is 1 / N.
    usual = max(squares.mean(), 1 / len(design))
    weights = np.maximum(squares, _LEAST_WEIGHT * usual)
    return Hyperparameters(weights / weights.sum(), np.array(_SHARES[:order]), _NOISE)


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
        triples = _likely_triples(prior.weights, max(_TRIPLES, max_terms))
        for block in np.array_split(triples, -(-len(triples) // _TRIPLE_BLOCK)):
            sets.append(block)
            means.append(shares[2] * scaled[:, block].prod(axis=2).T @ dual)
    sizes = np.concatenate([(block**2).sum(axis=1) for block in means])
    largest = np.argsort(-sizes, kind="stable")[:max_terms]
    ends = np.cumsum([len(block) for block in means])
    largest_means: dict[Term, np.ndarray] = {(): prior.variance(()) * dual.sum(axis=0)}
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


def _likely_triples(weights: Float[np.ndarray, " unit"], most: int) -> Int[np.ndarray, "triple 3"]:
    """The sets of three units with the largest prior variances, the largest first."""
    heavy = np.sort(np.argsort(-weights, kind="stable")[:_TRIPLE_UNITS])
    products = np.multiply.outer(np.outer(weights[heavy], weights[heavy]), weights[heavy])
    places = np.arange(len(heavy))
    ascending = (places[:, None] < places)[:, :, None] & (places[:, None] < places)
    i, j, k = np.nonzero(ascending)
    largest = np.argsort(-products[ascending], kind="stable")[:most]
    return heavy[np.stack([i, j, k], axis=1)[largest]]


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
