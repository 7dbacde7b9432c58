"""Sweeps in random contexts: means over the masks of the other units, against brute force."""

import json
from itertools import chain, combinations
from typing import Any

import numpy as np
import pytest

import mechspex as mx
from mechspex.core.masks import all_masks
from mechspex.effects.sweep import n_sweep_masks
from mechspex.errors import Refused
from mechspex.set_functions.set_function import SetFunction

N = 7
UNITS = mx.parts([f"u{i}" for i in range(N)])
PLANTED = SetFunction.from_mapping(
    N, {(): 1.0, (0, 1): 2.0, (0, 1, 2): -3.0, (2, 3, 4): 1.5, (4,): 0.5, (5, 6): -1.0},
    basis="kept",
)  # fmt: skip
FACTORS = np.array([0.8, 1.0, 1.3])
TERMS = [(i,) for i in range(N)] + list(combinations(range(N), 2))


def planted(masks):
    """The function itself, sums of products, times a factor an output."""
    terms = [PLANTED[t] * masks[:, list(t)].all(axis=1) for t in PLANTED.terms]
    return np.sum(terms, axis=0)[:, None] * FACTORS


def ablated(term, context):
    """Σ_{S⊆T} (−1)^{|T|−|S|} f(context with T kept, but S), an output each."""
    total = np.zeros(len(FACTORS))
    for ablate in chain.from_iterable(combinations(term, k) for k in range(len(term) + 1)):
        mask = context.copy()
        mask[list(term)] = True
        mask[list(ablate)] = False
        total = total + (-1.0) ** (len(term) - len(ablate)) * planted(mask[None])[0]
    return total


@pytest.mark.parametrize("keep", [0.3, 0.8])
def test_effects_are_means_over_the_contexts_and_errors_those_of_both(keep):
    swept = mx.sweep(planted, units=UNITS, order=2, contexts=5, keep=keep, seed=3)
    around = mx.sample_masks(N, 5, keep=keep, seed=3)
    assert swept.terms == tuple(TERMS)
    assert (swept.contexts, swept.keep) == (5, keep)
    each = np.array([[ablated(term, context) for context in around] for term in TERMS])
    assert np.allclose(swept.output_effects, each.mean(axis=1), atol=1e-5)
    over_outputs = each.mean(axis=1).var(axis=1, ddof=1) / 3
    over_contexts = each.mean(axis=2).var(axis=1, ddof=1) / 5
    assert np.allclose(swept.standard_errors**2, over_outputs + over_contexts, atol=1e-5)
    assert np.allclose(swept.to_pandas()["se"], swept.standard_errors)
    values = np.array([around] * len(TERMS))
    for row, term in enumerate(TERMS):
        values[row][:, list(term)] = False
    assert np.allclose(swept.values, [planted(masks).mean(axis=0) for masks in values], atol=1e-5)
    assert np.allclose(swept.clean, planted(np.ones((1, N), bool))[0])


def test_a_sweep_in_contexts_says_what_validation_says():
    swept = mx.sweep(planted, units=UNITS, order=2, contexts=6, keep=0.6, seed=1)
    direct = mx.validate(
        mx.FunctionValues(planted, UNITS), swept.terms, contexts=6, keep=0.6, seed=1
    )
    assert np.allclose(swept.output_effects, direct.output_effects, atol=1e-6)
    assert np.allclose(swept.standard_errors, direct.standard_errors, atol=1e-6)
    singles = mx.validate(
        mx.FunctionValues(planted, UNITS), TERMS[:N], contexts=6, keep=0.6, seed=1
    )
    assert np.allclose(swept.tested[0].intervals, singles.intervals, atol=1e-5)


# At .9 twelve contexts often keep all that acts with a unit: then they agree, on too much.
@pytest.mark.parametrize(("keep", "contexts"), [(0.5, 12), (0.9, 40)])
def test_intervals_cover_the_effects_at_that_density(keep, contexts):
    """The truth is the sum over all masks, and what the p-biased coefficients say."""
    masks = all_masks(N)
    weights = np.prod(np.where(masks, keep, 1 - keep), axis=1)
    truth = np.array(
        [sum(w * ablated(t, m).mean() for w, m in zip(weights, masks, strict=True)) for t in TERMS]
    )
    fourier = PLANTED.to_basis("fourier", keep=keep)
    told = [
        (-1.0) ** len(t) * fourier[t] / (keep * (1 - keep)) ** (len(t) / 2) * FACTORS.mean()
        for t in TERMS
    ]
    assert np.allclose(truth, told, atol=1e-9)
    means, covered, n_seeds = np.zeros(len(TERMS)), np.zeros(len(TERMS)), 40
    for seed in range(n_seeds):
        swept = mx.sweep(
            lambda masks: planted(masks)[:, 1] * FACTORS.mean(),
            units=UNITS, order=2, contexts=contexts, keep=keep, seed=seed,
        )  # fmt: skip
        means += swept.effects / n_seeds
        # At 95% each; those of discoveries are wider. An effect that is the same in each context
        # has no spread but rounding.
        covered += np.abs(swept.effects - truth) <= 2.2 * swept.standard_errors + 1e-5
    assert np.abs(means - truth).max() < 0.2
    assert covered.mean() / n_seeds > 0.9
    assert covered.min() / n_seeds > 0.8


