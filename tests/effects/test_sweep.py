"""The exact sweep: every single and every pair, against brute force."""

import json
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
import pytest

import mechspex as mx
from mechspex.core.units import Unit, UnitSet
from mechspex.effects.sweep import _mask_blocks, _sets_by_layer
from mechspex.errors import Refused, RunError, UnknownUnitError
from mechspex.runs.run import SWEEP
from mechspex.set_functions.set_function import SetFunction

N = 9
UNITS = mx.parts([f"u{i}" for i in range(N)])
PLANTED = SetFunction.from_mapping(
    N, {(): 3.0, (0,): -2.0, (1,): 1.0, (0, 1): 0.7, (2, 5): -0.9, (2, 3, 4): 5.0}, basis="ablated"
)
FACTORS = np.linspace(0.9, 1.1, 5)


def planted(masks):
    return PLANTED.predict(masks)[:, None] * FACTORS


class Counted:
    """The planted function, counting the masks it is asked; it can be killed."""

    configuration: ClassVar = {"function": "planted"}

    def __init__(self, kill_after=None):
        self.asked, self.kill_after = 0, kill_after

    def __call__(self, masks):
        if self.kill_after is not None and self.asked + len(masks) > self.kill_after:
            raise KeyboardInterrupt
        self.asked += len(masks)
        return planted(masks)


def test_singles_are_the_planted_effects():
    swept = mx.sweep(planted, units=UNITS)
    assert swept.terms == tuple((i,) for i in range(N))
    assert np.allclose(swept.clean, 3 * FACTORS)
    assert np.allclose(swept.effects, [-2, 1, 0, 0, 0, 0, 0, 0, 0], atol=1e-6)
    assert np.allclose(swept.output_effects[0], -2 * FACTORS, atol=1e-6)
    assert np.allclose(swept.values, swept.clean + swept.output_effects)
    assert swept.confirmed_singles == (0, 1)
    assert not swept.failed.any()
    assert not len(swept.pairs())


def test_pairs_are_the_joint_effect_less_the_two_single_ones():
    swept = mx.sweep(planted, units=UNITS, order=2)
    pairs = tuple(combinations(range(N), 2))
    assert swept.terms == tuple((i,) for i in range(N)) + pairs
    # The triple needs three ablations to act, so no pair shows it.
    expected = [PLANTED[pair] for pair in pairs]
    assert np.allclose(swept.effects[N:], expected, atol=1e-6)
    assert np.allclose(swept.output_effects[N:], np.outer(expected, FACTORS), atol=1e-5)
    assert swept.pairs()["units"].tolist()[:2] == ["u2 × u5", "u0 × u1"]
    assert swept.pairs()["confirmed"].sum() == 2
    assert swept.cost.masks == 1 + N + len(pairs)


def test_a_sweep_says_what_validation_says(tiny, tiny_task):
    """… on a model, by another way through the same masks."""
    values = mx.ComponentValues(tiny, tiny_task, mx.heads(tiny))
    swept = mx.sweep(values, order=2)
    direct = mx.validate(values, swept.terms)
    assert np.allclose(swept.output_effects, direct.output_effects, atol=1e-4)
    alone = np.concatenate([np.ones((1, 8), bool), mx.single_ablations(8), mx.pair_ablations(8)])
    brute = values(alone).astype(np.float64)
    assert np.allclose(swept.values, brute[1:], atol=1e-4)
    assert np.allclose(swept.single_effects, (brute[1:9] - brute[0]).mean(1), atol=1e-4)
    # Each family on its own: pairs do not widen the intervals of singles.
    singles = mx.validate(values, [(i,) for i in range(8)])
    assert np.allclose(swept.tested[0].intervals, singles.intervals, atol=1e-3)


def test_among_ablates_some_and_keeps_the_rest():
    swept = mx.sweep(planted, units=UNITS, order=2, among=["u5", 2, "u0", 0])
    assert swept.terms == ((0,), (2,), (5,), (0, 2), (0, 5), (2, 5))
    assert np.allclose(swept.effects, [-2, 0, 0, 0, 0, -0.9], atol=1e-6)
    assert np.isnan(swept.single_effects).tolist() == [i not in (0, 2, 5) for i in range(N)]
    assert mx.sweep(planted, units=UNITS, among=["u1"]).effects == pytest.approx([1.0])


def test_frames_have_a_row_a_term():
    frame = mx.sweep(planted, units=UNITS, order=2).to_pandas()
    assert list(frame) == ["units", "order", "effect", "low", "high", "confirmed", "se", "value"]
    assert len(frame) == N + N * (N - 1) // 2
    row = frame.set_index("units").loc["u0 × u1"]
    assert row["value"] == pytest.approx(3 - 2 + 1 + 0.7)
    assert row["low"] < row["effect"] < row["high"]
    assert mx.sweep(planted, units=UNITS).singles()["units"][0] == "u0"


def test_one_output_has_no_spread():
    swept = mx.sweep(lambda masks: PLANTED.predict(masks), units=UNITS)
    assert np.ptp(swept.tested[0].intervals, axis=1).max() < 1e-4
    assert swept.confirmed_singles == (), "exact for this output, which tells of no other"


def test_the_text_says_what_was_found():
    swept = mx.sweep(planted, units=UNITS, order=2)
    text = str(swept)
    for part in ("clean +3.000", "9 singles and 36 pairs", "u2 × u5", "forwards", "2 of 36 conf"):
        assert part in text
    assert "… and 16 weaker ones" in text
    assert text.index("u2 × u5") < text.index("u0 × u1"), "the strongest first"
    assert "not confirmed" in text
    assert "u0 × u1" in swept._repr_html_()


