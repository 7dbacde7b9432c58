"""Estimates, tests and corrections against closed forms and scipy; rates that they promise."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mechspex.core.statistics import (
    Estimate,
    clustered_error,
    correlation,
    discovered,
    discovery_halfwidths,
    halfwidth,
    holm,
    hotelling_p,
    largest_share,
    mcnemar,
    mean_estimate,
    one_sided_p,
    paired_difference,
    proportion,
    rank_correlation,
    ratio_estimator,
    standard_error,
    two_sided_p,
)


def test_an_estimate_reads_as_a_number_with_its_interval():
    one = Estimate(-0.0001, -0.5, 0.25)
    assert str(one) == "0.000 [-0.500, 0.250]"
    assert f"{one:+.2f}" == "-0.00 [-0.50, +0.25]"
    assert one.to_list() == [-0.0001, -0.5, 0.25]
    assert not one.leaves_out_zero
    assert Estimate(1.0, 0.5, 2.0).leaves_out_zero
    assert Estimate(-1.0, -2.0, -0.5).leaves_out_zero
    assert not Estimate(1.0, 0.0, 2.0).leaves_out_zero
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.value = 1.0  # pyright: ignore[reportAttributeAccessIssue]


@given(
    st.lists(st.floats(-100, 100), min_size=2, max_size=12, unique=True),
    st.sampled_from([0.3, 0.05, 0.001]),
)
def test_a_mean_has_scipys_error_interval_and_p_values(numbers, level):
    values = np.array(numbers)
    if values.std() < 1e-6:
        return
    error = float(standard_error(values))
    assert error == pytest.approx(stats.sem(values))
    found = mean_estimate(values, level)
    low, high = stats.t.interval(1 - level, len(values) - 1, values.mean(), error)
    assert found.to_list() == pytest.approx([values.mean(), low, high])
    _, two = stats.ttest_1samp(values, 0)
    _, above = stats.ttest_1samp(values, 0, alternative="greater")
    assert two_sided_p(values.mean() / error, len(values) - 1) == pytest.approx(two)
    assert one_sided_p(values) == pytest.approx(above)


def test_many_means_at_once_are_those_of_each():
    values = np.random.default_rng(0).normal(size=(4, 3, 9))
    flat = values.reshape(-1, 9)
    assert standard_error(values).ravel() == pytest.approx(
        [float(standard_error(row)) for row in flat]
    )
    assert one_sided_p(values).ravel() == pytest.approx([float(one_sided_p(row)) for row in flat])
    errors, degrees = np.array([1.0, 2.0]), np.array([1.5, 30.0])
    assert halfwidth(errors, degrees) == pytest.approx(stats.t.ppf(0.975, degrees) * errors)
    assert two_sided_p(errors, degrees) == pytest.approx(2 * stats.t.sf(errors, degrees))


def test_a_single_value_has_no_spread():
    assert standard_error(np.ones((3, 1))).tolist() == [0, 0, 0]
    assert mean_estimate(np.array([2.5])) == Estimate(2.5, 2.5, 2.5)
    assert mean_estimate(np.full(7, 2.5)) == Estimate(2.5, 2.5, 2.5)


def test_intervals_of_few_values_cover_what_they_promise():
    """The control takes the spread for known, and covers too rarely."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4_000, 4))
    found = [mean_estimate(row) for row in values]
    covered = np.mean([one.low <= 0 <= one.high for one in found])
    assert 0.94 <= covered <= 0.96
    naive = halfwidth(standard_error(values), 1e9)
    assert np.mean(np.abs(values.mean(axis=1)) <= naive) < 0.9


def test_draws_of_one_cluster_count_as_one():
    """20 clusters of 5 draws that share most of what is random; the control takes each draw for
    one of its own."""
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(20), 5)
    draws = rng.normal(size=(20, 2_000)).repeat(5, axis=0) + 0.3 * rng.normal(size=(100, 2_000))
    means = draws.mean(axis=0)
    errors, degrees = clustered_error(draws, clusters)
    assert 0.93 <= np.mean(np.abs(means) <= halfwidth(errors, degrees)) <= 0.99
    naive, each = clustered_error(draws, np.arange(100))
    assert naive == pytest.approx(standard_error(draws.T))
    assert np.mean(np.abs(means) <= halfwidth(naive, each)) < 0.7


def test_degrees_of_freedom_are_the_effective_number_of_clusters():
    even, lone = np.tile([1.0, -1.0], 25), np.zeros(50)
    lone[:2] = 1.0, -1.0
    _, degrees = clustered_error(np.stack([even, lone, np.zeros(50)], axis=1), np.arange(50))
    assert degrees == pytest.approx([50, 2, 50])


