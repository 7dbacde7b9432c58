from itertools import combinations

import numpy as np
import pytest

import mechspex as mx
from mechspex.core.masks import ablate_sets, all_masks, keep_only
from mechspex.errors import MeasurementError, Refused, ShapeError

N = 8


def planted(seed):
    rng = np.random.default_rng(seed)
    terms = {
        tuple(sorted(rng.choice(N, rng.integers(1, 4), replace=False).tolist())): rng.normal()
        for _ in range(14)
    }
    return mx.SetFunction.from_mapping(N, {(): 0.2} | terms, basis="kept")


def smallest(truth, make, reaches):
    for size in range(N + 1):
        if reaches(truth.predict(make(N, combinations(range(N), size)))).any():
            return size
    return None


@pytest.mark.parametrize("seed", range(6))
def test_of_the_truth_the_set_is_the_smallest_there_is(seed):
    truth = planted(seed)
    values = mx.FunctionValues(truth.predict, N)
    every = truth.predict(all_masks(N))
    clean, ablated = every[-1], every[0]
    threshold = clean + 0.6 * ((every.min() if seed % 2 else every.max()) - clean)
    found = mx.flipping_set(values, truth, threshold=threshold)
    above = clean > threshold
    size = smallest(truth, ablate_sets, lambda v: v <= threshold if above else v >= threshold)
    assert found.confirmed
    assert found.proven
    assert len(found.members or ()) == found.least == size
    assert found.measured == pytest.approx(found.predicted)
    assert found.greedy is None or found.greedy >= (size or 0)
    goal = ablated + 0.5 * (clean - ablated)
    found = mx.sufficient_set(values, truth, share=0.5)
    assert found.goal == pytest.approx(goal)
    rises = goal > ablated
    size = smallest(truth, keep_only, lambda v: v >= goal - 1e-9 if rises else v <= goal + 1e-9)
    assert len(found.members or ()) == size


def test_a_wrong_function_is_corrected_by_the_model():
    """f̂ overlooks that 0 and 1 back each other up; the model refuses {0}, and {0, 1} flips."""

    def margin(kept):
        return 2.0 * (kept[:, 0] | kept[:, 1]) + 0.3 * kept[:, 2:].sum(axis=1) - 1.5

    values = mx.FunctionValues(margin, 5)
    hopeful = mx.SetFunction.from_mapping(
        5, {(): -1.4, (0,): 1.6, (1,): 1.2, (2,): 0.1, (3,): 0.1, (4,): 0.1}, basis="kept"
    )
    found = mx.flipping_set(values, hopeful, tries=20)
    assert found.tried[0] == (0, 1)
    assert found.confirmed is False or set(found.members or ()) >= {0, 1}
    additive = mx.SetFunction.from_mapping(5, {(): -0.5, (0,): 2.0, (1,): 0.2}, basis="kept")
    found = mx.flipping_set(values, additive, tries=4)
    assert found.tried[0] == (0,), "by f̂ one unit is enough"
    assert not found.reached[0]
    assert len(set(found.tried)) == len(found.tried), "no set is measured twice"
    assert "not confirmed" in str(found)


def test_the_search_grows_until_the_model_confirms():
    """f̂ is too hopeful by a constant: later sets are those that f̂ puts as far beyond."""
    values = mx.FunctionValues(lambda kept: kept.sum(axis=1) - 5.0, 10)
    hopeful = mx.SetFunction.from_mapping(
        10, {(): -8.0} | {(i,): 1.1 for i in range(10)}, basis="kept"
    )
    found = mx.flipping_set(values, hopeful, tries=6)
    assert found.least == 3
    assert len(found.tried[0]) == 3
    assert found.confirmed
    assert len(found.members or ()) == 5
    assert not found.proven, "five is more than the function proves"
    assert found.greedy == 5


def test_no_set_at_all():
    values = mx.FunctionValues(lambda kept: 1.0 + kept[:, 0], 4)
    found = mx.flipping_set(values, mx.explain(values))
    assert found.tried == ()
    assert not found.confirmed
    assert not found.proven
    assert found.least == 5
    assert found.greedy is None
    assert "none by the recovered function" in found.in_short
    assert found.plot().axes


def test_an_output_of_its_own():
    def two(kept):
        return np.stack([2.0 * kept[:, 0] - 1, 2.0 * kept[:, 1] - 1], axis=1)

    values = mx.FunctionValues(two, ["a", "b", "c"])
    explained = mx.explain(values)
    assert mx.flipping_set(values, explained, output=0).names == ("a",)
    assert mx.flipping_set(values, explained, output="output 1").names == ("b",)
    assert mx.sufficient_set(values, explained, output=1).names == ("b",)
    assert len(mx.sufficient_set(values, explained).members or ()) == 2
    with pytest.raises(Refused, match="output = 'x': give one of output 0, output 1"):
        mx.flipping_set(values, explained, output="x")
    with pytest.raises(Refused, match="output = 7"):
        mx.flipping_set(values, explained, output=7)


def test_slips_are_named():
    values = mx.FunctionValues(lambda kept: 1.0 * kept[:, 0], 3)
    with pytest.raises(Refused, match="the threshold itself"):
        mx.flipping_set(values, [1.0, 0, 0], threshold=1.0)
    with pytest.raises(ShapeError, match="a function of 2 units"):
        mx.sufficient_set(values, [1.0, 0])
    with pytest.raises(Refused, match="share = 1.5"):
        mx.sufficient_set(values, [1.0, 0, 0], share=1.5)
    broken = mx.FunctionValues(lambda kept: np.where(kept.any(axis=1), 1.0, np.nan), 3)
    with pytest.raises(MeasurementError, match="with every unit ablated nan"):
        mx.flipping_set(broken, [1.0, 0, 0])


def test_the_picture_has_a_row_a_set():
    values = mx.FunctionValues(lambda kept: kept.sum(axis=1) - 5.0, 10)
    hopeful = mx.SetFunction.from_mapping(
        10, {(): -8.0} | {(i,): 1.1 for i in range(10)}, basis="kept"
    )
    found = mx.flipping_set(values, hopeful, tries=6)
    (axes,) = found.plot().axes
    assert len(axes.get_yticks()) == len(found.tried)
