"""Recovery: scores with intervals that cover, and what more masks would bring."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from mechspex.core.json_values import plain
from mechspex.core.masks import all_masks, sample_masks
from mechspex.core.units import Term
from mechspex.decoders import Additive, Automatic, Kernel, Pursuit, decode
from mechspex.decoders.spex.design import SpexDesign
from mechspex.errors import Refused, ShapeError
from mechspex.recovery.recover import TermTests, recover
from mechspex.recovery.recovery import MoreMasks, Recovery
from mechspex.set_functions.r_squared import r2_interval, r_squared
from mechspex.set_functions.set_function import SetFunction

N_UNITS = 20
TERMS: dict[Term, float] = {(): 1.0, (0,): 2.0, (3,): -1.0, (0, 3): 1.0, (5, 6): 0.8}
TRUTH = SetFunction.from_mapping(N_UNITS, TERMS, basis="fourier")


def measured(
    n_masks: int, noise: float, truth: SetFunction, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """200 fresh masks and those to recover from, with noisy values."""
    masks = sample_masks(truth.n_units, n_masks + 200, seed=seed)
    left = noise * np.random.default_rng(seed).normal(size=(len(masks), truth.n_outputs))
    return masks, truth.predict_outputs(masks) + left


def recovered(
    n_masks: int = 200, noise: float = 0.5, truth: SetFunction = TRUTH, seed: int = 0, **options
) -> Recovery:
    masks, values = measured(n_masks, noise, truth, seed)
    options = {"decoder": "pursuit", "keep": 0.5, "tests": TermTests(resamples=0)} | options
    return recover(masks[200:], values[200:], masks[:200], values[:200], **options)


def r2_reached(n_masks: int, noise: float, truth: SetFunction, seed: int) -> float:
    """The R² of `recovered`, without what else it says."""
    masks, values = measured(n_masks, noise, truth, seed)
    answer = decode(masks[200:], values[200:], decoder="pursuit", keep=0.5)
    return r_squared(values[:200].mean(axis=1), answer.predict(masks[:200]))


def test_a_planted_function_is_recovered_scored_and_sure():
    found = recovered(tests=TermTests(resamples=4))
    fresh = sample_masks(N_UNITS, 5_000, seed=99)
    share_of_noise = 0.25 / (TRUTH.predict(fresh).var() + 0.25)
    assert found.r2 == pytest.approx(1 - share_of_noise, abs=0.02)
    assert found.additive_r2 == pytest.approx(5 / (6.64 + 0.25), abs=0.08)
    assert found.non_additive_share == pytest.approx(1 - (1 - found.r2) / (1 - found.additive_r2))
    assert found.evidence is not None
    assert set(found.evidence.interactions) == {(0, 3), (5, 6)}
    assert found.evidence.selected.min() > 0.5
    assert (found.n_train, found.n_test, found.exact) == (200, 200, False)
    low, high = found.r2_interval
    assert low < found.r2 < high
    assert f"held-out R² {found.r2:.3f} [{low:.3f}, {high:.3f}] on 200 fresh masks" in str(found)
    assert "2 interactions stand out among all sets of up to 2 of 20 units" in str(found)
    assert found.link is not None
    assert not found.link.recognised
    assert found.more is not None
    assert not found.more.pays
    assert set(found.notices) <= set(str(found).split("\n"))


def test_automatic_goes_on_with_what_it_chose():
    """Evidence, link and what more masks would bring are those of the decoder it names."""
    found = recovered(decoder=Automatic((Additive(), Pursuit())))
    (note, *_) = found.function.notes
    assert re.match(r"automatic: pursuit \(cross-validated R² 0\.9\d\d\); additive 0\.", note), note
    chosen = recovered(decoder="pursuit")
    assert found.function.to_mapping() == chosen.function.to_mapping()
    before, after = (one.to_dict() | {"function": None} for one in (found, chosen))
    assert json.dumps(plain(before)) == json.dumps(plain(after))


def test_what_cancels_in_the_mean_is_sure_and_the_mean_is_scored():
    outputs = TRUTH.coefficients[:, None] * np.array([1.0, 1.0])
    outputs[TRUTH.terms.index((5, 6))] = 0.8, -0.8
    found = recovered(truth=replace(TRUTH, output_coefficients=outputs))
    assert found.function.n_outputs == 2
    assert found.evidence is not None
    assert set(found.evidence.interactions) == {(0, 3), (5, 6)}


# ── The interval of R² ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("noise", [0.1, 1.0])
def test_the_interval_covers_the_r2_of_all_masks(noise: float, heavy: bool):
    """400 draws of 200 masks at level 90%: at least 86% cover (three standard errors are 4.5
    points); heavy tails, Student's t with 6 degrees, may take 5 points more."""
    rng = np.random.default_rng(1)

    def draw(n_masks: int) -> tuple[np.ndarray, np.ndarray]:
        predicted = rng.normal(size=n_masks)
        left = rng.standard_t(6, n_masks) if heavy else rng.normal(size=n_masks)
        return predicted + noise * left, predicted

    true_r2 = r_squared(*draw(1_000_000))
    intervals = np.array([r2_interval(*draw(200), coverage=0.9) for _ in range(400)])
    covered = np.mean((intervals[:, 0] <= true_r2) & (true_r2 <= intervals[:, 1]))
    assert 0.855 - 0.05 * heavy <= covered <= 0.955


