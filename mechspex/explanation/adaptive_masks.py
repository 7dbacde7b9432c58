"""Adaptive masks: the next ones are drawn where the answer so far is least certain."""

from __future__ import annotations

from collections import Counter

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.masks import Stream, sample_masks
from mechspex.core.units import Term
from mechspex.decoders.decoder import Samples
from mechspex.decoders.pursuit import Pursuit

# A set that all answers agree on still gets this weight beside f(1 − f) of the others.
_SETTLED = 0.05


def uncertain_sets(samples: Samples) -> dict[tuple[Term, float], float]:
    """{(set of two or more units, the density that shows it best): weight}, weights summing to 1.

    Pursuit answers from all masks and from two halves of them; a set that a share f of the three
    names has weight f(1 − f). The density makes the set's product an even coin: ∏ m_i is 1 half of
    the time at p = 2^(−1/k), ∏ (1 − m_i) at 1 − p; a Fourier product wants p = ½.
    """
    shuffled = np.random.default_rng((samples.seed, Stream.HALVES)).permutation(samples.n_masks)
    parts = [np.arange(samples.n_masks), *np.array_split(shuffled, 2)]
    named: Counter[tuple[Term, float]] = Counter()
    for rows in parts:
        answer = Pursuit().decode(samples.rows(rows))
        for term in answer.terms:
            if len(term) > 1:
                even = 0.5 ** (1 / len(term))
                density = {"kept": even, "ablated": 1 - even, "fourier": 0.5}[answer.basis]
                named[term, density] += 1
    shares = {key: count / len(parts) for key, count in named.items()}
    weights = {key: share * (1 - share) + _SETTLED for key, share in shares.items()}
    total = sum(weights.values())
    return {key: weight / total for key, weight in weights.items()}


def focused_masks(
    n_units: int,
    n_masks: int,
    sets: dict[tuple[Term, float], float],
    *,
    keep: float,
    seed: int | tuple[int, ...],
) -> Bool[np.ndarray, "mask unit"]:
    """Masks of density `keep` in which one set each, drawn by weight, has its own density.

    Without sets they are plain masks of that density.
    """
    masks = sample_masks(n_units, n_masks, keep=keep, seed=seed)
    if not sets:
        return masks
    rng = np.random.default_rng((*(seed if isinstance(seed, tuple) else (seed,)), 1))
    keys = list(sets)
    weights: Float[np.ndarray, " set"] = np.array(list(sets.values()))
    for mask, place in zip(masks, rng.choice(len(keys), n_masks, p=weights), strict=True):
        term, density = keys[place]
        mask[list(term)] = rng.random(len(term)) < density
    return masks
