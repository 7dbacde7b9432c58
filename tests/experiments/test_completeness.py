"""Completeness: a circuit without backups is faithful, and loses what the whole model keeps."""

import numpy as np
import pytest

from mechspex.core.masks import all_masks
from mechspex.experiments.completeness import (
    ALL_OF_A_KIND,
    ONE_OF_A_KIND,
    _backup,
    _Gaps,
    both_sides,
    greedy_sets,
    smallest_faithful,
)
from mechspex.truth import known_model


def backed_up(kept):
    """(0 or 1) and 2: units 0 and 1 stand in for each other; 3 does nothing."""
    return ((kept[:, 0] | kept[:, 1]) & kept[:, 2]).astype(np.float32)[:, None] * [[1.0, 3.0]]


def test_both_sides_are_the_circuit_and_the_model_without_the_same_heads():
    inside, whole = both_sides(backed_up, 4, (0, 2), [(), (0,), (2,), (0, 2)])
    np.testing.assert_allclose(inside, [[1, 3], [0, 0], [0, 0], [0, 0]])
    np.testing.assert_allclose(whole, [[1, 3], [1, 3], [0, 0], [0, 0]])


def test_the_greedy_search_takes_the_head_that_has_a_backup_outside():
    assert list(greedy_sets(backed_up, 4, (0, 2))) == [(0,)]
    assert list(greedy_sets(backed_up, 4, (0, 1, 2))) == [], "nothing outside makes up for it"


def test_the_smallest_faithful_circuit_has_one_head_of_each_kind():
    values = known_model("backup").values("zero", matches=True)
    table = values(all_masks(8))
    members = smallest_faithful(values, table)
    assert {values.units[i].layer for i in members} == {0, 1}
    assert len(members) == 2


@pytest.fixture(scope="module")
def rows():
    return _backup(0)


@pytest.mark.parametrize(("name", "size", "gap"), [(ONE_OF_A_KIND, 2, 1.0), (ALL_OF_A_KIND, 4, 0)])
def test_of_backups_one_of_a_kind_fails_and_all_are_complete(rows, name, size, gap):
    own = [row for row in rows if row["panel"].startswith(name)]
    assert len(own) == 2**size
    assert own[0]["x"] == own[0]["y"] == 1.0, "faithful"
    assert max(abs(row["y"] - row["x"]) for row in own) == gap


def test_gaps_of_two_circuits_are_compared_on_the_same_prompts():
    """Prompts differ far more than circuits do, and still the difference is sure."""
    noise = np.random.default_rng(0).normal(size=20)

    def gaps(*sizes):
        rows = [{"series": "K one head", "gap": (size + noise).tolist()} for size in sizes]
        return _Gaps([{"series": "K empty", "gap": [0.0] * 20, "whole": [2.0] * 20}, *rows])

    ours, naive = gaps(4.0, 5.0), gaps(5.0, 5.0)
    mean, largest = (naive.more_than(ours, "K one head", over) for over in (np.mean, np.max))
    np.testing.assert_allclose(mean.to_list(), 0.25)
    assert largest.value == pytest.approx(0)
    size = naive.size("K one head", np.max)
    assert size.value == pytest.approx(2.5 + noise.mean() / 2)
    assert size.high - size.low > 0.3
