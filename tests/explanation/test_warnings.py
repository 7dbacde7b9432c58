"""What makes an answer look surer than it is stands in its first lines."""

import json

import numpy as np
import pytest
from scipy import stats

import mechspex as mx
from mechspex.effects.validation import Validation, needed
from mechspex.errors import MeasurementError, Refused

UNITS = mx.parts(range(9))


def pair(masks):
    return 2.0 * (masks[:, 0] & masks[:, 1]) + masks[:, 2] + 0.3 * masks[:, 4]


def on_outputs(masks):
    return np.outer(pair(masks), [0.9, 1.0, 1.1, 1.2])


def test_one_output_confirms_nothing():
    tested = mx.validate(mx.FunctionValues(pair, UNITS), [(0,), (2,), (0, 1)])
    assert np.allclose(tested.effects, [-2, -1, 2])
    frame = tested.to_pandas()
    assert not frame["confirmed"].any()
    assert frame[["low", "high", "se"]].isna().to_numpy().all()
    assert tested.confirmed_singles == ()
    assert "not confirmed" not in str(tested)
    assert "exact for this one output: no interval" in str(tested)
    assert "on one output: exact for it" in tested.in_short
    swept = mx.sweep(pair, units=UNITS)
    assert swept.confirmed_singles == ()
    assert "exact for this one output" in str(swept)
    assert "false discovery" not in str(swept)


def test_several_outputs_have_plain_errors_beside_corrected_intervals():
    tested = mx.validate(mx.FunctionValues(on_outputs, UNITS), [(0,), (2,), (0, 1)])
    frame = tested.to_pandas()
    assert tested.has_spread
    assert frame["confirmed"].all()
    expected = np.std(tested.output_effects, axis=1, ddof=1) / 2
    assert np.allclose(frame["se"], expected)
    assert (frame["high"] - frame["low"] > 2 * 1.96 * frame["se"]).all()
    read = Validation.from_dict(json.loads(json.dumps(tested.to_record())))
    assert read.to_pandas().equals(frame)


def test_one_output_in_contexts_has_a_spread():
    values = mx.FunctionValues(pair, UNITS)
    around = mx.validate(values, [(0,)], contexts=40, keep=0.5)
    assert around.has_spread
    assert around.to_pandas()["confirmed"].all()


def test_few_outputs_say_from_where_they_confirm():
    """Of effects of that size half are confirmed, hardly any of a third, nearly all of three times
    it; and it is what the level, the terms and the spread make of it."""
    rng = np.random.default_rng(0)
    n, planted = 5, np.zeros(9)
    expected = stats.t.ppf(1 - 0.05 / 2 / 9, n - 1) / np.sqrt(n)
    planted[:3] = expected * np.array([1 / 3, 1, 3])
    held, smallest = np.zeros(3), []
    for _ in range(200):
        effects = planted[:, None] + rng.normal(size=(9, n))
        # The largest is left out of the tests, as it would lower the level that the others need.
        for place in range(3):
            terms = [(place,), *((other,) for other in range(3, 9))]
            values = mx.FunctionValues(lambda masks, e=effects: ~masks @ e, UNITS)
            found = mx.validate(values, terms, level=0.05 * 7 / 9)
            held[place] += found.confirmed[0]
            smallest.append(found.smallest_effect)
    assert np.median(smallest) == pytest.approx(expected, rel=0.15)
    assert held[0] < 20
    assert 70 < held[1] < 130
    assert held[2] > 190
    (line,) = found.remarks
    assert line.startswith(f"5 outputs confirm a mean effect from about {smallest[-1]:.2g} on")
    assert line in str(found)


def test_enough_outputs_or_one_say_nothing_of_it():
    for n_outputs in (1, 8):
        values = mx.FunctionValues(lambda m, n=n_outputs: np.outer(pair(m), np.arange(n)), UNITS)
        assert not mx.validate(values, [(0,), (2,)]).remarks
        assert needed(n_outputs, 30, 0.05) is None


