"""The structure of an answer, against enumeration of all masks and shapes known by hand."""

from __future__ import annotations

import time
from itertools import combinations

import numpy as np
import pytest

from mechspex.core.masks import all_masks
from mechspex.errors import Refused, ShapeError
from mechspex.set_functions.set_function import SetFunction
from mechspex.set_functions.structure import HierarchyRates, structure_of


def density(masks: np.ndarray, keep: float) -> np.ndarray:
    kept = masks.sum(axis=1)
    return keep**kept * (1 - keep) ** (masks.shape[1] - kept)


def variance(values: np.ndarray, weights: np.ndarray) -> float:
    mean = weights @ values
    return float(weights @ (values - mean) ** 2)


def function(basis, terms, *, n_units=6, keep=0.5) -> SetFunction:
    return SetFunction.from_mapping(n_units, terms, basis=basis, keep=keep)


def random_function(rng: np.random.Generator, n_units: int, keep: float) -> SetFunction:
    sets = [t for k in (0, 1, 2, 3) for t in combinations(range(n_units), k)]
    chosen = rng.choice(len(sets), size=12, replace=False)
    return function("kept", {sets[i]: rng.normal() for i in chosen}, n_units=n_units, keep=keep)


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_energies_are_shares_of_the_enumerated_variance(keep):
    found = structure_of(random_function(np.random.default_rng(0), 6, keep), [0, 0, 0, 1, 1, 1])
    masks = all_masks(6)
    weights = density(masks, keep)
    f = found.function
    assert found.variance == pytest.approx(variance(f.predict(masks), weights))
    assert sum(found.energy_by_order) == pytest.approx(1)
    for order, share in enumerate(found.energy_by_order, start=1):
        part = {t: c for t, c in f.to_mapping().items() if len(t) == order}
        values = function("fourier", part, keep=keep).predict(masks)
        assert share == pytest.approx(variance(values, weights) / found.variance)
    assert found.within_layers is not None
    assert found.across_layers is not None
    assert found.within_layers + found.across_layers == pytest.approx(1)
    assert found.synergy + found.redundancy <= 1 + 1e-12
    assert sum(found.to_pandas()["energy"].tolist()) == pytest.approx(1)


def test_layers_part_the_energy_of_interactions_only():
    f = function("fourier", {(0,): 5.0, (0, 1): 1.0, (1, 2): 2.0, (0, 1, 3): 2.0})
    found = structure_of(f, [0, 0, 1, 1, 1, 1])
    assert found.within_layers == pytest.approx(1 / 9)
    assert found.across_layers == pytest.approx(8 / 9)
    assert found.interaction_energy == pytest.approx(9 / 34)
    assert found.to_pandas().set_index("units").layers["0 × 1"] == "within"
    assert structure_of(f).within_layers is None
    assert "layers" not in structure_of(f).to_pandas()


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_and_is_synergy_and_or_is_redundancy_at_every_order(keep, sign, order):
    units = tuple(range(order))
    needed = structure_of(function("kept", {units: sign}, keep=keep))
    backups = structure_of(function("ablated", {(): 3.0, units: -sign}, keep=keep))
    assert needed.synergy == pytest.approx(1)
    assert needed.redundancy == 0
    assert backups.redundancy == pytest.approx(1)
    assert backups.synergy == 0
    assert (needed.n_kept, needed.shorter) == (1, "kept")
    assert (backups.n_ablated, backups.shorter) == (1, "ablated")


def test_a_pair_without_a_direction_is_neither():
    either_but_not_both = {(0,): 1.0, (1,): 1.0, (0, 1): -2.0}
    found = structure_of(function("kept", either_but_not_both))
    assert (found.synergy, found.redundancy) == (0.0, 0.0)
    assert found.kinds == ("neither",)


def test_hierarchy_rates_by_hand():
    # The example below equation 3: F_4 = {∅, {1}, {2}, {1, 3}} has a direct subset rate of 7/8.
    f = function("fourier", {(): 9.0, (1,): 3.0, (2,): 2.0, (1, 3): 1.0})
    (rates,) = structure_of(f).hierarchy
    assert rates == HierarchyRates(4, 1, 7 / 8, 1.0, 3 / 4)
    assert rates.among_interactions() == HierarchyRates(1, 1, 1 / 2, 1.0, 0.0)
    # A triple over all of its pairs and singles, and a pair alone.
    full = {t: 2.0 for k in (1, 2, 3) for t in combinations((0, 1, 2), k)}
    *_, rates = structure_of(function("fourier", full | {(4, 5): 1.0})).hierarchy
    alone = rates.among_interactions()
    assert (alone.k, alone.n_interactions) == (5, 5)
    assert (alone.direct_subset, alone.staircase, alone.strong) == pytest.approx([4 / 5] * 3)


