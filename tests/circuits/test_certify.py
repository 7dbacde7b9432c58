"""Certificates: planted circuits, whole, with a member too many, or with one missed; laws."""

from itertools import combinations, product

import numpy as np
import pytest
from result_laws import check_laws
from scipy import stats

import mechspex as mx
from mechspex.errors import Refused

N_PROMPTS = 24


def planted(seed=0, extra=0.0, second_kind=0.0):
    """An AND of the first two units, an OR of the next two, four idle ones, some prompt by prompt.

    Args:
        extra: what the last unit adds by itself, a share of the behaviour.
        second_kind: by how much less the AND carries on every second prompt, where the last unit
            carries it.
    """
    rng = np.random.default_rng(seed)
    size = 4 + rng.normal(scale=0.4, size=N_PROMPTS)
    odd = np.arange(N_PROMPTS) % 2 * second_kind

    def value(kept):
        both, either = kept[:, 0] & kept[:, 1], kept[:, 2] | kept[:, 3]
        carried = (both & either)[:, None] * (1 - odd) + kept[:, [7]] * (odd + extra)
        return carried * size

    return mx.FunctionValues(value, 8)


def test_the_true_circuit_is_certified():
    found = mx.certify(planted(), [0, 1, 2])
    assert found.holds
    assert found.faithfulness.value == pytest.approx(1)
    assert found.bound == pytest.approx(0)
    assert found.inclusion.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert found.serves_all_groups


@pytest.mark.parametrize(
    ("members", "equivalent", "minimal"),
    [
        ([0, 1, 2, 4], True, False),  # an idle one too many
        ([0, 1, 2, 3], True, False),  # both of an OR: neither is needed
        ([0, 2], False, False),  # half of an AND
    ],
)
def test_a_wrong_circuit_is_not(members, equivalent, minimal):
    found = mx.certify(planted(), members)
    assert (found.is_equivalent, found.is_minimal) == (equivalent, minimal)
    assert not found.holds


def test_what_is_missed_is_told_by_its_size():
    for extra, complete in ((0.02, True), (0.12, False)):
        found = mx.certify(planted(extra=extra), [0, 1, 2], epsilon=0.3)
        assert found.is_complete == complete
        assert found.bound == pytest.approx(extra / (1 + extra), rel=0.1)
        assert found.inclusion[7] == (not complete)


def test_the_half_of_an_and_that_lacks_the_other_is_missed():
    found = mx.certify(planted(), [0, 2])
    assert not found.is_complete
    assert found.gains[1] == pytest.approx(1)


def test_equivalence_is_two_one_sided_tests_written_out():
    rng = np.random.default_rng(3)
    clean, empty = 5 + rng.normal(size=12), rng.normal(size=12)
    alone = clean - 0.2 + 0.3 * rng.normal(size=12)
    rows = {(True, True): clean, (False, False): empty, (True, False): alone}
    values = mx.FunctionValues(
        lambda masks: np.array([rows.get(tuple(m), empty) for m in masks.tolist()]), 2
    )
    found = mx.certify(values, [0], epsilon=0.2)
    margin = 0.2 * (clean - empty)
    differences = np.stack([margin + alone - clean, margin - alone + clean])
    t = np.sqrt(12) * differences.mean(axis=1) / differences.std(axis=1, ddof=1)
    by_hand = stats.t.sf(t, 11)
    assert found.equivalence == pytest.approx(by_hand.max())


@pytest.mark.parametrize("census", [False, True])
def test_any_margin_above_the_smallest_is_certified_and_none_below(census):
    rng = np.random.default_rng(4)
    for n_prompts in (2, 3, 8, 24):
        whole = rng.normal(5, 0.5, size=n_prompts)
        short = rng.normal(rng.uniform(-0.3, 0.3), 0.2, size=n_prompts)

        def value(kept, whole=whole, short=short):
            alone = kept[:, [0]] * (whole - short)
            return alone + (kept[:, [0]] & kept[:, [1]]) * short

        values = mx.FunctionValues(value, 2)
        least = mx.certify(values, [0], census=census).equivalent_within
        for epsilon in (0.5 * least, 0.999 * least, 1.001 * least, 2 * least):
            if epsilon < 1:
                found = mx.certify(values, [0], epsilon=epsilon, census=census)
                assert found.is_equivalent == (epsilon > least)
                assert found.equivalent_within == least


def test_of_a_large_circuit_the_text_names_what_it_lacks():
    sizes = np.linspace(2, 3, 8)
    values = mx.FunctionValues(lambda kept: kept.sum(axis=1)[:, None] * sizes, 40)
    found = mx.certify(values, list(range(20)), delta=0.02)
    rows = str(found).splitlines()[-32:]
    assert [row.split()[1] for row in rows] == ["True"] * 20 + ["False"] * 12
    lacking = mx.certify(values, list(range(35)), delta=0.02)
    assert str(lacking).splitlines()[-1].split()[:2] == [lacking.units.names[39], "False"]


