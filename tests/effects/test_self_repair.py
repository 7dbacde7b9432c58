"""Self-repair: planted backups of both signs, what is none, and the known model with backups."""

import json
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.text import Annotation

import mechspex as mx
from mechspex import figures
from mechspex.errors import FailedMasksError, Refused
from mechspex.runs.run import REPAIR
from mechspex.set_functions.set_function import SetFunction
from mechspex.truth import known_model, truth

UNITS = mx.parts("abcdefgh")


def values_of(terms, *, n_outputs=12, noise=0.05, seed=0):
    """A planted function in the ablated basis, with coefficients of their own on every output."""
    rng = np.random.default_rng(seed)
    planted = SetFunction.from_mapping(
        len(UNITS),
        {t: c * (1 + noise * rng.standard_normal(n_outputs)) for t, c in terms.items()},
        basis="ablated",
    )
    return mx.FunctionValues(planted.predict_outputs, UNITS)


def repairs_of(found):
    return {(UNITS.names[r.unit], UNITS.names[r.by]): r.relation for r in found.confirmed}


def found_in(terms, **options):
    values = values_of(terms, **options)
    return mx.self_repair(mx.sweep(values, order=2), values_of(terms, seed=1, **options))


def test_an_or_is_a_full_backup_in_both_directions():
    found = found_in({(): 1.0, (0, 1): -1.0, (2,): -0.5})
    assert repairs_of(found) == {("a", "b"): "takes over", ("b", "a"): "takes over"}
    for repair in found.confirmed:
        assert repair.share == pytest.approx(1, abs=1e-5)
        assert repair.before.value == pytest.approx(0, abs=1e-6)
        assert repair.after.value == pytest.approx(-1, abs=0.1)
        assert repair.after.high < 0


def test_of_no_direct_effect_there_is_no_share():
    """As a file may say it: what is measured has a direct effect where there is a repair."""
    found = found_in({(): 1.0, (0, 1): -1.0, (2,): -0.5})
    nothing = mx.Estimate(0.0, 0.1, 0.2)
    repair, joint = replace(found.confirmed[0], direct=nothing), found.repaired[0]
    assert repair.relation != "no repair"
    assert np.isnan(repair.share)
    assert np.isnan(replace(joint, direct=nothing).share)


def test_backups_of_units_that_work_against_the_behaviour():
    found = found_in({(): 1.0, (0,): 0.3, (1,): 0.4, (0, 1): 0.8})
    assert set(repairs_of(found)) == {("a", "b"), ("b", "a")}
    (first, _) = sorted(found.confirmed, key=lambda r: r.unit)
    assert first.share == pytest.approx(0.8 / 1.1, rel=0.05)
    assert first.relation == "takes over"


def test_a_unit_that_opposes_less_repairs_in_one_direction_only():
    """b works against a: without a it does less harm, which makes up for a part of a's loss; that
    a does less good without b repairs nothing of b, whose ablation does good."""
    found = found_in({(): 1.0, (0,): -2.0, (1,): 1.0, (0, 1): -0.5})
    assert repairs_of(found) == {("a", "b"): "opposes less"}
    (repair,) = found.confirmed
    assert repair.share == pytest.approx(0.5 / 2.5, rel=0.05)
    assert repair.direct.value == pytest.approx(-2.5, rel=0.05)
    assert repair.after.value == pytest.approx(0.5, rel=0.1)


