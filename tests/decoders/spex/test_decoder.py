from __future__ import annotations

import numpy as np
import pytest

from mechspex.core.masks import sample_masks
from mechspex.core.units import Term
from mechspex.decoders.decoder import Samples
from mechspex.decoders.spex.decoder import Spex
from mechspex.decoders.spex.design import SpexDesign
from mechspex.decoders.spex.walsh_hadamard import walsh_hadamard
from mechspex.errors import BudgetError, Refused, ShapeError
from mechspex.set_functions.set_function import SetFunction


def peak(n_units: int, n_terms: int, seed: int = 0) -> SetFunction:
    """Unrelated sets of orders 1 … 5: no set is foreshadowed by a smaller one."""
    rng = np.random.default_rng((seed, n_units, n_terms))
    terms: dict[Term, float] = {(): 3.0}
    while len(terms) <= n_terms:
        units = rng.choice(n_units, rng.integers(1, 6), replace=False)
        terms[tuple(sorted(units.tolist()))] = rng.uniform(0.5, 1.5) * rng.choice([-1, 1])
    return SetFunction.from_mapping(n_units, terms, basis="fourier")


def decode(
    design: SpexDesign,
    values: np.ndarray,
    decoder: Spex | None = None,
    masks: np.ndarray | None = None,
    max_order: int | None = None,
) -> SetFunction:
    masks = design.masks if masks is None else masks
    values = values if values.ndim == 2 else values[:, None]
    groups = design.groups_in(masks)
    samples = Samples(masks, values, 0.5, max_order, 0, groups)
    return (decoder or Spex()).decode(samples)


def with_noise(values: np.ndarray, decibel: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=values.shape)
    return values + values.std() * 10 ** (-decibel / 20) * noise


def recall_and_precision(answer: SetFunction, truth: SetFunction) -> tuple[float, float]:
    found, planted = set(answer.terms) - {()}, set(truth.terms) - {()}
    return len(found & planted) / len(planted), len(found & planted) / max(1, len(found))


def failed(answer: SetFunction) -> bool:
    return any("recovery failed" in note for note in answer.notes)


# ── The transform ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("n_bits", [0, 1, 2, 5])
def test_the_transform_is_the_sum_with_signs(n_bits: int):
    points = np.arange(2**n_bits)
    shared = [[(j & k).bit_count() for k in points.tolist()] for j in points.tolist()]
    values = np.random.default_rng(0).normal(size=(2**n_bits, 3, 2))
    expected = np.einsum("jl,lab->jab", (-1.0) ** np.array(shared), values) / 2**n_bits
    assert walsh_hadamard(values) == pytest.approx(expected, abs=1e-12)
    assert walsh_hadamard(walsh_hadamard(values)) * 2**n_bits == pytest.approx(values, abs=1e-12)


def test_the_transform_refuses_other_lengths():
    with pytest.raises(ShapeError, match="power of two"):
        walsh_hadamard(np.zeros(6))


# ── The design ────────────────────────────────────────────────────────────────────────────────────


def test_masks_are_as_many_as_asked_for_different_and_half_kept():
    design = SpexDesign(64, 7000)
    assert (design.n_groups, design.n_bits, design.n_structured) == (3, 6, 6912)
    assert str(design) == (
        "SPEX design: 3 groups × 36 delays × 2^6 bins = 6,912 masks, and 88 random ones"
    )
    assert design.masks.shape == (7000, 64)
    assert len(np.unique(design.masks, axis=0)) == 7000
    assert np.abs(design.masks.mean(axis=0) - 0.5).max() < 0.05
    assert np.abs(design.masks[6912:].mean() - 0.5) < 0.05


@pytest.mark.parametrize(("n_masks", "n_groups", "n_bits"), [(432, 3, 2), (863, 5, 2), (864, 3, 3)])
def test_the_budget_is_used_as_far_as_the_structure_allows(n_masks, n_groups, n_bits):
    design = SpexDesign(64, n_masks)
    assert (design.n_groups, design.n_bits) == (n_groups, n_bits)
    assert len(design.masks) == n_masks


