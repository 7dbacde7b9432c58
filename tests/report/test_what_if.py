"""What if: the interval holds what it says, and the held-out masks are the ones that scored."""

from dataclasses import replace

import numpy as np
import pytest
from report_pages import heads_values

import mechspex as mx
from mechspex.core.masks import both_ends, pack
from mechspex.explanation.held_out_masks import held_out_masks
from mechspex.report.what_if import PredictionInterval, conformal, prediction_interval, what_if
from mechspex.runs.measured import measured_masks
from mechspex.set_functions.r_squared import r_squared


@pytest.fixture(scope="module", params=["mixed", "adaptive"])
def explained(request, tmp_path_factory):
    design = mx.Adaptive() if request.param == "adaptive" else request.param
    run = tmp_path_factory.mktemp(request.param)
    return mx.explain(heads_values(), design=design, n_masks=130, decoder="additive", run=run)


def test_the_held_out_masks_are_those_that_scored_the_answer(explained):
    masks = held_out_masks(explained)
    assert masks is not None
    values = heads_values()(masks).mean(axis=1)
    assert len(masks) == explained.recovery.n_test
    assert r_squared(values, explained.function.predict(masks)) == pytest.approx(explained.r2)


def test_the_interval_is_that_of_the_held_out_masks_alone(explained):
    everything = measured_masks(explained.folder, 30, 4)
    found = prediction_interval(explained, *everything)
    drawn = held_out_masks(explained)
    assert drawn is not None
    values = heads_values()(drawn).mean(axis=1)
    known = conformal(explained.function, drawn, values, clean=explained.clean)
    assert found.rate == pytest.approx(known.rate, rel=1e-5)
    assert (found.n_masks, found.fewest, found.most) == (known.n_masks, known.fewest, known.most)
    np.testing.assert_allclose(found.weights, known.weights)


def test_masks_that_would_score_otherwise_give_no_interval(explained):
    everything = measured_masks(explained.folder, 30, 4)
    other = replace(explained, settings=explained.settings | {"seed": 7})
    assert prediction_interval(other, *everything) is None


def held(interval, function, masks, values):
    """The share of masks whose value the interval holds, of those of which it says anything."""
    half = interval.half_width(masks)
    return float((np.abs(function.predict(masks) - values) <= half)[np.isfinite(half)].mean())


