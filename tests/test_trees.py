"""Boosted trees: their Fourier coefficients against brute force, for LightGBM and the fallback."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest

from mechspex.decoders import decode
from mechspex.decoders.decoder import Samples
from mechspex.decoders.proxyspex import FitTrees
from mechspex.decoders.trees import fit_lightgbm, fit_scikit_learn, fourier, predictions
from mechspex.masks import sample_masks
from mechspex.set_function import SetFunction

N_UNITS = 6


def all_masks() -> np.ndarray:
    return (np.arange(2**N_UNITS)[:, None] >> np.arange(N_UNITS) & 1).astype(bool)


def samples(keep: float) -> Samples:
    masks = sample_masks(N_UNITS, 300, keep=keep, seed=2)
    rng = np.random.default_rng(0)
    values = masks @ rng.normal(size=N_UNITS) + 2.0 * (masks[:, 0] & masks[:, 4])
    return Samples(masks, values + 0.1 * rng.normal(size=300), keep, None, seed=0)


@pytest.mark.parametrize("fit", [fit_lightgbm, fit_scikit_learn])
@pytest.mark.parametrize("keep", [0.5, 0.8])
def test_fourier_coefficients_of_trees_equal_brute_force(fit: FitTrees, keep: float):
    data = samples(keep)
    trees = fit(data, depth=3, n_trees=20)
    masks = all_masks()
    values = np.sum([predictions(tree, masks) for tree in trees], axis=0)
    # F(S) = E[f(m) ∏_{i∈S} z_i] over the design, by summing over every mask.
    weights = np.prod(np.where(masks, keep, 1 - keep), axis=1)
    z = (masks - keep) / np.sqrt(keep * (1 - keep))
    found = fourier(trees, keep)
    for selection in masks:
        term = tuple(np.flatnonzero(selection).tolist())
        brute = float(weights @ (values * np.prod(z[:, selection], axis=1)))
        assert found.get(term, 0.0) == pytest.approx(brute, abs=1e-9)
    answer = SetFunction.from_mapping(N_UNITS, found, basis="fourier", keep=keep)
    np.testing.assert_allclose(answer.predict(masks), values, atol=1e-9)


def test_trees_are_those_of_the_libraries():
    """The sum of the trees is the libraries' own prediction."""
    lightgbm = pytest.importorskip("lightgbm")
    data = samples(0.5)
    for fit in (fit_lightgbm, fit_scikit_learn):
        trees = fit(data, depth=3, n_trees=100)
        predicted = np.sum([predictions(tree, data.masks) for tree in trees], axis=0)
        assert np.corrcoef(predicted, data.values)[0, 1] > 0.99
        assert predicted.mean() == pytest.approx(data.values.mean(), abs=1e-6)
    assert lightgbm.__version__


def test_lightgbm_that_cannot_be_imported_is_replaced_and_the_note_says_so(
    monkeypatch: pytest.MonkeyPatch,
):
    original = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "lightgbm":
            raise OSError("libgomp.so.1: cannot open shared object file")
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    data = samples(0.5)
    answer = decode(data.masks, data.values, decoder="proxyspex")
    assert any("LightGBM could not be imported (libgomp" in note for note in answer.notes)
    assert any("scikit-learn's GradientBoostingRegressor" in note for note in answer.notes)
    residual = data.values - answer.predict(data.masks)
    assert residual.var() < 0.05 * data.values.var()


def test_lightgbm_that_fails_is_replaced_and_the_note_says_so(monkeypatch: pytest.MonkeyPatch):
    import lightgbm

    def fail(*_: Any, **__: Any) -> Any:
        raise lightgbm.basic.LightGBMError("cannot allocate")

    monkeypatch.setattr(lightgbm, "train", fail)
    data = samples(0.5)
    answer = decode(data.masks, data.values, decoder="proxyspex")
    assert any("LightGBM failed (cannot allocate)" in note for note in answer.notes)