def test_how_far_an_effect_must_stand_out_is_known_beforehand():
    assert needed(4, 30, 0.05) == (
        f"with 4 fresh prompts an effect must lie {stats.t.ppf(1 - 0.05 / 60, 3):.1f} standard "
        "errors from zero to be confirmed alone among 30 terms; with 16 "
        f"{stats.t.ppf(1 - 0.05 / 60, 15):.1f}"
    )


def test_terms_tested_where_they_were_chosen():
    options = {"units": UNITS, "n_masks": 100, "decoder": "pursuit"}
    same = str(mx.explain(on_outputs, **options))
    line = "the terms were chosen on the very outputs they are tested on"
    assert line in same
    assert same.index(line) < same.index("held-out R²")
    fresh = mx.FunctionValues(lambda masks: 1.1 * on_outputs(masks), UNITS)
    assert line not in str(mx.explain(on_outputs, held_out=fresh, **options))
    assert line not in str(mx.explain(pair, **options)), "one output is no test at all"


def test_a_poor_fit_says_what_may_still_be_used():
    rng = np.random.default_rng(0)
    tables = {}

    def noise(masks):
        rows = [tables.setdefault(mask.tobytes(), rng.normal()) for mask in masks]
        return np.array(rows) + masks[:, 0]

    found = mx.explain(noise, units=mx.parts(range(16)), n_masks=200, decoder="additive")
    assert found.r2 < 0.8
    assert "is a poor fit: of the recovered function only" in str(found)
    good = mx.explain(on_outputs, units=UNITS, n_masks=100, decoder="pursuit")
    assert "poor fit" not in str(good)


@pytest.mark.parametrize("swapped", [0, 3])
def test_a_model_that_is_often_wrong_is_told(tiny, swapped):
    task = mx.load_task("induction", tiny, n_prompts=4)
    answers, distractors = list(task.answers), list(task.distractors or ())
    for place in range(swapped):
        answers[place], distractors[place] = distractors[place], answers[place]
    other = mx.Task(task.prompts, answers, distractors, prepend_bos=task.prepend_bos)
    found = mx.explain(mx.ComponentValues(tiny, other, mx.heads(tiny)))
    assert found.n_right == 4 - swapped
    assert (f"right on {4 - swapped} of 4 prompts" in str(found)) == bool(swapped)
    assert mx.Explanation.from_dict(found.to_record()) == found


@pytest.mark.parametrize(
    ("value", "error", "why"),
    [
        (np.nan, MeasurementError, "not finite|no score is finite"),
        (0.0, Refused, "no unit|above 0"),
    ],
)
def test_nothing_and_no_number_get_a_reason(value, error, why):
    values = mx.FunctionValues(lambda masks: np.full((len(masks), 3), value), UNITS)
    with pytest.raises(error, match=why):
        mx.screen(values, "ablation")
    with pytest.raises(error, match=why):
        mx.find_circuit(values, values, n_masks=60)


def test_an_explanation_of_one_output_confirms_what_holds_in_contexts():
    """0 × 1 is there whatever the others are; what unit 2 does turns with unit 3."""

    def planted(masks):
        kept = masks.astype(float)
        return 2 * kept[:, 0] * kept[:, 1] + kept[:, 2] * (1 - 1.4 * kept[:, 3])

    units = mx.parts(5)
    alone = mx.explain(planted, units=units, n_masks=32)
    assert not alone.to_pandas()["confirmed"].any()
    assert alone.confirmed_singles == ()
    assert "nothing is confirmed" in str(alone)
    half, contexts = mx.RandomMasks(0.5), mx.ExactTests(contexts=32)
    around = mx.explain(planted, units=units, n_masks=31, design=half, tests=contexts)
    frame = around.to_pandas().set_index("units")
    assert frame["confirmed"]["0 × 1"]
    assert frame["confirmed"]["2 × 3"]
    # Ablating it adds .4 with unit 3 kept, and takes 1 without.
    assert not frame["confirmed"]["2"]
    assert 2 not in around.confirmed_singles
    assert frame["low"].isna().all()
    assert "confirmed in contexts" in str(around)
    assert mx.Explanation.from_dict(around.to_record()).to_pandas().equals(around.to_pandas())