def test_hierarchy_rates_equal_their_definitions():
    rng = np.random.default_rng(1)
    f = structure_of(random_function(rng, 7, 0.5)).function
    for rates in structure_of(f).hierarchy:
        largest = {(), *f.terms[: rates.k - 1]}
        inside = [
            sum(s in largest for s in combinations(t, len(t) - 1)) / len(t) if t else 1.0
            for t in largest
        ]
        strong = [
            all(s in largest for k in range(len(t)) for s in combinations(t, k)) for t in largest
        ]
        assert rates.direct_subset == pytest.approx(np.mean(inside))
        assert rates.strong == pytest.approx(np.mean(strong))
        assert rates.staircase >= rates.strong
    assert [r.k for r in structure_of(f).hierarchy][:2] == [8, 16]


@pytest.mark.parametrize("keep", [0.5, 0.8])
@pytest.mark.parametrize("basis", ["kept", "ablated"])
def test_the_lengths_of_the_forms_against_enumeration(keep, basis):
    masks = all_masks(6)
    weights = density(masks, keep)
    f = random_function(np.random.default_rng(2), 6, keep)
    values = f.predict(masks)
    form = f.to_basis(basis)
    parts = {t: function(basis, {t: c}, keep=keep) for t, c in form.to_mapping().items()}
    largest = sorted(parts, key=lambda t: -variance(parts[t].predict(masks), weights))
    left, needed = values.copy(), 0
    while variance(left, weights) > 0.05 * variance(values, weights):
        left = left - parts[largest[needed]].predict(masks)
        needed += 1
    found = structure_of(f)
    assert {"kept": found.n_kept, "ablated": found.n_ablated}[basis] == needed


def test_the_basis_it_comes_in_and_a_constant_do_not_matter():
    f = random_function(np.random.default_rng(3), 6, 0.7)
    one = structure_of(f)
    for other in (f.to_basis("ablated"), f.to_basis("fourier")):
        again = structure_of(other)
        assert again.energy_by_order == pytest.approx(one.energy_by_order)
        assert (again.kinds, again.n_kept, again.n_ablated) == (
            one.kinds,
            one.n_kept,
            one.n_ablated,
        )
        assert again.hierarchy == one.hierarchy
    terms = f.to_mapping()
    shifted = structure_of(function("kept", terms | {(): terms.get((), 0) + 100}, keep=0.7))
    assert shifted.hierarchy == one.hierarchy
    assert shifted.n_kept == one.n_kept


def test_without_interactions_and_without_variance():
    additive = structure_of(function("ablated", {(): 1.0, (0,): 2.0, (3,): -1.0}), [0] * 6)
    assert additive.energy_by_order == (pytest.approx(1.0),)
    assert (additive.within_layers, additive.synergy, additive.redundancy) == (0.0, 0.0, 0.0)
    assert additive.shorter == "neither"
    assert additive.n_kept == 2
    assert additive.hierarchy[-1].among_interactions().strong == 1.0
    assert "hierarchy" not in str(additive)
    for constant in ({(): 4.0}, {}):
        found = structure_of(function("kept", constant), [0] * 6)
        assert (found.variance, found.energy_by_order, found.hierarchy) == (0.0, (), ())
        assert (found.n_kept, found.n_ablated, found.within_layers) == (0, 0, 0.0)
        assert "constant" in str(found)
        assert found._repr_html_()
        assert len(found.to_pandas()) == 0


def test_what_is_shown():
    f = function("kept", {(0, 1): 2.0, (2,): 1.0})
    found = structure_of(f, [0, 1, 1, 1, 1, 1])
    text = str(found)
    assert "synergy 1.00" in text
    assert "across 1.00" in text
    assert "kept is shorter" in text
    assert "<table" in found._repr_html_()
    frame = found.to_pandas(list("abcdef")).set_index("units")
    assert frame.kind["a × b"] == "synergy"
    assert frame.kind["c"] == "single"


def test_refusals():
    with pytest.raises(ShapeError, match="3 layers for a function of 6 units"):
        structure_of(function("kept", {(0,): 1.0}), [0, 1, 2])
    with pytest.raises(Refused, match="truncate"):
        structure_of(function("kept", {tuple(range(18)): 1.0}, n_units=30))


def test_two_thousand_terms_of_order_five_take_seconds():
    rng = np.random.default_rng(0)
    sets = {tuple(sorted(rng.choice(300, 5, replace=False).tolist())) for _ in range(2000)}
    terms = {t: rng.normal() for t in sets}
    started = time.perf_counter()
    found = structure_of(function("fourier", terms, n_units=300, keep=0.9))
    assert time.perf_counter() - started < 20
    assert found.energy_by_order == pytest.approx((0, 0, 0, 0, 1))
