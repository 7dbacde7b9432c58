"""Loading any kind of run by its name."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mechspex as mx
from mechspex.errors import Refused, RunError
from mechspex.runs.run import list_runs

UNITS = mx.parts(["salt", "leek", "oil", "bay", "rice", "lemon"])


def soup(masks: np.ndarray) -> np.ndarray:
    both = 3.0 * masks[:, 0] + 2.0 * (masks[:, 1] & masks[:, 3]) + masks[:, 2:4].any(axis=1)
    return np.stack([both, 1.25 * both, both + 0.5 * masks[:, 4], 0.75 * both], axis=1)


def values(scale: float = 1.0) -> mx.FunctionValues:
    return mx.FunctionValues(lambda masks: scale * soup(masks), UNITS)


ASKED = {
    "explained": lambda run: mx.explain(soup, units=UNITS, n_masks=70, run=run),
    "swept": lambda run: mx.sweep(values(), order=2, run=run),
    "circuit": lambda run: mx.find_circuit(values(), values(1.5), n_masks=60, run=run),
    "pruned": lambda run: mx.prune_heads(
        values(), values(1.5), shares=[0.5], n_masks=60, decoder="pursuit", run=run
    ),
    "screened": lambda run: mx.screen(values(), "ablation", run=run),
    "validated": lambda run: mx.validate(values(), [("salt",), ("leek", "bay")], run=run),
    "repaired": lambda run: mx.self_repair(mx.sweep(values(), order=2), values(1.5), run=run),
}


@pytest.fixture
def runs(monkeypatch, tmp_path):
    monkeypatch.setenv("MECHSPEX_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.mark.parametrize("name", ASKED)
def test_every_run_is_loaded_by_name_folder_and_file(runs, name):
    answer = ASKED[name](name)
    loaded = mx.load(name)
    assert type(loaded) is type(answer)
    assert loaded == answer
    assert str(loaded) == str(answer)
    assert mx.load(runs / name) == mx.load(str(runs / name)) == answer
    assert mx.load(runs / name / type(answer).file) == answer
    assert type(answer).load(name) == answer


def test_the_figure_of_a_paper_is_loaded_like_any_answer(runs):
    """A committed one in the folder of a run, where `mechspex figure` writes it."""
    kept = Path(__file__).parents[1] / "benchmarks" / "figures" / "or-gate.json"
    (runs / "figure-or-gate").mkdir(parents=True)
    shutil.copy(kept, runs / "figure-or-gate" / "reproduction.json")
    loaded = mx.load("figure-or-gate")
    assert loaded.to_dict()["figure"]["name"] == "or-gate"
    assert loaded == mx.load(kept)


STATES = {
    "explained": "explained", "swept": "swept", "circuit": "circuit found", "pruned": "pruned",
    "screened": "screened", "validated": "validated", "repaired": "self-repair",
}  # fmt: skip


def test_every_run_is_listed_with_the_answer_it_holds(runs):
    for name in ASKED:
        ASKED[name](name)
    listed = {row["run"]: row for row in list_runs()}
    assert {name: row["state"] for name, row in listed.items()} == STATES
    assert all(row["masks"] for row in listed.values())


def test_an_explanation_after_a_screen_comes_back_with_it(runs):
    answer = mx.explain(values(), screen="ablation", n_masks=60, run="both")
    assert answer.screening is not None
    assert [row["state"] for row in list_runs()] == ["explained"]
    loaded = mx.load("both")
    assert isinstance(loaded, mx.Explanation)
    assert loaded == answer
    assert loaded.screening == answer.screening


def test_runs_that_are_not_there_are_told(runs):
    with pytest.raises(RunError, match=r"no run 'ioi' in .*; there are none yet"):
        mx.load("ioi")
    ASKED["explained"]("soup")
    with pytest.raises(RunError, match=r"no run 'soop' in .*; did you mean soup\?"):
        mx.load("soop")
    with pytest.raises(RunError, match=r"no run 'elsewhere' in .*; there are soup"):
        mx.load("elsewhere")
    with pytest.raises(Refused, match="holds no sweep; run mechspex sweep first"):
        mx.Sweep.load("soup")


def test_folders_of_older_versions_are_told_plainly(runs):
    ASKED["swept"]("old")
    (runs / "old" / "sweep.json").unlink()
    with pytest.raises(Refused, match=r"holds a sweep as a table alone: read .*sweep.csv"):
        mx.load("old")
    (runs / "old" / "sweep.csv").unlink()
    with pytest.raises(Refused, match="holds values and no answer yet"):
        mx.load("old")
    (runs / "old" / "explanation.json").write_text("{")
    with pytest.raises(Refused, match="not JSON"):
        mx.load("old")
    (runs / "old" / "other.json").write_text('{"schema": "mechspex.other/1"}')
    with pytest.raises(Refused, match=r"schema 'mechspex.other/1', which is none of"):
        mx.load(runs / "old" / "other.json")


def test_loading_needs_no_model(runs):
    ASKED["circuit"]("circuit")
    code = """if True:
        import sys
        import mechspex as mx
        print(repr(mx.load("circuit")))
        print(*sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Discovery(salt leek oil bay rice lemon; circuit of ")
    assert not {"torch", "transformers", "transformer_lens"} & set(done.stdout.split())
