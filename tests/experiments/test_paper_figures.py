"""The figures of the literature: every entry has its experiment, and their parts their truth."""

import numpy as np
import pytest

import mechspex.experiments
from mechspex.experiments.catalogue import FIGURES
from mechspex.experiments.planted import SETS, SIZE, f1, planted
from mechspex.experiments.shapley import kernel_shap
from mechspex.experiments.unit_scores import largest_terms, pruned_at, pruned_greedily
from mechspex.set_functions.set_function import SetFunction
from mechspex.truth import known_model


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_its_experiment(name):
    figure = FIGURES[name]
    experiment = getattr(mechspex.experiments, figure.function)
    assert figure.shows in experiment.__doc__
    small, full = figure.minutes
    assert 0 < small <= 6
    assert small <= full


def test_planted_peaks_and_hierarchies():
    peak = planted(40, "peak", seed=1)
    assert {len(term) for term in peak.terms} == {SIZE}
    assert len(peak.terms) == SETS
    whole = set(planted(40, "complete hierarchy", seed=1).terms)
    assert set(peak.terms) <= whole
    for term in whole:
        assert all(term[:i] + term[i + 1 :] in whole for i in range(len(term)) if len(term) > 1)
    assert f1(peak, peak) == 1
    assert f1(planted(40, "peak", seed=2), peak) < 0.2


def test_decay_halves_what_each_unit_more_says():
    plain, decayed = (
        planted(20, "complete hierarchy", 3, decay=decay).to_mapping() for decay in (1.0, 0.5)
    )
    for term, value in plain.items():
        assert decayed[term] == pytest.approx(value * 0.5 ** (len(term) - 1))


def test_kernel_shap_gives_the_shapley_values_of_its_limit():
    """Exact for an additive function, near for pairs with many masks, and always adding up."""
    rng = np.random.default_rng(0)
    additive = SetFunction.from_mapping(
        8, {(i,): float(v) for i, v in enumerate(rng.normal(size=8))}, basis="kept"
    )
    np.testing.assert_allclose(
        kernel_shap(additive, 40, seed=0), [additive[[i]] for i in range(8)], atol=1e-9
    )
    pairs = SetFunction.from_mapping(
        8, {(j, i): float(rng.normal()) for i in range(8) for j in range(i)}, basis="kept"
    )
    exact = np.array([pairs.indices("shapley")[(i,)] for i in range(8)])
    found = kernel_shap(pairs, 4000, seed=0)
    np.testing.assert_allclose(found, exact, atol=0.15)
    assert found.sum() == pytest.approx(exact.sum())


@pytest.mark.parametrize(
    ("name", "kept"), [("and2", {1, 4}), ("or2", {0}), ("adder", {0, 1, 4, 6})]
)
def test_greedy_pruning_keeps_one_input_of_an_or(name, kept):
    assert pruned_greedily(known_model(name).values("zero"), 0.01) == kept


def test_pruning_at_several_thresholds_ranks_what_it_keeps():
    """An adder's heads add one each: kept up to a change of one, and never beyond."""
    scores = pruned_at(known_model("adder").values("zero"), np.array([0.01, 0.5, 2.0]))
    np.testing.assert_allclose(scores, [0.5, 0.5, 0, 0, 0.5, 0, 0.5, 0])


def test_a_unit_has_its_largest_term_of_any_output():
    function = SetFunction.from_mapping(
        3, {(0,): np.array([1.0, -3.0]), (0, 1): np.array([2.0, 0.0])}, basis="kept"
    )  # fmt: skip
    np.testing.assert_allclose(largest_terms(function), [3, 2, 0])


def test_programs_say_what_they_are_built_of():
    """The head and the MLP of xproportion that write something; gates record none."""
    known = known_model("xproportion")
    assert known.built_of == {1, 2}
    assert known_model("or2").built_of is None
