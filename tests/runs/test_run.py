"""A run: folder, stores, progress and cost in one object."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

import mechspex as mx
from mechspex.core.masks import all_masks
from mechspex.errors import RunError
from mechspex.runs.cost import Cost
from mechspex.runs.run import Run, folder_of

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


def test_a_run_that_exists_is_found_by_name_before_a_folder_here(tmp_path, monkeypatch):
    monkeypatch.setenv("MECHSPEX_RUNS", "runs")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=r"no run 'soup' in runs; there are none yet"):
        folder_of("soup")
    for folder in ("runs/soup", "runs/salad", "soup", "elsewhere"):
        Path(folder).mkdir(parents=True)
    (Path("soup") / "explanation.json").write_text("{}")
    assert folder_of("soup") == Path("runs/soup")
    assert folder_of(Path("soup")) == Path("soup")
    assert folder_of("runs/salad") == Path("runs/salad")
    assert folder_of("elsewhere") == Path("elsewhere")
    assert folder_of("soup/explanation.json") == Path("soup")
    with pytest.raises(RunError, match=r"no run 'soop' in runs; did you mean soup\?"):
        folder_of("soop")
    with pytest.raises(RunError, match=r"no run 'qqq' in runs; there are salad, soup"):
        folder_of("qqq")
    for number in range(7):
        Path(f"runs/t{number}").mkdir()
    listed = ", ".join(["soup", *(f"t{number}" for number in range(7))])
    with pytest.raises(RunError, match=rf"there are {listed} and 1 more$"):
        folder_of("qqq")
    for name in ("", "../x"):
        with pytest.raises(RunError, match="is refused: use letters"):
            folder_of(name)


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


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """Makes a folder one that may only be read; the administrator may write into any."""
    asked = os.access

    def finish(folder):
        def may(path, mode, **options):
            inside = Path(path).absolute().is_relative_to(folder.absolute())
            return asked(path, mode, **options) and not (inside and mode & os.W_OK)

        monkeypatch.setattr(os, "access", may)
        return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    return finish


def ends(masks):
    return 2.0 * (masks[:, 0] & masks[:, 1]) + masks[:, 2]


@pytest.mark.parametrize(
    "ask",
    [
        lambda run: mx.sweep(ends, units=UNITS, run=run),
        lambda run: mx.validate(mx.FunctionValues(ends, UNITS), ["a", "a × b"], run=run),
        lambda run: mx.explain(ends, units=UNITS, run=run),
        lambda run: mx.screen(mx.FunctionValues(ends, UNITS), "ablation", run=run),
    ],
)
def test_a_finished_run_that_may_only_be_read_answers_again(ask, tmp_path, finished):
    first = ask(tmp_path)
    files = finished(tmp_path)
    again = ask(tmp_path)
    assert again.to_pandas().equals(first.to_pandas())
    assert {path: path.read_bytes() for path in files} == files
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(files)


def test_what_a_finished_run_lacks_is_refused(tmp_path, finished):
    mx.sweep(ends, units=UNITS, run=tmp_path)
    files = finished(tmp_path)
    assert mx.sweep(ends, units=UNITS, among="a", run=tmp_path).cost.measured == 0
    with pytest.raises(RunError, match="is read-only and lacks values"):
        mx.sweep(ends, units=UNITS, order=2, run=tmp_path)
    with Run.open(tmp_path) as run:
        run.write("sweep.json", {})
        run.remove("sweep.json")
    assert {path: path.read_bytes() for path in files} == files


def test_the_cost_counts_the_outputs_of_every_part():
    def on(n_outputs):
        return lambda masks: np.ones((len(masks), n_outputs))

    with Run.open(None) as run:
        run.record(mx.FunctionValues(on(2), 4))(all_masks(4))
        run.record(mx.FunctionValues(on(5), 4), "validation")(all_masks(4)[:3])
        cost = run.cost
    assert (cost.values, cost.values_measured) == (16 * 2 + 3 * 5,) * 2
    assert "19 masks × 2 outputs, more in the tests, = 47 forwards" in cost.line(2)
    old = Cost.from_dict({"masks": 3, "measured": 0, "seconds_measuring": 0.0, "seconds": 1.0})
    assert old.line(2).startswith("3 masks × 2 outputs = 6 forwards, 0 masks")
