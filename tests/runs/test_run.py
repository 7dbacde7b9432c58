"""A run: folder, stores, progress and cost in one object."""

import json

import numpy as np
import pytest

import mechspex as mx
from mechspex.core.masks import all_masks
from mechspex.errors import RunError
from mechspex.runs.run import Run

UNITS = mx.parts("abc")


def values(factor=1.0):
    return mx.FunctionValues(lambda masks: factor * masks.sum(axis=1), UNITS)


def test_values_and_answers_lie_below_the_folder(tmp_path):
    with Run.open(tmp_path / "one") as run:
        run.record(values())(all_masks(3))
        run.record(values(2.0), "validation")(all_masks(3)[:4])
        run.write("answer.json", {"answer": 42})
        assert run.cost.masks == run.cost.measured == 12
    assert json.loads((tmp_path / "one" / "answer.json").read_text()) == {"answer": 42}
    assert (tmp_path / "one" / "validation" / "values.sqlite").exists()
    with Run.open(tmp_path / "one") as again:
        again.record(values())(all_masks(3))
        again.remove("answer.json")
        again.remove("answer.json")
    assert (again.cost.masks, again.cost.measured) == (8, 0)
    assert not (tmp_path / "one" / "answer.json").exists()


def test_a_run_in_memory_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Run.open(None) as run:
        run.record(values(), "validation")(all_masks(3))
        run.write("answer.json", {})
        run.remove("answer.json")
    assert run.folder is None
    assert not list(tmp_path.iterdir())


def test_a_name_lies_below_the_folder_of_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("MECHSPEX_RUNS", str(tmp_path))
    assert Run.open("ioi").folder == tmp_path / "ioi"
    with pytest.raises(RunError, match="run name '../ioi' is refused"):
        Run.open("../ioi")


def test_a_nested_call_shares_the_run_and_its_cost_counts_in_both(tmp_path):
    with Run.open(tmp_path) as run:
        function = values()
        swept = mx.sweep(function, run=run)
        again = mx.validate(function, [("a",)], run=run)
        assert run.folder == swept.folder
        kept = run.record(function)
        kept(np.ones((1, 3), dtype=bool))
    assert again.terms == ((0,),)
    assert swept.cost.masks == swept.cost.measured == 4
    # Asked for by each of the three, measured by the first.
    assert (run.cost.masks, run.cost.measured) == (4 + 2 + 1, 4)


def test_a_run_below_is_counted_apart(tmp_path):
    with Run.open(tmp_path) as run, run.below("screen") as below:
        below.record(values())(all_masks(3))
    assert (below.cost.masks, run.cost.masks) == (8, 0)
    assert (tmp_path / "screen" / "values.sqlite").exists()


@pytest.mark.parametrize("progress", [False, True])
def test_progress_is_that_of_the_run_or_of_the_call(progress, capsys):
    with Run.open(None, progress=progress) as run:
        mx.sweep(values(), run=run)
    assert ("singles" in capsys.readouterr().err) == progress


def test_every_store_is_closed_when_a_call_fails(tmp_path):
    with pytest.raises(ValueError, match="stop"), Run.open(tmp_path) as run:  # noqa: PT012
        kept = run.record(values())
        raise ValueError("stop")
    with pytest.raises(Exception, match="closed"):
        kept(all_masks(3))


def test_a_validation_is_kept_in_a_run(tmp_path):
    asked = []

    def counted(masks):
        asked.append(len(masks))
        return masks @ np.arange(3.0)

    counted.configuration = {"function": "counted"}  # pyright: ignore[reportFunctionMemberAccess]
    for _ in range(2):
        tested = mx.validate(mx.FunctionValues(counted, UNITS), [(0, 2), (1,)], run=tmp_path)
    # The second time the shape of the outputs alone is asked for.
    assert sum(asked) == 1 + 5 + 1
    assert tested.effects.tolist() == [0.0, -1.0]
