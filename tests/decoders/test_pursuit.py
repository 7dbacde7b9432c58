"""Pursuit against brute force, on planted functions and in the bases where they are short."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from mechspex.core.masks import sample_masks
from mechspex.core.units import Term
from mechspex.decoders import Pursuit, decode, scan
from mechspex.decoders.decoder import Decoder, Samples
from mechspex.decoders.scan import SUPPORT, Factors
from mechspex.decoders.spex.design import SpexDesign
from mechspex.decoders.stepwise import _inverses
from mechspex.set_functions.bases import Basis, features
from mechspex.set_functions.r_squared import r_squared
from mechspex.set_functions.set_function import SetFunction

PARITY: Term = (2, 5, 9, 14)


def parity(masks: np.ndarray) -> np.ndarray:
    return features(masks, [PARITY], basis="fourier")[:, 0]


# ── Least squares ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("order", [2, 3, 5])
@pytest.mark.parametrize("dependent", [False, True])
def test_inverses_of_gram_matrices_leave_out_directions_that_are_singular(
    order: int, dependent: bool
):
    columns = np.random.default_rng(order).normal(size=(4, 30, order))
    if dependent:
        # Of one matrix of four the last column depends on the first, but for rounding.
        columns[2, :, -1] = 3.0 * columns[2, :, 0]
    expected = np.stack([np.linalg.pinv(c) @ np.linalg.pinv(c).T for c in columns])
    found = _inverses(columns.transpose(0, 2, 1) @ columns)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


# ── Products and their extensions ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("basis", ["fourier", "kept", "ablated"])
def test_products_of_sets_of_any_sizes_are_the_columns_of_the_basis(basis: Basis):
    masks = sample_masks(20, 100, keep=0.7, seed=1)
    terms = [(3,), (2, 7, 9), (0, 5), (19,), (1, 4, 6, 8, 10), (2, 3)]
    expected = features(masks, terms, basis=basis, keep=0.7).T
    np.testing.assert_allclose(Factors(masks, 0.7).products(terms, basis), expected, rtol=1e-5)


def test_only_sets_that_rest_on_eight_masks_are_extended():
    masks = sample_masks(40, 300, keep=0.8, seed=1)
    residual = np.random.default_rng(0).normal(size=(300, 1))
    residual /= np.linalg.norm(residual)
    found = Factors(masks, 0.8).best(residual, "ablated", 5, [])

    def bearing(term: Term) -> int:
        return int((~masks[:, list(term)]).all(axis=1).sum())

    assert min(bearing(term) for term in found if len(term) == 2) < SUPPORT
    larger = [term for term in found if len(term) > 2]
    assert larger
    for term in larger:
        assert max(bearing(part) for part in combinations(term, len(term) - 1)) >= SUPPORT
    # Ablated together, four units are on one mask in 600; kept together, on four in ten.
    assert max(len(term) for term in found) < 5
    kept = Factors(masks, 0.8).best(residual, "kept", 5, [])
    assert max(len(term) for term in kept) == 5


# ── The scan of all pairs ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("block", [1, 70, 1 << 20])
def test_the_blocked_scan_of_all_pairs_is_brute_force(
    n_outputs: int, block: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scan, "_BLOCK", block)
    monkeypatch.setattr(scan, "_POOL", 40)
    masks = sample_masks(30, 120, keep=0.6, seed=1)
    masks[:, 4] = True
    residual = np.random.default_rng(0).normal(size=(120, n_outputs))
    residual -= residual.mean(axis=0)
    found = Factors(masks, 0.6).best_of_all_pairs(residual)

    z = features(masks, [(i,) for i in range(30)], basis="fourier", keep=0.6)
    first, second = z.mean(axis=0), (z**2).mean(axis=0)
    white = np.linalg.qr(residual)[0]
    scores = {}
    for i, j in combinations(range(30), 2):
        variance = second[i] * second[j] - (first[i] * first[j]) ** 2
        product = z[:, i] * z[:, j]
        scores[i, j] = ((white.T @ product) ** 2).sum() / variance if variance > 1e-9 else 0.0
    assert found == sorted(scores, key=lambda pair: -scores[pair])[:40]


def test_where_there_are_few_sets_one_of_five_units_is_found_that_no_subset_betrays(
    monkeypatch: pytest.MonkeyPatch,
):
    masks = sample_masks(8, 120, seed=3)
    residual = np.random.default_rng(0).normal(size=(120, 1))
    every = [term for k in range(1, 6) for term in combinations(range(8), k)]
    assert sorted(Factors(masks, 0.5).best(residual, "fourier", 5, [])) == sorted(every)
    truth = SetFunction.from_mapping(8, {(0,): 0.2, (1, 2, 4, 6, 7): 1.0}, basis="fourier")
    values = truth.predict(masks) + 0.2 * np.random.default_rng(1).normal(size=120)
    answer = decode(masks, values, decoder="pursuit", keep=0.5).to_basis("fourier", 0.5)
    assert answer[1, 2, 4, 6, 7] == pytest.approx(1.0, abs=0.1)
    monkeypatch.setattr(scan, "_EVERY_SET", 0)
    scanned = Factors(masks, 0.5).best(residual, "fourier", 5, [])
    assert set(scanned) < set(every), "beams keep some of the sets"


def test_a_pair_that_no_single_betrays_is_found_among_more_units_than_a_round_scans(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(scan, "_PAIRS_A_ROUND", 1)
    monkeypatch.setattr(scan, "_BLOCK", 2_000)
    monkeypatch.setattr(scan, "BEAM", 10)
    masks = sample_masks(300, 300, seed=2)
    assert not Factors(masks, 0.5).all_pairs_a_round
    truth = SetFunction.from_mapping(300, {(7,): 1.0, (120, 277): 1.0}, basis="fourier")
    noise = 0.5 * np.random.default_rng(0).normal(size=300)
    answer = decode(masks, truth.predict(masks) + noise, decoder="pursuit", keep=0.5)
    assert answer.to_basis("fourier", 0.5)[120, 277] == pytest.approx(1.0, abs=0.15)
    assert r_squared(truth.predict(masks), answer.predict(masks)) > 0.95


# ── Sets that nothing foreshadows ─────────────────────────────────────────────────────────────────


class Oracle(Decoder):
    """Answers with the parity, whatever it sees."""

    name = "oracle"

    def minimum_masks(self, n_units: int) -> int:
        return 1

    def fit(self, samples: Samples) -> SetFunction:
        return samples.function({PARITY: np.ones(samples.values.shape[1])})


def test_a_parity_of_four_is_found_only_where_it_is_proposed():
    masks = sample_masks(40, 300, seed=3)
    values = parity(masks) + 0.3 * np.random.default_rng(0).normal(size=300)

    def explained(decoder: Decoder) -> float:
        return r_squared(values, decode(masks, values, decoder=decoder).predict(masks))

    assert explained(Pursuit()) < 0.3
    assert explained(Pursuit(candidates=(PARITY,))) > 0.9
    assert explained(Pursuit(proposers=(Oracle(),))) > 0.9


def test_proposals_are_tried_not_believed():
    masks = sample_masks(40, 300, seed=3)
    values = masks[:, 0] + 0.3 * np.random.default_rng(0).normal(size=300)
    proposing = Pursuit(candidates=(PARITY, (1, 2), tuple(range(8))), proposers=(Oracle(),))
    answer = decode(masks, values, decoder=proposing)
    assert answer.terms == decode(masks, values, decoder="pursuit").terms == ((), (0,))


@pytest.mark.parametrize("order", [3, 4, 5])
def test_on_a_spex_design_a_peak_of_high_order_needs_no_help(order: int):
    design = SpexDesign(64, 2_500, seed=order)
    terms: dict[Term, float] = {(): 3.0, tuple(range(20, 20 + order)): 1.0}
    truth = SetFunction.from_mapping(64, terms, basis="fourier")
    values = truth.predict(design.masks) + 0.5 * np.random.default_rng(0).normal(size=2_500)
    answer = decode(design.masks, values, decoder="pursuit", design=design)
    fresh = sample_masks(64, 300, seed=9)
    assert r_squared(truth.predict(fresh), answer.predict(fresh)) > 0.95
    assert "sets without structure come from SPEX's design" in answer.notes[0]
    assert set(answer.to_basis("fourier", 0.5).truncate(1).terms) == set(truth.terms)


# ── Bases ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("basis", ["ablated", "kept"])
def test_backups_are_one_ablated_term_and_a_conjunction_one_kept_term(basis: str):
    """At the density where the event is not rare: 1 − p, or p, to the power 4."""
    keep = 0.9 if basis == "kept" else 0.4
    masks = sample_masks(40, 400, keep=keep, seed=5)
    members = [3, 11, 17, 30]
    values = masks[:, members].all(axis=1) if basis == "kept" else masks[:, members].any(axis=1)
    noise = 0.05 * np.random.default_rng(0).normal(size=400)
    answer = decode(masks, 2.0 * values + noise, decoder="pursuit", keep=keep)
    assert answer.basis == basis
    assert set(answer.terms) == {(), tuple(members)}
    sign = 1.0 if basis == "kept" else -1.0
    assert answer[members] == pytest.approx(2.0 * sign, abs=0.05)
    assert f"1 terms, fewest in the {basis} basis" in answer.notes[0]
    assert "looked for above sets that show" in answer.notes[0]


def test_backups_at_high_density_are_one_ablated_term():
    """At p = .9 all four are ablated once in 10,000 masks; here it is two of them."""
    masks = sample_masks(40, 2_000, keep=0.9, seed=6)
    values = masks[:, [3, 11]].any(axis=1) + 0.02 * np.random.default_rng(0).normal(size=2_000)
    answer = decode(masks, values, decoder="pursuit", keep=0.9)
    assert answer.basis == "ablated"
    assert set(answer.terms) == {(), (3, 11)}


@pytest.mark.parametrize("seed", range(4))
def test_twenty_conjunctions_without_noise_are_recovered(seed: int):
    rng = np.random.default_rng(seed)
    terms: dict[Term, float] = {}
    while len(terms) < 20:
        units = rng.choice(64, 1 + len(terms) % 5, replace=False)
        terms[tuple(sorted(units.tolist()))] = rng.uniform(0.5, 1.5) * rng.choice([-1, 1])
    truth = SetFunction.from_mapping(64, terms, basis="kept")
    masks, fresh = sample_masks(64, 500, seed=seed + 50), sample_masks(64, 1_000, seed=seed + 90)
    answer = decode(masks, truth.predict(masks), decoder="pursuit", keep=0.5)
    assert r_squared(truth.predict(fresh), answer.predict(fresh)) > 0.999
    assert set(answer.terms) == {(), *truth.terms}


# ── Negative controls ─────────────────────────────────────────────────────────────────────────────


def test_max_order_one_is_additive_and_says_nothing_of_pairs():
    masks = sample_masks(20, 300, seed=1)
    answer = decode(masks, masks[:, 0] * 1.0 + parity(masks), decoder="pursuit", max_order=1)
    assert answer.max_order == 1


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_outputs_of_noise_have_no_terms(keep: float):
    """Several outputs share a price: over ten draws at most one term of chance."""
    false = 0
    for draw in range(10):
        masks = sample_masks(20, 200, keep=keep, seed=draw)
        noise = np.random.default_rng(draw).normal(size=(200, 4))
        false += len(decode(masks, noise, decoder="pursuit", keep=keep)) - 1
    assert false <= 1


# ── Masks that were drawn twice ───────────────────────────────────────────────────────────────────


def test_a_mask_that_was_drawn_again_is_no_evidence():
    """Of 500 masks of ten units at 0.8 some 180 differ; counted as 500 they bear as many terms."""
    masks, fresh = (sample_masks(10, 500, keep=0.8, seed=seed) for seed in (0, 1))
    different = np.sort(np.unique(masks, axis=0, return_index=True)[1])
    fresh = fresh[~(fresh[:, None] == masks[different]).all(axis=2).any(axis=1)]
    weights = np.random.default_rng(0).normal(size=(10, 12))
    many, once = (
        decode(rows, np.tanh(rows @ weights).sum(axis=1), decoder="pursuit", keep=0.8)
        for rows in (masks, masks[different])
    )
    assert many.to_mapping() == once.to_mapping()
    assert r_squared(np.tanh(fresh @ weights).sum(axis=1), many.predict(fresh)) > 0.5


def test_masks_whose_values_other_units_move_all_count():
    """Where a mask has several values, each is a draw of its own."""
    masks = sample_masks(4, 300, keep=0.5, seed=0)
    values = masks[:, :1] + np.random.default_rng(0).normal(size=(300, 1))
    samples = Samples(masks, values, keep=0.5, max_order=None, seed=0)
    assert samples.distinct is samples
    rounded = replace(samples, values=masks[:, :1] + 1e-7 * values)
    assert rounded.distinct.n_masks == 16
