"""Figures of masks of heads: one store for all, and what is read off the curves."""

import math
from functools import partial
from importlib import import_module
from itertools import combinations

import numpy as np
import pytest

import mechspex as mx
from mechspex.core.masks import ablate_sets, sample_masks
from mechspex.experiments.decoder_scores import score
from mechspex.experiments.experiment import Asked
from mechspex.experiments.ioi_masks import ioi_heads, shared
from mechspex.experiments.planted import planted
from mechspex.experiments.r2_samples import _claims, _decided, masks_needed, sizes
from mechspex.experiments.removal import (
    added_up,
    removed_as_defined,
    removed_as_published_code,
)
from mechspex.experiments.sparsity import relative_r2
from mechspex.experiments.wall_clock import _claims as faster
from mechspex.experiments.wall_clock import seconds_needed
from mechspex.set_functions.set_function import SetFunction
from mechspex.truth import known_model


@pytest.fixture(scope="module")
def model():
    return mx.load_model("tiny")


def asked_in(folder, model="tiny", *, full=False):
    return Asked(folder, model, "induction", full, 0, False)


def test_neighbouring_runs_measure_a_mask_once(tmp_path, model):
    heads = ioi_heads(asked_in(None, model))
    masks = mx.single_ablations(8)
    with shared(asked_in(tmp_path / "one", model), heads) as values:
        first = values(masks)
        assert values.measured == 8
    with shared(asked_in(tmp_path / "another", model), heads) as values:
        np.testing.assert_array_equal(values(masks), first)
        assert values.measured == 0
    others = ioi_heads(asked_in(None, model, full=True))
    with shared(asked_in(tmp_path / "one", model), others) as values:
        values(masks)
        assert values.measured == 8, "8 prompts are another store than 4"


def test_masks_that_are_needed_lie_between_two_numbers():
    numbers, r2 = [100, 200, 400], [0.2, 0.6, 1.0]
    assert masks_needed(numbers, r2, 0.6) == (200, 0, 1)
    number, place, part = masks_needed(numbers, r2, 0.8)
    assert number == pytest.approx(200 * math.sqrt(2))
    assert (place, part) == (1, pytest.approx(0.5))
    assert masks_needed(numbers, r2, 0.1)[0] == 100
    assert masks_needed(numbers, r2, 1.1)[0] == math.inf
    assert masks_needed(numbers, [0.2, 0.9, 0.8], 0.85)[0] < 200, "the first time counts"


def test_sizes_are_those_of_spex():
    """Published designs have 3 groups: 1,344 masks of 16 to 31 units at b = 4."""
    assert sizes(20, full=False)[0.5][-1] == 1344
    assert sizes(270, full=True)[0.5] == [138 * 2**b for b in range(2, 7)]


def test_claims_are_decided_only_where_all_cases_agree():
    assert _decided([True, True]) is True
    assert _decided([False, False]) is False
    assert _decided([True, False]) is None
    assert _decided([None, True]) is None


def point(series, x, y, *, alpha=1.0, bits=4):
    return {"series": series, "x": x, "y": y, "low": y - 0.01, "high": y + 0.01, "keep": 0.5,
            "alpha": alpha, "bits": bits}  # fmt: skip