def test_more_than_all_may_be_repaired():
    found = found_in({(): 1.0, (0,): 0.1, (0, 1): -1.1})
    share = {(r.unit, r.by): r.share for r in found.confirmed}
    assert share[0, 1] == pytest.approx(1.1, rel=0.05)
    assert share[1, 0] == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize(
    "terms",
    [
        {(): 1.0, (0,): -1.0, (1,): -1.0, (0, 1): 1.0},
        {(): -1.0, (0,): 1.0, (1,): 1.0, (0, 1): -1.0},
        {(): 3.0, (0,): -1.0, (1,): -1.0, (2,): 0.5},
        # An AND of which the pair exceeds the singles a little.
        {(): 1.0, (0,): -1.0, (1,): -1.0, (0, 1): 1.1},
    ],
    ids=["and", "and, against", "additive", "more than an and"],
)
def test_what_needs_both_or_adds_up_is_no_repair(terms):
    assert not found_in(terms).confirmed
    # Nor where it is proposed wrongly, by a source that knows the pair and not the singles.
    proposed = SetFunction.from_mapping(8, {(0, 1): -1.0}, basis="ablated")
    found = mx.self_repair(proposed, values_of(terms, seed=1))
    assert found.n_pairs == 1
    assert not found.confirmed
    assert {r.relation for r in found.repairs} <= {"no repair"} or abs(
        found.repairs[0].interaction.value
    ) < 1e-5


def test_noise_is_not_confirmed():
    rng = np.random.default_rng(0)
    confirmed = 0
    for _ in range(20):
        terms = {(i, j): rng.normal(size=12) for i in range(8) for j in range(i)}
        planted = SetFunction.from_mapping(
            8, {tuple(sorted(t)): c for t, c in terms.items()}, basis="ablated"
        )
        values = mx.FunctionValues(planted.predict_outputs, UNITS)
        proposed = SetFunction.from_mapping(
            8, {tuple(sorted(t)): 1.0 for t in terms}, basis="ablated"
        )
        confirmed += bool(mx.self_repair(proposed, values).confirmed)
    assert confirmed <= 3


def test_effects_are_those_of_brute_force():
    values = values_of({(): 1.0, (0,): -0.2, (1,): -0.4, (0, 1): -0.7, (0, 1, 2): 0.6})
    found = mx.self_repair(mx.sweep(values, order=2), values)

    def f(*ablated):
        return float(values(~np.isin(np.arange(8), ablated)[None]).mean())

    for r in found.confirmed:
        i, j = r.unit, r.by
        assert r.loss.value == pytest.approx(f(i) - f(), abs=1e-5)
        assert r.before.value == pytest.approx(f(j) - f(), abs=1e-5)
        assert r.after.value == pytest.approx(f(i, j) - f(i), abs=1e-5)
        assert r.direct.value == pytest.approx(f(i, j) - f(j), abs=1e-5)
    assert len(found.confirmed) == 2


def test_several_backups_are_ablated_together():
    """b and c both stand in for a, each fully: without b alone c is left, without both nothing."""
    values = mx.FunctionValues(
        lambda m: np.outer(1.0 * (m[:, 0] | m[:, 1]) + 1.0 * (m[:, 0] | m[:, 2]), [0.9, 1.0, 1.1]),
        UNITS,
    )
    found = mx.self_repair(mx.sweep(values, order=2), values)
    (whole,) = [one for one in found.repaired if one.unit == 0]
    assert set(whole.by) == {1, 2}
    assert whole.loss.value == pytest.approx(0, abs=1e-6)
    assert whole.direct.value == pytest.approx(-2, rel=1e-5)
    assert whole.share == pytest.approx(1)


@pytest.mark.parametrize("source", ["truth", "sweep", "validation", "screen", "explanation"])
def test_the_known_model_shows_exactly_its_backups(source):
    known = known_model("backup")
    values = known.values("zero")
    proposed = {
        "truth": lambda: truth(values),
        "sweep": lambda: mx.sweep(values, order=2),
        "validation": lambda: mx.validate(
            values, [("L0H0", "L0H3"), ("L1H2", "L1H3"), ("L0H0", "L1H2"), ("L0H1", "L1H3")]
        ),
        "screen": lambda: mx.screen(values, "second_order"),
        "explanation": lambda: mx.explain(values, n_masks=256),
    }[source]()
    found = mx.self_repair(proposed, values)
    names = known.units.names
    assert {(names[r.unit], names[r.by]) for r in found.confirmed} == {
        ("L0H0", "L0H3"), ("L0H3", "L0H0"), ("L1H2", "L1H3"), ("L1H3", "L1H2"),
    }  # fmt: skip
    assert all(0.2 < r.share < 0.6 for r in found.confirmed)


