"""Rounds around the best subsets: so many masks, of the right sizes, and the best of all."""

from itertools import combinations

import numpy as np
import pytest

import mechspex as mx
from mechspex.circuits.surrogate_search import SubsetRounds, Subsets
from mechspex.errors import FailedMasksError
from mechspex.runs.recorded import RecordedValues

N = 20
SIZES = (5, 12)


def crowded(masks):
    """Singles, pairs and triples: more than a hundred masks tell."""
    rng = np.random.default_rng(0)
    sets = [
        rng.permutation(N)[:order]
        for order, count in ((1, 20), (2, 30), (3, 10))
        for _ in range(count)
    ]
    weights = rng.standard_normal(len(sets))
    parts = [w * masks[:, s, None].all(axis=1) for w, s in zip(weights, sets, strict=True)]
    return np.sum(parts, axis=0)


def rounds_of(function, sizes=SIZES, decoder="kernel"):
    values = mx.FunctionValues(function, mx.parts(map(str, range(N))))
    return SubsetRounds(RecordedValues(values, None), sizes, decoder, seed=0)


def random_masks(number, seed=1):
    rng = np.random.default_rng(seed)
    masks = np.zeros((number, N), dtype=bool)
    for row, mask in enumerate(masks):
        mask[rng.permutation(N)[: SIZES[row % 2]]] = True
    return masks


def best_there_is(size):
    sets = np.array(list(combinations(range(N), size)))
    masks = np.zeros((len(sets), N), dtype=bool)
    np.put_along_axis(masks, sets, True, axis=1)
    return crowded(masks).max()


def test_so_many_masks_are_measured_all_of_the_sizes():
    rounds = rounds_of(crowded)
    rounds.measure(random_masks(40))
    rounds.run(25)
    assert len(rounds.masks) == len(rounds.values) == 65
    assert set(rounds.masks.sum(axis=1).tolist()) == set(SIZES)
    np.testing.assert_allclose(rounds.values, crowded(rounds.masks), atol=1e-6)


def test_masks_around_the_best_find_better_than_as_many_random_ones():
    around, at_random = rounds_of(crowded), rounds_of(crowded)
    around.measure(random_masks(60))
    around.run(60)
    at_random.measure(random_masks(120))
    for size in SIZES:
        ours, theirs = (
            float(crowded(np.array([np.isin(np.arange(N), rounds.best()[size])]))[0, 0])
            for rounds in (around, at_random)
        )
        assert ours >= theirs
        assert ours > 0.9 * best_there_is(size)


def test_the_best_of_a_size_is_the_largest_mean_measured_and_never_without_a_value():
    def broken(masks):
        values = crowded(masks).copy()
        values[masks[:, 0]] = np.nan
        return np.where(masks.all(axis=1)[:, None], 1.0, values)

    rounds = rounds_of(broken)
    masks = random_masks(50)
    rounds.measure(masks)
    rounds.run(20)
    for size, columns in rounds.best().items():
        rows = (rounds.masks.sum(axis=1) == size) & ~rounds.masks[:, 0]
        assert 0 not in columns
        chosen = crowded(np.array([np.isin(np.arange(N), columns)]))[0, 0]
        assert chosen == pytest.approx(rounds.values[rows].max(), abs=1e-6)


def test_what_else_is_proposed_is_measured_around_too():
    rounds = rounds_of(crowded)
    rounds.measure(random_masks(40))
    wanted = {size: tuple(range(size)) for size in SIZES}
    rounds.run(30, lambda function: [wanted])
    for columns in wanted.values():
        assert (rounds.masks == np.isin(np.arange(N), columns)).all(axis=1).any()


def test_of_more_proposals_than_masks_every_round_takes_others():
    rounds = rounds_of(crowded, sizes=(5,))
    rounds.measure(random_masks(40))
    many: list[Subsets] = [{5: c} for c in combinations(range(12), 5)]
    asked = []

    def propose(function):
        asked.append(len(many))
        return many

    rounds.run(60, propose)
    proposed = {row[5] for row in many}
    met = {tuple(np.flatnonzero(mask).tolist()) for mask in rounds.masks[40:]}
    assert asked == [792] * 3
    assert len(met & proposed) > 25


@pytest.mark.parametrize("n_units", [2, 3, 4])
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_a_handful_of_units_has_its_best_subset_too(n_units, n_outputs):
    weights = np.linspace(1, 2, n_outputs)
    values = mx.FunctionValues(
        lambda masks: np.outer(masks @ np.arange(1.0, n_units + 1), weights),
        mx.parts(map(str, range(n_units))),
    )
    found = mx.find_circuit(values, values, n_masks=60, goal=mx.CircuitGoal(size=1))
    assert found.best[1] == (n_units - 1,)


def test_a_size_without_any_value_is_refused():
    rounds = rounds_of(lambda masks: np.where(masks.sum(axis=1) == 5, np.nan, 1.0)[:, None])
    rounds.measure(random_masks(20))
    with pytest.raises(FailedMasksError, match="no mask of 5 units has a finite value"):
        rounds.best()


def test_masks_that_begin_alike_are_measured_one_after_the_other_and_stay_in_their_order():
    asked = []

    def seen(masks):
        asked.extend(map(tuple, masks.tolist()))
        return masks @ 2.0 ** np.arange(N)

    masks = random_masks(60)
    rounds = rounds_of(seen)
    asked.clear()
    values = rounds.measure(masks)
    assert asked == sorted(set(map(tuple, masks.tolist())))
    assert asked != [tuple(mask) for mask in masks.tolist()]
    assert np.array_equal(values[:, 0], masks @ 2.0 ** np.arange(N))
    assert np.array_equal(rounds.masks, masks)
    assert np.array_equal(rounds.values, values)