def readers_masks(function, n_masks, most, seed):
    """What a reader switches off: one unit up to `most`, in turn any of them or strong ones."""
    rng, n_units = np.random.default_rng(seed), function.n_units
    effects = function.ablated_effects()
    strength = [-abs(effects.get((unit,), 0.0)) for unit in range(n_units)]
    strong = np.argsort(strength)[: max(2, n_units // 4)]
    masks = np.ones((n_masks, n_units), dtype=bool)
    for row in range(n_masks):
        among = strong if row % 2 else np.arange(n_units)
        size = int(rng.integers(1, min(most, len(among)) + 1))
        masks[row, rng.choice(among, size, replace=False)] = False
    return masks


@pytest.fixture(scope="module")
def rough():
    """A planted function of which singles alone were recovered, and its clean value."""
    masks, values = mx.sample_masks(30, 400, keep=0.8), heads_values()
    clean = float(values(both_ends(30))[0].mean())
    return mx.decode(masks, values(masks), decoder="additive", keep=0.8), clean


def test_the_interval_holds_as_often_as_it_says(rough):
    """Over many draws of the held-out masks: 95 of 100."""
    (function, clean), values, shares = rough, heads_values(), []
    for seed in range(20):
        masks = mx.sample_masks(30, 400, keep=0.8, seed=(1, seed))
        known = values(masks).mean(axis=1)
        interval = conformal(function, masks[:200], known[:200], clean=clean)
        shares.append(held(interval, function, masks[200:], known[200:]))
    assert 0.94 < np.mean(shares) < 0.97
    assert 0.9 <= np.median(shares) <= 0.99


def test_it_holds_where_a_reader_switches_strong_units_off(rough, monkeypatch):
    (_, clean), values = rough, heads_values()
    decoded = mx.sample_masks(30, 400, keep=0.8)
    function = mx.decode(decoded, values(decoded), decoder="pursuit", keep=0.8)
    masks = mx.sample_masks(30, 200, keep=0.8, seed=1)
    measured = values(masks).mean(axis=1)
    asked = readers_masks(function, 400, 7, seed=2)
    known = values(asked).mean(axis=1)
    interval = conformal(function, masks, measured, clean=clean)
    assert 0.9 <= held(interval, function, asked, known) <= 0.99
    assert held(interval, function, asked[1::2], known[1::2]) >= 0.9
    # Were every unit to count alike, it would not.
    monkeypatch.setattr("mechspex.report.what_if._weights", lambda function: np.ones(30))
    alike = conformal(function, masks, measured, clean=clean)
    assert held(alike, function, asked, known) < 0.9


def test_on_the_tiny_model_it_holds_the_measured_value(tiny):
    """Made of 100 masks, checked on 200 others of the same density, and on a reader's 200."""
    task = mx.load_task("induction", tiny, n_prompts=4)
    values = mx.ComponentValues(tiny, task, mx.heads(tiny, positions=range(-8, 0)))
    masks = mx.sample_masks(64, 450, keep=0.8, seed=11)
    known = values(masks).mean(axis=1, dtype=np.float64)
    found = mx.decode(masks[:150], known[:150], decoder="additive", keep=0.8)
    clean = float(values(both_ends(64))[0].mean())
    interval = conformal(found, masks[150:250], known[150:250], clean=clean)
    assert 0.9 <= held(interval, found, masks[250:], known[250:]) <= 0.99
    asked = readers_masks(found, 200, 12, seed=3)
    measured = values(asked).mean(axis=1, dtype=np.float64)
    assert 0.9 <= held(interval, found, asked, measured) <= 0.99


def test_beyond_what_was_tested_there_is_no_interval():
    function = mx.SetFunction.from_mapping(5, {(): 1.0, (2,): 2.0}, basis="kept")
    masks = mx.sample_masks(5, 60, keep=0.9)
    interval = conformal(function, masks, function.predict(masks) + 0.1, clean=3.0)
    assert interval.most < 5
    assert np.isnan(interval.half_width(np.zeros((1, 5), dtype=bool))[0])
    assert conformal(function, masks[:10], function.predict(masks[:10]), clean=3.0) is None


def test_where_all_masks_were_measured_nothing_is_further_off(tmp_path):
    def soup(kept):
        return 3.0 * (kept[:, 0] & kept[:, 1]) + kept[:, 2]

    answer = mx.explain(soup, units=["salt", "water", "bread"], run=tmp_path / "soup")
    interval = what_if(answer.function, answer.folder, answer)["interval"]
    assert interval["at_clean"] < 1e-12
    assert (interval["n_masks"], interval["most"]) == (0, 3)
    assert what_if(answer.function, None, replace(answer, folder=None))["interval"] is None


def test_measured_masks_are_those_of_the_run(tmp_path):
    values = heads_values()
    mx.sweep(values, run=tmp_path / "swept")
    masks, found = measured_masks(tmp_path / "swept", 30, 4)
    assert len(masks) == 31
    np.testing.assert_allclose(found, values(masks))
    function = mx.SetFunction.from_mapping(30, {(): np.ones(4)}, basis="kept")
    held = what_if(function, tmp_path / "swept")
    assert held["measured"]["n"] == 31
    nothing = measured_masks(tmp_path / "swept", 90, 4)[0]
    assert nothing.shape == (0, 90)
    assert len(pack(masks)) == 31


def test_more_units_off_than_in_any_mask_tested_have_no_interval():
    """However little they count: an interval made near the whole model says nothing far from it."""
    weights = np.array([3.7, 0.1, 0.1, 0.1])
    interval = PredictionInterval(0.95, 0.0, 1.0, weights, 4.0, 100, 1, 2)
    masks = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0]], dtype=bool)
    assert np.isfinite(interval.half_width(masks)).tolist() == [True, True, False]
