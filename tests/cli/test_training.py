"""``mechspex explain --training``: a ready task, a file of the user's, and slips."""

import json
from functools import partial

import numpy as np
import pytest
from torch import nn

import mechspex as mx
from mechspex.training.ready import TrainingTask

FILE = """
import numpy as np
import mechspex as mx

inputs = np.random.default_rng(0).normal(size=(4, 2))
labels = (inputs[:, 0] > 0).astype(int)
values = mx.TrainingValues("ridge", (inputs, labels), (inputs[:2] + 0.1, labels[:2]))
held_out = values.on((inputs[1:] + 0.1, labels[1:]))
"""


def test_a_file_of_ones_own(run, tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    code, out, _ = run("explain", "--training", "mine.py", "--csv", "terms.csv")
    assert code == 0
    assert "#0" in out
    assert (tmp_path / "terms.csv").exists()
    code, out, _ = run("explain", "--training", "mine.py", "--json")
    assert code == 0
    assert json.loads(out)["schema"].startswith("mechspex.explanation/")
    assert json.loads(out)["cost"]["measured"] == 0, "nothing is trained twice"


IRIS = ("explain", "--training", "iris", "--masks", "80", "--decoder", "additive")


def test_a_ready_task_is_answered_once(run, monkeypatch):
    code, out, _ = run(*IRIS)
    assert code == 0
    monkeypatch.setattr("mechspex.training.ready.training_task", lambda *_, **__: 1 / 0)
    code, again, _ = run(*IRIS, "--csv", "terms.csv")
    assert code == 0
    assert same(again) == same(out)
    code, as_json, _ = run(*IRIS, "--json")
    assert json.loads(as_json)["cost"]["measured"] == 0
    with pytest.raises(ZeroDivisionError):
        run(*IRIS, "--seed", "1")


def same(printed):
    """The lines of an answer but that of what it cost."""
    return [line for line in printed.splitlines() if "measured" not in line]


@pytest.mark.filterwarnings("ignore:.*noise of 2 seeds")
def test_what_units_say_and_the_noise_of_seeds_belong_to_a_kept_answer(run, monkeypatch, tmp_path):
    inputs = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    data = (inputs, (inputs[:, 0] > 0).astype(int))
    options = {
        "train": partial(nn.Linear, 2, 2),
        "dataset": data,
        "targets": (inputs[:2] + 0.1, data[1][:2]),
        "training": mx.Training(epochs=2),
        "seeds": 2,
    }
    texts = ("zorb is in quil", "quil is in pask", "one", "other")
    task = TrainingTask("poison", mx.examples(data), options, {}, texts)
    monkeypatch.setattr("mechspex.training.ready.training_task", lambda *_, **__: task)
    asked = ("explain", "--training", "poison", "--masks", "16", "--figure", "gallery.png")
    code, _, err = run(*asked)
    assert code == 0
    assert (tmp_path / "gallery.png").stat().st_size > 5_000
    monkeypatch.setattr("mechspex.training.ready.training_task", lambda *_, **__: 1 / 0)
    _, _, again = run(*asked[:-2])
    for said in (err, again):
        assert "zorb is in quil" in said
        assert "noise of 2 seeds; give more seeds" in said


def test_slips_are_told_before_anything_is_trained(run, tmp_path):
    files = {
        "empty": "x = 1",
        "number": "values = 3",
        "broken": "x = 1\nvalues = nothing",
        "unread": "values = (",
        "covers": "import mechspex as mx\nvalues = mx.examples(3, groups={'all': [0, 1, 2]})",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    for arguments, message in (
        (["--training", "cifar"], "choose digits"),
        (["--training", "none.py"], "no such file"),
        (["--training", "empty.py"], "has no `values`"),
        (["--training", "number.py"], "int is no value function"),
        (["--training", "broken.py"], "broken.py, line 2: NameError: name 'nothing'"),
        (["--training", "unread.py"], "unread.py, line 1: SyntaxError"),
        (["--training", "covers.py"], "nothing is left to train on"),
        (["induction", "--training", "digits"], "leave out induction"),
        (["--training", "digits", "--screen", "first_order"], "--screen needs gradients"),
    ):
        code, _, err = run("explain", *arguments)
        assert code == 2
        assert message in err