def test_the_dictionary_is_json():
    record = json.loads(json.dumps(mx.sweep(planted, units=UNITS).to_dict(), allow_nan=False))
    assert record["schema"] == "mechspex.sweep/1"
    assert record["terms"][0]["units"] == "u0"
    assert len(record["output_effects"]) == N
    assert record["clean"] == pytest.approx(3 * FACTORS)


def test_nothing_is_measured_twice_and_pairs_reuse_singles(tmp_path):
    function = Counted()
    arguments = {"units": UNITS, "run": tmp_path / "run"}
    first = mx.sweep(function, **arguments)
    asked = function.asked
    assert first.cost.measured == N + 1
    again = mx.sweep(function, **arguments)
    assert again.cost.measured == 0
    assert function.asked == asked + 1, "only the shape of the outputs is asked for again"
    assert again.to_pandas().equals(first.to_pandas())
    assert mx.sweep(function, **arguments, order=2).cost.measured == N * (N - 1) // 2
    assert (tmp_path / "run" / SWEEP).read_text().startswith("units,order,effect")
    settings = json.loads((tmp_path / "run" / "configuration.json").read_text())["settings"]
    assert settings == {"sweep": 2, "among": None}


def test_a_sweep_killed_half_way_goes_on(tmp_path):
    arguments = {"units": UNITS, "order": 2, "run": tmp_path}
    killed, resumed = Counted(kill_after=40), Counted()
    with pytest.raises(KeyboardInterrupt):
        mx.sweep(killed, **arguments)
    swept = mx.sweep(resumed, **arguments)
    n_masks = 1 + N + N * (N - 1) // 2
    assert 0 < swept.cost.measured < n_masks == swept.cost.masks
    # Each of them was asked for the shape of the outputs first.
    assert (killed.asked - 1) + (resumed.asked - 1) == n_masks
    assert swept.to_pandas().equals(mx.sweep(planted, units=UNITS, order=2).to_pandas())


def test_another_function_under_the_same_run_is_refused(tmp_path):
    mx.sweep(planted, units=UNITS, run=tmp_path)
    with pytest.raises(RunError, match="clean"):
        mx.sweep(lambda masks: 2 * planted(masks), units=UNITS, run=tmp_path)


def test_failed_masks_are_named_and_no_other_is_lost():
    def fails(masks):
        return np.where((~masks[:, [3]]) & masks[:, [8]], np.nan, planted(masks))

    swept = mx.sweep(fails, units=UNITS, order=2)
    failed = {term for term, bad in zip(swept.terms, swept.failed, strict=True) if bad}
    assert failed == {(3,)} | {tuple(sorted((3, i))) for i in range(8) if i != 3}
    effects = dict(zip(swept.terms, swept.effects, strict=True))
    assert effects[2, 5] == pytest.approx(-0.9, abs=1e-6)
    # Its own mask is measured, but not what is to be subtracted.
    assert np.isnan(effects[3, 8])
    assert "8 of the masks have no finite value: u3, u0 × u3" in str(swept)
    record = swept.to_dict()
    json.dumps(record, allow_nan=False)
    assert record["n_failed"] == 8
    assert record["terms"][3]["effect"] is None
    assert swept.singles()["units"].tolist()[-1] == "u3", "what failed stands last"


def test_bad_arguments_are_refused_before_anything_is_measured():
    function = Counted()
    arguments: dict[str, Any] = {"units": UNITS}
    for options, complaint in [
        ({"order": 3}, "order = 3"),
        ({"among": []}, "among has 0 units"),
        ({"among": ["u1"], "order": 2}, "among has 1 units"),
        ({"among": 5}, "among = 5: give names or columns"),
        ({"among": [9]}, "unit 9 lies outside the columns 0 … 8"),
    ]:
        with pytest.raises(Refused, match=complaint):
            mx.sweep(function, **arguments, **options)
    with pytest.raises(UnknownUnitError, match="no unit 'u9'"):
        mx.sweep(function, **arguments, among=["u9"])
    with pytest.raises(Refused, match="add units="):
        mx.sweep(function)
    with pytest.raises(Refused, match="46,080 units have 1,061,660,160 pairs"):
        mx.sweep(lambda masks: 1.0 * masks[:, 0], units=mx.parts(range(46_080)), order=2)
    assert function.asked <= 6, "the shape of the outputs, no more"


@pytest.mark.parametrize("order", [1, 2])
def test_masks_cover_each_set_once_by_their_first_layer(order):
    layers = [2, 0, 1, 2, 0, 1]
    units = UnitSet(tuple(Unit("head", layer, i) for i, layer in enumerate(layers)))
    columns = (0, 1, 2, 3, 5)
    sets = _sets_by_layer(units, columns, order)
    expected = {s for size in range(1, order + 1) for s in combinations(columns, size)}
    assert len(sets) == len(set(sets))
    assert set(sets) == expected
    first = [min(layers[i] for i in ablated) for ablated in sets]
    assert first == sorted(first)
    masks = np.concatenate(list(_mask_blocks(np.ones(6, bool), sets)))
    assert [tuple(np.flatnonzero(~mask)) for mask in masks] == sets


def test_blocks_of_masks_stay_small():
    sets = [(i,) for i in range(46_080)]
    rows = 0
    for block in _mask_blocks(np.ones(46_080, bool), sets):
        assert block.nbytes <= 1 << 22
        rows += len(block)
        if rows > 1000:
            break
    pairs = list(combinations(range(270), 2))
    sizes = [len(block) for block in _mask_blocks(np.ones(270, bool), pairs)]
    assert sum(sizes) == 36_315
    assert max(sizes) * 270 <= 1 << 22
