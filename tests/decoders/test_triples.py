"""The scan of all triples: brute force, planted parities, what it leaves alone, what it says."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from mechspex.core.masks import sample_masks
from mechspex.decoders import Pursuit, decode, scan, triples
from mechspex.decoders.scan import Factors
from mechspex.set_functions.bases import features
from mechspex.set_functions.r_squared import r_squared
from mechspex.set_functions.set_function import SetFunction


def parities(n_units: int, n_terms: int, keep: float, seed: int) -> SetFunction:
    """Sets of one, two and three units in turn, unrelated to each other."""
    rng = np.random.default_rng(seed)
    terms = {}
    while len(terms) < n_terms:
        units = rng.choice(n_units, 1 + len(terms) % 3, replace=False)
        terms[tuple(sorted(units.tolist()))] = rng.uniform(0.5, 1.5) * rng.choice([-1, 1])
    return SetFunction.from_mapping(n_units, terms, basis="fourier", keep=keep)


def noisy(values: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """The values with noise of so many of their standard deviations."""
    return values + share * values.std() * np.random.default_rng(seed).normal(size=len(values))


# ── The scan ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("tile", [2, 96])
def test_the_scores_are_those_of_direct_correlations(
    n_outputs: int, tile: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scan, "_TILE", tile)
    monkeypatch.setattr(scan, "_POOL", 100)
    masks = sample_masks(14, 120, keep=0.6, seed=1)
    masks[:, 4] = True
    residual = np.random.default_rng(0).normal(size=(120, n_outputs))
    units = np.array([0, 2, 4, 5, 6, 8, 9, 11, 13])
    found, best = Factors(masks, 0.6).best_of_all_triples(residual, units, 0.0, n_outputs)

    z = features(masks, [(i,) for i in range(14)], basis="fourier", keep=0.6)
    white = np.linalg.qr(residual)[0]
    scores = {}
    for triple in combinations(units.tolist(), 3):
        factors = z[:, list(triple)]
        variance = (factors**2).mean(axis=0).prod() - factors.mean(axis=0).prod() ** 2
        if variance > 1e-9:
            moments = white.T @ factors.prod(axis=1)
            scores[triple] = float((moments**2).sum() / variance)
    assert found == sorted(scores, key=lambda triple: -scores[triple])[:100]
    np.testing.assert_allclose(best, [scores[triple] for triple in found], rtol=1e-4)


# ── What it finds ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("decoder", ["pursuit", "automatic"])
def test_parities_that_no_smaller_set_betrays(decoder: str):
    truth = parities(40, 30, 0.5, seed=3)
    masks, fresh = sample_masks(40, 700, seed=3), sample_masks(40, 500, seed=4)
    answer = decode(masks, truth.predict(masks), decoder=decoder, keep=0.5)
    assert r_squared(truth.predict(fresh), answer.predict(fresh)) > 0.999
    assert set(answer.to_basis("fourier", 0.5).truncate(30).terms) >= set(truth.terms)
    assert any("all pairs and triples searched" in note for note in answer.notes)


@pytest.mark.parametrize("keep", [0.3, 0.8])
def test_centred_products_are_found_at_other_densities(keep: float):
    truth = parities(40, 18, keep, seed=5)
    masks, fresh = sample_masks(40, 1_500, keep=keep, seed=5), sample_masks(40, 500, keep=keep)
    answer = decode(masks, noisy(truth.predict(masks), 0.2), decoder="pursuit", keep=keep)
    assert r_squared(truth.predict(fresh), answer.predict(fresh)) > 0.98
    assert answer.basis == "fourier"


def test_triples_alone_with_nothing_else_to_see():
    terms = {(1, 2, 3): 1.0, (4, 20, 30): -1.0, (5, 21, 35): 1.0, (6, 22, 31): 1.0}
    truth = SetFunction.from_mapping(40, terms, basis="fourier", keep=0.5)
    masks = sample_masks(40, 400, seed=7)
    values = np.stack([truth.predict(masks), -truth.predict(masks)], axis=1)
    values += 0.5 * np.random.default_rng(0).normal(size=values.shape)
    answer = decode(masks, values, decoder="pursuit", keep=0.5)
    assert set(answer.terms) == {(), *terms}


def test_with_too_many_units_triples_among_the_strongest_are_found(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(triples, "_WORK", 400 * 15**3 / 6 + 1)
    terms = {(i,): 2.0 for i in range(12)} | {(0, 5, 11): 4.0}
    truth = SetFunction.from_mapping(40, terms, basis="fourier", keep=0.5)
    masks = sample_masks(40, 400, seed=7)
    answer = decode(masks, noisy(truth.predict(masks), 0.3), decoder="pursuit", keep=0.5)
    assert set(answer.terms) == {(), *terms}
    assert "all triples among 15 of 40 units" in answer.notes[0]


# ── Negative controls ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("keep", [0.5, 0.8])
def test_noise_and_additive_functions_gain_no_interactions(keep: float):
    """Over ten draws of each, 9,880 triples a draw, at most one of chance."""
    false = 0
    for draw in range(10):
        masks = sample_masks(40, 300, keep=keep, seed=draw)
        noise = np.random.default_rng(draw).normal(size=300)
        for values in (noise, masks[:, :10].sum(axis=1) + noise):
            answer = decode(masks, values, decoder="pursuit", keep=keep)
            assert "triples searched" in answer.notes[0]
            false += sum(len(term) > 1 for term in answer.terms)
    assert false <= 1


# ── What it says ──────────────────────────────────────────────────────────────────────────────────


def test_the_note_says_why_triples_were_not_scanned():
    def note(keep: float, decoder: Pursuit, noise: float) -> str:
        masks = sample_masks(30, 400, keep=keep, seed=1)
        values = noisy(masks[:, :5].sum(axis=1) * 1.0, noise)
        return decode(masks, values, decoder=decoder, keep=keep).notes[0]

    assert "sets have at most 2 units" in note(0.5, Pursuit(max_order=2), 1.0)
    assert "less than 2% of the variance is left over" in note(0.5, Pursuit(), 0.0)
    assert "at density 0.90 that takes 3," in note(0.9, Pursuit(), 1.0)
    assert "triples searched, larger sets" in note(0.5, Pursuit(), 1.0)
