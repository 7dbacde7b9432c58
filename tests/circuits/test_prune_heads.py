"""Pruning: the recovered choice where units act together and where they do not."""

import json

import numpy as np
import pytest

import mechspex as mx
from mechspex.circuits.prune_heads import _best_sampled
from mechspex.errors import BudgetError, FailedMasksError, Refused
from mechspex.runs.run import PRUNING

N = 18


def values_of(function, *, n_outputs=24, seed=0):
    """A planted function, another size on every output."""
    scale = 1 + 0.2 * np.random.default_rng(seed).standard_normal(n_outputs)
    return mx.FunctionValues(
        lambda masks: np.outer(function(masks.astype(float)), scale), mx.parts(map(str, range(N)))
    )


def backups(m):
    """Six pairs, one of each is enough, and six units that add a little: an additive choice keeps
    both of a pair before it keeps any of the others. Right where five pairs are served."""
    pairs = 1 - (1 - m[:, 0:12:2]) * (1 - m[:, 1:12:2])
    return pairs.sum(axis=1) + 0.22 * m[:, 12:].sum(axis=1) - 5


def additive(m):
    return m @ np.linspace(0.1, 1, N) - 3


@pytest.fixture(scope="module")
def pruned():
    options = {"n_masks": 300, "decoder": "pursuit"}
    return mx.prune_heads(values_of(backups), values_of(backups, seed=1), **options)


def test_the_recovered_choice_keeps_one_of_each_pair(pruned):
    for size in pruned.sizes:
        (kept,) = pruned.choice(size).subsets
        assert len(kept) == size
        assert all(2 * pair in kept or 2 * pair + 1 in kept for pair in range(6))
        assert sum(i >= 12 for i in kept) == min(size - 6, 6)


def test_the_recovered_choice_is_surely_better_where_units_act_together(pruned):
    compared = {(one.size, one.rival): one for one in pruned.comparisons}
    assert len(compared) == 9
    for size in pruned.sizes:
        one = compared[size, "additive"]
        assert one.difference.low > 0
        assert one.adjusted_p < 0.001
    first = compared[9, "additive"]
    assert first.only_recovered == 24
    assert first.only_rival == 0
    assert first.adjusted_accuracy_p < 0.001
    assert compared[9, "random"].difference.low > 0


def test_where_units_only_add_up_both_choices_are_the_same():
    options = {"n_masks": 100, "decoder": "pursuit"}
    pruned = mx.prune_heads(values_of(additive), values_of(additive, seed=1), **options)
    for one in pruned.comparisons:
        if one.rival == "additive":
            assert one.difference.value == 0
            assert one.adjusted_p == 1
            assert one.accuracy_p == 1
        if one.rival == "random":
            assert one.adjusted_p < 0.05


def test_choices_by_noise_are_not_told_apart():
    """Search values that say nothing of the held-out ones."""
    rng = np.random.default_rng(5)
    search = mx.FunctionValues(lambda m: rng.normal(size=(len(m), 8)), mx.parts(map(str, range(N))))
    surely = 0
    for seed in range(12):
        weights = np.random.default_rng(seed).normal(size=(N, 16))
        fresh = mx.FunctionValues(lambda m, w=weights: m @ w, search.units)
        pruned = mx.prune_heads(search, fresh, n_masks=60, decoder="additive", seed=seed)
        surely += min(one.adjusted_p for one in pruned.comparisons) < 0.05
    assert surely <= 2


def test_values_and_accuracy_are_those_of_the_kept_units(pruned):
    fresh = values_of(backups, seed=1)
    for choice in pruned.choices:
        masks = np.array([np.isin(np.arange(N), kept) for kept in choice.subsets])
        assert np.allclose(choice.values, fresh(masks))
        assert choice.accuracy == pytest.approx((fresh(masks) > 0).mean())
    assert np.allclose(pruned.clean, fresh(np.ones((1, N), dtype=bool))[0])
    assert np.allclose(pruned.ablated, fresh(np.zeros((1, N), dtype=bool))[0])
    assert {len(pruned.choice(size, "random").subsets) for size in pruned.sizes} == {20}


def test_masks_keep_exactly_the_sizes_in_turn():
    seen = []

    def function(masks):
        seen.extend(masks.sum(axis=1).tolist())
        return masks[:, 0] * 1.0

    values = mx.FunctionValues(function, mx.parts(map(str, range(N))))
    seen.clear()
    mx.prune_heads(
        values, values_of(additive), n_masks=60, shares=(1 / 3, 2 / 3), decoder="additive"
    )
    assert set(seen) == {6, 12}
    assert abs(seen.count(6) - seen.count(12)) <= 2


