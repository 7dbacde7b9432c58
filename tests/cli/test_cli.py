"""The command line: data on stdout, progress on stderr, exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from mechspex.runs.store import VALUES

EXPLAIN = ("explain", "induction", "--model", "tiny")


def test_explain_prints_the_answer_and_keeps_it(run, tmp_path):
    code, out, err = run(*EXPLAIN)
    assert code == 0
    assert "L0H1 × L1H3" in out
    assert re.search(r"clean and ablated: 100%.* 2/2 .*masks/s", err), "masks, not values"
    (folder,) = (tmp_path / "runs").iterdir()
    assert {p.name for p in folder.iterdir()} >= {
        "configuration.json", VALUES, "explanation.json", "terms.csv"
    }  # fmt: skip
    code, out, err = run(*EXPLAIN)
    assert "0 masks measured now" in out
    assert "masks/s" not in err, "nothing is measured twice"
    code, out, _ = run("status")
    assert "explained" in out
    # As "saved in" prints it.
    assert run("status", f"runs/{folder.name}") == run("status", folder.name)
    code, out, _ = run("status", folder.name)
    assert "L0H1 × L1H3" in out


def test_json_is_json_and_nothing_else(run):
    code, out, _ = run(*EXPLAIN, "--json", "--ablation", "corrupted", "--prompts", "4")
    answer = json.loads(out)
    assert code == 0
    assert answer["terms"][0]["order"] == 1
    assert len(answer["outputs"]) == 4
    assert json.loads(run("status", "--json")[1])[0]["masks"] == 256
    assert {"ioi", "induction"} <= {row["task"] for row in json.loads(run("tasks", "--json")[1])}
    assert json.loads(run("models", "--json")[1])[0]["model"] == "tiny"
    shown = json.loads(
        run("tasks", "show", "induction", "--model", "tiny", "--prompts", "2", "--json")[1]
    )
    assert set(shown[0]) == {"prompt", "answer", "distractor", "corrupted"}


SWEEP = ("sweep", "induction", "--model", "tiny")


def test_sweep_prints_writes_and_keeps_every_effect(run, tmp_path):
    files = ("--csv", "heads.csv", "--figure", "heads.svg")
    code, out, err = run(*SWEEP, *files)
    assert code == 0
    assert "8 singles ablated" in out
    assert "9 masks measured now" in out
    assert "singles: 100%" in err
    assert (tmp_path / "heads.svg").read_text().startswith("<?xml")
    rows = (tmp_path / "heads.csv").read_text().splitlines()
    assert rows[0] == "units,order,effect,low,high,confirmed,se,value"
    assert len(rows) == 1 + 8
    code, again, err = run(*SWEEP, *files)
    assert "0 masks measured now" in again
    assert "masks/s" not in err, "nothing is measured twice"
    # Pairs go on in the same run, with the singles that are there.
    pairs = json.loads(run(*SWEEP, "--order", "2", "--json")[1])
    assert pairs["cost"]["measured"] == 28
    assert len(pairs["terms"]) == 8 + 28
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("induction-heads-mean-sweep-")
    assert "swept" in run("status")[1]
    assert json.loads(run("status", folder.name, "--json")[1]) == pairs
    (folder / "sweep.json").unlink()
    code, _, err = run("status", folder.name)
    assert code == 2
    assert "sweep.csv" in err, "a folder of an older version"


def test_sweep_among_ablates_what_is_named(run, tmp_path):
    few = ("--among", "L0H1, L1H3", "--order", "2", "--csv", "pairs.csv", "--figure", "map.png")
    code, out, _ = run(*SWEEP, *few)
    assert code == 0
    assert "2 singles and 1 pair ablated" in out
    assert "L0H1 × L1H3" in (tmp_path / "pairs.csv").read_text()
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_sweep_with_failed_masks_exits_3_and_loses_nothing(run, tmp_path, monkeypatch):
    import mechspex as mx

    measure = mx.ComponentValues.__call__

    def fails(self, masks):
        alone = (~masks).sum(1) == 1
        return np.where((alone & ~masks[:, 5])[:, None], np.nan, measure(self, masks))

    monkeypatch.setattr(mx.ComponentValues, "__call__", fails)
    code, out, _ = run(*SWEEP, "--csv", "heads.csv", "--figure", "heads.pdf")
    assert code == 3
    assert "1 of the masks have no finite value: L1H1" in out
    assert "L1H3" in out
    assert len((tmp_path / "heads.csv").read_text().splitlines()) == 1 + 8
    assert (tmp_path / "heads.pdf").read_bytes().startswith(b"%PDF")


def test_sweep_refuses_what_it_cannot_write_before_the_model_loads(run, tmp_path, monkeypatch):
    import mechspex as mx

    monkeypatch.setattr(mx, "load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    (tmp_path / "there").mkdir()
    for arguments, complaint in [
        (("--csv", "no/such.csv"), "no/such.csv cannot be written"),
        (("--csv", "there"), "there cannot be written"),
        (("--figure", "no/such.png"), "no/such.png cannot be written"),
        (("--figure", "map.jpg"), "end the name in .png, .svg, .pdf"),
        (("--run", "../x"), "run name '../x' is refused"),
        (("--order", "3"), "'--order'"),
    ]:
        code, out, err = run(*SWEEP, *arguments)
        assert code == 2, arguments
        assert complaint in err
        assert not out


def test_tasks_and_models_are_listed(run):
    listed = {line.split()[0]: line for line in run("tasks")[1].splitlines()}
    assert re.search(r"logit_difference +\+\d\.\d\d +1\.00  can +Indirect", listed["ioi"])
    assert "cannot" in listed["colour"]
    assert "smollm2-135m" in run("models")[1]
    code, out, _ = run("tasks", "show", "induction", "--model", "tiny", "--prompts", "1")
    assert code == 0
    assert "Olsson" in out
    assert "corrupted:" in out
    assert "no runs here yet" in run("status")[2]


SPAN = """title = "Which follows"
metric = "probability_difference"
[[templates]]
prompt = "{B} {A} {B}"
corrupted = "{C} {A} {B}"
answer = " {>A}"
distractor = " {<=A}"
[slots]
A = "place"
B = "word"
C = "word"
[words]
place = ["lake", "moon", "river", "tree"]
word = ["apple", "bird", "boat", "book"]
[circuits.tiny]
induction = ["L1H3"]
"""


def test_a_task_of_ones_own_is_listed_shown_and_swept(run, tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    file = tmp_path / "own" / "follows.toml"
    file.write_text(SPAN)
    monkeypatch.setenv("MECHSPEX_TASKS", "own")
    code, out, _ = run("tasks")
    assert code == 0
    assert re.search("follows +probability_difference +not measured +Which follows", out)
    row = json.loads(run("tasks", "--json")[1])[-1]
    assert (row["task"], row["scores"]) == ("follows", {})
    code, out, _ = run("tasks", "show", "follows", "--model", "tiny", "--prompts", "3")
    assert code == 0
    assert "induction: L1H3" in out
    assert " → lake" not in out, "no word comes before it"
    assert "moon or river or tree" in out
    code, out, _ = run("sweep", "follows", "--model", "tiny", "--prompts", "3")
    assert code == 0
    assert "probability_difference" in out
    file.write_text(SPAN.replace('C = "word"', 'C = "words"'))
    code, out, err = run("tasks")
    assert code == 2
    assert "follows.toml, line 11: slot 'C' takes words of 'words'" in err
    assert not out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("explain", "iio", "--model", "tiny"), "no task 'iio'"),
        (("explain", "ioi", "--model", "tiny"), "words of list 'name'"),
        ((*EXPLAIN, "--units", "words"), "choose heads, mlps, neurons"),
        ((*EXPLAIN, "--units", "neurons"), "attention-only"),
        ((*EXPLAIN, "--ablation", "median"), "'median' is not one of 'mean', 'zero'"),
        ((*EXPLAIN, "--run", "../../x"), "run name '../../x' is refused"),
        ((*EXPLAIN, "--decoder", "magic"), "'magic' is not one of 'automatic', 'additive'"),
        ((*EXPLAIN, "--masks", "3", "--decoder", "pursuit"), "needs at least"),
        ((*EXPLAIN, "--keep", "2"), "keep = 2"),
        ((*EXPLAIN, "--dtype", "int8"), "'int8' is not one of 'float32', 'bfloat16'"),
        ((*EXPLAIN, "--bogus"), "bogus"),
        ((*SWEEP, "--among", "L7H1"), "no unit 'L7H1'"),
        ((*SWEEP, "--among", "L0H1", "--order", "2"), "a sweep of order 2 needs 2"),
        ((*SWEEP, "--precision", "int4"), "'int4' is not one of 'bf16'"),
        (("status", "nothing-here"), "no run 'nothing-here' in runs; there are none yet"),
    ],
)
def test_bad_input_exits_2_with_one_sentence(run, arguments, complaint):
    code, out, err = run(*arguments)
    assert code == 2
    assert complaint in one_line(err)
    assert not out
    assert "Traceback" not in err
    assert "Value error" not in err, "the prefix of a library"


def one_line(boxed):
    """What typer says in a box, without it."""
    return " ".join(boxed.replace("│", " ").split())


def test_another_configuration_under_one_run_is_refused_with_the_difference(run):
    assert run(*EXPLAIN, "--run", "mine")[0] == 0
    code, _, err = run(*EXPLAIN, "--run", "mine", "--ablation", "zero")
    assert code == 2
    assert "ablation: mean there, zero here" in err


def test_a_folder_that_cannot_be_written_is_refused_before_the_model_loads(run, tmp_path):
    (tmp_path / "runs").write_text("a file where the folder should be")
    code, _, err = run("explain", "ioi", "--run", "mine")
    assert code == 2
    assert "cannot be written" in err


SLOW = """
import signal, sys, time
import numpy as np
from mechspex import cli
from mechspex.components.component_values import ComponentValues
measure = ComponentValues.__call__
def slowly(self, masks):
    time.sleep(0.01 * len(masks))
    return measure(self, masks)
