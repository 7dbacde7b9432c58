"""``mechspex compare-models`` and ``mechspex audit``."""

import json

import torch
from architectures import save_architecture
from transformers import AutoModelForCausalLM

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


def test_weights_that_make_the_change_are_found(run, tmp_path):
    before, after = (str(save_architecture("gpt2", tmp_path / name)) for name in ("one", "two"))
    edited = AutoModelForCausalLM.from_pretrained(after)
    with torch.no_grad():
        for name, weight in edited.named_parameters():
            weight.mul_(3 if "h.1.mlp" in name else 1.0001)
    edited.save_pretrained(after)
    asked = ("--task", "induction", "--weights", "--masks", "60", "--prompts", "6")
    code, out, _ = run("compare-models", before, after, *asked, "--run", "weights")
    assert code == 0
    assert "L1MLP" in out
    found = mx.Explanation.load("weights")
    assert found.units.names == ("L0ATTN", "L0MLP", "L1ATTN", "L1MLP", "rest")
    assert found.singles()["units"][0] == "L1MLP"
    assert "weights of" in found.configuration["ablation"]
    code, out, err = run("compare-models", before, after, *asked, "--run", "weights", "--json")
    assert json.loads(out)["units"]
    assert "masks/s" not in err, "nothing is measured twice"


def test_weights_are_exchanged_on_prompts_of_ones_own_of_any_number(run, tmp_path):
    before, after = (str(save_architecture("gpt2", tmp_path / name)) for name in ("one", "two"))
    edited = AutoModelForCausalLM.from_pretrained(after)
    with torch.no_grad():
        edited.get_parameter("transformer.h.0.attn.c_proj.weight").mul_(2)
    edited.save_pretrained(after)
    rows = [
        "apple bird,boat,snow",
        "moon lake,key,tree",
        "wood wall,door,flag",
        "key door,moon,key",
    ]
    table = ["prompt,answer,distractor", *rows, "snow flag,wall,lake"]
    (tmp_path / "own.csv").write_text("\n".join(table))
    asked = ("--prompts-from", str(tmp_path / "own.csv"), "--weights", "--masks", "50")
    code, _, err = run("compare-models", before, after, *asked, "--run", "own")
    assert code == 0, err
    found = mx.Explanation.load("own")
    assert found.units.names == ("L0ATTN",)


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


def test_what_says_nothing_beside_weights_is_refused(run):
    asked = ("compare-models", "tiny", "tiny", "--task", "induction", "--masks", "60")
    for option, given in (("units", "heads"), ("layers", "0"), ("ablation", "mean")):
        code, out, err = run(*asked, "--weights", f"--{option}", given)
        assert (code, out) == (2, "")
        assert f"--{option} and --weights are given" in err
        assert "leave out one of them" in err
        assert "loading" not in err
    assert run(*asked, "--units", "heads")[0] == 0
    code, _, err = run(*asked, "--weights")
    assert "are given" not in err, "defaults are not"
    assert "the same weights" in err


def test_a_file_of_a_circuit_is_audited(run, tmp_path):
    circuit = mx.Circuit.published({"idle": ["L0H0"], "induction": ["L1H3"]}, mx.heads("tiny"))
    circuit.save(tmp_path / "claimed.json")
    asked = ("audit", "claimed.json", "--task", "induction", "--model", "tiny", "--prompts", "24")
    code, out, _ = run(*asked, "--run", "audited")
    assert code == 0
    assert "L0H1" in out
    assert "missing" in out
    assert mx.Verdicts.load("audited").missing == ("L0H1",)


def test_the_circuit_of_a_run_is_audited_by_the_name_of_the_run(run):
    asked = ("--model", "tiny", "--prompts", "16")
    assert run("circuit", "induction", *asked, "--masks", "100", "--run", "found")[0] == 0
    code, out, _ = run("audit", "found", "--task", "induction", *asked, "--seed", "1")
    assert code == 0
    assert "members: what the circuit loses of the logit difference without each" in out
    code, _, err = run("audit", "lost", "--task", "induction", *asked)
    assert (code, "no run 'lost'" in err) == (2, True)