def test_a_certificate_of_an_older_version_has_no_smallest_margin():
    found = mx.certify(planted(), [0, 1, 2])
    record = found.to_record()
    del record["equivalent_within"]
    old = mx.Certificate.from_dict(record)
    assert old.equivalent_within == np.inf
    assert old.holds
    assert "sure within" in str(found)
    assert "sure within" not in str(old)


def test_a_circuit_that_barely_misses_the_margin_is_certified_as_rarely_as_the_level_says():
    certified = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        size, off = 4 + rng.normal(size=10), rng.normal(scale=0.5, size=10)

        def value(kept, size=size, off=off):
            alone = kept[:, [0]] * (0.9 * size + off)
            return alone + (kept[:, [0]] & kept[:, [1]]) * (0.1 * size - off)

        certified += mx.certify(mx.FunctionValues(value, 2), [0], epsilon=0.1).is_equivalent
    assert certified <= 200 * 0.05 + 2 * np.sqrt(200 * 0.05 * 0.95)


def test_prompts_of_two_kinds_are_told_apart_and_served_or_not():
    mixed = mx.certify(planted(second_kind=0.8), [0, 1, 2])
    groups = [set(group.outputs) for group in mixed.groups]
    assert {*range(0, N_PROMPTS, 2)} in groups
    assert {*range(1, N_PROMPTS, 2)} in groups
    assert not mixed.serves_all_groups
    both = mx.certify(planted(second_kind=0.8), [0, 1, 2, 7])
    assert len(both.groups) == 2
    assert both.serves_all_groups
    assert len(mx.certify(planted(), [0, 1, 2]).groups) == 1


def test_a_certificate_is_a_result(tmp_path):
    check_laws(mx.certify(planted(second_kind=0.5), [0, 1, 2]), tmp_path)
    check_laws(mx.certify(planted(second_kind=0.5), [0, 1, 2], census=True), tmp_path)


def true_claims(value, members, n_units=8, epsilon=0.1, delta=0.05):
    """The three claims from the means of all masks, unit by unit as they are defined."""

    def mean(kept):
        return value(np.isin(np.arange(n_units), list(kept))[None]).mean()

    inside, every = set(members), set(range(n_units))
    whole = mean(every) - mean(())
    return (
        abs(mean(inside) - mean(every)) < epsilon * abs(whole),
        all((mean(inside) - mean(inside - {i})) / whole > 1e-9 for i in inside),
        all((mean(inside | {j}) - mean(inside)) / whole < delta for j in every - inside),
    )


def claims(found):
    return found.is_equivalent, found.is_minimal, found.is_complete


@pytest.mark.parametrize("extra", [0.0, 0.03, -0.07])
def test_on_all_prompts_there_are_every_subset_is_certified_for_what_is_true_of_it(extra):
    values = planted(extra=extra, second_kind=0.02)
    held = []
    several = (0, 1, 2, 3, 4, 7)  # 5 and 6 are as idle as 4
    for members in (list(s) for k in range(1, 7) for s in combinations(several, k)):
        found = mx.certify(values, members, census=True)
        assert claims(found) == true_claims(values, members), members
        held += [members] if found.holds else []
    # Either side of the OR, and nothing else, unless the last unit has to be there.
    assert [0, 1, 2] in held or extra
    assert all({0, 1} <= set(one) and len({2, 3} & set(one)) == 1 for one in held)


def test_the_claims_of_every_subset_tell_a_census_from_a_sample():
    """Prompts of which one weighs most: their means are plain, and no sample is sure of them."""
    sizes = np.array([1.0, 2.0, 40.0])

    def value(kept):
        carried = (kept[:, [0]] & kept[:, [1]]) * 0.7 + kept[:, [2]] * 0.28 + kept[:, [3]] * 0.02
        return carried * sizes

    values = mx.FunctionValues(value, 5)
    true, census, sample = (
        [of(list(members)) for k in range(1, 6) for members in combinations(range(5), k)]
        for of in (
            lambda members: true_claims(values, members, n_units=5),
            lambda members: claims(mx.certify(values, members, census=True)),
            lambda members: claims(mx.certify(values, members)),
        )
    )
    assert census == true
    for number, name in enumerate(("equivalent", "minimal", "complete")):
        held, told = (np.array(said)[:, number] for said in (true, sample))
        assert held.any(), name
        assert not held.all(), name
        assert not (told & ~held).any(), name
        assert (held & ~told).any(), name


