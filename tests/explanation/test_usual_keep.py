"""The density of the masks where none is given, and what no mask could show."""

import numpy as np
import pytest

import mechspex as mx
from mechspex.core.masks import sample_masks, unseen_pairs
from mechspex.explanation.designs import usual_keep
from mechspex.explanation.plan import Plan


def pair_among(seed, n_units=20):
    """Two units of worth 2 together and nothing alone, and two that act alone."""
    one, other, third, fourth = np.random.default_rng(seed).permutation(n_units)[:4]
    units = mx.parts(range(n_units))

    def value(masks):
        return 2.0 * (masks[:, one] & masks[:, other]) + masks[:, third] + 0.3 * masks[:, fourth]

    return value, units, units.label(sorted((int(one), int(other))))


@pytest.mark.parametrize("n_masks", [60, 100])
def test_a_pair_of_twenty_units_is_found(n_masks):
    found = []
    for seed in range(5):
        value, units, pair = pair_among(seed)
        answer = mx.explain(value, units=units, n_masks=n_masks, seed=seed, decoder="pursuit")
        effects = answer.interactions().set_index("units")["effect"]
        found.append(pair in effects and effects[pair] == pytest.approx(2, abs=1e-5))
        assert answer.recovery.unseen_pairs == 0
    assert sum(found) >= 4


def test_what_no_mask_could_show_is_said():
    value, units, _ = pair_among(0)
    options = {"units": units, "n_masks": 100, "decoder": "pursuit"}
    sparse = mx.explain(value, design=mx.RandomMasks(0.9), **options)
    masks = sample_masks(20, 100, keep=0.9, seed=0)
    together = [(~masks[:, i] & ~masks[:, j]).any() for i in range(20) for j in range(i)]
    share = sparse.recovery.unseen_pairs
    assert share is not None
    assert share == pytest.approx(1 - np.mean(together))
    assert 0.25 < share < 0.5
    assert f"nothing is known of {share:.0%} of the pairs: no mask ablates both" in str(sparse)
    assert f"nothing known of {share:.0%} of the pairs" in sparse.in_short
    assert mx.Explanation.from_dict(sparse.to_record()) == sparse
    dense = mx.explain(value, **options)
    assert "nothing is known" not in str(dense)


def test_answers_from_before_it_was_counted_are_read():
    value, units, _ = pair_among(0)
    record = mx.explain(value, units=units, n_masks=100, decoder="pursuit").to_record()
    del record["recovery"]["unseen_pairs"]
    assert mx.Explanation.from_dict(record).recovery.unseen_pairs is None


@pytest.mark.parametrize(
    ("n_units", "n_masks", "keep"),
    [
        (20, 1000, 0.9),
        (20, 999, 0.8),
        (20, 100, 0.6),
        (20, 50, 0.5),
        (64, 100, 0.6),
        (65, 100, 0.9),
        (270, 60, 0.9),
        (46_080, 1000, 0.9),
    ],
)
def test_the_rule(n_units, n_masks, keep):
    assert usual_keep(n_units, n_masks) == keep
    if n_units <= 64 and keep > 0.5:
        assert n_masks * (1 - keep) ** 2 >= 10 - 1e-9


def test_what_was_asked_for_is_kept():
    assert Plan.of(20, n_masks=100, design=mx.RandomMasks(0.9)).keep == 0.9
    assert Plan.of(20, n_masks=100, design="mixed").keep == 0.9
    assert Plan.of(20, n_masks=100, design="random").keep == 0.6
    assert Plan.of(20, n_masks=500, design=mx.Adaptive()).keep == 0.8
    assert Plan.of(270).to_dict()["keep"] == 0.9
    exact = Plan.of(5, n_masks=100)
    assert exact.is_exact
    assert exact.to_dict()["keep"] == 0.9, "as runs have it that are kept"


def test_pairs_of_many_units_are_counted_from_a_sample():
    masks = sample_masks(2_500, 40, keep=0.8, seed=1)
    assert unseen_pairs(masks) == pytest.approx((1 - 0.2**2) ** 40, abs=0.01)
    few = masks[:, :300]
    ablated = ~few
    seen = np.einsum("mi,mj->ij", ablated.astype(int), ablated.astype(int)) > 0
    assert unseen_pairs(few) == pytest.approx(1 - seen[np.triu_indices(300, 1)].mean())
    assert unseen_pairs(masks[:, :1]) == 0
