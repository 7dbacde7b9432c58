"""What needs no model loads none: wrong input, lists, answers that are kept."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mechspex.models.shipped import TINY

HEAVY = ("torch", "transformers", "transformer_lens")
# Runs one command line after another in a fresh interpreter, and tells which heavy modules were
# loaded by then.
CODE = """
import contextlib, io, json, sys
from mechspex import cli
commands, heavy = map(json.loads, sys.argv[1:])
for arguments in commands:
    sys.argv = ["mechspex", *arguments]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as stopped:
            code = stopped.code or 0
    loaded = [name for name in heavy if name in sys.modules]
    print(json.dumps([code, out.getvalue(), err.getvalue(), loaded]))
"""


def in_a_fresh_interpreter(folder, *commands, heavy=HEAVY):
    """[(exit code, stdout, stderr, heavy modules loaded so far)] of each command line."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(commands), json.dumps(heavy)],
        cwd=folder,
        env={**os.environ, "COLUMNS": "1000", "TERMINAL_WIDTH": "1000"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def one_line(boxed):
    return " ".join(boxed.replace("│", " ").split())


TINY_SWEEP = ("sweep", "induction", "--model", "tiny")
TINY_PROMPT = ("sweep", "--prompt", "key cow key", "--answer", " cow", "--model", "tiny")
TINY_EXPLAIN = ("explain", "induction", "--model", "tiny")
TINY_CIRCUIT = ("circuit", "induction", "--model", "tiny")
TINY_SCREEN = ("screen", "induction", "--model", "tiny", "--units", "heads", "--terms", "5")
TINY_VALIDATE = ("validate", "induction", "L0H1,L1H3", "L0H1", "--model", "tiny")
TINY_PRUNE = ("prune", "induction", "--model", "tiny", "--masks", "60")
TINY_REPAIR = ("self-repair", "induction", "--model", "tiny")
WRONG = [
    (("explain", "ioy"), "no task 'ioy'; did you mean 'ioi'? Else choose agreement"),
    (("explain", "nosuch.toml"), "no task 'nosuch.toml': there is no such file"),
    (("explain", "ioi", "--model", "smolm2"), "did you mean 'smollm2-135m'?"),
    (("explain", "ioi", "--model", "tiny"), "0 of the 30 words of list 'name'"),
    (("explain", "ioi", "--model", "no-tokenizer"), "folder no-tokenizer has no tokenizer"),
    (("explain", "ioi", "--model", "no-tokenizer/config.json"), "is a file; give its folder"),
    (("explain", "ioi", "--model", "only-pickle"), "pickled weights are never read"),
    ((*TINY_EXPLAIN, "--units", "head"), "'head': choose heads, mlps, neurons"),
    ((*TINY_EXPLAIN, "--units", "neurons"), "tiny is attention-only"),
    ((*TINY_EXPLAIN, "--units", "L0H1,L7H0"), "no unit 'L7H0' here"),
    ((*TINY_EXPLAIN, "--ablation", "men"), "'men' is not one of"),
    (("sweep", "plain.toml", "--ablation", "corrupted"), "'plain' has none; add them"),
    ((*TINY_PROMPT, "--ablation", "corrupted"), "'prompt' has none; add them"),
    ((*TINY_EXPLAIN, "--dtype", "fp16"), "'fp16' is not one of"),
    ((*TINY_EXPLAIN, "--precision", "int8"), "'int8' is not one of"),
    ((*TINY_EXPLAIN, "--decoder", "spx"), "'spx' is not one of"),
    ((*TINY_EXPLAIN, "--device", "gpu"), "device 'gpu' is unknown"),
    ((*TINY_EXPLAIN, "--keep", "90"), "keep = 90"),
    ((*TINY_EXPLAIN, "--seed", "-1"), "seed = -1"),
    ((*TINY_EXPLAIN, "--level", "2"), "level = 2"),
    ((*TINY_EXPLAIN, "--contexts", "1"), "contexts = 1"),
    ((*TINY_EXPLAIN, "--target-r2", "1"), "target_r2 = 1"),
    ((*TINY_EXPLAIN, "--prompts", "0"), "at least one prompt"),
    ((*TINY_EXPLAIN, "--prompts", "1"), "over a single prompt"),
    ((*TINY_EXPLAIN, "--masks", "9"), "needs at least 25 for 8 units"),
    ((*TINY_EXPLAIN, "--masks", "200", "--decoder", "exhaustive"), "needs at least 256"),
    (("explain", "ioi", "--decoder", "exhaustive"), "at most 20 units, not 270"),
    (("explain", "ioi", "--decoder", "spex", "--masks", "20"), "needs at least"),
    ((*TINY_EXPLAIN, "--run", "../x"), "run name '../x' is refused"),
    ((*TINY_SWEEP, "--among", "L9H9"), "it has heads of layers 0 … 1, heads 0 … 3"),
    (("sweep", "ioi", "--among", "L9H99"), "heads of layers 0 … 29, heads 0 … 8"),
    ((*TINY_SWEEP, "--among", "L0H1", "--order", "2"), "a sweep of order 2 needs 2"),
    ((*TINY_SWEEP, "--csv", "no/such.csv"), "no/such.csv cannot be written"),
    (("validate", "induction", "L0H99", "--model", "tiny"), "no unit 'L0H99' here"),
    (("validate", "induction", "absent.csv", "--model", "tiny"), "absent.csv"),
    (("screen", "ioi", "--terms", "0"), "n_terms = 0"),
    ((*TINY_CIRCUIT, "--size", "99"), "choose from 1 to 7 units"),
    ((*TINY_CIRCUIT, "--target", "2"), "target = 2"),
    ((*TINY_CIRCUIT, "--masks", "10"), "n_masks = 10"),
    ((*TINY_CIRCUIT, "--objective", "most"), "'most' is not one of"),
    (("bench", "nosuch"), "'nosuch' is not one of 'reverse'"),
    (("bench", "--ablation", "corrupted"), "'corrupted' is not one of"),
    (("status", "nosuch"), "no run 'nosuch' in runs"),
    (("compare", "nosuch"), "no run 'nosuch' in runs"),
    (("tasks", "induction"), "mechspex tasks show induction"),
    (("tasks", "show", "iio"), "did you mean 'ioi'?"),
]


# A task without corrupted prompts.
PLAIN = """title = "Copying"
slots.A = "animal"
words.animal = ["cow", "horse"]
[[templates]]
prompt = "key {A} key"
answer = " {A}"
distractor = " key"
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What the wrong commands say, all of them asked in one interpreter."""
    folder = tmp_path_factory.mktemp("wrong")
    for name in ("no-tokenizer", "only-pickle"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text("{}")
    save_file({"weight": np.zeros(1)}, folder / "no-tokenizer" / "model.safetensors")
    (folder / "only-pickle" / "pytorch_model.bin").write_bytes(b"")
    (folder / "plain.toml").write_text(PLAIN)
    commands = [arguments for arguments, _ in WRONG]
    return dict(zip(commands, in_a_fresh_interpreter(folder, *commands), strict=True))


@pytest.mark.parametrize(("arguments", "complaint"), WRONG)
def test_wrong_input_is_refused_before_anything_heavy_is_loaded(answers, arguments, complaint):
    code, out, err, loaded = answers[arguments]
    assert (code, out, loaded) == (2, "", [])
    assert complaint in one_line(err)


def test_lists_and_prompts_load_no_model(tmp_path):
    shown = ("tasks", "show", "induction", "--model", "tiny", "--prompts", "3", "--json")
    *_, last = in_a_fresh_interpreter(
        tmp_path, ("--version",), ("tasks",), ("models",), ("status",), shown
    )
    code, out, _, loaded = last
    assert (code, loaded) == (0, [])
    assert len(json.loads(out)) == 3


def test_the_prompts_shown_are_those_that_are_measured(tiny):
    import mechspex as mx
    from mechspex.cli.experiment import Experiment

    drawn = Experiment(task="induction", model="tiny", seed=3).task_drawn(5)
    assert drawn == mx.load_task("induction", tiny, n_prompts=5, seed=3)


def test_a_kept_answer_is_printed_without_the_model(run, tmp_path):
    few = (*TINY_EXPLAIN, "--prompts", "4")
    code, first, _ = run(*few)
    assert code == 0
    other = json.loads(run(*few, "--level", "0.1", "--json")[1])
    assert other["settings"]["level"] == 0.1, "an answer to another question is not taken"
    code, first, _ = run(*few)
    ((code, out, err, loaded),) = in_a_fresh_interpreter(tmp_path, few)
    assert (code, err, loaded) == (0, "", [])
    assert "0 masks measured now" in out
    table = out.split("0 masks measured now")[0].splitlines()[:-1]
    assert first.splitlines()[: len(table)] == table
    as_json = json.loads(in_a_fresh_interpreter(tmp_path, (*few, "--json"))[0][1])
    assert as_json == {**json.loads(run(*few, "--json")[1]), "cost": as_json["cost"]}


def test_a_kept_answer_is_that_of_its_own_question_alone(tmp_path, monkeypatch):
    from mechspex.cli.experiment import Experiment
    from mechspex.cli.kept import Question
    from mechspex.runs.run import EXPLANATION

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MECHSPEX_RUNS", raising=False)
    model = Path(shutil.copytree(TINY, "model"))
    (tmp_path / "mine.toml").write_text("title = 1")
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / EXPLANATION).write_text("the answer")

    def question(**changed):
        options = {"task": "mine.toml", "model": "model", "run": "mine"}
        return Question.of(Experiment(**{**options, **changed}, asked=changed), "heads-mean")

    question().keep(folder, EXPLANATION)
    assert question().folder(EXPLANATION) == Path("runs/mine")
    assert question(seed=1).folder(EXPLANATION) is None
    with after(tmp_path / "mine.toml", "title = 2"):
        assert question().folder(EXPLANATION) is None
    with after(model / "config.json", "{}"):
        assert question().folder(EXPLANATION) is None
    with after(folder / EXPLANATION, "the answer to another question"):
        assert question().folder(EXPLANATION) is None
    questions = folder / "questions.json"
    for damaged in (questions.read_text().replace('"said": []', '"said": ["r = 0.99"]'), "{", "[]"):
        with after(questions, damaged):
            assert question().folder(EXPLANATION) is None
    assert question().folder(EXPLANATION) == Path("runs/mine")
    monkeypatch.setattr("mechspex.cli.kept.version", lambda package: "another")
    assert question().folder(EXPLANATION) is None


@contextlib.contextmanager
def after(file, text):
    """The file with another text, for a while."""
    before, times = file.read_bytes(), file.stat()
    file.write_text(text)
    yield
    file.write_bytes(before)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize(
    "command",
    [
        TINY_SWEEP,
        (*TINY_CIRCUIT, "--masks", "60"),
        TINY_SCREEN,
        TINY_VALIDATE,
        TINY_PRUNE,
        TINY_REPAIR,
    ],
    ids=lambda command: command[0],
)
def test_every_kept_answer_is_printed_without_the_model(run, tmp_path, command):
    few = (*command, "--prompts", "3")
    code, first, _ = run(*few)
    assert code == 0
    as_text, as_json = in_a_fresh_interpreter(tmp_path, few, (*few, "--json"))
    for code, _, err, loaded in (as_text, as_json):
        assert (code, err, loaded) == (0, "", [])
    assert untimed(as_text[1]) == untimed(first)
    (kept,) = (path.parent for path in tmp_path.glob("runs/*/questions.json"))
    answer, stated = (json.loads(t) for t in (as_json[1], run("status", kept.name, "--json")[1]))
    assert answer | {"cost": None} == stated | {"cost": None}


def untimed(answer):
    """The lines of an answer but those that say what it took now."""
    return [line for line in answer.splitlines() if not re.search(r"measured now|in all\.", line)]


def test_what_a_screen_says_of_its_proxy_is_said_again(run, tmp_path, llama_folder):
    """On two blocks that transformers has; `tiny` runs whole."""
    early = ("screen", "induction", "--model", str(llama_folder), "--units", "L0H0,L0H1,L0H2",
             "--prompts", "3", "--early-exit", "1")  # fmt: skip
    _, first, said = run(*early)
    ((code, out, err, loaded),) = in_a_fresh_interpreter(tmp_path, early)
    assert (code, loaded) == (0, [])
    assert untimed(out) == untimed(first)
    assert "the proxy agrees with the model on" in err
    assert err.strip() == said.strip().splitlines()[-1]


def test_sets_out_of_a_file_are_those_that_are_in_it_now(run, tmp_path):
    few = ("validate", "induction", "sets.csv", "--model", "tiny", "--prompts", "3", "--json")
    sets = tmp_path / "sets.csv"
    for units in ("L0H1", "L1H3"):
        sets.write_text(f"units\n{units}\n")
        assert [row["units"] for row in json.loads(run(*few)[1])["terms"]] == [units]
    ((code, out, _, loaded),) = in_a_fresh_interpreter(tmp_path, few)
    assert (code, loaded) == (0, [])
    assert [row["units"] for row in json.loads(out)["terms"]] == ["L1H3"]


@pytest.mark.parametrize("command", ["status", "compare", "report"])
def test_a_run_is_looked_for_before_anything_that_reads_it_is_loaded(tmp_path, command):
    ((code, _, err, loaded),) = in_a_fresh_interpreter(
        tmp_path, (command, "nosuch"), heavy=("pandas", "scipy", "matplotlib", *HEAVY)
    )
    assert (code, loaded) == (2, [])
    assert "no run 'nosuch' in runs" in err
