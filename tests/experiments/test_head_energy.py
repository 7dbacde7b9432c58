"""Energies within and across layers: planted spectra, brute force, and what a claim says."""

from itertools import product

import numpy as np
import pytest

import mechspex as mx
from mechspex.errors import BudgetError
from mechspex.experiments.head_energy import (
    CHANCE,
    NULL,
    PARTS,
    PLAIN,
    RESCALED,
    _claims,
)
from mechspex.experiments.layer_energies import (
    chance_within,
    layer_energies,
    rescaled_additive,
)

LAYERS = [0] * 4 + [1] * 4 + [2] * 4
# Squares: 6 linear, 3 within a layer (one of order 4), 1 across.
PLANTED = {
    (): 5.0, (0,): 1.0, (5,): -1.0, (9,): 2.0, (4, 5): 1.0, (8, 10): -1.0, (0, 1, 2, 3): 1.0,
    (3, 11): 0.6, (2, 4, 9): 0.8,
}  # fmt: skip


def planted(keep):
    return mx.SetFunction.from_mapping(12, PLANTED, basis="fourier", keep=keep)


@pytest.mark.parametrize("keep", [0.5, 0.8])
def test_energies_are_those_planted_without_bias_and_inside_their_intervals(keep):
    found, inside = [], []
    for seed in range(40):
        masks = mx.sample_masks(12, 300, keep=keep, seed=seed)
        one = layer_energies(masks, planted(keep).predict(masks), LAYERS, keep)
        shares = (one.linear, one.within, one.across)
        found.append([share.value for share in shares])
        inside.append(
            [
                share.low <= true <= share.high
                for share, true in zip(shares, (0.6, 0.3, 0.1), strict=True)
            ]
        )
    error = np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - [0.6, 0.3, 0.1]) < 3.5 * error).all()
    assert (np.mean(inside, axis=0) > 0.85).all()
    np.testing.assert_allclose(np.sum(found, axis=1), 1)


def test_orders_that_are_left_out_count_as_across():
    """The term of order 4 within a layer has a tenth of the energy."""
    found = []
    for seed in range(40):
        masks = mx.sample_masks(12, 300, keep=0.5, seed=seed)
        one = layer_energies(masks, planted(0.5).predict(masks), LAYERS, 0.5, max_order=3)
        found.append([one.within.value, one.across.value])
    error = np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - [0.2, 0.2]) < 3.5 * error).all()


def test_an_additive_function_has_no_interactions():
    additive = mx.SetFunction.from_mapping(
        12, {(i,): float(i + 1) for i in range(12)}, basis="kept"
    )
    masks = mx.sample_masks(12, 100, keep=0.5)
    found = layer_energies(masks, additive.predict(masks), LAYERS, 0.5)
    assert found.linear.value == pytest.approx(1)
    assert found.within.value == pytest.approx(0, abs=1e-9)
    with pytest.raises(BudgetError, match="at least 36"):
        layer_energies(masks[:20], additive.predict(masks[:20]), LAYERS, 0.5)


@pytest.mark.parametrize("keep", [0.5, 0.7])
def test_rescaled_heads_that_add_up_interact_as_all_their_masks_say(keep):
    """Beside the spectrum of every mask of two layers, exactly weighted."""
    weights, layers = np.array([1.0, -2.0, 0.5, 3.0, 1.5]), [0, 0, 0, 1, 1]
    masks = np.array(list(product([False, True], repeat=5)))
    kept = [masks[:, :3].sum(axis=1, keepdims=True), masks[:, 3:].sum(axis=1, keepdims=True)]
    scale = np.hstack([np.repeat(3 / np.maximum(kept[0], 1), 3, axis=1),
                       np.repeat(2 / np.maximum(kept[1], 1), 2, axis=1)])  # fmt: skip
    values = 7 + (masks * scale) @ weights
    chance = np.prod(np.where(masks, keep, 1 - keep), axis=1)
    factors = (masks - keep) / np.sqrt(keep * (1 - keep))
    variance = chance @ (values - chance @ values) ** 2
    singles = ((chance * values) @ factors) ** 2
    linear, within, fits = rescaled_additive(masks, values, layers, keep)
    assert linear == pytest.approx(singles.sum() / variance)
    assert within == pytest.approx(1 - linear)
    assert within > 0.02
    assert fits == pytest.approx(1)


def test_nine_heads_a_layer_make_far_more_of_the_rescale_than_thirty_two():
    def within(size, seed=0):
        rng = np.random.default_rng(seed)
        masks = mx.sample_masks(size, 40 * size, keep=0.5, seed=seed)
        scaled = masks * size / np.maximum(masks.sum(axis=1, keepdims=True), 1)
        return rescaled_additive(masks, scaled @ rng.normal(size=size), [0] * size, 0.5)[1]

    nine, thirty_two = (np.mean([within(size, seed) for seed in range(10)]) for size in (9, 32))
    assert thirty_two == pytest.approx(0.03, abs=0.015)
    assert nine > 3 * thirty_two


def test_chance_is_the_share_of_pairs_within_a_layer():
    assert chance_within(LAYERS) == pytest.approx(3 * 6 / 66)
    assert chance_within([0] * 32 + [1] * 32 + [2] * 32) == pytest.approx(31 / 95)


def row(of, series, shares, half=0.01):
    return [
        {
            "of": of,
            "series": series,
            "x": part,
            "y": y,
            "low": y - half,
            "high": y + half,
            "fits": 0.5,
        }
        for part, y in zip(PARTS, shares, strict=True)
    ]


def test_a_claim_of_depth_needs_every_step():
    def cells(middle):
        return [
            *row("first", RESCALED, (0.8, 0.1, 0.1)),
            *row("middle", RESCALED, (middle, 0.1, 0.2)),
            *row("last", RESCALED, (0.5, 0.4, 0.1)),
            *row("last", NULL, (0.9, 0.1, 0.0)),
            *row("last", PLAIN, (0.99, 0.005, 0.005)),
        ]

    groups = ["first", "middle", "last"]
    falls, inside, beyond, plain = _claims(cells(0.7), groups)
    assert (falls.holds, inside.holds, beyond.holds, plain.holds) == (True, True, True, None)
    assert _claims(cells(0.795), groups)[0].holds is None
    assert _claims(cells(0.9), groups)[0].holds is False


def test_on_a_model_shares_add_up_and_the_null_stands_beside():
    found = mx.experiments.head_energy(model=mx.load_model("tiny"), task="induction")
    panels = {r["panel"] for r in found.rows}
    assert panels == {"layer 0, p = 0.5", "layer 1, p = 0.5"}
    for panel in panels:
        for series in (RESCALED, PLAIN, NULL, CHANCE):
            shares = [r["y"] for r in found.rows if (r["panel"], r["series"]) == (panel, series)]
            assert sum(shares) == pytest.approx(1), (panel, series)
