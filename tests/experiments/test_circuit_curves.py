"""Curves of circuits: both rankings, the mean of several, and what the claims say."""

import numpy as np
import pytest

import mechspex as mx
from mechspex.experiments.circuit_curves import (
    ABSOLUTE,
    CLEAN,
    EXACT,
    INTEGRATED,
    MIDPOINT,
    RANDOM,
    SEARCH,
    SIGNED,
    _claims,
    mean_curve,
    rankings,
)

N_UNITS = 20
# One unit opposes the others, and is the second largest.
WEIGHTS = np.array([4.0, -3.0, 2.0, 1.0, *[0.0] * (N_UNITS - 4)])


def sums(kept):
    """Six outputs of different sizes."""
    return (kept @ WEIGHTS)[:, None] * np.linspace(0.8, 1.2, 6)


VALUES = mx.FunctionValues(sums, N_UNITS)


def curves(effects):
    return {kind: mean_curve(VALUES, found) for kind, found in rankings(effects).items()}


def test_the_signed_ranking_leaves_out_what_opposes_and_the_absolute_one_keeps_it():
    found = rankings(-WEIGHTS)
    assert list(found[SIGNED][0])[:3] == [0, 2, 3]
    assert list(found[SIGNED][0])[-1] == 1
    assert list(found[ABSOLUTE][0])[:4] == [0, 1, 2, 3]
    signed, absolute = curves(-WEIGHTS).values()
    assert signed.cpr.value > absolute.cpr.value
    assert signed.cmd.value > absolute.cmd.value


def test_several_rankings_give_the_mean_of_their_faithfulness():
    forwards, backwards = list(range(N_UNITS)), list(range(N_UNITS))[::-1]
    both = mean_curve(VALUES, [forwards, backwards])
    one, other = (mx.faithfulness_curve(VALUES, ranking) for ranking in (forwards, backwards))
    for at, here, there in zip(both.scores, one.scores, other.scores, strict=True):
        assert at.value == pytest.approx((here.value + there.value) / 2)
    assert both.cpr.value == pytest.approx((one.cpr.value + other.cpr.value) / 2)


def test_claims_follow_the_order_of_the_methods():
    at_random = {
        kind: mean_curve(VALUES, [list(range(N_UNITS))[::-1]]) for kind in (SIGNED, ABSOLUTE)
    }
    right, wrong = curves(-WEIGHTS), curves(-np.arange(N_UNITS, dtype=float))
    methods = dict.fromkeys((EXACT, MIDPOINT, INTEGRATED, SEARCH), right)
    integrated, exact, random, one_circuit, searched = _claims(
        {**methods, CLEAN: wrong, RANDOM: at_random}
    )
    assert integrated.holds is True
    assert exact.holds is None, "both are the same"
    assert one_circuit.holds is False
    assert searched.holds is None
    assert random.holds is None, "the plain gradient is no better"
    assert _claims({**methods, CLEAN: right, RANDOM: at_random})[2].holds is True
    assert _claims({**methods, CLEAN: right, EXACT: wrong, RANDOM: at_random})[1].holds is False


def test_on_a_model_searched_sets_are_as_faithful_as_any():
    found = mx.experiments.circuit_curves(model=mx.load_model("tiny"), task="induction")
    areas = {
        (row["series"], row["x"]): row["y"]
        for row in found.rows
        if row["panel"].startswith("areas, reference")
    }
    methods = {series for series, _ in areas}
    assert {SEARCH, RANDOM, EXACT, CLEAN, MIDPOINT, INTEGRATED} < methods
    best = max(areas[method, "CPR, signed"] for method in methods)
    assert areas[SEARCH, "CPR, signed"] == pytest.approx(best, abs=0.02)
    assert areas[RANDOM, "CPR, signed"] < best - 0.3
    assert {r["series"] for r in found.rows if r["panel"].startswith("by reference")} == {
        "zero", "mean", "resample", "corrupted",
    }  # fmt: skip
    ends = [row["y"] for row in found.rows if row["x"] == 1.0]
    np.testing.assert_allclose(ends, 1, atol=1e-5)