# ── More masks ────────────────────────────────────────────────────────────────────────────────────


def decaying() -> SetFunction:
    """Pairs that get weaker one after the other: with more masks more of them show."""
    rng = np.random.default_rng(5)
    terms: dict[Term, float] = {}
    while len(terms) < 300:
        first, second = sorted(rng.choice(30, 2, replace=False).tolist())
        terms.setdefault((first, second), (1 + len(terms)) ** -0.8)
    return SetFunction.from_mapping(30, terms, basis="fourier")


@pytest.mark.slow
def test_more_masks_would_pay_where_terms_are_missing_and_how_much_is_foretold():
    """What twice the masks reach, R² about .91, is foretold to .04, the mean over three draws."""
    foretold, reached = [], []
    for seed in range(3):
        found = recovered(300, 0.1, decaying(), seed)
        assert found.more is not None
        assert found.more.pays
        assert str(found.more) in found.notices
        assert found.more.to_halve > 300
        foretold.append(found.more.r2_of_twice)
        reached.append(r2_reached(600, 0.1, decaying(), seed))
    assert np.mean(foretold) == pytest.approx(np.mean(reached), abs=0.04)


def test_more_masks_would_not_pay_where_noise_is_all_that_is_left():
    for seed in range(2):
        found = recovered(300, 0.5, seed=seed)
        assert found.more is not None
        assert not found.more.pays
        assert not any("more masks" in line for line in found.notices)
    assert recovered(300, 0.0).more is None, "nothing is left to explain"
    assert str(found.more) == "more masks would add little"


def test_more_masks_foretell_no_more_than_half_of_what_is_left():
    """Past a threshold of sparse recovery the law would promise everything."""
    assert MoreMasks(100, 0.1, 0.98, pays=True).r2_of_twice == pytest.approx(0.99)
    assert MoreMasks(100, 0.9, 0.9, pays=False).to_halve == np.inf


def test_the_law_of_more_masks():
    """1 − R² = 20/N goes through (50, 0.6) and (100, 0.8): twice the masks halve it."""
    law = MoreMasks(100, 0.6, 0.8, pays=True)
    assert law.r2_of_twice == pytest.approx(0.9)
    assert law.to_halve == pytest.approx(200, abs=1)
    assert str(law) == (
        "more masks would pay: twice as many would bring R² 0.800 to about 0.900; about "
        "200 halve what is left over"
    )


# ── Links and constants ───────────────────────────────────────────────────────────────────────────


