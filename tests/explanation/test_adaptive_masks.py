"""Masks that are drawn where the answer is least certain."""

from __future__ import annotations

import numpy as np
import pytest

import mechspex as mx
from mechspex.core.masks import sample_masks
from mechspex.core.units import Term
from mechspex.decoders import decode
from mechspex.decoders.decoder import check_samples
from mechspex.explanation import mask_search
from mechspex.explanation.adaptive_masks import focused_masks, uncertain_sets
from mechspex.recovery.recover import recover
from mechspex.set_functions.r_squared import r_squared
from mechspex.set_functions.set_function import SetFunction


def plant(seed: int) -> SetFunction:
    """20 ANDs of one to five of 64 units."""
    rng = np.random.default_rng(seed)
    terms: dict[Term, float] = {}
    while len(terms) < 20:
        units = rng.choice(64, size=int(rng.integers(1, 6)), replace=False)
        size = float(rng.uniform(0.5, 1.5) * rng.choice([-1, 1]))
        terms[tuple(sorted(units.tolist()))] = size
    return SetFunction.from_mapping(64, terms, basis="kept")


def test_a_set_that_all_answers_name_weighs_least():
    truth = SetFunction.from_mapping(12, {(0, 1): 2.0, (2, 3): 0.7}, basis="kept")
    masks = sample_masks(12, 200, seed=0)
    values = truth.predict(masks) + 0.5 * np.random.default_rng(0).normal(size=200)
    sets = uncertain_sets(check_samples(masks, values, keep=0.5, max_order=None, seed=0))
    assert sum(sets.values()) == pytest.approx(1)
    settled = sets.pop(((0, 1), 0.5**0.5))
    assert sets, "something is uncertain here"
    assert settled < min(sets.values()), "and an AND of two is an even coin at p = √½"


def test_masks_show_the_sets_they_are_drawn_for():
    sets = {((0, 1, 2), 0.5 ** (1 / 3)): 0.75, ((3, 4), 1 - 0.5**0.5): 0.25}
    masks = focused_masks(40, 20_000, sets, keep=0.9, seed=1)
    assert abs(masks[:, 5:].mean() - 0.9) < 0.005
    # Each set in its own density where it is drawn, in that of the design elsewhere.
    assert abs(masks[:, :3].all(1).mean() - (0.75 * 0.5 + 0.25 * 0.9**3)) < 0.02
    assert abs((~masks[:, 3:5]).all(1).mean() - (0.25 * 0.5 + 0.75 * 0.01)) < 0.02
    assert np.array_equal(masks, focused_masks(40, 20_000, sets, keep=0.9, seed=1))


def test_focused_masks_are_worth_more_than_as_many_random_ones():
    """188 of 500 masks spent in two rounds on uncertain sets, 10 dB of noise: what is left over
    shrinks, in the geometric mean over 8 functions (by a quarter over 40 of them). Were there no
    gain, the mean of 8 would lie below .86 as often as that of 16 below .90: log ratios spread by
    .69, which is 0.61 standard errors of either mean."""
    test = sample_masks(64, 2_000, seed=99)
    ratios = []
    for seed in range(8):
        truth, rng = plant(seed), np.random.default_rng(seed)
        sigma = truth.predict(test).std() * 10**-0.5
        masks = sample_masks(64, 500, seed=seed + 10)
        values = truth.predict(masks) + sigma * rng.normal(size=500)
        plain = decode(masks, values, decoder="pursuit", keep=0.5)
        own, measured = masks[:312], values[:312]
        for turn in range(2):
            samples = check_samples(own, measured, keep=0.5, max_order=None, seed=turn)
            new = focused_masks(64, 94, uncertain_sets(samples), keep=0.5, seed=(seed, turn))
            own = np.concatenate([own, new])
            measured = np.append(measured, truth.predict(new) + sigma * rng.normal(size=94))
        adaptive = decode(own, measured, decoder="pursuit", keep=0.5)
        left = [1 - r_squared(truth.predict(test), f.predict(test)) for f in (plain, adaptive)]
        ratios.append(left[1] / left[0])
    assert np.exp(np.mean(np.log(ratios))) < 0.86


@pytest.mark.parametrize("n_units", [10, 12])
def test_no_focused_mask_is_among_those_that_score_the_answer(n_units, monkeypatch):
    decoded = []

    def spied(masks, values, test_masks, test_values, **options):
        decoded.append((masks, test_masks, options["designed"]))
        return recover(masks, values, test_masks, test_values, **options)

    monkeypatch.setattr(mask_search, "recover", spied)
    pairs = np.random.default_rng(0).normal(size=(n_units, n_units))
    values = mx.FunctionValues(lambda m: np.einsum("mi,ij,mj->m", 1.0 * m, pairs, 1.0 * m), n_units)
    mx.explain(values, design=mx.Adaptive(mx.RandomMasks(0.8)), n_masks=500, decoder="additive")
    ((masks, scored, designed),) = decoded
    assert (~designed).sum() > 50, "masks were focused"
    assert not {mask.tobytes() for mask in masks} & {mask.tobytes() for mask in scored}
