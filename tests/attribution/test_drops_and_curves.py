from itertools import combinations

import numpy as np
import pytest

import mechspex as mx
from mechspex.core.masks import ablate_sets
from mechspex.errors import FailedMasksError, Refused, ShapeError


def function_of(rng, n, n_terms=12):
    terms = {tuple(sorted(rng.choice(n, rng.integers(1, 4), replace=False))): rng.normal()
             for _ in range(n_terms)}  # fmt: skip
    terms = {tuple(int(i) for i in term): value for term, value in terms.items()}
    return mx.SetFunction.from_mapping(n, terms, basis="kept")


def soup(kept):
    """Salt and water together 3, bread 1, pepper −0.5; two outputs."""
    value = 3.0 * (kept[:, 0] & kept[:, 1]) + 1.0 * kept[:, 2] - 0.5 * kept[:, 3]
    return np.stack([value, 2 * value], axis=1)


VALUES = mx.FunctionValues(soup, mx.parts(["salt", "water", "bread", "pepper"]))


def test_drops_by_hand():
    loo = mx.leave_one_out(VALUES)
    assert loo.output_scores[:, 0] == pytest.approx([3, 3, 1, -0.5])
    found = mx.top_k_drop({"loo": loo, "explain": mx.explain(VALUES)}, VALUES, k=(1, 2, 9))
    assert found.at == (1, 2)
    assert found.scores[:, :, 0] == pytest.approx(np.array([[3, 3], [3, 4]]))
    assert found.scores[:, :, 1] == pytest.approx(np.array([[6, 6], [6, 8]]))
    assert found.sets[0][1] == (0, 1)
    assert found.sets[1][1] in ((0, 2), (1, 2))
    assert found.difference("explain", "loo", 2).value == pytest.approx(1.5)


@pytest.mark.parametrize("seed", range(5))
def test_the_truth_drops_and_moves_most(seed):
    """By brute force over all sets of a size."""
    n = 7
    truth = function_of(np.random.default_rng(seed), n)
    values = mx.FunctionValues(truth.predict, n)
    (whole,) = truth.predict(np.ones((1, n), dtype=bool))
    drops = mx.top_k_drop(truth, values, k=[1, 2, 3])
    moved = mx.removal_curve(truth, values, [1, 2, 3])
    for place, size in enumerate([1, 2, 3]):
        every = whole - truth.predict(ablate_sets(n, combinations(range(n), size)))
        assert drops.scores[0, place, 0] == pytest.approx(every.max())
        assert moved.scores[0, place, 0] == pytest.approx(np.abs(every).max())


def test_the_removal_curve_looks_both_ways():
    down = mx.removal_curve([-5.0, 1.0, 2.0], mx.FunctionValues(lambda m: -5.0 * m[:, 0], 3), [1])
    assert down.sets == (((0,),),)
    assert down.scores[0, 0, 0] == 5


def test_deletion_and_insertion_by_hand():
    methods = {"loo": [3.0, 3.0, 1.0, -0.5], "reverse": [-3.0, -3.0, -1.0, 0.5]}
    deletion = mx.deletion_curve(methods, VALUES)
    assert deletion.at == (0, 1, 2, 3, 4)
    assert deletion.scores[0, :, 0] == pytest.approx([3.5, 0.5, 0.5, -0.5, 0])
    assert deletion.rankings[0] == (0, 1, 2, 3)
    assert deletion.area("loo").value == pytest.approx(1.5 * (1.75 + 0.5 + 0.5 - 0.5) / 4)
    assert deletion.area("loo").value < deletion.area("reverse").value
    insertion = mx.insertion_curve(methods, VALUES)
    assert insertion.scores[0, :, 0] == pytest.approx([0, 0, 3, 4, 3.5])
    assert insertion.area("loo").value > insertion.area("reverse").value


def test_a_function_with_interactions_ranks_greedily():
    found = mx.deletion_curve(mx.explain(VALUES), VALUES)
    assert found.rankings[0][:2] in ((0, 2), (1, 2)), "after salt, water is worth nothing"
    assert mx.insertion_curve(mx.explain(VALUES), VALUES).rankings[0][0] == 2


def test_many_units_are_measured_in_steps():
    values = mx.FunctionValues(lambda m: m.sum(axis=1) * 1.0, 200)
    found = mx.deletion_curve(np.ones(200), values, steps=10)
    assert found.at == tuple(range(0, 201, 20))
    assert found.area("scores").value == pytest.approx(100)


def test_a_ranking_is_an_attribution():
    ranked = mx.ranked(VALUES.units, ["bread", 0, "water", 3])
    assert ranked.ranking == (2, 0, 1, 3)
    assert mx.top_k_drop(ranked, VALUES, k=1).sets == (((2,),),)
    with pytest.raises(Refused, match="list each of 4 units once"):
        mx.ranked(VALUES.units, [0, 1, 1, 2])


def test_scores_are_drawn_and_printed():
    methods = {"loo": mx.leave_one_out(VALUES), "random": mx.random_scores(VALUES.units)}
    for found in (mx.top_k_drop(methods, VALUES, k=[1, 2]), mx.deletion_curve(methods, VALUES)):
        (axes,) = found.plot().axes
        assert [text.get_text() for text in axes.get_legend().get_texts()] == list(methods)
        assert axes.get_xlabel() == found.against
        line = axes.lines[0]
        assert np.asarray(line.get_ydata()) == pytest.approx(found.scores[0].mean(axis=1))
        assert all(method in str(found) for method in methods)


def test_slips_are_named():
    with pytest.raises(Refused, match="k = .*sizes from 1 to 4 units"):
        mx.top_k_drop([1, 2, 3, 4], VALUES, k=[9])
    with pytest.raises(Refused, match="k = .*sizes from 1 to 4 units"):
        mx.top_k_drop([1, 2, 3, 4], VALUES, k=0)
    with pytest.raises(ShapeError, match="a function of 3 units"):
        mx.removal_curve([1, 2, 3], VALUES)
    with pytest.raises(Refused, match="is a plain function of masks"):
        mx.top_k_drop(soup, VALUES)
    with pytest.raises(FailedMasksError, match="ablated sets have no finite value"):
        mx.top_k_drop([2.0, 1], mx.FunctionValues(lambda m: np.where(m[:, 0], 1.0, np.nan), 2))
    with pytest.raises(Refused, match="no curve of 'x'"):
        mx.deletion_curve([1, 2, 3, 4], VALUES).area("x")
