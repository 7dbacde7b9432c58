"""Faithfulness against functions whose circuit is known, and against sums written out."""

from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

import mechspex as mx
from mechspex.circuits.faithfulness import mib_sizes
from mechspex.errors import FailedMasksError, Refused, UnknownUnitError


def planted(n_units=40, n_outputs=12, noise=0.2):
    """Units 0–3 carry everything: 0 alone, 1 and 2 together, 3 hurts; each output its own size."""
    scale = 1 + noise * np.random.default_rng(0).standard_normal(n_outputs)

    def function(masks):
        m = masks.astype(float)
        value = 1.0 + 2 * m[:, 0] + 3 * m[:, 1] * m[:, 2] - 1.0 * m[:, 3]
        return np.outer(value, scale)

    return mx.FunctionValues(function, mx.parts(f"u{i}" for i in range(n_units)))


def test_scores_of_a_planted_circuit():
    values = planted()
    whole = mx.faithfulness(values, [0, 1, 2, 3])
    assert whole.faithfulness.value == pytest.approx(1)
    assert whole.completeness.value == pytest.approx(0, abs=1e-6)
    assert [score.value for score in whole.minimality] == pytest.approx([0.5, 0.75, 0.75, -0.25])
    assert whole.idle == ()
    assert whole.random.max() < 0.8
    assert whole.clean_correct == whole.correct == 1.0
    part = mx.faithfulness(values, ["u0", "u1", "u5"])
    assert part.faithfulness.value == pytest.approx(0.5)
    assert part.completeness.value == pytest.approx(-0.25)
    assert part.idle == (1, 5)
    assert "surely not 0 for 1 of 3" in str(part)
    better = mx.faithfulness(values, [0, 1, 2])
    assert better.faithfulness.value == pytest.approx(1.25)


def test_a_circuit_is_scored_by_the_names_of_its_members():
    """The other value function may have its units in another order."""
    values, units = planted(), mx.parts(["u3", "u0", "u2"])
    assert mx.faithfulness(values, mx.Circuit(units, (1, 2))) == mx.faithfulness(values, [0, 2])
    with pytest.raises(UnknownUnitError, match="x"):
        mx.faithfulness(values, mx.Circuit(mx.parts(["u0", "x"]), (1,)))


def test_shares_of_means_with_intervals_over_outputs():
    """Outputs of one shape have one share each; outputs that differ widen the interval."""
    alike = mx.faithfulness(planted(), [0, 3]).faithfulness
    assert alike.high - alike.low < 1e-6
    rng = np.random.default_rng(1)
    weights = rng.uniform(0.5, 1.5, size=(5, 30))
    values = mx.FunctionValues(lambda masks: masks @ weights, mx.parts("abcde"))
    score = mx.faithfulness(values, ["a", "b"]).faithfulness
    share = weights[:2].sum(axis=0).mean() / weights.sum(axis=0).mean()
    assert score.value == pytest.approx(share)
    draws = rng.integers(30, size=(4_000, 30))
    shares = weights[:2].sum(axis=0)[draws].mean(axis=1) / weights.sum(axis=0)[draws].mean(axis=1)
    assert [score.low, score.high] == pytest.approx(np.quantile(shares, [0.025, 0.975]), abs=0.01)


def test_the_smallest_margin_of_equivalence_is_where_two_one_sided_tests_turn():
    """Searched by bisection with tests of scipy, for a behaviour above zero and one below."""
    rng = np.random.default_rng(5)
    for sign in (1, -1):
        weights = sign * rng.normal([[1.0], [0.1]], [[0.3], [0.2]], size=(2, 9))
        values = mx.FunctionValues(lambda masks, w=weights: masks @ w, mx.parts("ab"))
        whole, short = sign * weights.sum(axis=0), sign * weights[1]

        def p_of(epsilon, whole=whole, short=short):
            sides = (epsilon * whole - short, epsilon * whole + short)
            tests: Any = stats.ttest_1samp(sides, 0, axis=1, alternative="greater")
            return tests.pvalue.max()

        turn = optimize.brentq(lambda epsilon: p_of(epsilon) - 0.05, 1e-6, 10)
        assert mx.faithfulness(values, ["a"]).equivalent_within == pytest.approx(turn)


def test_the_margin_is_too_small_as_rarely_as_one_in_twenty():
    """A circuit that lacks a tenth: half of all samples would say less, without the tests."""
    rng = np.random.default_rng(6)
    short = 0
    for _ in range(400):
        weights = rng.normal([[9.0], [1.0]], 1.0, size=(2, 12))
        values = mx.FunctionValues(lambda masks, w=weights: masks @ w, mx.parts("ab"))
        short += mx.faithfulness(values, ["a"], n_random=0).equivalent_within < 0.1
    assert 400 * 0.05 - 2 * 4.4 <= short <= 400 * 0.05 + 2 * 4.4


def test_margins_that_are_known():
    values = planted()
    assert mx.faithfulness(values, [0, 1, 2, 3]).equivalent_within == pytest.approx(0)
    # Every output has the same share: there is no spread to be unsure by.
    assert mx.faithfulness(values, [0, 1, 2]).equivalent_within == pytest.approx(0.25)
    assert mx.faithfulness(values, ["u0"]).equivalent_within == pytest.approx(0.5)
    assert "within 25.0% of the behaviour" in str(mx.faithfulness(values, [0, 1, 2]))