def test_everything_kept_and_contexts_differ_where_units_act_together():
    alone = mx.sweep(planted, units=UNITS).effects
    half = mx.sweep(planted, units=UNITS, contexts=500, keep=0.5).effects
    assert alone[3] == pytest.approx(-1.5 * FACTORS.mean(), abs=1e-5)
    assert half[3] == pytest.approx(-1.5 / 4 * FACTORS.mean(), abs=0.1)


@pytest.mark.parametrize(("keep", "contexts", "order"), [(0.5, 4, 1), (0.95, 6, 2), (0.1, 3, 2)])
def test_every_mask_is_measured_once_and_counted_beforehand(keep, contexts, order):
    options: dict[str, Any] = {"order": order, "contexts": contexts, "keep": keep, "seed": 2}
    asked = []

    def counted(masks):
        asked.extend(map(bytes, masks))
        return planted(masks)

    swept = mx.sweep(counted, units=UNITS, **options)
    n_sets = len(TERMS) if order == 2 else N
    assert swept.cost.masks == n_sweep_masks(N, **options) <= 1 + contexts * (1 + n_sets)
    assert len(set(asked)) == swept.cost.masks
    assert n_sweep_masks(270, 2, contexts=8, keep=0.5) == 1 + 8 * (1 + 270 + 270 * 269 // 2)
    assert n_sweep_masks(N, order) == 1 + n_sets


def test_it_goes_on_and_comes_back(tmp_path):
    options: dict[str, Any] = {"units": UNITS, "contexts": 4, "keep": 0.5, "run": tmp_path / "run"}
    first = mx.sweep(planted, **options)
    again = mx.sweep(planted, **options, order=2)
    assert again.cost.measured == again.cost.masks - first.cost.masks
    assert np.allclose(again.effects[:N], first.effects)
    assert mx.load(tmp_path / "run") == again
    assert (again.contexts, again.keep) == (4, 0.5)
    settings = json.loads((tmp_path / "run" / "configuration.json").read_text())["settings"]
    assert settings == {"sweep": 2, "among": None, "contexts": 4, "keep": 0.5, "seed": 0}
    options["contexts"] = 6
    more = mx.sweep(planted, **options)
    assert more.cost.measured <= 2 * (N + 1), "the first contexts are the same"
    assert json.loads(json.dumps(first.to_dict(), allow_nan=False))["schema"] == "mechspex.sweep/1"
    text = str(first)
    assert "7 singles ablated, each in 4 random contexts that keep a unit with prob" in text
    assert "intervals over outputs and 4 contexts" in text


def test_of_one_output_the_contexts_are_the_spread():
    swept = mx.sweep(
        lambda masks: planted(masks)[:, 1], units=UNITS, contexts=30, keep=0.6
    ).to_pandas()
    assert swept["se"].notna().all()
    assert swept.set_index("units").loc["u4", "confirmed"]


def test_a_failed_context_is_told():
    def fails(masks):
        return np.where(~masks[:, [2]] & ~masks[:, [3]], np.nan, planted(masks))

    swept = mx.sweep(fails, units=UNITS, contexts=4, keep=0.5)
    assert swept.failed.any()
    json.dumps(swept.to_dict(), allow_nan=False)
    assert "have no finite value" in str(swept)


def test_bad_contexts_are_refused():
    for options, complaint in [
        ({"contexts": 1}, "contexts = 1"),
        ({"contexts": 4, "keep": 1.0}, "keep = 1.0"),
        ({"contexts": 4, "seed": -1}, "seed = -1"),
    ]:
        with pytest.raises(Refused, match=complaint):
            mx.sweep(planted, units=UNITS, **options)
    with pytest.raises(Refused, match="pairs in 8 contexts, more than"):
        mx.sweep(lambda m: m[:, 0] * 1.0, units=mx.parts(range(1500)), order=2, contexts=8)


def test_its_map_says_the_density():
    units = mx.UnitSet(tuple(mx.Unit("head", layer, head) for layer in (0, 1) for head in (0, 1)))
    options: dict[str, Any] = {"contexts": 4, "keep": 0.25}
    swept = mx.sweep(mx.FunctionValues(lambda masks: masks @ np.ones((4, 3)), units), **options)
    titles = [text.get_text() for text in swept.plot().texts]
    titles += [axes.get_title(loc="left") for axes in swept.plot().axes]
    assert any("density 0.25" in title for title in titles)