def test_a_group_aliases_as_it_says():
    design = SpexDesign(20, 400)
    group = design.groups[1]
    truth = peak(20, 6)
    bins = walsh_hadamard(truth.predict(design.masks)[group.rows.T])
    expected = np.zeros_like(bins)
    for term, value in truth.to_mapping().items():
        units = list(term)
        labels = np.bitwise_xor.reduce(group.matrix[units], axis=0) if units else [0]
        parities = group.delays[:, units].sum(axis=1)
        # The Fourier factor of a unit is 1 where it is kept, its Walsh sign −1.
        sign = (-1.0) ** (parities + len(units))
        expected[int(np.dot(labels, 1 << np.arange(len(labels))))] += value * sign
    assert bins == pytest.approx(expected, abs=1e-12)


def test_groups_are_found_in_any_order_and_only_if_complete():
    design = SpexDesign(64, 900)
    order = np.random.default_rng(0).permutation(900)
    shuffled = design.masks[order]
    groups = design.groups_in(shuffled)
    assert len(groups) == design.n_groups
    for found, group in zip(groups, design.groups, strict=True):
        assert np.array_equal(shuffled[found.rows], design.masks[group.rows])
    first = design.groups[0].rows[3, 1]
    assert len(design.groups_in(np.delete(design.masks, first, axis=0))) == design.n_groups - 1
    assert design.groups_in(sample_masks(64, 900)) == ()


def test_a_group_follows_its_rows():
    group = SpexDesign(64, 900).groups[1]
    new_row_of = np.random.default_rng(0).permutation(900)
    moved = group.restricted(new_row_of)
    assert moved is not None
    assert np.array_equal(moved.rows, new_row_of[group.rows])
    new_row_of[group.rows[0, 0]] = -1
    assert group.restricted(new_row_of) is None


def test_the_seed_decides_the_masks_and_nothing_else_does():
    assert np.array_equal(SpexDesign(30, 400, seed=4).masks, SpexDesign(30, 400, seed=4).masks)
    assert not np.array_equal(SpexDesign(30, 400, seed=4).masks, SpexDesign(30, 400).masks)


def test_a_budget_that_is_too_small_names_the_one_that_is_not():
    assert SpexDesign.minimum_masks(1024) == 672
    with pytest.raises(BudgetError, match="672"):
        SpexDesign(1024, 671)
    with pytest.raises(BudgetError, match="10,752"):
        SpexDesign(1024, 5000, n_bits=6)
    with pytest.raises(Refused, match="two units"):
        SpexDesign(1, 1000)
    with pytest.raises(Refused, match="n_bits = 9"):
        SpexDesign(8, 100_000, n_bits=9)


# ── The decoder ───────────────────────────────────────────────────────────────────────────────────


def test_two_units_are_enough():
    truth = SetFunction(2, ((), (0,), (0, 1)), np.array([1.0, 2.0, -1.0]), "fourier")
    design = SpexDesign(2, SpexDesign.minimum_masks(2))
    answer = decode(design, truth.predict(design.masks))
    assert answer.terms == truth.terms
    assert answer.coefficients == pytest.approx(truth.coefficients, abs=1e-9)


@pytest.mark.parametrize(
    ("n_units", "n_masks", "n_terms"),
    [(8, 252, 6), (64, 1728, 20), (64, 7000, 100), (270, 2300, 20), (1024, 2688, 20)],
)
def test_functions_without_heredity_are_recovered_exactly(n_units, n_masks, n_terms):
    truth = peak(n_units, n_terms)
    design = SpexDesign(n_units, n_masks)
    answer = decode(design, truth.predict(design.masks))
    assert answer.terms == truth.terms
    assert answer.coefficients == pytest.approx(truth.coefficients, abs=1e-9)
    assert not failed(answer)


@pytest.mark.parametrize(("decibel", "least"), [(20, 1.0), (10, 0.9)])
@pytest.mark.parametrize("n_units", [64, 270])
def test_most_terms_are_recovered_under_noise(n_units: int, decibel: float, least: float):
    truth = peak(n_units, 20)
    design = SpexDesign(n_units, 2300)
    answer = decode(design, with_noise(truth.predict(design.masks), decibel))
    recall, precision = recall_and_precision(answer, truth)
    assert recall >= least
    assert precision == 1
    fresh = sample_masks(n_units, 1000, seed=7)
    expected = truth.predict(fresh)
    assert ((answer.predict(fresh) - expected) ** 2).mean() < 0.1 * expected.var()


