"""``mechspex explain --training``: a ready task, a file of the user's, and slips."""

import json

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


def test_slips_are_told_before_anything_is_trained(run, tmp_path):
    (tmp_path / "empty.py").write_text("x = 1")
    for arguments, message in (
        (["--training", "cifar"], "choose digits"),
        (["--training", "none.py"], "no such file"),
        (["--training", "empty.py"], "has no `values`"),
        (["induction", "--training", "digits"], "leave out induction"),
        (["--training", "digits", "--screen", "first_order"], "--screen needs gradients"),
    ):
        code, _, err = run("explain", *arguments)
        assert code == 2
        assert message in err
