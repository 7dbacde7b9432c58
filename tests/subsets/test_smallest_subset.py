from itertools import combinations

import numpy as np
import pytest

import mechspex as mx
from mechspex.core.masks import ablate_sets, all_masks, keep_only
from mechspex.set_functions.bases import Basis
from mechspex.subsets import smallest_subset as module
from mechspex.subsets.smallest_subset import smallest_subset

N = 9


def random_function(seed, basis: Basis = "kept", n_terms=16):
    rng = np.random.default_rng(seed)
    terms = {
        tuple(sorted(rng.choice(N, rng.integers(1, 4), replace=False).tolist())): rng.normal()
        for _ in range(n_terms)
    }
    return mx.SetFunction.from_mapping(N, {(): 0.3} | terms, basis=basis)


def by_brute_force(function, goal, objective, excluding=()):
    """(least size, the farthest value of that size); None where no set reaches the goal."""
    make, sign = (keep_only, 1) if objective == "keep" else (ablate_sets, -1)
    for size in range(N + 1):
        sets = [s for s in combinations(range(N), size) if s not in excluding]
        values = function.predict(make(N, sets)) if sets else np.empty(0)
        if len(values) and (sign * values).max() >= sign * goal - 1e-9:
            return size, sign * (sign * values).max()
    return None


@pytest.mark.parametrize("basis", ["kept", "ablated", "fourier"])
@pytest.mark.parametrize("objective", ["keep", "remove"])
@pytest.mark.parametrize("seed", range(4))
def test_the_program_finds_the_smallest_set_and_the_best_of_its_size(seed, objective, basis):
    function = random_function(seed, basis)
    values = function.predict(all_masks(N))
    for share in (0.6, 0.9, 1.0):
        goal = float(np.quantile(values, share if objective == "keep" else 1 - share))
        found = smallest_subset(function, goal, objective)
        size, value = by_brute_force(function, goal, objective)
        assert found.proven
        assert len(found.columns or ()) == found.least == size
        assert found.value == pytest.approx(value)


@pytest.mark.parametrize("objective", ["keep", "remove"])
def test_a_goal_out_of_reach_has_no_set(objective):
    function = random_function(0)
    found = smallest_subset(function, 1e3 if objective == "keep" else -1e3, objective)
    assert found.columns is None
    assert found.least == N + 1


def test_a_goal_that_is_reached_already_needs_no_unit():
    function = random_function(0)
    assert smallest_subset(function, -1e3).columns == ()
    assert smallest_subset(function, 1e3, "remove").columns == ()


@pytest.mark.parametrize("objective", ["keep", "remove"])
def test_sets_that_do_not_count_are_passed_over(objective):
    function = random_function(5)
    values = function.predict(all_masks(N))
    goal = float(np.quantile(values, 0.8 if objective == "keep" else 0.2))
    excluding = []
    for _ in range(6):
        found = smallest_subset(function, goal, objective, excluding=excluding)
        assert found.columns not in excluding
        assert len(found.columns or ()) == by_brute_force(function, goal, objective, excluding)[0]
        make = keep_only if objective == "keep" else ablate_sets
        assert function.predict(make(N, [found.columns or ()]))[0] == pytest.approx(found.value)
        excluding.append(found.columns)


@pytest.mark.parametrize("objective", ["keep", "remove"])
def test_without_a_program_a_set_is_found_and_nothing_is_claimed(monkeypatch, objective):
    monkeypatch.setattr(module.SubsetProgram, "of", classmethod(lambda *args: None))
    function = random_function(3)
    values = function.predict(all_masks(N))
    goal = float(values.max() - 0.2 if objective == "keep" else values.min() + 0.2)
    found = smallest_subset(function, goal, objective)
    assert not found.proven
    assert len(found.columns or ()) >= by_brute_force(function, goal, objective)[0]
    sign = 1 if objective == "keep" else -1
    assert sign * found.value >= sign * goal - 1e-9
