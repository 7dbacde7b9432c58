import json

import numpy as np
import pytest

import mechspex as mx
from mechspex.errors import Refused, UnknownUnitError
from mechspex.set_functions.set_function import SetFunction

N = 8
UNITS = mx.parts([f"u{i}" for i in range(N)])


def with_outputs(function, n_outputs=8, spread=0.1, seed=0):
    """The function on several outputs: each coefficient differs a little from output to output."""
    rng = np.random.default_rng(seed)
    factors = 1 + spread * rng.normal(size=(len(function), n_outputs))
    features = [
        SetFunction(N, (term,), np.ones(1), function.basis, function.keep)
        for term in function.terms
    ]

    def values(masks):
        columns = np.stack([feature.predict(masks) for feature in features], axis=1)
        return columns @ (function.coefficients[:, None] * factors)

    return mx.FunctionValues(values, UNITS), factors


PLANTED = SetFunction.from_mapping(
    N, {(): 3.0, (0,): -2.0, (1,): 1.0, (0, 1): 0.7, (2, 3, 4): -0.9}, basis="ablated"
)


def test_effects_are_the_ablated_coefficients_of_every_output():
    values, factors = with_outputs(PLANTED)
    found = mx.validate(values, [(0,), (1,), (1, 0), (2, 3, 4), (2, 3), ("u5",)])
    assert found.terms == ((0,), (1,), (0, 1), (2, 3, 4), (2, 3), (5,))
    for row, term in enumerate(found.terms):
        planted = PLANTED[term]
        place = PLANTED.terms.index(term) if term in PLANTED.terms else 0
        assert np.allclose(found.output_effects[row], planted * factors[place], atol=1e-5)
    assert found.confirmed.tolist() == [True, True, True, True, False, False]
    assert np.allclose(found.kept_effects, found.effects * [-1, -1, 1, -1, 1, -1])


def test_kept_effects_are_derivatives_in_the_whole_model():
    kept = SetFunction.from_mapping(N, {(0, 1): 2.0, (0, 1, 2): -0.5}, basis="kept")
    values, _ = with_outputs(kept, spread=0.0)
    found = mx.validate(values, [(0, 1), (0, 1, 2)])
    # With the rest kept, the triple term is part of what the pair does.
    assert np.allclose(found.kept_effects, [2.0 - 0.5, -0.5], atol=1e-5)


def test_subsets_that_terms_share_are_asked_for_once():
    asked = []

    def count(masks):
        asked.append(len(masks))
        return masks.sum(1)

    mx.validate(mx.FunctionValues(count, UNITS), [(0,), (1,), (0, 1), (0, 2)])
    assert asked[-1] == len([(), (0,), (1,), (2,), (0, 1), (0, 2)])


def test_where_nothing_is_planted_almost_nothing_is_confirmed():
    """200 repetitions of eight null effects: any of them is confirmed in about one of twenty."""
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(200):
        noise = rng.normal(size=(N, 6))
        values = mx.FunctionValues(lambda masks, noise=noise: (~masks) @ noise, UNITS)
        missed += mx.validate(values, [(i,) for i in range(N)], level=0.05).confirmed.any()
    assert missed <= 20, "expected 10, 20 is three standard deviations more"


