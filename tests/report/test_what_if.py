"""What if: the interval holds what it says, and the held-out masks are the ones that scored."""

from dataclasses import replace

import numpy as np
import pytest
from report_pages import heads_values

import mechspex as mx
from mechspex.core.masks import both_ends, pack
from mechspex.explanation.held_out_masks import held_out_masks
from mechspex.report.what_if import conformal, prediction_interval, what_if
from mechspex.runs.measured import measured_masks
from mechspex.set_functions.r_squared import r_squared


@pytest.fixture(scope="module", params=["mixed", "adaptive"])
def explained(request, tmp_path_factory):
    design = mx.Adaptive() if request.param == "adaptive" else request.param
    run = tmp_path_factory.mktemp(request.param)
    return mx.explain(heads_values(), design=design, budget=130, decoder="additive", run=run)


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
    assert vars(found) == pytest.approx(vars(known), rel=1e-5)


def test_masks_that_would_score_otherwise_give_no_interval(explained):
    everything = measured_masks(explained.folder, 30, 4)
    other = replace(explained, settings=explained.settings | {"seed": 7})
    assert prediction_interval(other, *everything) is None


def coverage(function, clean, masks, values, fresh, fresh_values):
    interval = conformal(function, masks, values, clean=clean)
    off = np.abs(function.predict(fresh) - fresh_values)
    return float((off <= interval.half_width(fresh)).mean())


def test_the_interval_holds_as_often_as_it_says():
    """A planted function and one that knows its singles alone: over many draws 95 of 100."""
    values = heads_values()
    decoded = mx.sample_masks(30, 400, keep=0.8)
    rough = mx.decode(decoded, values(decoded), decoder="additive", keep=0.8)
    clean = float(values(both_ends(30))[0].mean())
    shares = []
    for seed in range(20):
        masks = mx.sample_masks(30, 400, keep=0.8, seed=(1, seed))
        known = values(masks).mean(axis=1)
        shares.append(coverage(rough, clean, masks[:200], known[:200], masks[200:], known[200:]))
    assert 0.94 < np.mean(shares) < 0.97
    assert 0.9 <= np.median(shares) <= 0.99


def test_with_fewer_units_off_the_interval_still_holds():
    values = heads_values()
    masks = mx.sample_masks(30, 400, keep=0.8)
    known = values(masks).mean(axis=1)
    found = mx.decode(masks, known, decoder="additive", keep=0.8)
    clean = float(values(both_ends(30))[0].mean())
    few = mx.sample_masks(30, 300, keep=0.93, seed=3)
    assert coverage(found, clean, masks[200:], known[200:], few, values(few).mean(axis=1)) >= 0.9


def test_on_the_tiny_model_it_holds_the_measured_value(tiny):
    """Calibrated on the run's held-out masks, checked on 200 others of the same density."""
    task = mx.load_task("induction", tiny, n_prompts=4)
    values = mx.ComponentValues(tiny, task, mx.heads(tiny, positions=[-1, -2, -3, -4]))
    n_units = len(values.units)
    masks = mx.sample_masks(n_units, 450, keep=0.7, seed=11)
    known = values(masks).mean(axis=1, dtype=np.float64)
    found = mx.decode(masks[:150], known[:150], decoder="additive", keep=0.7)
    clean = float(values(both_ends(n_units))[0].mean())
    assert r_squared(known[250:], found.predict(masks[250:])) < 0.9999
    held = coverage(found, clean, masks[150:250], known[150:250], masks[250:], known[250:])
    assert 0.9 <= held <= 0.99


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