def test_a_monotone_link_over_a_sum_is_noticed():
    masks = sample_masks(12, 800, seed=2)
    weights = np.random.default_rng(2).normal(size=12)
    values = 1 / (1 + np.exp(-4 * (masks - 0.5) @ weights))
    values += 0.02 * np.random.default_rng(3).normal(size=800)
    found = recover(
        masks[:600],
        values[:600],
        masks[600:],
        values[600:],
        decoder="pursuit",
        tests=TermTests(resamples=0),
    )
    assert found.link is not None
    assert found.link.recognised
    assert any("may be one bent scale" in line for line in found.notices)


@pytest.mark.parametrize("constant", [0.0, 2.5])
def test_constant_values_are_explained_by_the_constant(constant: float):
    masks = sample_masks(8, 120, seed=1)
    values = np.full(120, constant)
    found = recover(masks[:80], values[:80], masks[80:], values[80:])
    assert found.function.to_mapping() == {(): constant}
    assert found.r2 == found.additive_r2 == 1.0
    assert found.r2_interval == (1.0, 1.0)
    assert found.non_additive_share == 0.0
    assert found.evidence is found.link is found.more is None
    assert "nothing to explain" in str(found)


def test_a_constant_that_changes_later_is_not_explained():
    masks = sample_masks(8, 120, seed=1)
    found = recover(masks[:80], np.zeros(80), masks[80:], np.ones(40))
    assert found.r2 == -math.inf
    assert Recovery.from_dict(json.loads(json.dumps(plain(found.to_dict())))).n_test == 40


# ── Bad input ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("test_shape", "n_outputs", "message"),
    [
        ((30, 9), 1, r"test masks \[30, 9\] and values \[30, 1\] do not go with masks \[60, 8\]"),
        ((30, 8), 2, r"test masks \[30, 8\] and values \[30, 2\] do not go with masks \[60, 8\]"),
    ],
)
def test_test_masks_of_another_shape_are_refused(
    test_shape: tuple[int, int], n_outputs: int, message: str
):
    masks, test_masks = sample_masks(8, 60), sample_masks(test_shape[1], test_shape[0])
    rng = np.random.default_rng(0)
    with pytest.raises(ShapeError, match=message):
        recover(masks, rng.normal(size=60), test_masks, rng.normal(size=(30, n_outputs)))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"level": 1.0}, "level = 1.0: give a probability"), ({"resamples": -1}, "resamples = -1")],
)
def test_options_that_make_no_sense_are_refused(options: dict, message: str):
    with pytest.raises(Refused, match=message):
        TermTests(**options)


def test_old_keywords_become_options_of_decoder_and_tests():
    with pytest.warns(DeprecationWarning, match=r"level= is now tests=TermTests"):
        old = recovered(tests=None, level=0.2, resamples=0, max_order=1)
    now = recovered(decoder=Pursuit(max_order=1), tests=TermTests(level=0.2, resamples=0))
    assert_same(old, now)
    assert max(map(len, now.function.terms)) == 1


# ── Storage ───────────────────────────────────────────────────────────────────────────────────────


def assert_same(one: Recovery, other: Recovery) -> None:
    before, after = (json.dumps(plain(found.to_dict())) for found in (one, other))
    assert before == after
    assert str(one) == str(other)


@pytest.mark.parametrize("resamples", [0, 2])
def test_a_recovery_survives_json(resamples: int):
    found = recovered(tests=TermTests(resamples=resamples))
    back = Recovery.from_dict(json.loads(json.dumps(plain(found.to_dict()), allow_nan=False)))
    assert_same(found, back)
    assert back.link == found.link
    assert back.more == found.more
    assert back.r2_interval == found.r2_interval


def test_what_is_not_finite_or_not_known_survives_json():
    exact = Recovery(TRUTH, TRUTH, 1.0, math.nan, (math.nan, math.nan), 16, 0)
    back = Recovery.from_dict(json.loads(json.dumps(plain(exact.to_dict()), allow_nan=False)))
    assert back.exact
    assert math.isnan(back.additive_r2)
    assert all(math.isnan(end) for end in back.r2_interval)
    assert back.evidence is back.link is back.more is None
    assert str(back).startswith("exact: all 16 masks measured")