def test_few_of_the_confirmed_are_false():
    """Half the terms are null: of those confirmed about 2.5% are, at a level of 5%."""
    rng = np.random.default_rng(1)
    confirmed, false = 0, 0
    for _ in range(200):
        effects = rng.normal(size=(N, 6)) + np.where(np.arange(N) < N // 2, 3.0, 0.0)[:, None]
        values = mx.FunctionValues(lambda masks, e=effects: (~masks) @ e, UNITS)
        found = mx.validate(values, [(i,) for i in range(N)]).confirmed
        confirmed, false = confirmed + found.sum(), false + found[N // 2 :].sum()
    assert confirmed > 0.8 * 200 * N // 2
    assert false < 0.05 * confirmed


def test_an_interval_leaves_out_zero_exactly_where_a_term_is_confirmed():
    rng = np.random.default_rng(2)
    effects = rng.normal(0.7, 1, size=(N, 6))
    found = mx.validate(
        mx.FunctionValues(lambda m: (~m) @ effects, UNITS), [(i,) for i in range(N)]
    )
    low, high = found.intervals.T
    assert ((low > 0) | (high < 0)).tolist() == found.confirmed.tolist()
    assert 0 < found.confirmed.sum() < N


def test_more_terms_make_wider_intervals():
    values, _ = with_outputs(PLANTED)
    alone = mx.validate(values, [(0,)])
    among = mx.validate(values, [(i,) for i in range(N)])
    assert np.ptp(among.intervals[0]) > np.ptp(alone.intervals[0])


def test_negative_control_an_additive_function_has_no_interaction():
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(N, 8)).astype(np.float32) * 100
    values = mx.FunctionValues(lambda masks: masks.astype(np.float32) @ weights, UNITS)
    pairs = [(i, j) for i in range(N) for j in range(i)]
    found = mx.validate(values, pairs)
    assert not found.confirmed.any(), "float32 rounding of an additive function is no interaction"


def test_one_output_is_exact():
    values, _ = with_outputs(PLANTED, n_outputs=1, spread=0.0)
    found = mx.validate(values, [(0, 1), (2, 3)])
    assert np.ptp(found.intervals, axis=1).max() < 1e-4
    assert found.confirmed.tolist() == [True, False]


def test_failed_masks_confirm_nothing():
    def fails(masks):
        return np.where(masks[:, 0], 1.0 * masks[:, 1], np.nan)

    found = mx.validate(mx.FunctionValues(fails, UNITS), [(0,), (1,)])
    assert np.isnan(found.effects[0])
    assert found.confirmed.tolist() == [False, True]


@pytest.mark.filterwarnings("error")
def test_infinite_values_fail_without_a_warning():
    def fails(masks):
        told = np.where(masks[:, 0], 1.0 * masks[:, 1], np.inf)
        return np.stack([told, 2.0 * told + masks[:, 2]], axis=1)

    found = mx.validate(mx.FunctionValues(fails, UNITS), [(0,), (0, 1), (1,)])
    assert found.failed.tolist() == [True, True, False]
    assert np.isfinite(found.to_pandas().loc[2, ["effect", "low", "high", "se"]].tolist()).all()


def test_frames_name_the_units():
    values, _ = with_outputs(PLANTED)
    frame = mx.validate(values, [(0, 1)]).to_pandas()
    assert frame["units"].tolist() == ["u0 × u1"]
    assert frame["low"][0] < frame["effect"][0] < frame["high"][0]


def test_bad_terms_are_refused():
    values, _ = with_outputs(PLANTED)
    for terms, complaint in [([()], "0 units"), ([(8,)], "outside the columns 0 … 7")]:
        with pytest.raises(Refused, match=complaint):
            mx.validate(values, terms)
    with pytest.raises(Refused, match="u0 × u2 is listed 2 times; list every set once"):
        mx.validate(values, [(0, 2), (1,), ("u2", "u0")])
    with pytest.raises(UnknownUnitError, match="no unit 'u9'"):
        mx.validate(values, [("u9",)])
    with pytest.raises(Refused, match="level = 0.0"):
        mx.validate(values, [(0,)], level=0.0)


def test_effects_in_random_contexts_are_means_over_what_is_kept_of_the_others():
    kept = SetFunction.from_mapping(N, {(0, 1): 2.0, (0, 1, 2): -0.5, (3,): 4.0}, basis="kept")
    values, _ = with_outputs(kept, spread=0.0)
    found = mx.validate(values, [(0, 1), (3,), (4,)], contexts=12, keep=0.6, seed=3)
    share = mx.sample_masks(N, 12, keep=0.6, seed=3)[:, 2].mean()
    assert 0 < share < 1
    assert found.effects == pytest.approx([2 - 0.5 * share, -4, 0], abs=1e-5)
    assert found.confirmed.tolist() == [True, True, False]
    # The first one's interval is about the contexts alone: these outputs are all alike.
    widths = np.diff(found.intervals, axis=1)[:, 0]
    assert widths[0] > 0.1
    assert widths[1] < 1e-4


def test_intervals_in_random_contexts_cover_the_mean_over_all_contexts():
    kept = SetFunction.from_mapping(N, {(0, 1): 1.0, (0, 1, 2): -2.0, (0, 1, 3): 1.5}, basis="kept")
    values, _ = with_outputs(kept, spread=0.0)
    truth = 1 - 2 * 0.5 + 1.5 * 0.5
    covered = 0
    for seed in range(60):
        tested = mx.validate(values, [(0, 1)], contexts=10, keep=0.5, seed=seed)
        low, high = tested.intervals[0]
        covered += low <= truth <= high
    assert covered >= 52


def test_a_term_that_fails_takes_no_interval_from_the_others():
    def fails(masks):
        whole = 3.0 * masks[:, 1] + 1.0 * (masks[:, 1] & masks[:, 4])
        return np.where(masks[:, 2] | masks[:, 3], whole, np.nan)

    values = mx.FunctionValues(fails, 5)
    around = {"contexts": 20, "keep": 0.95, "seed": 1}
    other = mx.validate(values, [(1,), (0,)], **around).to_pandas()
    beside = mx.validate(values, [(1,), (2, 3)], **around).to_pandas()
    assert beside["effect"].isna().tolist() == [False, True]
    # The error of one output is that over contexts, in which unit 4 is kept or not.
    kept = mx.sample_masks(5, 20, keep=0.95, seed=1)[:, 4]
    assert 0 < beside.loc[0, "se"] == pytest.approx(kept.std(ddof=1) / np.sqrt(20))
    assert np.isnan(beside.loc[1, "se"])
    assert beside.loc[0, ["low", "high", "confirmed"]].tolist() == [
        pytest.approx(other.loc[0, "low"]),
        pytest.approx(other.loc[0, "high"]),
        True,
    ]


def test_one_context_is_refused():
    values, _ = with_outputs(PLANTED)
    with pytest.raises(Refused, match="contexts = 1"):
        mx.validate(values, [(0,)], contexts=1)


def test_a_validation_reads_as_a_table_and_comes_back_without_its_units():
    values, _ = with_outputs(PLANTED)
    found = mx.validate(values, [(0,), (0, 1)])
    lines = str(found).split("\n")
    assert lines[0].startswith("2 sets of 8 parts on 8 outputs: 2 confirmed")
    assert any(line.startswith("  u0 × u1     2") for line in lines)
    # What is printed has a row a set, by names, beside what a copy needs.
    printed = json.loads(json.dumps(found.to_dict()))
    assert [row["units"] for row in printed["terms"]] == ["u0", "u0 × u1"]
    assert [row["effect"] for row in printed["terms"]] == pytest.approx(found.effects)
    assert all(row["confirmed"] for row in printed["terms"])
    for record in (printed, found.by_columns()):
        assert mx.Validation.of(UNITS, record) == found
    second = {"schema": "mechspex.validation/2", "units": UNITS.to_list(), **found.by_columns()}
    assert mx.Validation.from_dict(second) == found, "a file of an older version"
    with pytest.warns(DeprecationWarning, match=r"Validation.of\(units, record\)"):
        assert mx.Validation.from_dict(UNITS, found.to_dict()) == found