def at_the_margin(n_units, n_prompts, seed=0):
    """A member that carries all, and units that add about delta, on few prompts that differ."""
    adds = np.random.default_rng(seed).normal(1, 1, size=(n_units - 1, n_prompts))
    values = mx.FunctionValues(
        lambda kept: kept[:, [0]] * (100 + kept[:, 1:].astype(float) @ adds), n_units
    )
    return values, adds, 1 / (99 + n_units)


def test_inclusion_is_the_share_of_equally_likely_draws_of_the_prompts():
    """Against all 4^4 draws of four prompts, one by one."""
    values, adds, delta = at_the_margin(40, 4)
    found = mx.certify(values, [0], delta=delta)
    whole = 100 + adds.sum(axis=0)
    draws = np.array(list(product(range(4), repeat=4)))
    above = (adds - delta * whole)[:, draws].mean(axis=2)
    assert np.abs(above).min() > 1e-9, "no draw is on the margin, where rounding decides"
    share = (above >= 0).mean(axis=1)
    assert ((share > 0.1) & (share < 0.9)).sum() > 10
    spread = np.sqrt(share * (1 - share) / 2_000)
    assert (np.abs(found.inclusion[1:] - share) <= 4 * spread).all()


def test_inclusion_is_over_two_thousand_draws():
    """The shares of many units are whole two-thousandths, and not all of them anything coarser."""
    values, _, delta = at_the_margin(60, 12)
    found = mx.certify(values, [0], delta=delta)
    counts = found.inclusion * 2_000
    np.testing.assert_allclose(counts, counts.round(), atol=1e-6)
    between = counts[(counts > 0) & (counts < 2_000)].round().astype(int)
    assert len(between) > 20
    assert np.gcd.reduce([*between.tolist(), 2_000]) == 1


def test_a_census_of_few_prompts_says_what_a_sample_of_them_cannot():
    and_gate = mx.FunctionValues(
        lambda kept: (kept[:, [0]] & kept[:, [1]]) * np.array([1.0, 3.0]), 3
    )
    sampled = mx.certify(and_gate, [0, 1])
    assert not sampled.is_minimal
    found = mx.certify(and_gate, [0, 1], census=True)
    assert found.holds
    assert found.faithfulness.to_list() == [1, 1, 1]
    assert found.inclusion.tolist() == [1, 1, 0]
    assert "2 prompts, all there are" in str(found)
    # Negative controls: one member too few, one too many.
    assert claims(mx.certify(and_gate, [0], census=True)) == (False, False, False)
    assert claims(mx.certify(and_gate, [0, 1, 2], census=True)) == (True, False, True)


def test_a_census_may_be_of_one_prompt():
    values = mx.FunctionValues(lambda kept: 2.0 * kept[:, [0]] - kept[:, [1]], 3)
    assert mx.certify(values, [0, 1], census=True).is_equivalent
    assert mx.certify(values, [0, 1], census=True).idle == (1,)


def test_a_gain_within_rounding_is_none_in_a_census():
    def value(kept):
        return (kept[:, [0]] * np.array([[1e3, 2e3]]) + 1e-5 * kept[:, [1]]).astype(np.float32)

    values = mx.FunctionValues(value, 2)
    assert mx.certify(values, [0, 1], census=True).idle == (1,)


def test_a_gain_within_rounding_of_the_whole_model_is_none_where_no_mask_around_comes_near_it():
    def value(kept):
        both = (kept[:, [0]] & kept[:, [2]]) * np.array([[1e3, 2e3]])
        return (both + 1e-5 * kept[:, [1]]).astype(np.float32)

    values = mx.FunctionValues(value, 3)
    for census in (True, False):
        assert mx.certify(values, [1], census=census).idle == (1,)


def test_a_unit_that_adds_exactly_delta_is_missed():
    values = mx.FunctionValues(lambda kept: 3.0 * kept[:, [0]] + kept[:, [1]], 2)
    assert not mx.certify(values, [0], delta=0.25, census=True).is_complete
    assert mx.certify(values, [0], delta=0.26, census=True).is_complete


def test_what_cannot_be_certified_is_refused():
    one = mx.FunctionValues(lambda masks: 1.0 * masks[:, 0], 3)
    with pytest.raises(Refused, match="one prompt has no spread"):
        mx.certify(one, [0])
    with pytest.raises(Refused, match="epsilon = 2"):
        mx.certify(planted(), [0], epsilon=2)
    idle = mx.FunctionValues(lambda masks: np.ones((len(masks), 3)), 3)
    with pytest.raises(Refused, match="no behaviour"):
        mx.certify(idle, [0])
