"""``mechspex runs`` and ``mechspex doctor``: many runs, and whether they are whole."""

import json
from pathlib import Path

import numpy as np
import pytest

import mechspex as mx
from mechspex.forward.machine import Device, Machine, measure_machine
from mechspex.runs.store_file import VALUES


@pytest.fixture
def two(run, tmp_path):
    def value(masks):
        return masks @ np.arange(1.0, 7.0)

    value.configuration = {"function": "value"}  # pyright: ignore[reportFunctionMemberAccess]
    units = mx.parts("abcdef")
    mx.sweep(value, units=units, among="a,b,c", run="one")
    mx.sweep(value, units=units, among="c,d", order=2, run="two")
    return run


def test_runs_are_listed_merged_exported_and_imported(two, tmp_path):
    code, out, _ = two("runs")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()] == [["one", "4"], ["two", "4"]]
    assert json.loads(two("runs", "list", "--json")[1])[0]["bytes"] > 1000
    for n_new in ("6 rows new", "0 rows new"):
        code, out, _ = two("runs", "merge", "both", "one", "two")
        assert (code, "6 masks" in out, n_new in out) == (0, True, True)
    assert "6 masks × 1 outputs" in two("runs", "export", "both", "both.csv")[1]
    assert "6 of 6 masks new" in two("runs", "import", "both.csv", "again")[1]
    assert "0 of 6 masks new" in two("runs", "import", "both.csv", "again")[1]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("runs", "merge", "both", "one", "tow"), "did you mean two?"),
        (("runs", "export", "one", "values.xlsx"), "end the name in"),
        (("runs", "export", "one", "no/values.csv"), "cannot be written"),
        (("runs", "export", "one", "values.csv", "--part", "validation"), "holds no values"),
        (("runs", "import", "nothing.csv", "new"), "no file nothing.csv"),
        (("export", "one", "values.csv"), "did you mean: mechspex runs export"),
        (("merge", "both", "one", "two"), "did you mean: mechspex runs merge"),
        (("list",), "did you mean: mechspex runs list"),
        (("doctor", "--salvage", "new"), "saves one run"),
        (("doctor", "one", "--salvage", "two"), "is there already"),
        (("doctor", "on"), "did you mean one"),
    ],
)
def test_slips_are_told(two, arguments, complaint):
    code, out, err = two(*arguments)
    assert (code, out, complaint in err) == (2, "", True)


def test_a_damaged_run_is_named_and_saved(two, tmp_path):
    code, out, _ = two("doctor", "one", "two")
    assert (code, out.count("whole")) == (0, 2)
    file = tmp_path / "runs" / "one" / VALUES
    content = bytearray(file.read_bytes())
    content[content.index(b"SQLite") + 3] = 0
    file.write_bytes(content)
    code, out, _ = two("doctor", "one", "--json")
    assert code == 1
    assert json.loads(out)[0]["damage"]
    code, out, _ = two("doctor", "one", "two")
    assert out.count("mechspex doctor") == 1, "and not as the cause that it names itself"
    assert out.splitlines()[-1] == "save what is whole: mechspex doctor runs/one --salvage NEW"
    code, out, _ = two("doctor", "one", "--salvage", "saved")
    assert (code, "4 masks, 0 gradients saved" in out) == (0, True)
    assert two("doctor", "saved")[0] == 0
    assert mx.load("saved") == mx.load("one")