def test_soft_decoding_finds_what_hard_decoding_misses():
    truth = peak(64, 20)
    design = SpexDesign(64, 1728)
    values = with_noise(truth.predict(design.masks), 6)
    hard, _ = recall_and_precision(decode(design, values, Spex(n_words=1)), truth)
    soft, precision = recall_and_precision(decode(design, values), truth)
    assert soft > hard
    assert precision > 0.9


def test_an_and_of_several_units_is_recovered():
    truth = SetFunction.from_mapping(
        64, {(): 1.0, (3,): 2.0, (1, 5, 9): 4.0, (10, 20, 30, 40): -3.0}, basis="kept"
    )
    design = SpexDesign(64, 1728)
    answer = decode(design, truth.predict(design.masks)).to_basis("kept")
    assert answer[(1, 5, 9)] == pytest.approx(4.0)
    assert answer[(10, 20, 30, 40)] == pytest.approx(-3.0)


def test_outputs_share_a_support_even_if_they_cancel_in_the_mean():
    truth = peak(64, 15)
    rng = np.random.default_rng(0)
    coefficients = rng.normal(size=(len(truth.terms), 4))
    coefficients -= coefficients.mean(axis=1, keepdims=True)
    several = SetFunction(64, truth.terms, coefficients, "fourier")
    design = SpexDesign(64, 1728)
    values = several.predict_outputs(design.masks)
    exact = decode(design, values)
    assert exact.terms == truth.terms
    assert exact.output_coefficients == pytest.approx(coefficients, abs=1e-9)
    noisy = decode(design, with_noise(values, 10))
    recall, precision = recall_and_precision(noisy, truth)
    assert recall > 0.9
    assert precision == 1


def test_masks_in_another_order_and_a_lost_group_do_not_matter():
    truth = peak(64, 10)
    design = SpexDesign(64, 2000)
    order = np.random.default_rng(0).permutation(len(design.masks))
    masks = np.delete(design.masks, 5, axis=0)[order[order < len(design.masks) - 1]]
    assert len(design.groups_in(masks)) == design.n_groups - 1
    answer = decode(design, truth.predict(masks), masks=masks)
    assert answer.terms == truth.terms


@pytest.mark.parametrize("n_terms", [300, 1000])
def test_more_terms_than_the_bins_hold_are_announced(n_terms: int):
    truth = peak(64, n_terms)
    design = SpexDesign(64, 1728)
    answer = decode(design, truth.predict(design.masks))
    assert failed(answer)
    assert "a design of 6,912 masks (b = 6)" in answer.notes[-1]
    assert () in answer.terms
    assert np.isfinite(answer.coefficients).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_outputs", [1, 5])
def test_pure_noise_gives_no_terms_and_says_so(seed: int, n_outputs: int):
    design = SpexDesign(64, 1000)
    values = np.random.default_rng(seed).normal(size=(1000, n_outputs))
    answer = decode(design, values)
    assert answer.terms == ((),)
    assert answer.output_coefficients[0] == pytest.approx(values.mean(axis=0))
    assert failed(answer)


def test_max_order_bounds_the_terms():
    truth = peak(64, 20)
    design = SpexDesign(64, 1728)
    answer = decode(design, truth.predict(design.masks), max_order=2)
    assert answer.max_order <= 2
    assert failed(answer)


def test_scale_and_shift_change_nothing_else():
    truth = peak(64, 20)
    design = SpexDesign(64, 1728)
    values = with_noise(truth.predict(design.masks), 10)
    answer, scaled = decode(design, values), decode(design, 1e-6 * values + 1.0)
    assert scaled.terms == answer.terms
    back = dict(zip(answer.terms, 1e-6 * answer.coefficients, strict=True))
    back[()] += 1.0
    assert scaled.coefficients == pytest.approx(np.array(list(back.values())), abs=1e-12)


def test_values_that_differ_outside_the_groups_only_are_no_division_by_zero():
    design = SpexDesign(64, 1000)
    values = np.zeros(1000)
    values[design.n_structured :] = np.random.default_rng(0).normal(size=1000 - design.n_structured)
    answer = decode(design, values)
    assert np.isfinite(answer.coefficients).all()


def test_other_designs_are_refused():
    masks = sample_masks(64, 900)
    samples = Samples(masks, masks[:, :1].astype(float), 0.5, None, 0)
    with pytest.raises(Refused, match="SpexDesign"):
        Spex().decode(samples)