# ── SPEX's design ─────────────────────────────────────────────────────────────────────────────────


def recovered_from(
    design: SpexDesign,
    truth: SetFunction,
    test: np.ndarray,
    *,
    sigma: float,
    seed: int,
    decoder: str,
) -> Recovery:
    noise = sigma * np.random.default_rng(seed).normal(size=design.n_masks)
    values = truth.predict(design.masks) + noise
    options = {"decoder": decoder, "design": design, "tests": TermTests(resamples=0)}
    return recover(design.masks, values, test, truth.predict(test), **options)


@pytest.mark.slow
def test_aliases_of_a_missed_term_are_no_discoveries():
    """Two parities of seven and eight units, which pursuit does not look for: in SPEX's design the
    masks of a delay stand or fall together, so they count as one draw."""
    truth = SetFunction.from_mapping(
        40,
        {tuple(range(7)): 1.0, tuple(range(10, 18)): 1.0, (20,): 0.5, (30, 31): 0.8},
        basis="fourier",
    )
    false = 0
    for seed in range(2):
        design = SpexDesign(40, 1_500, seed=seed)
        test = sample_masks(40, 200, seed=(seed, 1))
        found = recovered_from(design, truth, test, sigma=0.1, seed=seed, decoder="pursuit")
        assert found.evidence is not None
        assert (30, 31) in found.evidence.interactions
        false += len(set(found.evidence.interactions) - {(30, 31)})
    assert false <= 1


def test_spex_itself_is_recovered_where_its_groups_can_be_left_out():
    truth = SetFunction.from_mapping(40, {(1, 2, 3): 1.0, (5, 9): -1.0, (7,): 0.5}, basis="fourier")
    test = sample_masks(40, 200, seed=9)
    for n_masks in (450, 1_500):
        design = SpexDesign(40, n_masks)
        found = recovered_from(design, truth, test, sigma=0.3, seed=0, decoder="spex")
        assert found.r2 > 0.98
        assert found.more is None
        assert found.evidence is not None
        assert set(found.evidence.interactions) == {(1, 2, 3), (5, 9)}


def test_few_masks_are_recovered_without_what_needs_more():
    masks = sample_masks(3, 40, seed=0)
    values = 2.0 * masks[:, 0] + 0.1 * np.random.default_rng(0).normal(size=40)
    found = recover(masks[:31], values[:31], masks[31:], values[31:], decoder="pursuit")
    assert found.evidence is not None
    assert np.isnan(found.evidence.selected).all()
    table, test = all_masks(4), sample_masks(4, 20, seed=1)
    exact = recover(table, 2.0 * table[:, 0], test, 2.0 * test[:, 0], decoder="exhaustive")
    assert exact.r2 == 1
    assert exact.evidence is None


def test_scores_of_the_decoders_are_numbers():
    masks = sample_masks(6, 120, keep=0.7, seed=0)
    values = masks[:, 0] + 2.0 * (masks[:, 1] & masks[:, 2])
    values = values + 0.3 * np.random.default_rng(1).normal(size=120)
    three = Automatic((Additive(), Pursuit(), Kernel()))
    compared = recover(masks[:90], values[:90], masks[90:], values[90:], decoder=three)
    assert set(compared.decoder_scores) == {"additive", "pursuit", "kernel"}
    for name, r2 in compared.decoder_scores.items():
        assert f"{name}" in compared.function.notes[0]
        assert f"{r2:.3f}" in compared.function.notes[0], "as the sentence says"
    assert Recovery.from_dict(json.loads(json.dumps(plain(compared.to_record())))) == compared
    alone = recover(masks[:90], values[:90], masks[90:], values[90:], decoder="pursuit")
    assert alone.decoder_scores == {}
