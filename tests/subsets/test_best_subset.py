"""Subset choice against brute force over every subset, planted answers and negative controls."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mechspex as mx
from mechspex.core.masks import all_masks
from mechspex.core.units import Term
from mechspex.errors import FailedMasksError, Refused
from mechspex.set_functions.bases import Basis
from mechspex.set_functions.set_function import SetFunction
from mechspex.subsets.best_subset import (
    _check_objective,
    additive_choice,
    best_subset,
    front,
    greedy,
    matching_subsets,
)
from mechspex.subsets.front import SubsetObjective

BASES: list[Basis] = ["fourier", "kept", "ablated"]
OBJECTIVES: list[SubsetObjective] = ["keep", "remove"]


def random_function(n, n_terms, seed, basis: Basis = "kept", keep=0.5, max_order=4):
    """Random sets of random orders with coefficients of both signs."""
    rng = np.random.default_rng(seed)
    sets = {
        tuple(sorted(rng.choice(n, rng.integers(0, max_order + 1), replace=False).tolist()))
        for _ in range(n_terms)
    }
    mapping = {s: rng.normal() for s in sorted(sets)}
    return SetFunction.from_mapping(n, mapping, basis=basis, keep=keep)


def optima(function, objective):
    """The best value over all subsets of each size, by trying them."""
    masks = all_masks(function.n_units)
    values = function.predict(masks)
    sizes, best = (masks.sum(axis=1), max) if objective == "keep" else ((~masks).sum(axis=1), min)
    return [best(values[sizes == size]) for size in range(function.n_units + 1)]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 9),
    st.integers(0, 10**6),
    st.sampled_from(BASES),
    st.sampled_from([0.1, 0.5, 0.9]),
    st.sampled_from(OBJECTIVES),
    st.data(),
)
def test_no_subset_is_better(n, seed, basis, keep, objective, data):
    function = random_function(n, 2 * n, seed, basis, keep, max_order=min(4, n))
    size = data.draw(st.integers(0, n))
    found = best_subset(function, size, objective)
    best = optima(function, objective)[size]
    tolerance = 1e-6 * np.abs(function.to_basis("kept").coefficients).sum()
    assert found.proven
    assert found.value == pytest.approx(best, abs=1e-9 + tolerance)
    assert found.value == pytest.approx(function.predict(found.mask[None])[0])
    assert len(found.columns) == size
    assert found.gap <= tolerance + 1e-6 * np.abs(function.to_basis("ablated").coefficients).sum()


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("basis", BASES)
def test_the_front_is_best_at_every_size(basis, objective):
    function = random_function(12, 60, 1, basis, 0.8)
    found, best = front(function, range(13), objective), optima(function, objective)
    assert [subset.size for subset in found] == list(range(13))
    for subset in found:
        assert subset.proven
        assert subset.value == pytest.approx(best[subset.size])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_local_search_alone_is_good_and_its_bound_holds(objective):
    reached = 0
    for seed in range(4):
        function = random_function(12, 50, seed, "fourier", 0.7)
        reachable = optima(function, objective)
        for subset in front(function, objective=objective, time_limit=0.0):
            best = reachable[subset.size]
            better = max if objective == "keep" else min
            assert better(subset.bound, best) == pytest.approx(subset.bound)
            assert better(subset.value, best) == pytest.approx(best)
            reached += np.isclose(subset.value, best)
    assert reached >= 0.97 * 4 * 12


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_never_worse_than_the_baselines(objective):
    sign = 1 if objective == "keep" else -1
    for seed in range(3):
        function = random_function(60, 200, seed, "fourier", 0.9)
        for size in (7, 30):
            found = best_subset(function, size, objective, time_limit=0.0)
            for columns in (
                additive_choice(function, size, objective),
                greedy(function.predict, 60, size, objective),
            ):
                mask = np.isin(np.arange(60), columns) == (objective == "keep")
                assert sign * found.value >= sign * function.predict(mask[None])[0] - 1e-9


def test_an_and_that_the_additive_choice_and_greedy_miss():
    """Singles of 1, and three units worth 10 together: alone each of the three is worth nothing."""
    mapping = {(i,): 1.0 + i / 100 for i in range(3, 20)} | {(0, 1, 2): 10.0, (): -1.0}
    function = SetFunction.from_mapping(20, mapping, basis="kept", keep=0.2)
    assert set(additive_choice(function, 4)) == {16, 17, 18, 19}
    assert greedy(function.predict, 20, 4) == (19, 18, 17, 16)
    for time_limit in (0.0, 60.0):
        found = best_subset(function, 4, time_limit=time_limit)
        assert found.columns == (0, 1, 2, 19)
        assert found.value == pytest.approx(10.19)
    assert found.proven


def test_backups_are_removed_together():
    """Ablating one backup changes nothing; ablating all three is the worst that can be done."""
    singles = {(i,): 1.0 for i in range(3, 12)}
    backups = SetFunction.from_mapping(12, {(0, 1, 2): -5.0}, basis="ablated").to_basis("kept")
    function = SetFunction.from_mapping(12, backups.to_mapping() | singles, basis="kept")
    assert best_subset(function, 3, "remove").columns == (0, 1, 2)
    assert set(best_subset(function, 10, "keep").columns) > set(range(3, 12))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("basis", ["kept", "fourier"])
def test_an_additive_function_has_nothing_to_find(basis, objective):
    effects = np.random.default_rng(3).permutation(np.linspace(-2, 3, 40))
    mapping = {(i,): effect for i, effect in enumerate(effects)}
    function = SetFunction.from_mapping(40, mapping, basis=basis, keep=0.9)
    largest = np.argsort(-effects)
    found = front(function, objective=objective)
    for subset in found:
        assert subset.proven
        assert set(subset.columns) == set(largest[: subset.size].tolist())
        assert set(additive_choice(function, subset.size, objective)) == set(subset.columns)


def test_removing_and_keeping_are_mirror_images():
    """To keep k of f is to remove k of minus f with every mask turned round."""
    function = random_function(10, 30, 5, "kept")
    mirrored = SetFunction(10, function.terms, -function.coefficients, "ablated")
    for size in (0, 3, 10):
        kept, removed = best_subset(function, size), best_subset(mirrored, size, "remove")
        assert kept.columns == removed.columns
        assert kept.value == pytest.approx(-removed.value)
        assert np.array_equal(kept.mask, ~removed.mask)


def test_the_mean_over_outputs_is_what_counts():
    function = SetFunction(3, ((0,), (1,), (2,)), np.array([[9.0, -9], [1, 2], [0, 0]]), "kept")
    assert best_subset(function, 1).columns == (1,)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_subset_without_time_is_not_proven_and_its_bound_holds(objective):
    """Hard on purpose: pairs of both signs and nothing additive to lead the way."""
    rng = np.random.default_rng(0)
    pairs = {pair: rng.choice([-1.0, 1.0]) for pair in combinations(range(40), 2)}
    function = SetFunction.from_mapping(40, pairs, basis="kept")
    short = best_subset(function, 20, objective, time_limit=0.05)
    other = best_subset(function, 20, objective, time_limit=0.0, seed=9)
    sign = 1 if objective == "keep" else -1
    assert not short.proven
    assert "not proven: bound" in str(short)
    assert short.gap > 1
    assert short.gap == pytest.approx(sign * (short.bound - short.value))
    assert sign * short.bound >= sign * other.value
    assert short.method == "local search"


@pytest.mark.slow
def test_the_time_limit_of_a_front_is_shared_and_every_bound_holds():
    function = random_function(80, 900, 0, "kept", max_order=3)
    found = front(function, range(20, 61), time_limit=2.0)
    longer = front(function, [30, 50], time_limit=2.0)
    assert found.seconds < 30
    for subset in longer:
        assert found[subset.size].bound >= subset.value - 1e-6
        # A ceiling that no program tightened is the sum of all positive coefficients.
        assert found[subset.size].bound < np.maximum(function.coefficients, 0).sum()


def test_terms_of_high_order_are_left_to_local_search():
    rng = np.random.default_rng(0)
    mapping = {(i,): 0.1 * i for i in range(30)}
    mapping |= {tuple(sorted(rng.choice(30, 25, replace=False).tolist())): 1.0 for _ in range(5)}
    function = SetFunction.from_mapping(30, mapping, basis="fourier")
    found = best_subset(function, 10)
    assert found.method == "local search"
    assert not found.proven
    # In its own basis a term of any order is one product, and no change of basis is needed.
    kept = SetFunction.from_mapping(30, mapping, basis="kept")
    assert best_subset(kept, 26).proven


def test_same_seed_same_subset():
    function = random_function(50, 300, 2, "fourier", 0.9)
    first, second = (best_subset(function, 20, time_limit=0.0, seed=4) for _ in range(2))
    assert first.columns == second.columns


@pytest.mark.parametrize(
    "function",
    [SetFunction(4, (), np.zeros(0), "kept"), SetFunction(4, ((),), np.array([2.5]), "fourier")],
)
def test_a_constant(function):
    for subset in front(function, range(5)):
        assert subset.proven
        assert subset.gap == 0
        assert subset.value == function[()]


def test_ties_give_one_of_the_equals():
    function = SetFunction.from_mapping(6, {(0, 1): 1.0, (2, 3): 1.0}, basis="kept")
    assert best_subset(function, 2).columns in {(0, 1), (2, 3)}


def test_greedy_measures_every_candidate_and_its_prefixes_are_greedy():
    function = random_function(9, 30, 7)
    widths = []

    def values(masks):
        widths.append(len(masks))
        return np.stack([function.predict(masks) + 1, function.predict(masks) - 1], axis=1)

    for objective in OBJECTIVES:
        chosen = greedy(values, 9, 5, objective)
        assert chosen[:3] == greedy(function.predict, 9, 3, objective)
        masks = np.tile(np.arange(9), (9, 1)) == np.arange(9)[:, None]
        single = function.predict(masks if objective == "keep" else ~masks)
        assert chosen[0] == (single.argmax() if objective == "keep" else single.argmin())
    assert widths == [9, 8, 7, 6, 5] * 2
    assert greedy(values, 9, 0) == ()


def test_the_additive_choice_is_the_least_squares_fit_under_the_design():
    p = 0.7
    function = random_function(7, 25, 8, "ablated", p)
    masks = all_masks(7)
    weight = np.sqrt(np.prod(np.where(masks, p, 1 - p), axis=1))
    design = np.column_stack([np.ones(len(masks)), masks]) * weight[:, None]
    effects = np.linalg.lstsq(design, function.predict(masks) * weight, rcond=None)[0][1:]
    for objective in OBJECTIVES:
        assert additive_choice(function, 7, objective) == tuple(np.argsort(-effects).tolist())


def test_what_a_front_shows():
    found = front(random_function(30, 60, 0), [3, 1, 30, 3])
    assert len(found) == 3
    frame = found.to_pandas([f"unit {i}" for i in range(30)])
    assert list(frame) == [
        "size", "value", "bound", "gap", "proven", "method", "seconds", "units",
    ]  # fmt: skip
    assert frame["size"].tolist() == [1, 3, 30]
    assert frame["units"][0] == f"unit {found[1].columns[0]}"
    assert "keep 1 … 30 of 30 units: 3 of 3 sizes proven" in str(found)
    assert "<table" in found._repr_html_()
    assert str(found[3]).startswith("keep 3 of 30 units: f = ")
    with pytest.raises(Refused, match="size = 2: this front holds 3 sizes, 1 … 30"):
        found[2]


@pytest.mark.parametrize("size", [-1, 7])
def test_a_size_outside_the_units_is_refused(size):
    function = random_function(6, 10, 0)
    for call in (best_subset, additive_choice, lambda f, k: greedy(f.predict, 6, k)):
        with pytest.raises(Refused, match=f"size = {size}: choose from 0 to 6 units"):
            call(function, size)


def test_what_else_is_refused():
    function = random_function(6, 10, 0)
    with pytest.raises(Refused, match="objective = 'prune': choose 'keep' or 'remove'"):
        _check_objective("prune")
    with pytest.raises(Refused, match=r"sizes = \[\]: give at least one"):
        front(function, [])
    with pytest.raises(Refused, match="time_limit = -1.0"):
        best_subset(function, 2, time_limit=-1.0)
    with pytest.raises(FailedMasksError, match="6 of 6 masks have no finite value at step 1 of 2"):
        greedy(lambda masks: np.full(len(masks), np.nan), 6, 2)


def test_the_names_are_public():
    assert mx.best_subset is best_subset
    assert mx.front is front


def test_matching_subsets_exchange_units_until_no_exchange_comes_nearer():
    rng = np.random.default_rng(4)
    terms: dict[Term, float] = {(i,): float(c) for i, c in enumerate(rng.normal(size=10))}
    terms |= {(0, 1): 1.5, (2, 5, 7): -2.0, (): 0.3}
    function = SetFunction.from_mapping(10, terms, basis="kept")
    whole = float(function.predict(np.ones((1, 10), dtype=bool))[0])
    ranking = rng.permutation(10).tolist()

    def distance(columns):
        return abs(function.predict(np.isin(np.arange(10), list(columns))[None])[0] - whole)

    for size, columns in matching_subsets(function, range(11), whole, ranking).items():
        assert len(columns) == size
        mine = distance(columns)
        assert mine <= distance(ranking[:size]) + 1e-9
        for out, new in product(columns, set(range(10)) - set(columns)):
            assert mine <= distance({*columns} - {out} | {new}) + 1e-9


@pytest.mark.parametrize(
    ("ranking", "told"),
    [
        *((r, "every one of the 4 units once") for r in ([0, 1], [0, 0, 1, 2], [0, 1, 2, 4])),
        (["u0", 1, 2, 3], "ranking = 'u0': give a whole number"),
    ],
)
def test_a_ranking_that_lacks_a_unit_is_refused(ranking, told):
    function = SetFunction.from_mapping(4, {(0,): 2.0, (1, 2): 3.0}, basis="kept")
    with pytest.raises(Refused, match=told):
        matching_subsets(function, [3], 2.0, ranking)


def test_sizes_are_read_as_whole_numbers():
    function = SetFunction.from_mapping(4, {(0,): 2.0, (1, 2): 3.0}, basis="kept")
    found = front(function, [1.0, np.int64(2)])  # pyright: ignore[reportArgumentType]
    assert [type(subset.size) for subset in found] == [int, int]
    with pytest.raises(Refused, match="sizes = 1.5"):
        front(function, [1.5])  # pyright: ignore[reportArgumentType]
