"""``mechspex compare-models`` and ``mechspex audit``."""

import json

import mechspex as mx


def test_two_models_by_name_are_compared_and_kept(run):
    asked = ("compare-models", "tiny", "tiny", "--task", "induction", "--masks", "60")
    code, out, _ = run(*asked, "--run", "same")
    assert code == 0
    assert "the difference is the same under every mask" in out
    assert mx.ModelDifference.load("same").changed == ()
    code, out, err = run(*asked, "--run", "same", "--json")
    assert json.loads(out)["changed"] == []
    assert "masks/s" not in err, "nothing is measured twice"


def test_units_at_spans_draw_a_task_with_its_spans(run):
    asked = ("--units", "heads@Q+heads@end", "--json")
    code, out, _ = run(
        "compare-models", "tiny", "tiny", "--task", "induction", "--masks", "60", *asked
    )
    assert code == 0
    assert json.loads(out)["changed"] == []
    code, out, _ = run("sweep", "induction", "--model", "tiny", *asked)
    assert code == 0
    assert ["head", 1, 3, "end", ""] in json.loads(out)["units"]


def test_slips_are_told_before_a_model_is_loaded(run, tmp_path):
    for asked, says in (
        (("compare-models", "tiny", "tiny"), "task"),
        (("compare-models", "tiny", "tiny", "--task", "induction", "--masks", "9"), "n_masks = 9"),
        (("audit", "none.json", "--model", "tiny", "--task", "induction"), "none.json is no file"),
    ):
        code, out, err = run(*asked)
        assert (code, out) == (2, "")
        assert says in err
        assert "loading" not in err


def test_a_file_of_a_circuit_is_audited(run, tmp_path):
    circuit = mx.Circuit.published({"idle": ["L0H0"], "induction": ["L1H3"]}, mx.heads("tiny"))
    circuit.save(tmp_path / "claimed.json")
    asked = ("audit", "claimed.json", "--task", "induction", "--model", "tiny", "--prompts", "24")
    code, out, _ = run(*asked, "--run", "audited")
    assert code == 0
    assert "L0H1" in out
    assert "missing" in out
    assert mx.Verdicts.load("audited").missing == ("L0H1",)