def test_nothing_is_sure_of_one_output_or_where_the_behaviour_is_not():
    one = mx.FunctionValues(lambda masks: masks.sum(axis=1), mx.parts("ab"))
    assert mx.faithfulness(one, ["a"]).equivalent_within == np.inf
    weak = mx.FunctionValues(
        lambda masks: masks[:, [0]] * np.array([3.1, -2.07, 1.3]), mx.parts("ab")
    )
    found = mx.faithfulness(weak, ["a"])
    assert found.equivalent_within == np.inf
    assert "not surely equivalent" in str(found)
    assert mx.Faithfulness.from_dict(found.to_record()) == found
    assert found.to_dict()["equivalent_within"] is None


def test_scores_of_an_older_version_are_read():
    found = mx.faithfulness(planted(), [0, 1])
    record = found.to_record()
    del record["equivalent_within"]
    assert mx.Faithfulness.from_dict(record).equivalent_within == np.inf


def test_the_interval_covers_the_true_share():
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(60):
        weights = rng.normal([[1.0], [1.0], [2.0]], 0.5, size=(3, 40))
        values = mx.FunctionValues(lambda masks, w=weights: masks @ w, mx.parts("abc"))
        score = mx.faithfulness(values, ["a", "b"], n_random=0).faithfulness
        held += score.low <= 0.5 <= score.high
    assert 50 <= held <= 60


def test_the_curve_and_its_areas():
    values = planted()
    order = [0, 1, 2, 3, *range(4, 40)]
    curve = mx.faithfulness_curve(values, order, shares=(0.025, 0.05, 0.075, 0.1, 1.0))
    assert curve.sizes == (1, 2, 3, 4, 40)
    heights = [0.5, 0.5, 1.25, 1.0, 1.0]
    assert [score.value for score in curve.scores] == pytest.approx(heights)
    assert curve.cpr.value == pytest.approx(np.trapezoid(heights, curve.shares))
    away = [0.5, 0.5, 0.25, 0.0, 0.0]
    assert curve.cmd.value == pytest.approx(np.trapezoid(away, curve.shares))
    by_size = {1: [0], 2: [0, 1], 3: [0, 1, 2], 4: [0, 1, 2, 3]}
    again = mx.faithfulness_curve(values, by_size, shares=(0.025, 0.05, 0.075, 0.1, 1.0))
    assert again.cpr == curve.cpr


def test_random_rankings_of_an_additive_function_lie_on_the_diagonal():
    values = mx.FunctionValues(lambda masks: masks.sum(axis=1), mx.parts(range(1_000)))
    order = np.random.default_rng(3).permutation(1_000).tolist()
    curve = mx.faithfulness_curve(values, order)
    assert curve.sizes == mib_sizes(1_000) == (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)
    assert curve.cpr.value == pytest.approx(0.5, abs=1e-3)
    assert curve.cmd.value == pytest.approx(0.5, abs=1e-3)
    assert "CPR" in str(curve)


def test_plain_text_and_numbers():
    found = mx.faithfulness(planted(), [0, 1, 2])
    assert "faithfulness 1.250" in str(found)
    assert found.to_pandas()["unit"].tolist() == ["u1", "u2", "u0"]
    assert found.to_dict()["faithfulness"][0] == pytest.approx(1.25)


def test_what_cannot_be_scored_is_refused():
    values = planted()
    with pytest.raises(Refused, match="lies outside"):
        mx.faithfulness(values, [40])
    with pytest.raises(Refused, match="no circuit of 2 units"):
        mx.faithfulness_curve(values, {1: [0]}, shares=(0.025, 0.05))
    with pytest.raises(Refused, match="2 different units where 3"):
        mx.faithfulness_curve(values, [0, 1, 1], shares=(0.075,))
    for shares in ((0.5, 0.2), (0.0, 1.0), (0.5, 1.5)):
        with pytest.raises(Refused, match="ascending"):
            mx.faithfulness_curve(values, list(range(40)), shares=shares)
    constant = mx.FunctionValues(lambda masks: np.ones(len(masks)), mx.parts("abc"))
    with pytest.raises(Refused, match="no behaviour for a circuit to carry"):
        mx.faithfulness(constant, "a")

    def fails(masks):
        return np.where(masks.sum(axis=1) == 1, np.nan, masks.sum(axis=1))

    with pytest.raises(FailedMasksError, match="1 of "):
        mx.faithfulness(mx.FunctionValues(fails, mx.parts("abc")), "a", n_random=0)


def test_the_difference_of_two_curves_is_paired():
    """Two rankings that differ a little, on outputs that differ much: the pairing tells them
    apart where the intervals of both overlap."""
    rng = np.random.default_rng(0)
    weights = np.linspace(2.0, 0.5, 12)[:, None] * rng.uniform(0.2, 3.0, 20)
    values = mx.FunctionValues(lambda masks: masks @ weights, mx.parts(map(str, range(12))))
    first, second = list(range(12)), [1, 0, *range(2, 12)]
    shares = (0.1, 0.5, 1.0)
    ours, theirs = (
        mx.faithfulness_curve(values, order, shares=shares) for order in (first, second)
    )
    cpr, cmd = ours.minus(theirs)
    assert cpr.value == pytest.approx(ours.cpr.value - theirs.cpr.value)
    assert cmd.value == pytest.approx(ours.cmd.value - theirs.cmd.value)
    assert 0 == ours.minus(ours)[0].low == ours.minus(ours)[1].high
    assert cpr.low <= cpr.value <= cpr.high
    assert cpr.high - cpr.low <= ours.cpr.high - ours.cpr.low + 1e-12
    reverse, _ = theirs.minus(ours)
    assert reverse.value == pytest.approx(-cpr.value)
    with pytest.raises(Refused, match="at shares"):
        ours.minus(mx.faithfulness_curve(values, first))
    other = mx.FunctionValues(lambda masks: masks @ weights[:, ::-1], values.units)
    with pytest.raises(Refused, match="curves on other outputs: output"):
        ours.minus(mx.faithfulness_curve(other, first, shares=shares))