ComponentValues.__call__ = slowly
# As in a terminal: what a shell starts in the background ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["mechspex", "explain", "induction", "--model", "tiny", "--run", "stopped"]
cli.main()
"""


def test_a_stopped_run_keeps_its_values_and_says_how_to_go_on(run, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    store = tmp_path / "runs" / "stopped" / VALUES
    deadline = time.monotonic() + 120
    while not store.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Resume: mechspex explain induction --model tiny --run stopped" in err
    assert "Traceback" not in err
    kept = json.loads(run("status", "--json")[1])[0]["masks"]
    assert 0 < kept < 256
    out = run(*EXPLAIN, "--run", "stopped")[1]
    # … and the four masks that test the pair on fresh prompts.
    assert f"{256 + 4 - kept:,} masks measured now" in out


def test_a_terminated_run_keeps_its_values_as_well(run, monkeypatch):
    """In this process: the second batch of many masks is never committed."""
    import mechspex as mx

    measure, batches = mx.ComponentValues.__call__, []

    def stopped(self, masks):
        batches.append(len(masks))
        if sum(size >= 32 for size in batches) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return measure(self, masks)

    monkeypatch.setattr(mx.ComponentValues, "__call__", stopped)
    code, _, err = run(*EXPLAIN, "--run", "stopped")
    assert code == 143
    assert "Resume: mechspex explain induction --model tiny --run stopped" in err
    assert json.loads(run("status", "--json")[1])[0]["masks"] == sum(batches[:-1])


def test_a_termination_is_not_what_a_model_stumbles_over(run, monkeypatch):
    """Proving a value function goes on another way after any error of a foreign model."""
    from mechspex.components.forwards import Forwards

    def stopped(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Forwards, "without_bridge", stopped)
    code, out, _ = run("sweep", "induction", "--model", "tiny", "--ablation", "zero")
    assert (code, out) == (143, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", [("tasks",), ("tasks", "list", "--json")])
def test_a_closed_stdout_ends_quietly(tmp_path, command, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "mechspex.cli", *command],
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    os.close(writer)
    assert not done.stderr


SCREEN = ("screen", "induction", "--model", "tiny", "--units", "heads")


def test_screen_proposes_and_validate_decides(run, tmp_path):
    files = ("--csv", "proposed.csv", "--figure", "proposed.png")
    code, out, err = run(*SCREEN, "--terms", "5", *files)
    assert code == 0
    assert (tmp_path / "proposed.png").read_bytes().startswith(b"\x89PNG")
    assert "28 of order 2 scored, 5 proposed" in out
    assert "gradients/s" in err
    code, again, err = run(*SCREEN, "--terms", "5")
    assert "0 gradients or masks" in again
    assert "gradients/s" not in err, "no gradient is taken twice"
    drawn = ("--figure", "tested.png")
    code, out, _ = run("validate", "induction", "proposed.csv", "--model", "tiny", *drawn)
    assert code == 0
    assert (tmp_path / "tested.png").read_bytes().startswith(b"\x89PNG")
    assert out.startswith(
        "induction, 32 prompts · tiny · 8 heads · mean · logit_difference\n5 sets of"
    )
    assert "L0H1 × L1H3" in out
    assert "of 5 confirmed" in out
    code, out, _ = run("validate", "induction", "L0H1,L1H3", "L0H1", "--model", "tiny", "--json")
    answer = json.loads(out)
    assert [term["order"] for term in answer["terms"]] == [2, 1]
    assert all(term["confirmed"] for term in answer["terms"])
    # What the result itself says, as `status` says again.
    (kept,) = tmp_path.glob("runs/induction-sets-mean-validate-*/validation.json")
    assert answer == json.loads(run("status", kept.parent.name, "--json")[1])
    assert answer.items() <= json.loads(kept.read_text()).items()


def test_what_a_screen_at_spans_proposes_is_measured_there(run, tiny):
    import mechspex as mx

    spans = ("--units", "heads@D+heads@-1", "--terms", "3", "--csv", "proposed.csv")
    assert run(*SCREEN[:-2], *spans)[0] == 0
    asked = ("--model", "tiny", "--prompts", "8", "--json")
    code, out, _ = run("validate", "induction", "proposed.csv", *asked)
    assert code == 0
    assert "L0H1@D" in out
    code, out, _ = run("validate", "induction", "L0H1@D,L1H3@-1", "L1H3", "L0H1->L1H3.k@D", *asked)
    assert code == 0
    found = {tuple(term["units"]): term["effect"] for term in json.loads(out)["terms"]}
    task = mx.load_task("induction", tiny, n_prompts=8, seed=1, spans=True)
    units = ["L0H1@D", "L1H3@-1", "L1H3", "L0H1→L1H3.k@D"]
    values, v = mx.ComponentValues(tiny, task, units), {}
    for gone in ((), (0,), (1,), (0, 1), (2,), (3,)):
        v[gone] = values(np.array([[place not in gone for place in range(4)]])).mean()
    joint = v[0, 1] - v[0,] - v[1,] + v[()]
    expected = [joint, v[2,] - v[()], v[3,] - v[()]]
    assert list(found.values()) == pytest.approx(expected, abs=1e-4)


def test_explain_after_a_screen(run):
    code, out, _ = run(*EXPLAIN, "--screen", "second_order", "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["screening"]["considered"] == [8, 28]
    assert answer["screening"]["explained"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("validate", "induction", "absent.csv", "--model", "tiny"), "absent.csv"),
        (("validate", "induction", "L9H1", "--model", "tiny"), "L9H1"),
        ((*SCREEN, "--terms", "0"), "n_terms = 0"),
    ],
)
def test_screen_and_validate_refuse_bad_input(run, arguments, complaint):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert complaint in err


CIRCUIT = ("circuit", "induction", "--model", "tiny", "--masks", "100")


def test_circuit_is_found_scored_named_and_kept(run, tmp_path):
    code, out, err = run(*CIRCUIT, "--graphml", "found.graphml", "--figure", "found.png")
    assert code == 0
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"circuit of 2 of 8 units .*\nfaithfulness 1\.000 ", out)
    assert re.search(r"L0H1 +-\d+\.\d+ .* previous_token +looks from each token", out)
    assert "L0H1 × L1H3" in out
    assert len(re.findall(r"(?m)^ +[1-7] .*\]$", out)) == 7, "the front, sizes 1 to 7"
    assert re.search(r"CPR 0\.\d+ \[.*CMD 0\.\d+ \[", out)
    for reference in ("mean", "zero", "resample", "corrupted"):
        row = re.search(rf"(?m)^ *{reference}((?: +-?\d\.\d+ \[\S+ \S+\]){{5}})$", out)
        assert row, reference
        assert row[1].split()[0] == "1.000"
    assert "masks of all densities: 100%" in err
    assert "kl divergence, reference zero: 100%" in err
    assert "previous_token" in (tmp_path / "found.graphml").read_text()
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("induction-heads-mean-circuit-")
    kept = json.loads((folder / "circuit.json").read_text())
    assert kept["roles"]["previous_token"] == ["L0H1"]
    code, again, err = run(*CIRCUIT, "--json")
    answer = json.loads(again)
    assert "masks/s" not in err, "nothing is measured twice"
    assert answer["schema"] == "mechspex.discovery/1"
    assert {key: kept[key] for key in answer["circuit"]} == answer["circuit"]
    assert answer["references"]["scores"]["zero"]["accuracy"][0] == 1
    assert [row["size"] for row in answer["front"]] == list(range(1, 8))
    assert answer["front"][1]["fresh low"] == pytest.approx(1, abs=1e-3)
    assert "circuit found" in run("status")[1]
    assert "previous_token" in run("status", folder.name)[1]
    assert json.loads(run("status", folder.name, "--json")[1]) == answer


# Induction says A after B; to say B again is what the model does not do.
ONE_ANSWER = SPAN.replace('metric = "probability_difference"\n', "").replace(
    'answer = " {>A}"\ndistractor = " {<=A}"', 'answer = " {A}"\ndistractor = " {B}"'
)
CANNOT = (
    ONE_ANSWER.replace("answer", "X").replace("distractor", "answer").replace("X", "distractor")
)


def test_no_circuit_of_what_the_model_cannot_do(run, tmp_path):
    (tmp_path / "other.toml").write_text(CANNOT)
    code, out, err = run("circuit", "other.toml", "--model", "tiny", "--prompts", "3")
    assert (code, out) == (2, "")
    assert "no circuit is reported" in err
    assert not list(tmp_path.glob("runs/*/circuit.json"))


def test_circuits_are_compared_with_each_other_and_with_the_published_one(
    run, tmp_path, monkeypatch
):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "follows.toml").write_text(ONE_ANSWER)
    monkeypatch.setenv("MECHSPEX_TASKS", "own")
    few = ("--size", "2", "--prompts", "3", "--masks", "100", "--run", "two")
    assert run("circuit", "follows", "--model", "tiny", *few)[0] == 0
    code, out, _ = run("compare", "two")
    assert code == 0
    assert "precision 0.50 (by chance 0.12)   recall 1.00" in out
    assert "in both: L1H3" in out
    answer = json.loads(run("compare", "two", "runs/two/circuit.json", "--json")[1])
    assert answer["schema"] == "mechspex.comparison/1"
    assert (answer["f1"], answer["only_found"]) == (1, [])
    # Without its task file, nothing is published.
    monkeypatch.delenv("MECHSPEX_TASKS")
    code, out, err = run("compare", "two")
    assert (code, out) == (2, "")
    assert "no circuit of 'follows' is published for 'tiny'" in err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((*CIRCUIT, "--masks", "10"), "n_masks = 10"),
        ((*CIRCUIT, "--size", "8"), "size = 8"),
        ((*CIRCUIT, "--target", "3"), "target = 3.0: give a faithfulness"),
        ((*CIRCUIT, "--graphml", "no/such.graphml"), "no/such.graphml cannot be written"),
        (("compare", "nothing-here"), "nothing-here"),
        (("compare", "absent.json"), "absent.json"),
        (("compare", "../x"), "run name '../x' is refused"),
    ],
)
def test_circuit_and_compare_refuse_bad_input(run, arguments, complaint):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert complaint in err


def test_prune_keeps_its_answer(run, tmp_path):
    few = ("prune", "induction", "--model", "tiny", "--prompts", "3", "--masks", "60")
    code, out, _ = run(*few, "--csv", "pruning.csv", "--figure", "pruning.png")
    assert code == 0
    assert (tmp_path / "pruning.png").read_bytes().startswith(b"\x89PNG")
    assert "best sampled" in out
    assert "recovered" in (tmp_path / "pruning.csv").read_text()
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("induction-heads-zero-prune-")
    code, out, err = run(*few, "--json")
    assert json.loads(out)["schema"] == "mechspex.pruning/1"
    assert "masks/s" not in err, "nothing is measured twice"
    code, out, err = run(*few, "--share", "2")
    assert (code, out) == (2, "")
    assert "share = 2.0" in err


def test_a_finished_run_that_may_only_be_read_answers_again(run, tmp_path, monkeypatch):
    """Also a question that was not asked when it could be written."""
    asked = (*SWEEP, "--run", "done")
    first = run(*asked)[1]
    access, folder = os.access, tmp_path / "runs" / "done"

    def may(path, mode, **options):
        inside = Path(path).absolute().is_relative_to(folder)
        return access(path, mode, **options) and not (inside and mode & os.W_OK)

    monkeypatch.setattr(os, "access", may)
    files = {path: path.read_bytes() for path in folder.iterdir()}
    for more in ((), ("--among", "L0H1,L1H3")):
        code, again, _ = run(*asked, *more)
        assert code == 0
        assert " 0 masks measured now" in again
        table = [line for line in again.splitlines() if line.startswith("  L")]
        assert table
        assert more or table == [line for line in first.splitlines() if line.startswith("  L")]
    assert {path: path.read_bytes() for path in folder.iterdir()} == files
    code, _, err = run(*asked, "--order", "2")
    assert code == 2
    assert "is read-only and lacks values" in err


def test_a_warning_is_one_line_without_the_code_that_gives_it(run):
    two = (*SWEEP, "--prompts", "2")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code, _, err = run(*two)
    assert code == 0
    (line,) = (line for line in err.splitlines() if "the mean over 2 prompts" in line)
    assert line.startswith("warning: the mean over 2 prompts takes away 50%")
    assert "warnings.warn" not in err
    assert ".py:" not in err


def test_self_repair_by_gradients_and_by_a_sweep(run, tmp_path):
    few = ("self-repair", "induction", "--model", "tiny", "--prompts", "3")
    code, out, _ = run(*few, "--csv", "repairs.csv", "--figure", "map.svg")
    assert code == 0
    assert "pair measured on 12 outputs" in out.replace("pairs", "pair")
    assert (tmp_path / "map.svg").read_text().startswith("<?xml")
    code, out, _ = run(*few, "--source", "sweep", "--json", "--run", "swept")
    assert json.loads(out)["schema"] == "mechspex.self_repair/1"
    code, out, err = run(*few, "--most", "0")
    assert (code, out) == (2, "")
    assert "most = 0" in err


def test_explain_names_the_picture_and_the_report_it_wrote(run, tmp_path):
    _, out, _ = run(*EXPLAIN, "--run", "seen")
    folder = tmp_path / "runs" / "seen"
    assert out.splitlines()[-2:] == [
        "picture runs/seen/figure.png", "report  runs/seen/report.html"
    ]  # fmt: skip
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "<html" in (folder / "report.html").read_text("utf-8")
    before = (folder / "report.html").stat().st_mtime_ns
    assert run(*EXPLAIN, "--run", "seen")[1].splitlines()[-1] == out.splitlines()[-1]
    assert (folder / "report.html").stat().st_mtime_ns == before, "what is there stays"
    assert "report" not in run(*EXPLAIN, "--run", "seen", "--json")[1][-200:]


def test_explain_goes_on_from_more_prompts_to_a_budget_in_the_same_run(run, tmp_path):
    assert run(*EXPLAIN, "--run", "both")[0] == 0
    code, out, err = run(*EXPLAIN, "--run", "both", "--masks", "300")
    assert code == 0, err
    assert (tmp_path / "runs" / "both" / "validation").is_dir()
    assert (tmp_path / "runs" / "both" / "validation-8").is_dir()
    assert "not confirmed" not in out


def test_an_answer_that_is_replaced_is_told_of(run):
    said = "holds another answer, which this one replaces"
    first = run(*EXPLAIN)
    assert (first[0], said in first[2]) == (0, False)
    code, out, err = run(*EXPLAIN, "--masks", "100")
    assert (code, said in err, "--run NAME keeps both" in err) == (0, True, True)
    assert said not in run(*EXPLAIN, "--masks", "100")[2], "it is the one that is there"
    code, out, err = run(*EXPLAIN)
    assert (code, said in err, "exact: all 256 masks" in out) == (0, True, True)


def test_minutes_decide_how_many_masks(run, tmp_path):
    code, out, err = run(*EXPLAIN, "--minutes", "0.5", "--run", "timed")
    assert code == 0, err
    assert "exact: all 256 masks" in out
    for wrong, said in (("0", "above 0"), ("nan", "above 0")):
        assert said in run(*EXPLAIN, "--minutes", wrong)[2]
    assert "choose one" in run(*EXPLAIN, "--minutes", "1", "--masks", "100")[2]
    assert "screen takes" in run(*EXPLAIN, "--minutes", "1", "--screen", "second_order")[2]
