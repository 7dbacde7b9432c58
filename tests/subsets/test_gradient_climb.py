"""Climbing: exchanges that the slope proposes, decided by exact values."""

from itertools import combinations

import numpy as np
import pytest

from mechspex.subsets.gradient_climb import climb, good

N = 10


def additive(seed=0, n_outputs=1):
    """f(m) = Wm: the slope is W, the best k units are the k largest weights."""
    weights = np.random.default_rng(seed).standard_normal((n_outputs, N))
    return weights, lambda m: m @ weights.T, lambda m: np.tile(weights.mean(axis=0), (len(m), 1))


def pairwise(seed, strength):
    """f(m) = wm + ½ mJm, and its slope."""
    rng = np.random.default_rng(seed)
    weights, pairs = rng.standard_normal(N), np.triu(rng.standard_normal((N, N)), 1) * strength
    pairs += pairs.T

    def values(m):
        m = m.astype(float)
        return (m @ weights + 0.5 * ((m @ pairs) * m).sum(axis=1))[:, None]

    return values, lambda m: weights + m @ pairs


def masks(sets):
    return np.array([np.isin(np.arange(N), columns) for columns in sets])


def starts(seed, sizes=range(1, N)):
    rng = np.random.default_rng(seed)
    return {size: tuple(sorted(rng.permutation(N)[:size].tolist())) for size in sizes}


def test_of_an_additive_function_the_best_of_every_size_is_found():
    weights, values, slopes = additive()
    ranking = np.argsort(-weights[0])
    found = climb(values, slopes, starts(1), N)
    assert found == {k: tuple(sorted(ranking[:k].tolist())) for k in range(1, N)}


@pytest.mark.parametrize("seed", range(5))
def test_with_pairs_it_is_no_worse_than_its_start_and_mostly_the_best(seed):
    values, slopes = pairwise(seed, 0.5)
    first = starts(seed)
    found = climb(values, slopes, first, N)
    best = {k: values(masks(combinations(range(N), k))).max() for k in found}
    reached = {k: float(values(masks([columns]))[0, 0]) for k, columns in found.items()}
    assert all(reached[k] >= values(masks([first[k]]))[0, 0] for k in found)
    assert sum(reached[k] > best[k] - 1e-9 for k in found) >= 7


def test_a_size_starts_again_from_what_its_neighbour_found():
    """0 and 1 pay only together, so from {2, 3} the slope shows neither; from {0, 1, 2} it does."""

    def values(m):
        return (4.0 * m[:, 0] * m[:, 1] + m[:, 2:] @ np.linspace(0.1, 0.8, N - 2))[:, None]

    def slopes(m):
        found = np.tile(np.r_[0.0, 0.0, np.linspace(0.1, 0.8, N - 2)], (len(m), 1))
        found[:, 0], found[:, 1] = 4 * m[:, 1], 4 * m[:, 0]
        return found

    assert climb(values, slopes, {2: (8, 9)}, N) == {2: (8, 9)}
    assert climb(values, slopes, {2: (8, 9), 3: (0, 1, 2)}, N) == {2: (0, 1), 3: (0, 1, 9)}


def test_towards_a_target_it_comes_nearer():
    _, values, slopes = additive(seed=3, n_outputs=4)
    target = values(np.ones((1, N)))[0]
    first = starts(4)

    def away(subsets):
        return {k: -good(values(masks([c])), target)[0] for k, c in subsets.items()}

    before, after = away(first), away(climb(values, slopes, first, N, target=target))
    assert all(after[k] <= before[k] for k in first)
    assert sum(after.values()) < 0.5 * sum(before.values())


def test_the_distance_is_that_expected_of_other_outputs():
    """Given d on n outputs, μ ~ N(mean(d), var(d)/n), and the mean of n others ~ N(μ, var(d)/n)."""
    rng, target = np.random.default_rng(0), np.zeros(6)
    seen = rng.standard_normal(6) + 0.4
    error = seen.std(ddof=1) / np.sqrt(6)
    others = rng.normal(rng.normal(seen.mean(), error, 400_000), error)
    assert -good(seen[None], target)[0] == pytest.approx(np.mean(others**2), rel=0.01)
    even, spread = np.full(6, 0.4), 0.4 + np.array([1, -1] * 3)
    assert (
        np.argmax(good(np.array([spread, even, np.full(6, np.nan), np.full(6, np.inf)]), target))
        == 1
    )
    assert good(np.array([[3.0]]), np.array([1.0]))[0] == -4


def test_towards_a_target_a_neighbour_is_resized_by_what_matters_least():
    """4 and 5 cancel each other; the nearest three of (0, 1, 2, 6) leave out 6, which does least,
    and not 2, which hurts."""
    weights = np.array([3.0, 2.0, -1.5, 0, 0, 0, 0.1, 0, 0, 0])
    proposed = []

    def values(m):
        proposed.extend(tuple(np.flatnonzero(row)) for row in m)
        return (m @ weights)[:, None]

    slopes = np.tile(weights, (1, 1))
    target = np.array([3.6])
    climb(values, lambda m: np.repeat(slopes, len(m), axis=0), {3: (7, 8, 9), 4: (0, 1, 2, 6)}, N,
          target=target)  # fmt: skip
    assert (0, 1, 2) in proposed
    assert (0, 1, 6) not in proposed


def test_towards_the_target_of_one_output_it_is_the_exchange_that_leaves_least():
    weights = np.arange(1.0, N + 1)
    found = climb(
        lambda m: (m @ weights)[:, None],
        lambda m: np.tile(weights, (len(m), 1)),
        {2: (0, 1)},
        N,
        target=np.array([9.0]),
    )
    assert sum(weights[list(found[2])]) == 9.0


def test_what_has_no_finite_value_or_slope_is_never_taken():
    weights, values, slopes = additive()
    best = int(weights[0].argmax())

    def broken(m):
        found = values(m).copy()
        found[m[:, best]] = np.nan
        return found

    found = climb(broken, slopes, {2: tuple(np.argsort(weights[0])[:2].tolist())}, N)
    assert best not in found[2]
    flat = climb(values, lambda m: np.full(m.shape, np.nan), {3: (0, 1, 2)}, N)
    assert flat == {3: (0, 1, 2)}


def test_with_a_slope_of_the_wrong_sign_nothing_is_lost():
    _, values, slopes = additive()
    first = starts(5)
    found = climb(values, lambda m: -slopes(m), first, N)
    gained = [values(masks([found[k]])) - values(masks([first[k]])) for k in first]
    assert np.min(gained) >= 0