def test_claims_of_curves_that_are_known():
    """SPEX takes ten times as many masks; the LASSO is ahead at first and stays behind."""
    lines = {
        "proxyspex": ((100, 200, 400), (0.3, 0.7, 0.97)),
        "additive": ((100, 200, 400), (0.5, 0.55, 0.6)),
        "spex, own masks": ((1000, 2000, 4000), (0.3, 0.7, 0.97)),
    }
    rows = [
        point(series, n, y, alpha=n / 100)
        for series, (numbers, r2) in lines.items()
        for n, y in zip(numbers, r2, strict=True)
    ]
    few, lasso, more, passes = _claims(rows)  # none at p = 0.9, which has no rows
    assert few.holds is True
    assert "R² 0.7: 10.0 [" in few.measured
    assert lasso.holds is True
    assert more.holds is True, "27% more at α = 2"
    assert passes.holds is True
    early = [row | {"x": row["x"] // 10} if row["series"].startswith("spex") else row
             for row in rows]  # fmt: skip
    assert _claims(early)[0].holds is False, "as many masks"


def test_side_by_side_gives_the_same_rows():
    function = planted(10, "complete hierarchy", seed=0)
    masks, fresh = (sample_masks(10, 100, seed=seed) for seed in (0, 1))
    given = masks, function.predict(masks)[:, None], fresh, function.predict(fresh)
    todo = [
        ({"series": name}, partial(score, *given, name, 0.5, None, 0))
        for name in ("additive", "pursuit")
    ]
    alone, together = (asked_in(None).cells(todo, processes) for processes in (1, 2))
    for one, other in zip(alone, together, strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}


def test_r2_grows_with_masks_and_pairs_are_seen(tmp_path, model, monkeypatch):
    module = import_module("mechspex.experiments.r2_samples")
    monkeypatch.setattr(module, "DECODERS", ("additive", "pursuit"))
    monkeypatch.setattr(module, "sizes", lambda n_units, full: {0.5: [24, 96]})
    monkeypatch.setattr(module, "HELD_OUT", 200)
    monkeypatch.setattr(module, "_claims", lambda rows: [])
    found = mx.experiments.r2_samples(model=model, task="induction", run=tmp_path / "r2")
    at = {(row["series"], row["x"]): row for row in found.rows}
    assert at["pursuit", 96]["y"] > 0.99 > at["additive", 96]["y"]
    assert at["pursuit", 96]["non_additive"] > 0.9
    assert at["additive", 96]["non_additive"] == 0
    assert at["pursuit", 96]["seconds_measuring"] == 4 * at["pursuit", 24]["seconds_measuring"]
    assert next(tmp_path.glob("masks-8-units-*/values.sqlite")).exists()


def test_removal_is_the_best_of_all_sets_falls_and_rises_alike():
    rng = np.random.default_rng(0)
    for sign in (1, -1):
        terms = {(i, j): float(sign * rng.normal()) for j in range(8) for i in range(j)}
        function = SetFunction.from_mapping(8, {(): 3.0} | terms, basis="kept")
        whole = function.predict(np.ones((1, 8), dtype=bool))
        for r, columns in removed_as_defined(function, 0).items():
            sets = list(combinations(range(8), r))
            changes = np.abs(whole - function.predict(ablate_sets(8, sets)))
            assert changes[sets.index(columns)] == pytest.approx(changes.max())


def test_the_published_code_removes_in_the_order_of_columns():
    function = SetFunction.from_mapping(12, {(7,): 1.0, (3,): 0.5}, basis="kept")
    assert removed_as_defined(function, 0)[1] == (7,)
    code = removed_as_published_code(function, 0)
    assert code[1] != (7,)
    assert code[10][:4] == code[4]
    assert {3, 7} <= set(code[10])


def test_single_ablations_added_up_are_an_additive_function():
    known = known_model("adder").values("zero")
    function = added_up(known)
    masks = mx.sample_masks(8, 50)
    np.testing.assert_allclose(function.predict(masks), known(masks).mean(axis=1), atol=1e-4)


def test_what_the_largest_coefficients_keep():
    """Ten terms of the same size: five keep half of the variance, ten all of it."""
    terms = [(i,) for i in range(6)] + [(0, 1), (2, 3), (4, 5), (1, 5)]
    function = SetFunction.from_mapping(10, dict.fromkeys(terms, 1.0), basis="fourier")
    masks, fresh = (mx.sample_masks(10, 2000, seed=seed) for seed in (0, 1))
    rows = relative_r2(
        masks, function.predict(masks)[:, None], fresh, function.predict(fresh), "pursuit", 0.5, 0
    )
    fourier = {row["x"]: row["y"] for row in rows if row["basis"] == "fourier"}
    assert fourier[5] == pytest.approx(0.5, abs=0.05)
    assert fourier[10] == pytest.approx(1)
    assert {row["basis"] for row in rows} == {"fourier", "kept", "ablated"}


def test_seconds_lie_between_those_of_two_numbers_of_masks():
    points = {
        n: {"y": y, "seconds": s, "seconds_measuring": n / 10}
        for n, y, s in ((100, 0.5, 1.0), (400, 0.9, 4.0))
    }
    took = seconds_needed(points, 0.7)
    assert took == pytest.approx({"masks": 200, "decoding": 2, "measuring": 20})
    assert seconds_needed(points, 0.5) == {"masks": 100, "decoding": 1, "measuring": 10}
    assert seconds_needed(points, 0.95) == {}


def test_how_much_faster_is_said_where_both_arrive():
    took = {"masks": 4.0, "decoding": 2.0}
    found = {
        (0.5, "proxyspex", 0.7): took | {"measuring": 8.0},
        (0.5, "spex, own masks", 0.7): took | {"measuring": 38.0},
        (0.5, "proxyspex", 0.9): took | {"measuring": 98.0},
    }
    (claim,) = faster(found)
    assert claim.holds is True
    assert claim.measured == "4.0 (40 against 10 s) at R² 0.7; a mask takes 2e+03 ms"
    assert faster({}) == ()