def test_the_best_sampled_has_at_most_the_size_and_the_largest_mean():
    rng = np.random.default_rng(0)
    masks, values = rng.random((40, 6)) < 0.5, rng.normal(size=(40, 3))
    mask = _best_sampled(masks, values, 3)
    allowed = masks.sum(axis=1) <= 3
    best = max(values.mean(axis=1)[allowed])
    assert values.mean(axis=1)[(masks == mask).all(axis=1)].max() == best
    with pytest.raises(FailedMasksError, match="no mask of 0 units"):
        _best_sampled(np.ones((2, 6), dtype=bool), values[:2], 0)


def test_a_run_measures_nothing_twice_and_keeps_its_answer(tmp_path):
    asked = []

    def counted(masks):
        asked.append(len(masks))
        return np.outer(backups(masks.astype(float)), np.linspace(0.9, 1.1, 6))

    counted.configuration = {"function": "counted"}  # pyright: ignore[reportFunctionMemberAccess]
    units = mx.parts(map(str, range(N)))
    search, fresh = (mx.FunctionValues(counted, units) for _ in range(2))
    first = mx.prune_heads(search, fresh, n_masks=150, decoder="pursuit", run=tmp_path / "run")
    before = sum(asked)
    again = mx.prune_heads(search, fresh, n_masks=150, decoder="pursuit", run=tmp_path / "run")
    assert sum(asked) == before
    assert again.to_dict() == first.to_dict()
    stored, printed = json.loads((tmp_path / "run" / PRUNING).read_text()), first.to_dict()
    assert {key: stored[key] for key in printed} == printed
    assert mx.Pruning.from_dict(stored) == first
    mx.prune_heads(search, fresh, n_masks=180, decoder="pursuit", run=tmp_path / "run")
    assert 0 < sum(asked) - before < 150


def test_failed_masks_of_the_search_are_left_out():
    planted = values_of(backups)

    def holes(masks):
        values = planted(masks).astype(float)
        values[masks[:, 0] & masks[:, 2] & masks[:, 4] & ~masks[:, 6]] = np.nan
        return values

    search = mx.FunctionValues(holes, planted.units)
    pruned = mx.prune_heads(search, values_of(backups, seed=1), n_masks=200, decoder="pursuit")
    assert len(pruned.choice(9).subsets[0]) == 9
    with pytest.raises(FailedMasksError, match="held-out"):
        mx.prune_heads(
            planted, mx.FunctionValues(holes, planted.units), n_masks=100, decoder="additive"
        )


def test_the_table_the_text_and_the_record(pruned):
    frame = pruned.to_pandas()
    assert len(frame) == 12
    assert frame["method"].tolist()[:4] == ["recovered", "additive", "best sampled", "random"]
    assert frame["kept"].unique().tolist() == [9, 12, 15]
    assert np.isnan(frame["p"][0])
    assert "24 held-out outputs" in str(pruned)
    assert "Holm" in str(pruned)
    assert json.loads(json.dumps(pruned.to_dict()))["choices"][0]["size"] == 9


def test_heads_of_a_model(tiny):
    heads = mx.heads(tiny)
    search, fresh = (
        mx.ComponentValues(
            tiny,
            mx.load_task("induction", tiny, n_prompts=8, seed=seed),
            heads,
            "zero",
            rescale=True,
        )
        for seed in (0, 1)
    )
    pruned = mx.prune_heads(search, fresh, shares=(1 / 2,), n_masks=60, decoder="pursuit")
    kept = {heads.names[i] for i in pruned.choice(4).subsets[0]}
    assert {"L0H1", "L1H3"} <= kept


def test_bad_arguments_are_refused_before_anything_is_measured():
    def unmeasured(masks):
        if len(masks) > 1:
            raise AssertionError("measured")
        return np.ones((1, 4))

    values = mx.FunctionValues(unmeasured, mx.parts(map(str, range(N))))
    other = mx.FunctionValues(lambda masks: masks * 1.0, mx.parts("abc"))
    single = mx.FunctionValues(lambda masks: masks[:, 0] * 1.0, values.units)
    with pytest.raises(Refused, match="same units"):
        mx.prune_heads(values, other)
    with pytest.raises(Refused, match="at least 2 prompts"):
        mx.prune_heads(values, single)
    with pytest.raises(BudgetError, match="n_masks = 20"):
        mx.prune_heads(values, values, n_masks=20)
    with pytest.raises(Refused, match="n_random = 1"):
        mx.prune_heads(values, values, n_random=1)
    with pytest.raises(Refused, match="design of its own"):
        mx.prune_heads(values, values, decoder="spex")
    with pytest.raises(Refused, match="choose one of"):
        mx.prune_heads(values, values, decoder="magic")
    for shares in ((), (0.0,), (1.0,), (0.5, 0.51), (-0.3,)):
        with pytest.raises(Refused, match="shares = "):
            mx.prune_heads(values, values, shares=shares)
    with pytest.raises(Refused, match="no choice of 7 units"):
        mx.prune_heads(
            values_of(additive), values_of(additive), n_masks=60, decoder="additive"
        ).choice(7)