def test_hotelling_rejects_as_often_as_it_says():
    """Correlated outputs without an effect; the control counts the smallest p of single outputs."""
    rng = np.random.default_rng(2)
    mixing, clusters = np.eye(3) + 0.3, np.arange(40)
    joint, single = [], []
    for _ in range(1_000):
        draws = rng.normal(size=(40, 3)) @ mixing
        joint.append(hotelling_p(draws.mean(axis=0), draws, clusters, 39.0))
        single.append(min(two_sided_p(draws.mean(axis=0) / standard_error(draws.T), 39)))
    assert 0.03 <= np.mean(np.array(joint) < 0.05) <= 0.07
    assert np.mean(np.array(single) < 0.05) > 0.08


def test_hotelling_of_one_output_is_students_t():
    draws = np.random.default_rng(3).normal(0.3, 1, size=(30, 1))
    error = np.sqrt(((draws - draws.mean()) ** 2).sum()) / 30
    found = hotelling_p(draws.mean(axis=0), draws, np.arange(30), 12.0)
    # F(1, 11) of 11/12 · t², which is t with 11 degrees.
    t = draws.mean() / error * np.sqrt(11 / 12)
    assert found == pytest.approx(two_sided_p(float(t), 11))
    assert hotelling_p(draws.mean(axis=0), draws, np.arange(30), 1.0) == 1
    assert hotelling_p(draws.mean(axis=0), draws, np.arange(30), 12.0, floor=100.0) > 0.9


@given(st.lists(st.floats(0, 1), max_size=12), st.sampled_from([0.01, 0.05, 0.3]))
def test_discoveries_are_those_of_scipys_adjusted_p_values(p_values, level):
    adjusted = stats.false_discovery_control(p_values) if p_values else np.zeros(0)
    sure = np.abs(adjusted - level) > 1e-9
    assert (discovered(p_values, level) == (adjusted <= level))[sure].all()


def test_what_is_not_a_number_is_not_discovered():
    assert discovered([np.nan, 0.001, np.nan], 0.05).tolist() == [False, True, False]
    assert not discovered([], 0.05).any()


def test_tests_that_are_not_named_count():
    p_values, family = np.array([0.0001, 0.0001]), np.array([100.0, 1_000.0])
    assert discovered(p_values, 0.05).all()
    # 0.0001 · 100 ≤ 0.05, and 0.0001 · 1000 ≤ 0.05 · 2.
    assert discovered(p_values, 0.05, family).tolist() == [True, True]
    assert discovered(p_values, 0.04, family).tolist() == [True, False]
    same = np.full(5, 5.0)
    some = np.array([0.001, 0.02, 0.031, 0.2, 0.9])
    assert (discovered(some, 0.05, same) == discovered(some, 0.05)).all()


def planted_means(rng):
    """30 of 100 means differ from zero, by 3.5 standard errors of 16 outputs."""
    truth = np.zeros(100)
    truth[:30] = 3.5 / 4
    return truth, truth[:, None] + rng.normal(size=(100, 16))


def test_false_discoveries_and_uncovered_discoveries_are_as_rare_as_the_level():
    """Controls: without a correction too many are false, and intervals at the level itself leave
    out too many of the means that were picked for standing out."""
    rng, level = np.random.default_rng(4), 0.1
    false, uncovered, false_alone, uncovered_alone = [], [], [], []
    for _ in range(300):
        truth, values = planted_means(rng)
        means, errors = values.mean(axis=1), standard_error(values)
        half = discovery_halfwidths(means, errors, 15, level=level, rounding=np.zeros(100))
        picked = np.abs(means) > half
        assert (picked == discovered(two_sided_p(means / errors, 15), level)).all()
        false.append((picked & (truth == 0)).sum() / max(1, picked.sum()))
        missed = np.abs(means - truth)
        uncovered.append((missed > half)[picked].mean() if picked.any() else 0.0)
        alone = halfwidth(errors, 15, level)
        found = np.abs(means) > alone
        false_alone.append((found & (truth == 0)).sum() / max(1, found.sum()))
        uncovered_alone.append((missed > alone)[found].mean())
    assert np.mean(false) <= level
    assert np.mean(uncovered) <= level
    assert np.mean(false_alone) > 0.15
    assert np.mean(uncovered_alone) > 0.15


def test_rounding_is_no_discovery_and_widens_intervals():
    means, errors = np.array([1e-6, 1.0]), np.array([0.0, 0.0])
    rounding = np.array([1e-5, 1e-5])
    half = discovery_halfwidths(means, errors, 3, level=0.05, rounding=rounding)
    assert half.tolist() == rounding.tolist()
    assert (np.abs(means) > half).tolist() == [False, True]
    nothing = np.zeros(0)
    assert not len(discovery_halfwidths(nothing, nothing, 3, level=0.05, rounding=nothing))


