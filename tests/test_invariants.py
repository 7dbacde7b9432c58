"""What a user of version 0.1 relies on: its public names, and that its kept runs still answer.

`tests/invariants.py` asks the questions; `data/public_0_1.json` and `data/runs_0_1` are what it
recorded with version 0.1.
"""

import json
import math
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import invariants
import pytest
from invariants import PYTHON, SHELL, asked, lost, public_names

import mechspex as mx
from mechspex.screening.screen_method import ScreenMethod

DATA = Path(__file__).parent / "data"
RUNS = DATA / "runs_0_1"
ANSWERS = json.loads((RUNS / "answers.json").read_text())
# What a run has cost differs from time to time, and library versions from place to place.
VARYING = {"seconds", "seconds_measuring", "versions"}

# Version 0.1 scored single units by the midpoint alone.
MIDPOINT = {"first": mx.FirstOrder(at=0.5)}

# Answers that say more than they did, under a schema of another number.
GROWN = {"sets": ("mechspex.validation/1", "mechspex.validation/3")}


def test_public_names_are_only_added():
    assert not lost(json.loads((DATA / "public_0_1.json").read_text()), public_names())


def differences(before: Any, after: Any, place: str = "") -> list[str]:
    """Where two answers differ by more than the rounding of another processor."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            line
            for key in before  # an answer may grow
            if key not in VARYING
            for line in differences(before.get(key), after.get(key), f"{place}.{key}")
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [line for k, (b, a) in pairs for line in differences(b, a, f"{place}[{k}]")]
    if isinstance(before, float) and isinstance(after, float):
        same = math.isclose(before, after, rel_tol=1e-6, abs_tol=1e-9)
        return [] if same else [f"{place}: {before} before, {after} now"]
    return [] if before == after else [f"{place}: {str(before)[:80]} before, {str(after)[:80]} now"]


def n_values(folder: Path) -> int:
    """How many values and gradients are kept in a run and all that lies below it."""
    count = 0
    for file in folder.rglob("values.sqlite"):
        with closing(sqlite3.connect(file)) as database:
            for table in ("value", "gradient"):
                count += database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return count


def screened(run: str, method: ScreenMethod) -> dict[str, Any]:
    """The candidates of the question that the shell was asked, by a method that it has no words
    for."""
    model = mx.load_model("tiny")
    task = mx.load_task("induction", model, n_prompts=4, seed=0)
    return mx.screen(mx.ComponentValues(model, task, mx.heads(model)), method, run=run).to_dict()


@pytest.mark.parametrize("name", ANSWERS)
def test_a_kept_run_answers_as_it_did_and_measures_nothing(name, tmp_path, monkeypatch):
    shutil.copytree(RUNS / name, tmp_path / name)
    monkeypatch.setenv("MECHSPEX_RUNS", str(tmp_path))
    # A plain function is known by its module, which was a script then.
    monkeypatch.setattr(invariants, "__name__", "__main__")
    before = n_values(tmp_path)
    if name in MIDPOINT:
        answer = json.loads(json.dumps(screened(name, MIDPOINT[name])))
    elif name in SHELL["tiny"]:
        answer = asked(SHELL["tiny"][name], "tiny")
    else:
        answer = json.loads(json.dumps(PYTHON["tiny"][name](name)))
    expected = dict(ANSWERS[name])
    if "cost" in expected:
        assert expected["cost"]["measured"] > 0
        expected = expected | {"cost": expected["cost"] | {"measured": 0}}
    if name in GROWN:
        assert (expected.pop("schema"), answer.pop("schema")) == GROWN[name]
        answer = {key: answer[key] for key in expected}
    if name == "soup":
        # Its one output has no interval, and what 0.1 confirmed by it was not.
        for term in expected["terms"]:
            assert [term.pop(key) for key in ("low", "high", "confirmed")][2]
            assert term
    if name == "circuit":
        # Version 0.1 took a head that looks at what followed before for a name mover.
        was, now = expected["circuit"], answer["circuit"]
        assert was["roles"].pop("name_mover") == now["roles"]["induction"] == ["L1H3"]
        assert "from the last token" in was["evidence"].pop("L1H3")
        # After climbing it looked at three subsets more that the decoder said to match.
        was["method"] = was["method"].replace("from 76 masks", "from 73 masks")
        expected["masks"] -= 3
    assert not differences(expected, answer)
    assert n_values(tmp_path) == before > 0


def test_a_screen_of_today_goes_on_in_an_old_run(tmp_path, monkeypatch):
    shutil.copytree(RUNS / "first", tmp_path / "first")
    before = n_values(tmp_path)
    monkeypatch.setenv("MECHSPEX_RUNS", str(tmp_path))
    answer = asked(SHELL["tiny"]["first"], "tiny")
    # Eight at the midpoint are there; the plain gradient is not.
    assert answer.pop("cost")["measured"] == n_values(tmp_path) - before == 1
    monkeypatch.setenv("MECHSPEX_RUNS", str(tmp_path / "anew"))
    anew = asked(SHELL["tiny"]["first"], "tiny")
    assert anew.pop("cost")["measured"] == 9
    assert not differences(anew, answer)


def test_differences_are_told():
    before = {"a": [1.0, {"b": "x"}], "seconds": 1.0}
    assert not differences(before, {"a": [1.0 + 1e-9, {"b": "x"}], "seconds": 2.0})
    assert differences(before, {"a": [1.0 + 1e-5, {"b": "y"}]}) == [
        ".a[0]: 1.0 before, 1.00001 now", ".a[1].b: x before, y now",
    ]  # fmt: skip
    assert differences(before, {"a": [1.0]}) == [".a: [1.0, {'b': 'x'}] before, [1.0] now"]
