"""Finding circuits: planted ones, a model that does not do the task, runs."""

from dataclasses import replace

import numpy as np
import pytest

import mechspex as mx
from mechspex.circuits import find_circuit as finding
from mechspex.circuits.find_circuit import check_behaviour
from mechspex.errors import Refused
from mechspex.runs.text import percent


def planted(n_units=30, n_outputs=10, seed=0):
    """0 and 1 together carry most; 2 or 3 a part; 4 hurts; twenty units do a little."""
    scale = 1 + 0.1 * np.random.default_rng(seed).standard_normal(n_outputs)

    def function(masks):
        m = masks.astype(float)
        value = 4 * m[:, 0] * m[:, 1] + 1 - (1 - m[:, 2]) * (1 - m[:, 3]) - m[:, 4]
        return np.outer(value + 0.02 * m[:, 10:30].sum(axis=1) + 0.2, scale)

    return mx.FunctionValues(function, mx.parts(f"u{i}" for i in range(n_units)))


@pytest.fixture(scope="module")
def found():
    return mx.find_circuit(planted(), planted(seed=1), n_masks=200)


def test_a_planted_circuit_is_found_scored_and_linked(found):
    circuit = found.circuit
    assert {"u0", "u1"} <= set(circuit.names)
    assert len(circuit) <= 3
    assert found.faithfulness.faithfulness.value >= 0.9
    assert circuit.scores["faithfulness"][0] == found.faithfulness.faithfulness.value
    relations = {link.members: link.relation for link in circuit.links}
    assert relations[(0, 1)] == "together"
    # The best three leave out the unit that hurts; the best four of all subsets of that size.
    assert set(found.best[3]) in ({0, 1, 2}, {0, 1, 3})
    # All but the unit that hurts add something: more of them are never worse.
    assert found.front["size"].max() == 20
    assert found.front["value"].is_monotonic_increasing
    assert str(circuit.names[0]) in str(found)


def test_how_nearly_it_is_the_model_is_in_every_answer(found, tmp_path):
    within = found.faithfulness.equivalent_within
    assert abs(1 - found.faithfulness.faithfulness.value) <= within < 0.2
    assert found.circuit.scores["equivalent_within"] == within
    said = f"equivalent to the model within {percent(within)} of the behaviour (95% sure)"
    assert said in str(found.faithfulness)
    assert said in str(found.circuit)
    # Nor is there anything to say of random circuits where none were measured.
    bare = mx.faithfulness(planted(seed=1), found.circuit, n_random=0)
    assert "random" not in str(replace(found.circuit, scores=bare.to_dict()))
    older = replace(found.circuit, scores={**found.circuit.scores})
    older.scores.pop("equivalent_within")
    older.save(tmp_path / "older.json")
    assert "equivalent" not in str(mx.Circuit.load(tmp_path / "older.json"))


def test_the_certificate_is_of_a_sample_or_of_all_prompts_there_are():
    """Two prompts that differ: a census is sure of what a sample of them cannot be."""

    def planted_on(sizes):
        def value(kept):
            return (kept[:, [0]] & kept[:, [1]]) * sizes + 0.01 * kept[:, [2]]

        return mx.FunctionValues(value, mx.parts(f"u{i}" for i in range(8)))

    goal = mx.CircuitGoal(size=2)

    def certificate(values, certified):
        found = mx.find_circuit(values, values, goal=goal, n_masks=60, certified=certified)
        assert found.circuit.members == (0, 1)
        assert found == mx.Discovery.from_dict(found.to_record())
        return found.certificate, str(found)

    two = planted_on(np.array([1.0, 99.0]))
    with pytest.raises(Refused, match="no difference that is surely above 0"):
        certificate(two, False)
    found, said = certificate(two, "census")
    assert found.census
    assert found == mx.certify(two, [0, 1], census=True)
    assert found.holds
    assert "2 prompts, all there are" in said
    assert "on the prompts of the search, and on all there are" in said
    assert "fresh" not in said
    # Twelve that differ less are a sample as well, of which the text says otherwise.
    twelve = planted_on(np.resize([1.0, 2.0, 3.0], 12))
    found, said = certificate(twelve, True)
    assert not found.census
    assert found == mx.certify(twelve, [0, 1])
    assert "on fresh ones" in said
    assert certificate(twelve, "sample")[0] == found
    with pytest.raises(Refused, match="certified = 'all': give True, False, sample or census"):
        certificate(twelve, "all")


def test_a_census_of_no_behaviour_is_refused():
    values = mx.FunctionValues(lambda kept: kept[:, [0]] * np.array([1.0, -1.0]), 3)
    with pytest.raises(Refused, match="no circuit is reported"):
        mx.find_circuit(values, values, n_masks=60, certified="census")


def test_a_circuit_of_the_size_asked_for():
    goal = mx.CircuitGoal(size=7, sizes=(3, 7))
    found = mx.find_circuit(planted(), planted(seed=1), n_masks=120, goal=goal)
    assert len(found.circuit) == 7
    assert 4 not in found.circuit.members