def test_the_paired_test_of_two_choices_is_scipys():
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(size=20), rng.normal(size=20) + 0.4
    found = paired_difference(ours, theirs[None])
    by_scipy = stats.ttest_rel(ours, theirs)
    low, high = by_scipy.confidence_interval(0.95)
    assert found.p_value == pytest.approx(by_scipy.pvalue)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.value == pytest.approx((ours - theirs).mean())


def test_random_subsets_add_their_own_spread():
    """Coverage of the mean over all outputs and subsets, in a two-way layout."""
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(400):
        theirs = rng.normal(size=(10, 1)) + rng.normal(size=30) + 0.3 * rng.normal(size=(10, 30))
        found = paired_difference(np.zeros(30), theirs)
        covered += found.low <= 0 <= found.high
    assert 0.93 <= covered / 400 <= 0.99


def test_mcnemar_by_hand():
    ours = np.array([1, 1, 1, 1, 1, 0, 0, 1], dtype=bool)
    theirs = np.array([0, 0, 0, 0, 0, 1, 0, 1], dtype=bool)
    # Five to one: 2 · (1 + 6) / 2^6.
    assert mcnemar(ours, theirs) == pytest.approx(14 / 64)
    assert mcnemar(theirs, ours) == pytest.approx(14 / 64)
    assert mcnemar(ours, ours) == 1


def test_equal_differences_leave_no_doubt():
    assert paired_difference(np.ones(5), np.ones((1, 5))).p_value == 1
    sure = paired_difference(np.full(5, 2.0), np.ones((1, 5)))
    assert (sure.value, sure.low, sure.high, sure.p_value) == (1, 1, 1, 0)


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.9, 0.8])).tolist() == [1, 1]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_its_steps_reject(p_values):
    p = np.array(p_values)
    rejected, level = set(), 0.05
    for step, i in enumerate(np.argsort(p, kind="stable")):
        if p[i] * (len(p) - step) > level:
            break
        rejected.add(int(i))
    assert set(np.flatnonzero(holm(p) <= level).tolist()) == rejected


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_proportion_has_wilsons_interval(counts):
    n_right, n_outputs = counts
    found = proportion(np.arange(n_outputs) < n_right)
    ends = stats.binomtest(n_right, n_outputs).proportion_ci(0.95, "wilson")
    assert found.to_list() == pytest.approx([n_right / n_outputs, ends.low, ends.high])


def test_the_share_that_a_sample_cannot_rule_out():
    assert largest_share(0, 59) == pytest.approx(1 - 0.05 ** (1 / 59))
    assert largest_share(4, 4) == 1
    # P(at most 3 of 20) is just 5% there.
    assert stats.binom.cdf(3, 20, largest_share(3, 20)) == pytest.approx(0.05)


def test_a_ratio_of_means_is_covered():
    """The control keeps the denominator as it is."""
    rng = np.random.default_rng(5)
    covered = fixed = 0
    for seed in range(200):
        whole = rng.normal(2, 1, size=60)
        part = 0.8 * whole + 0.2 * rng.normal(size=60)
        found = ratio_estimator(whole, np.random.default_rng(seed))(part)
        covered += found.low <= 0.8 <= found.high
        rough = mean_estimate(part / whole.mean())
        fixed += rough.high - rough.low > 2 * (found.high - found.low)
    assert 0.91 <= covered / 200 <= 0.98
    assert fixed > 180, "what numerator and denominator share is no doubt about their ratio"


def test_ratios_rest_on_the_same_draws():
    rng = np.random.default_rng(6)
    whole, part = rng.normal(3, 1, size=20), rng.normal(1, 1, size=(2, 20))
    estimate = ratio_estimator(whole, np.random.default_rng(0))
    assert estimate(whole) == Estimate(1.0, 1.0, 1.0)
    assert estimate(part[0]) == ratio_estimator(whole, np.random.default_rng(0))(part[0])
    same = estimate(np.stack([part[0], part[0] + whole]), lambda rows: rows[1] - rows[0])
    assert same.to_list() == pytest.approx([1, 1, 1])


def test_correlations_are_scipys():
    a, b = np.random.default_rng(7).normal(size=(2, 15)).round(1)
    b += a
    assert correlation(a, b) == pytest.approx(stats.pearsonr(a, b)[0])
    assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b)[0])
    assert np.isnan(correlation(a, np.ones(15)))
    assert np.isnan(rank_correlation(a[:1], b[:1]))
