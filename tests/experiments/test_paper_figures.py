"""The figures of the literature: every entry has its experiment, and their parts their truth."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import mechspex.experiments
from mechspex.core.masks import all_masks
from mechspex.experiments.catalogue import FIGURES
from mechspex.experiments.planted import SETS, SIZE, f1, planted
from mechspex.experiments.reproduction import Reproduction
from mechspex.experiments.shapiq_estimators import (
    LEFT_OUT,
    NAMES,
    shapiq_estimates,
    shapiq_version,
)
from mechspex.experiments.shapley import PAIRED, _in_pairs, kernel_shap
from mechspex.experiments.unit_scores import largest_terms, pruned_at, pruned_greedily
from mechspex.set_functions.set_function import SetFunction
from mechspex.truth import known_model

TABLES = Path(__file__).parents[1] / "benchmarks" / "figures"


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_its_experiment(name):
    figure = FIGURES[name]
    experiment = getattr(mechspex.experiments, figure.function)
    assert figure.shows in experiment.__doc__
    small, full = figure.minutes
    assert 0 < small <= 6
    assert small <= full


def test_committed_tables_are_what_was_measured():
    """Whole by their checksums, each under its figure's name, and with every figure there."""
    found = {file.stem: Reproduction.load(file) for file in TABLES.glob("*.json")}
    for stem, one in found.items():
        assert stem == one.figure.name + "-full" * one.settings["full"]
    assert {one.figure.name for one in found.values()} == {*FIGURES}


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


def exact(function, *, n_masks):
    """A shapiq whose estimators measure all they may and are right."""

    class Estimator:
        def __init__(self, n, random_state, **options):
            assert n == function.n_units

        def approximate(self, budget, game):
            assert budget == n_masks
            np.testing.assert_allclose(game(all_masks(4)), function.predict(all_masks(4)))
            return SimpleNamespace(dict_values=function.indices("shapley"))

    names = ("LeverageSHAP", "PolySHAP", "OddSHAP", "ProxySHAP")
    return SimpleNamespace(__version__="1.8.0", **dict.fromkeys(names, Estimator))


def test_estimators_of_shapiq_where_it_has_them(monkeypatch):
    function = SetFunction.from_mapping(4, {(0,): 1.0, (1, 2): -2.0}, basis="kept")
    monkeypatch.setitem(sys.modules, "shapiq", exact(function, n_masks=20))
    assert shapiq_version() == "1.8.0"
    found = dict(shapiq_estimates(function, 20, seed=0))
    assert tuple(found) == NAMES
    for values in found.values():
        np.testing.assert_allclose(values, [1, -1, -1, 0])
    # An older release has none, and no release neither.
    for absent in (SimpleNamespace(__version__="1.4.1"), None):
        monkeypatch.setitem(sys.modules, "shapiq", absent)
        assert not shapiq_version()
        assert not dict(shapiq_estimates(function, 20, seed=0))
        assert "LeverageSHAP" in LEFT_OUT[0]


@pytest.mark.parametrize(("gain", "holds"), [(-0.1, True), (0.1, False), (0.0, None)])
def test_paired_masks_are_held_against_the_same_decoder(gain, holds):
    cells = [
        {
            "units": 30, "alpha": 1.0, "method": method,
            "error": 0.3 + 0.01 * seed + more * (1 + seed % 2),
        }
        for seed in range(5)
        for name in PAIRED
        for method, more in ((name, 0.0), (f"{name}, paired masks", gain))
    ]  # fmt: skip
    assert _in_pairs(cells, 30).holds is holds