def test_matching_circuits_do_what_the_whole_model_does(found):
    values = planted()
    whole, best, matching = (
        values(np.array([np.isin(np.arange(30), columns)])).mean()
        for columns in (range(30), found.best[20], found.matching[20])
    )
    assert best > whole + 0.5
    assert abs(matching - whole) < 0.1


class Sloped(mx.FunctionValues):
    """Forty units, alone and in 80 pairs, more than 100 masks tell; with its slope at soft masks.

    `measured` and `sloped` count masks and gradients.
    """

    def __init__(self, n_units=40, n_outputs=8, seed=0):
        rng = np.random.default_rng(7)
        self._weights = rng.standard_normal(n_units) + 1
        there = np.triu(rng.random((n_units, n_units)) < 0.1, 1)
        pairs = there * rng.standard_normal((n_units, n_units))
        self._pairs = pairs + pairs.T
        self._scale = 1 + 0.1 * np.random.default_rng(seed).standard_normal(n_outputs)
        self.measured = self.sloped = 0
        super().__init__(self._of, mx.parts(f"u{i}" for i in range(n_units)))

    @property
    def configuration(self):
        return {"function": f"sloped, {self._scale}"}

    def _of(self, masks):
        self.measured += len(masks)
        soft = masks.astype(float)
        value = soft @ self._weights + 0.5 * ((soft @ self._pairs) * soft).sum(axis=1)
        return np.outer(value, self._scale)

    def value_and_gradient(self, masks):
        self.sloped += len(masks)
        soft = masks.astype(float)
        slope = self._weights + soft @ self._pairs
        values = np.outer((soft * (self._weights + slope)).sum(axis=1) / 2, self._scale)
        return values, slope[:, None] * self._scale[:, None]


def without_slopes(values):
    return mx.FunctionValues(values._of, values.units)


def test_slopes_find_better_and_nearer_subsets_and_a_run_takes_none_twice(tmp_path):
    sloped, fresh = Sloped(), without_slopes(Sloped(seed=1))
    options = {"n_masks": 100, "goal": mx.CircuitGoal(size=10, sizes=(5, 10, 20))}
    plain = mx.find_circuit(without_slopes(sloped), fresh, **options)
    found = mx.find_circuit(sloped, fresh, run=tmp_path / "run", **options)
    assert (found.front["value"] >= plain.front["value"]).all()
    assert (found.front["value"] > plain.front["value"]).any()
    away, plain_away = ((one.front["matching"] - 1).abs() for one in (found, plain))
    assert away.sum() < plain_away.sum()
    sloped.measured = sloped.sloped = 0
    again = mx.find_circuit(sloped, fresh, run=tmp_path / "run", **options)
    assert (sloped.measured, sloped.sloped) == (0, 0)
    assert again.masks == found.masks
    assert again.circuit == found.circuit


class Coarse(Sloped):
    """The same, measured in another precision than `in_own_dtype` is."""

    def __init__(self, precision):
        super().__init__()
        self.in_own, self._precision = Sloped(), precision

    @property
    def in_own_dtype(self):
        return self.in_own

    @property
    def configuration(self):
        return super().configuration | {"dtype": f"float32, measured in {self._precision}"}


def test_slopes_are_in_bf16_where_values_are_and_as_a_run_was_begun(tmp_path, monkeypatch):
    options = {"n_masks": 100, "goal": mx.CircuitGoal(size=10, sizes=(5, 10, 20))}
    fresh = without_slopes(Sloped(seed=1))

    def sloped(precision, run):
        values = Coarse(precision)
        found = mx.find_circuit(values, fresh, run=tmp_path / run, **options)
        return values.sloped, values.in_own.sloped, found

    in_bf16, in_own, found = sloped("bf16", "new")
    assert in_bf16 > 0
    assert in_own == 0
    assert sloped("bf16", "new")[:2] == (0, 0)
    in_fp16, in_own, _ = sloped("fp16", "half")
    assert in_fp16 == 0, "fp16 has not the range that gradients take"
    assert in_own > 0
    # As an older version took them.
    monkeypatch.setattr(finding, "_COARSE", None)
    in_bf16, in_own, before = sloped("bf16", "old")
    assert in_bf16 == 0
    assert in_own > 0
    monkeypatch.undo()
    in_bf16, in_own, again = sloped("bf16", "old")
    assert (in_bf16, in_own) == (0, 0)
    assert again.circuit == before.circuit == found.circuit


def test_a_run_measures_nothing_twice(tmp_path):
    calls = []
    values, fresh = planted(n_units=20), planted(n_units=20, seed=1)

    def counted(masks):
        calls.append(len(masks))
        return values(masks)

    counted.configuration = {"function": "counted"}  # pyright: ignore[reportFunctionMemberAccess]
    again = mx.FunctionValues(counted, values.units)
    goal, run = mx.CircuitGoal(sizes=(2, 5, 9)), tmp_path / "run"
    first = mx.find_circuit(again, fresh, n_masks=100, goal=goal, run=run)
    assert mx.Circuit.load(tmp_path / "run" / "circuit.json") == first.circuit
    before = sum(calls)
    second = mx.find_circuit(again, fresh, n_masks=100, goal=goal, run=run)
    assert sum(calls) == before
    assert second.circuit == first.circuit