def test_tables_text_graph_and_record(tmp_path):
    terms = {(): 1.0, (0, 1): -1.0, (2, 3): 0.5}
    values, fresh = values_of(terms), values_of(terms, seed=1)
    found = mx.self_repair(mx.sweep(values, order=2), fresh, run=tmp_path / "run")
    frame = found.to_pandas()
    assert len(frame) == 4
    assert frame["confirmed"].all()
    assert set(found.graph().edges) == {("a", "b"), ("b", "a"), ("c", "d"), ("d", "c")}
    assert found.graph().edges["a", "b"]["relation"] == "takes over"
    assert "a → b" in str(found)
    stored = json.loads((tmp_path / "run" / REPAIR).read_text())
    printed = json.loads(json.dumps(found.to_dict()))
    assert {key: stored[key] for key in printed} == printed
    assert mx.SelfRepair.from_dict(stored) == found
    assert stored["repaired"][0]["by"] in (["a"], ["b"])
    again = mx.self_repair(mx.sweep(values, order=2), fresh, run=tmp_path / "run")
    assert again.to_dict() == found.to_dict()


def test_nothing_to_propose_is_said():
    values = values_of({(): 1.0, (0,): -1.0})
    found = mx.self_repair(SetFunction.from_mapping(8, {(0,): -1.0}, basis="ablated"), values)
    assert found.n_pairs == 0
    assert not len(found.to_pandas())
    assert not found.graph()
    assert "0 repairs confirmed" in str(found)
    assert "no pair was measured: of none is it predicted" in str(found)


def test_most_limits_the_pairs_to_the_strongest():
    values = values_of({(): 1.0, (0, 1): -1.0, (2, 3): 0.5})
    found = mx.self_repair(mx.sweep(values, order=2), values, most=1)
    assert {(r.unit, r.by) for r in found.repairs} == {(0, 1), (1, 0)}


def test_bad_arguments_are_refused():
    values = values_of({(): 1.0, (0, 1): -1.0})
    function = SetFunction.from_mapping(8, {(0, 1): -1.0}, basis="ablated")
    with pytest.raises(Refused, match="most = 0"):
        mx.self_repair(function, values, most=0)
    with pytest.raises(Refused, match="level = 2.0"):
        mx.self_repair(function, values, level=2.0)
    with pytest.raises(Refused, match="9 units and held_out 8"):
        mx.self_repair(SetFunction.from_mapping(9, {(0,): 1.0}, basis="kept"), values)
    other = mx.FunctionValues(lambda masks: masks[:, 0] * 1.0, mx.parts("xyzuvwab"))
    with pytest.raises(Refused, match="same units"):
        mx.self_repair(mx.sweep(other), values)
    holes = mx.FunctionValues(lambda m: np.where(m[:, 0] | m[:, 1], 1.0, np.nan), values.units)
    with pytest.raises(FailedMasksError, match="a × b"):
        mx.self_repair(function, holes)


def test_the_map_has_an_arrow_for_every_confirmed_repair():
    known = known_model("backup")
    values = known.values("zero")
    figure = figures.self_repair_map(mx.self_repair(truth(values), values))
    axes = figure.axes[0]
    arrows = [text for text in axes.texts if isinstance(text, Annotation) and text.arrow_patch]
    places = {(text.xyann, text.xy) for text in arrows}
    pairs = [((0, 0), (0, 3)), ((1, 2), (1, 3))]
    assert places == {(one, other) for pair in pairs for one, other in (pair, pair[::-1])}
    assert len(figure.axes) == 2
    none = figures.self_repair_map(replace(mx.self_repair(truth(values), values), repairs=()))
    assert len(none.axes) == 1, "no scale of nothing"
    with pytest.raises(Refused, match="all heads"):
        figures.self_repair_map(found_in({(0, 1): -1.0}))
