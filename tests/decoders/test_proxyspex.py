"""ProxySPEX: what it recovers, what it shares between outputs, what it does without LightGBM."""

from __future__ import annotations

import builtins
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from mechspex.core.masks import sample_masks
from mechspex.core.units import Term
from mechspex.decoders import decode
from mechspex.decoders.boosting import boost_lightgbm
from mechspex.decoders.cross_validation import folds
from mechspex.decoders.decoder import check_samples
from mechspex.decoders.proxyspex import ProxySpex
from mechspex.decoders.ridge import ridge
from mechspex.errors import Refused
from mechspex.set_functions.r_squared import r_squared
from mechspex.set_functions.set_function import SetFunction

N_UNITS, N_MASKS = 12, 1000
QUICK = ProxySpex(depths=(2, 4), rates=(0.1,), n_trees=250)
TERMS: dict[Term, float] = {(0,): 2.0, (3,): -1.5, (0, 3): 0.9, (1, 2): -1.2, (1, 4, 6): 0.6}


def planted(keep: float, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    masks = sample_masks(N_UNITS, N_MASKS, keep=keep, seed=1)
    truth = SetFunction.from_mapping(N_UNITS, TERMS, basis="fourier", keep=keep)
    return masks, truth.predict(masks) + noise * np.random.default_rng(0).normal(size=N_MASKS)


@pytest.mark.parametrize("keep", [0.5, 0.85])
def test_planted_terms_are_the_largest(keep: float):
    masks, values = planted(keep)
    answer = decode(masks, values, decoder=replace(QUICK, n_terms=5), keep=keep)
    assert set(answer.terms) == {(), *TERMS}
    for term, coefficient in TERMS.items():
        assert answer[term] == pytest.approx(coefficient, abs=0.12)


def test_noise_is_not_explained():
    """Negative control: held-out R² of pure noise stays at zero."""
    masks, _ = planted(0.5)
    noise = np.random.default_rng(5).normal(size=(N_MASKS, 2))
    answer = decode(masks[:400], noise[:400], decoder=QUICK, keep=0.5)
    left = noise[400:].mean(axis=1) - answer.predict(masks[400:])
    assert left.var() < 1.1 * noise[400:].mean(axis=1).var()


@dataclass
class CountedBoosting:
    """LightGBM, and how often it was started."""

    n_started: int = 0

    def __call__(self, *data: Any, **options: Any) -> Any:
        self.n_started += 1
        return boost_lightgbm(*data, **options)


def test_folds_share_their_trees_and_predict_as_trees_grown_for_each_alone():
    masks, values = planted(0.5)
    values = np.column_stack([values, 4.0 * masks[:, 5] - values])
    samples = check_samples(masks[:300], values[:300], keep=0.5, max_order=None, seed=0)
    splits = folds(samples, 300)
    truth = np.concatenate([samples.values[test] for _, test in splits])
    counted = CountedBoosting()
    shared, settled = replace(QUICK, boost=counted).predict_held_out(samples, splits)
    # Two depths of one direction; the other at the depths that folds choose.
    assert 3 * 5 <= counted.n_started <= 4 * 5
    alone = np.concatenate(
        [QUICK.decode(samples.rows(train)).predict_outputs(masks[test]) for train, test in splits]
    )
    assert r_squared(truth, shared) == pytest.approx(r_squared(truth, alone), abs=0.01)
    assert np.corrcoef(shared.ravel(), alone.ravel())[0, 1] > 0.99
    counted.n_started = 0
    again = settled.decode(samples).predict_outputs(masks)
    assert counted.n_started == 2, "the trees of each direction are grown once, without folds"
    anew = QUICK.decode(samples).predict_outputs(masks)
    assert np.corrcoef(again.ravel(), anew.ravel())[0, 1] > 0.999
    # One fold has no other that could judge for it.
    of_one, unsettled = QUICK.predict_held_out(samples, splits[:1])
    np.testing.assert_array_equal(of_one, alone[: len(splits[0][1])])
    assert unsettled is QUICK


def test_settled_trees_serve_parts_that_show_fewer_directions_and_more():
    masks, values = planted(0.5)
    other = 3.0 * masks[:, 5]
    both = check_samples(
        masks, np.column_stack([values + other, values - other]), keep=0.5, max_order=None, seed=0
    )
    _, settled = QUICK.predict_held_out(both, folds(both, 300))
    alike = check_samples(
        masks, np.column_stack([values, values]), keep=0.5, max_order=None, seed=0
    )
    _, settled_for_one = QUICK.predict_held_out(alike, folds(alike, 300))
    fewer = settled.decode(alike).predict_outputs(masks)
    np.testing.assert_array_equal(fewer[:, 0], fewer[:, 1])
    assert r_squared(values, fewer[:, 0]) > 0.85
    # A direction that was not there when trees were settled has none: the mean is decoded still.
    more = settled_for_one.decode(both).predict_outputs(masks)
    assert r_squared(values, more.mean(axis=1)) > 0.85


def test_folds_do_not_explain_noise():
    """Negative control: settings chosen by other folds must not lift R² above zero."""
    masks, _ = planted(0.5)
    scores = []
    for seed in range(6):
        noise = np.random.default_rng(seed).normal(size=200)
        samples = check_samples(masks[:200], noise, keep=0.5, max_order=None, seed=seed)
        splits = folds(samples, 200)
        truth = np.concatenate([samples.values[test] for _, test in splits])
        scores.append(r_squared(truth, QUICK.predict_held_out(samples, splits)[0]))
    assert np.mean(scores) < 0.01


def test_what_cancels_in_the_mean_is_found_and_does_not_spoil_the_mean():
    masks = sample_masks(N_UNITS, 800, keep=0.5, seed=1)
    cancels = 3.0 * (masks[:, 8] & masks[:, 9])
    mean = 1.0 * (masks[:, 0] & masks[:, 1]) - 0.5 * masks[:, 2]
    values = mean[:, None] + np.outer(cancels, [1.0, -1.0, 0.0, 0.0]) + [0.0, 1.0, 2.0, 3.0]
    values += 0.1 * np.random.default_rng(0).normal(size=values.shape)
    answer = decode(masks[:500], values[:500], decoder=QUICK, keep=0.5)
    left = values[500:] - answer.predict_outputs(masks[500:])
    assert (left.var(axis=0) < 0.05 * values[500:].var(axis=0)).all()
    row = answer.output_coefficients[answer.terms.index((8, 9))]
    np.testing.assert_allclose(row, [0.75, -0.75, 0, 0], atol=0.03)
    error = answer.predict(masks[500:]) - (mean[500:] + 1.5)
    assert error.var() < 0.01 * mean.var()


def test_outputs_that_are_copies_are_decoded_as_one():
    masks, values = planted(0.5)
    one = decode(masks, values, decoder=QUICK, keep=0.5)
    copies = decode(masks, np.column_stack([values] * 3), decoder=QUICK, keep=0.5)
    assert copies.terms == one.terms
    for output in copies.output_coefficients.T:
        np.testing.assert_allclose(output, one.coefficients, atol=1e-6)


def test_scaling_the_values_scales_the_answer():
    masks, values = planted(0.5)
    one, small = (decode(masks, s * values, decoder=QUICK, keep=0.5) for s in (1.0, 1e-9))
    assert small.terms == one.terms
    np.testing.assert_allclose(1e9 * small.coefficients, one.coefficients, atol=1e-5)


def test_the_size_of_the_answer_is_the_users():
    masks, values = planted(0.5)
    sizes = {
        (n_terms, energy): decode(
            masks, values, decoder=replace(QUICK, n_terms=n_terms, energy=energy, refit=False)
        )
        for n_terms, energy in [(None, None), (3, None), (None, 0.9), (2, 0.9), (None, 1.0)]
    }
    assert len(sizes[None, None]) <= 1 + len(masks) // 4
    assert len(sizes[3, None]) == 4
    assert len(sizes[2, 0.9]) == 3
    # The smallest set: without its last term it does not hold the energy.
    every = np.sort(sizes[None, 1.0].coefficients[1:] ** 2)[::-1]
    some = np.sort(sizes[None, 0.9].coefficients[1:] ** 2)[::-1]
    assert some[:-1].sum() < 0.9 * every.sum() <= some.sum()


def test_order_is_bounded_by_shallower_trees():
    masks, values = planted(0.5)
    answer = decode(masks, values, decoder=QUICK, max_order=1)
    assert answer.max_order == 1
    assert "trees of depth 1" in answer.notes[0]


def test_the_refit_is_kept_only_where_it_helps():
    masks, values = planted(0.5, noise=0.0)
    assert "coefficients refitted" in decode(masks, values, decoder=QUICK, keep=0.5).notes[0]
    never = decode(masks, values, decoder=replace(QUICK, refit=False), keep=0.5)
    assert "as in the trees" in never.notes[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": ()}, r"depths = \(\): give at least one"),
        ({"rates": (0.1, 0.0)}, r"rates = \(0.1, 0.0\): give at least one, each above 0"),
        ({"n_trees": 0}, "n_trees = 0: give at least 1"),
        ({"n_terms": 0}, "n_terms = 0: give at least 1, or None"),
        ({"energy": 1.5}, "energy = 1.5: give a share above 0 and at most 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(Refused, match=message):
        ProxySpex(**options)


def test_ridge_equals_scikit_learn_at_the_penalty_that_leave_one_out_prefers():
    rng = np.random.default_rng(0)
    design = rng.normal(size=(30, 12)) + 1.0
    values = 5.0 + design[:, :2] @ rng.normal(size=(2, 2)) + rng.normal(size=(30, 2)) * [0.1, 10]
    coefficients, intercepts = ridge(design, values)
    for output, y in enumerate(values.T):
        errors = {}
        for penalty in np.logspace(-4, 4, 17):
            left_out = []
            for row in range(30):
                others = np.arange(30) != row
                model = Ridge(alpha=penalty).fit(design[others], y[others])
                left_out.append(y[row] - model.predict(design[[row]])[0])
            errors[penalty] = float(np.square(left_out).sum())
        model = Ridge(alpha=min(errors, key=lambda a: errors[a])).fit(design, y)
        np.testing.assert_allclose(coefficients[:, output], model.coef_, atol=1e-8)
        assert intercepts[output] == pytest.approx(model.intercept_)


def test_lightgbm_that_cannot_be_imported_is_replaced_and_the_note_says_so(
    monkeypatch: pytest.MonkeyPatch,
):
    original = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "lightgbm":
            raise OSError("libgomp.so.1: cannot open shared object file")
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    masks, values = planted(0.5)
    answer = decode(masks, values, decoder=QUICK)
    assert any("LightGBM could not be imported (libgomp" in note for note in answer.notes)
    assert any("scikit-learn's GradientBoostingRegressor" in note for note in answer.notes)
    assert (values - answer.predict(masks)).var() < 0.05 * values.var()


def test_lightgbm_that_fails_is_replaced_and_the_note_says_so(monkeypatch: pytest.MonkeyPatch):
    import lightgbm

    def fail(*_: Any, **__: Any) -> Any:
        raise lightgbm.basic.LightGBMError("cannot allocate")

    monkeypatch.setattr(lightgbm.Booster, "update", fail)
    masks, values = planted(0.5)
    answer = decode(masks, values, decoder=QUICK)
    assert any("LightGBM failed (cannot allocate)" in note for note in answer.notes)