def test_a_model_that_does_not_do_the_task_has_no_circuit():
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(6, 24))
    unsure = mx.FunctionValues(lambda masks: masks @ noise, mx.parts("abcdef"))
    with pytest.raises(Refused, match="not? .*surely above 0"):
        mx.find_circuit(unsure, unsure, n_masks=60)


def test_a_circuit_that_is_refused_leaves_no_run(tmp_path):
    noise = np.random.default_rng(3).normal(size=(6, 24))

    def nothing(masks):
        return masks @ noise

    nothing.configuration = {"function": "nothing"}  # pyright: ignore[reportFunctionMemberAccess]
    unsure = mx.FunctionValues(nothing, mx.parts("abcdef"))
    with pytest.raises(Refused, match="surely above 0"):
        mx.find_circuit(unsure, unsure, n_masks=60, run=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    # What was there before stays, and what others measured.
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").write_text("mine")
    with pytest.raises(Refused, match="surely above 0"):
        mx.find_circuit(unsure, unsure, n_masks=60, run=tmp_path / "own")
    assert (tmp_path / "own" / "notes.txt").read_text() == "mine"

    def meanwhile(masks):
        if len(masks) == 2:
            mx.sweep(unsure, run=tmp_path / "both")
        return masks @ noise

    meanwhile.configuration = nothing.configuration  # pyright: ignore[reportFunctionMemberAccess]
    held_out = mx.FunctionValues(meanwhile, mx.parts("abcdef"))
    with pytest.raises(Refused, match="surely above 0"):
        mx.find_circuit(unsure, held_out, n_masks=60, run=tmp_path / "both")
    assert mx.sweep(unsure, run=tmp_path / "both").cost.measured == 0
    mx.sweep(unsure, run=tmp_path / "swept")
    before = mx.load(tmp_path / "swept")
    with pytest.raises(Refused, match="surely above 0"):
        mx.find_circuit(unsure, unsure, n_masks=60, run=tmp_path / "swept")
    assert mx.load(tmp_path / "swept") == before
    assert mx.sweep(unsure, run=tmp_path / "swept").cost.measured == 0


def test_the_task_must_be_done_where_chance_is_zero():
    class Measured(mx.FunctionValues):
        @property
        def configuration(self):
            return {"task": "colour, 24 prompts", "metric": "logit_difference"}

    weights = np.full((3, 24), 0.5)
    below = np.where(np.arange(24) < 10, 2.0, -2.0)
    half = Measured(lambda masks: masks @ weights + below, mx.parts("abc"))
    with pytest.raises(
        Refused,
        match="the model does not do colour: logit difference .* right on 42% of 24 prompts",
    ):
        check_behaviour(half)
    check_behaviour(Measured(lambda masks: masks @ weights + 0.1, mx.parts("abc")))


def test_subsets_without_a_value_are_never_chosen():
    """Keeping 0 without 1 breaks the function; nothing that is reported contains it."""
    values = planted()

    def breaks(masks):
        found = values(masks)
        found[masks[:, 0] & ~masks[:, 1] & (masks.sum(axis=1) < 23)] = np.nan
        return found

    broken = mx.FunctionValues(breaks, values.units)
    goal = mx.CircuitGoal(sizes=(1, 2, 3, 5, 8, 15))
    found = mx.find_circuit(broken, planted(seed=1), n_masks=100, goal=goal)
    assert np.isfinite(found.front[["value", "matching"]].to_numpy()).all()
    assert {"u0", "u1"} <= set(found.circuit.names)


def test_bad_arguments_are_refused():
    values = planted()
    with pytest.raises(Refused, match="n_masks = 10"):
        mx.find_circuit(values, values, n_masks=10)
    with pytest.raises(Refused, match="seed = -1"):
        mx.find_circuit(values, values, seed=-1)
    with pytest.raises(Refused, match="same units"):
        mx.find_circuit(values, planted(n_units=41))
    beyond = mx.CircuitGoal(target=3.0, objective="best")
    with pytest.raises(Refused, match="no subset reaches a faithfulness of 3"):
        mx.find_circuit(planted(n_units=12), planted(n_units=12, seed=1), n_masks=60, goal=beyond)
    for sizes in ([], [0, 3]):
        with pytest.raises(Refused, match="sizes"):
            mx.find_circuit(values, values, goal=mx.CircuitGoal(sizes=sizes))
    with pytest.raises(Refused, match="size = 30: choose from 1 to 29"):
        mx.find_circuit(values, values, goal=mx.CircuitGoal(size=30))
    for target in (1.5, float("nan")):
        with pytest.raises(Refused, match=f"target = {target}"):
            mx.CircuitGoal(target=target)


def test_old_keywords_become_the_goal():
    values = planted()
    with (
        pytest.warns(DeprecationWarning, match=r"size= is now goal=CircuitGoal\(size=…\)"),
        pytest.raises(Refused, match="size = 30: choose from 1 to 29"),
    ):
        mx.find_circuit(values, fresh=values, size=30)  # pyright: ignore[reportCallIssue]
