"""The time that a search takes is said at its start, and a time can be its budget."""

import re
from typing import ClassVar

import numpy as np
import pytest

import mechspex as mx
from mechspex.errors import BudgetError
from mechspex.explanation import timing
from mechspex.explanation.plan import Plan, n_held_out
from mechspex.explanation.timing import masks_in
from mechspex.runs.run import Run

UNITS = 30
IN_ROUNDS = mx.Adaptive(mx.RandomMasks(0.8), target_r2=0.9, focused=False)


def planted(masks):
    return 1.0 * (masks[:, 0] & masks[:, 1]) + 0.5 * masks[:, 2]


class Clock:
    """A time in which every mask takes as long."""

    configuration: ClassVar = {"function": "planted"}

    def __init__(self, seconds_a_mask):
        self.seconds_a_mask, self.now = seconds_a_mask, 0.0

    def __call__(self, masks):
        self.now += self.seconds_a_mask * len(masks)
        return planted(masks)

    def perf_counter(self):
        return self.now


@pytest.fixture
def slow(monkeypatch):
    clock = Clock(0.02)
    monkeypatch.setattr("mechspex.runs.recorded.time", clock)
    return clock


def values_of(clock):
    return mx.FunctionValues(clock, UNITS)


def test_how_long_it_takes_is_said_before_the_search(slow, capsys):
    mx.explain(values_of(slow), design=IN_ROUNDS, n_masks=1000, decoder="pursuit", progress=True)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("about")]
    # Eight held-out masks are measured by then; 40 are those of the tests.
    first, whole = (0.02 * (n + 92 + 40) / 0.85 for n in (250, 1000))
    assert said == [
        f"about {first:.0f} s up to a first answer, {whole:.0f} s at most; it stops at a held-out "
        "R² of 0.9: 250 to 1,000 masks and 100 held-out ones × 1 outputs at 50 values/s, decoding, "
        "exact tests on 1 outputs"
    ]


def test_every_round_says_its_answer_and_decoding_is_never_silent(slow, capsys):
    hard = mx.Adaptive(mx.RandomMasks(0.8), target_r2=0.999999, focused=False)

    def noisy(masks):
        return planted(masks) + 0.2 * np.random.default_rng(0).normal(size=len(masks))

    mx.explain(noisy, units=UNITS, design=hard, n_masks=400, decoder="pursuit", progress=True)
    said = capsys.readouterr().err
    (round_one,) = re.findall(r"250 masks: held-out R² (\d\.\d+) \(additive (\d\.\d+)\).*", said)
    assert float(round_one[0]) > float(round_one[1])
    assert re.search(r"strongest by these .*0 × 1 \+", said)
    assert said.count("decoding 250 masks of 30 units") == 1
    assert said.count("decoding 400 masks of 30 units") == 1


def test_nothing_is_said_without_progress_nor_measured_in_another_order(slow, capsys):
    options = {"design": IN_ROUNDS, "n_masks": 1000, "decoder": "pursuit"}
    quiet = mx.explain(values_of(slow), **options)
    assert not capsys.readouterr().err
    loud = mx.explain(values_of(slow), **options, progress=True)
    assert loud.function == quiet.function
    assert loud.cost.masks == quiet.cost.masks


def test_short_searches_are_not_announced(capsys):
    mx.explain(planted, units=UNITS, n_masks=200, decoder="pursuit", progress=True)
    assert "about" not in capsys.readouterr().err


@pytest.mark.parametrize("target", [None, 0.9])
def test_minutes_are_a_budget(slow, target, tmp_path):
    design = mx.RandomMasks(0.8) if target is None else IN_ROUNDS
    plan = Plan.of(UNITS, design=design)
    with Run.open(tmp_path / "run") as run:
        n_masks = masks_in(1.0, values_of(slow), 4, plan, run)
    held_out, tests = n_held_out(n_masks, target), timing._TESTED * 4
    # 0.85 of a minute at fifty masks a second; a mask more would not fit.
    assert n_masks + held_out + tests <= 2550 < n_masks + 2 + held_out + tests
    assert slow.now <= 0.02 * 9, "eight masks, and a mask by which the function is known"
    with Run.open(tmp_path / "run") as run:
        again = masks_in(1.0, values_of(slow), 4, plan, run)
    assert again == n_masks, "what a stopped run has measured does not make it longer"


def test_minutes_go_on_where_the_usual_budget_is_measured(slow, tmp_path):
    plan = Plan.of(UNITS, design=mx.RandomMasks(0.8))
    mx.explain(
        values_of(slow), design=mx.RandomMasks(0.8), decoder="additive", run=tmp_path / "run"
    )
    with Run.open(tmp_path / "run") as run:
        assert masks_in(6.0, values_of(slow), 1, plan, run) > 1000


def test_too_few_minutes_are_told_with_the_time_that_is_needed(slow):
    plan = Plan.of(UNITS, design=mx.RandomMasks(0.8), decoder="automatic")
    needed = plan.decoder.minimum_masks(UNITS)
    with Run.open(None) as run:
        with pytest.raises(BudgetError, match="--minutes 0.05 has time for 0 masks") as told:
            masks_in(0.05, values_of(slow), 1, plan, run)
        minutes = 0.02 * (needed + 100 + timing._TESTED) / 0.85 / 60
        assert f"needs at least {needed} for 30 units; give about {minutes:.2g} minutes" in str(
            told.value
        )
        assert masks_in(1.01 * minutes, values_of(slow), 1, plan, run) >= needed


def test_minutes_of_few_units_measure_all_masks():
    with Run.open(None) as run:
        plan = Plan.of(8)
        assert masks_in(0.1, mx.FunctionValues(planted, 8), 1, plan, run) == plan.n_masks


def test_rounds_towards_a_target_hold_out_the_fewest():
    assert [n_held_out(n, None) for n in (100, 1000)] == [100, 200]
    assert [n_held_out(n, 0.9) for n in (100, 16_000)] == [100, 100]