@pytest.mark.parametrize("where", ["row", "page", "below"])
def test_a_damaged_run_is_listed_as_one_with_what_helps(two, tmp_path, where):
    """A row whose bytes were flipped is counted as any other, and shows by its checksum alone."""
    (tmp_path / "runs" / "one" / "sweep.json").unlink()
    (tmp_path / "runs" / "one" / "sweep.csv").unlink()
    file = tmp_path / "runs" / "one" / VALUES
    content = file.read_bytes()
    if where == "below":
        file = tmp_path / "runs" / "one" / "validation" / VALUES
        file.parent.mkdir()
    if where == "page":
        file.write_bytes(content[: len(content) // 2])
    else:
        # All six units are kept, 1 + 2 + … + 6.
        value, other = np.float64(21).tobytes(), np.float64(22).tobytes()
        assert content.count(value) == 1
        file.write_bytes(content.replace(value, other))
    for command in (("status",), ("runs", "list"), ("runs",)):
        damaged, whole = two(*command)[1].splitlines()
        damage = "damaged or empty" if where == "page" else "damaged"
        assert damaged.endswith(f"   {damage}: mechspex doctor one")
        assert whole.endswith("   swept")
    code, out, err = two("status", "one")
    assert (code, out) == (1, "")
    assert "its values are damaged" in err
    assert "mechspex doctor runs/one" in err
    assert two("doctor", "one")[0] == 1


def test_an_answer_that_is_damaged_is_named_too(two, tmp_path):
    (tmp_path / "runs" / "one" / "sweep.json").write_text("{")
    code, out, _ = two("doctor", "one")
    assert code == 1
    assert "sweep.json" in out
    assert "--salvage" not in out, "its values are whole"


def test_a_run_of_which_nothing_is_whole_is_not_said_to_go_on(two, tmp_path):
    file = tmp_path / "runs" / "one" / VALUES
    file.write_bytes(file.read_bytes()[:100])
    code, out, _ = two("doctor", "one", "--salvage", "saved")
    assert code == 1
    assert "nothing is whole" in out
    assert "goes on" not in out
    assert not (tmp_path / "runs" / "saved").exists(), "no empty run is left"


def test_the_machine_is_measured(run, monkeypatch):
    monkeypatch.setattr("mechspex.forward.machine._ROWS", 64)
    code, out, _ = run("doctor")
    assert code == 0
    assert "GFLOP/s: float32" in out
    assert "runs in runs" in out
    machine = measure_machine()
    assert machine.devices[0].rates.keys() == {"float32", "bfloat16"}


def test_a_models_share_of_the_machine_is_measured(run, tiny):
    code, out, _ = run("doctor", "--model", "tiny", "--json")
    told = json.loads(out)["model"]
    matrices = sum(p.numel() for p in tiny.blocks.parameters() if p.ndim > 1)
    assert code == 0
    assert told["gflops"] == pytest.approx(2e-9 * matrices * told["tokens"])
    assert 0 < told["share"] < 2
    assert "tiny: " in run("doctor", "--model", "tiny")[1]


@pytest.mark.parametrize("device", ["nonsense", "cuda:9", "1"])
def test_a_device_in_the_environment_that_is_none_is_told(run, monkeypatch, device):
    monkeypatch.setattr("mechspex.forward.machine._ROWS", 64)
    monkeypatch.setenv("MECHSPEX_DEVICE", device)
    code, out, _ = run("doctor")
    assert (code, f"MECHSPEX_DEVICE = {device!r} is of no use here" in out) == (1, True)
    assert "GFLOP/s" in out
    assert json.loads(run("doctor", "--json")[1])["device"].endswith("or unset it")
    monkeypatch.setenv("MECHSPEX_DEVICE", "cpu")
    assert run("doctor")[0] == 0


def test_runs_of_figures_are_listed_and_shown(run, tmp_path):
    assert run("figure", "or-gate")[0] == 0
    (tmp_path / "runs" / "figure-begun").mkdir()
    (tmp_path / "runs" / "figure-begun" / "cells.json").write_text("{}")
    rows = json.loads(run("runs", "list", "--json")[1])
    assert [(row["run"], row["state"]) for row in rows] == [
        ("figure-begun", "no answer yet"), ("figure-or-gate", "figure drawn"),
    ]  # fmt: skip
    code, out, _ = run("status", "figure-or-gate")
    assert (code, "Greedy pruning keeps one of the inputs of an OR" in out) == (0, True)


def machine(rate, half, threads=4):
    device = Device("cpu", "", {"float32": float(rate), "bfloat16": float(half)}, 1, 2)
    return Machine((device,), 4, threads, 10.0)


def test_advice_follows_from_what_was_measured():
    assert "bf16 pays: 2 times" in machine(40, 80).advice[0]
    assert "bf16 does not pay: 0.02 times" in machine(50, 1).advice[0]
    assert machine(11, 5).advice[0].startswith("OMP_NUM_THREADS=1")
    assert machine(20, 5, threads=2).advice[0].startswith("OMP_NUM_THREADS=4")


def test_a_folder_that_may_not_be_looked_into_is_said(two, monkeypatch):
    def refused(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(Path()), "is_dir", refused)
    code, out, err = two("status", "one")
    assert (code, out) == (1, "")
    assert "runs/one may not be opened: Permission denied" in err
