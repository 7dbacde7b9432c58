"""Prompts of one's own in the shell: a file, or one prompt, in place of a task."""

import json

import pytest

import mechspex as mx
from mechspex.cli.layers import of_layers
from mechspex.cli.own_prompts import sizes_of
from mechspex.errors import Refused, UnknownUnitError
from mechspex.models.shape import Shape

ROWS = [
    ("key cow key", "cow", "key"),
    ("tree boat tree", "boat", "tree"),
    ("moon bird road moon", "bird road", "moon"),
    ("apple snow apple", "snow", "apple"),
    ("fish door fish", "door", "fish"),
    ("lake church lake", "church", "lake"),
]
TINY = ("--model", "tiny")


@pytest.fixture
def table(tmp_path):
    def write(name="own.csv", rows=ROWS):
        lines = ["prompt,answer,distractor", *(",".join(row) for row in rows)]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return name

    return write


@pytest.fixture
def unloaded(monkeypatch):
    monkeypatch.setattr(mx, "load_model", lambda *_, **__: pytest.fail("the model was loaded"))


def effects(out):
    return {term["units"]: term["effect"] for term in json.loads(out)["terms"]}


def test_a_file_is_swept_to_the_values_of_python(run, table, tiny):
    code, out, err = run("sweep", "--prompts-from", table(), *TINY, "--json")
    assert code == 0
    prompts, right, wrong = zip(*ROWS, strict=True)
    task = mx.Task(prompts, [f" {text}" for text in right], [f" {text}" for text in wrong])
    expected = mx.sweep(mx.ComponentValues(tiny, task, mx.heads(tiny)))
    assert effects(out) == pytest.approx(effects(json.dumps(expected.to_dict())), abs=1e-4)
    assert "the first prompt is read as [<bos>][ key][ cow][ key] → [ cow]  (not [ key])" in err
    assert "a space was put before the answers" in err


def test_an_answer_is_known_by_the_content_of_the_file(run, table, monkeypatch):
    first = run("sweep", "--prompts-from", table(), *TINY)
    assert "8 masks measured now" in first[1] or "9 masks measured now" in first[1]
    with monkeypatch.context() as without:
        without.setattr(mx, "load_model", lambda *_, **__: pytest.fail("the model was loaded"))
        again = run("sweep", "--prompts-from", table(), *TINY)
        assert " 0 masks measured now" in again[1]
        assert "the first prompt is read as" in again[2], "what was said is said again"
    other = run("sweep", "--prompts-from", table(rows=ROWS[1:]), *TINY)
    assert " 0 masks measured now" not in other[1]
    assert other[1].splitlines()[1] != first[1].splitlines()[1]


def test_rows_that_do_not_fit_are_told_before_the_model_is_loaded(run, table, unloaded):
    name = table(rows=[*ROWS, ("key", "zebra", "cow")])
    for command in ("explain", "sweep", "screen", "circuit", "prune", "self-repair"):
        code, out, err = run(command, "--prompts-from", name, *TINY, "--units", "heads")
        assert code == 2
        assert not out
        assert "6 of 7 rows fit this model; these do not: row 7: answer ' zebra'" in err
        assert "--skip" in err


def test_skip_goes_on_with_the_rows_that_fit(run, table):
    name = table(rows=[*ROWS, ("key", "zebra", "cow")])
    code, _, err = run("sweep", "--prompts-from", name, *TINY, "--skip")
    assert code == 0
    assert "6 of 7 rows fit this model" in err


def test_explain_searches_some_prompts_and_tests_on_the_others(run, table, tmp_path):
    files = ("--csv", "terms.csv", "--figure", "map.svg")
    code, out, err = run("explain", "--prompts-from", table(), *TINY, *files)
    assert code == 0
    assert "of 6 prompts 3 are searched, 3 others test it" in err
    assert "with 3 fresh prompts an effect must lie 24.5 standard errors from zero" in err
    assert "3 prompts · tiny · 8 heads · mean (1/3 or more of it the prompt's own) · logit" in out
    assert (tmp_path / "terms.csv").read_text().startswith("units,")
    assert (tmp_path / "map.svg").read_text().startswith("<?xml")


def test_a_census_searches_scores_and_certifies_all_prompts_there_are(run, table, tiny):
    circuit = ("circuit", "--prompts-from", table(), *TINY, "--masks", "60", "--size", "2")
    circuit += ("--ablation", "zero")
    code, out, err = run(*circuit, "--census", "--prompts", "2", "--json")
    assert code == 0, err
    assert "all 6 prompts are searched, scored and certified" in err
    found = json.loads(out)
    prompts, right, wrong = zip(*ROWS, strict=True)
    task = mx.Task(prompts, [f" {text}" for text in right], [f" {text}" for text in wrong])
    values = mx.ComponentValues(tiny, task, mx.heads(tiny), "zero")
    expected = mx.certify(values, found["circuit"]["members"], census=True)
    assert (found["certificate"]["n_outputs"], found["certificate"]["census"]) == (6, True)
    for claim in ("equivalence", "missed", "idle"):
        assert found["certificate"][claim] == expected.to_dict()[claim]
    for number in ("equivalent_within", "bound"):
        told = expected.to_dict()[number]
        assert found["certificate"][number] == pytest.approx(told, abs=1e-4)
    sampled = json.loads(run(*circuit, "--certify", "--json")[1])["certificate"]
    assert (sampled["n_outputs"], sampled["census"]) == (4, False)


def test_prompts_of_a_task_are_no_census(run, unloaded):
    code, _, err = run("circuit", "induction", *TINY, "--census")
    assert code == 2
    assert "--census goes with prompts of your own" in err


def test_validate_takes_sets_in_the_place_of_the_task(run, table):
    code, out, _ = run("validate", "L0H1,L1H3", "L0H1", "--prompts-from", table(), *TINY, "--json")
    assert code == 0
    assert [*effects(out)] == ["L0H1 × L1H3", "L0H1"]
    code, _, err = run("validate", "--prompts-from", table(), *TINY)
    assert code == 2
    assert "name sets of units" in err


def test_one_prompt_is_one_option_each(run, tiny):
    one = ("--prompt", "moon bird road moon", "--answer", "bird road", "--distractor", "moon")
    code, out, _ = run("sweep", *one, "--ablation", "zero", *TINY, "--json")
    assert code == 0
    task = mx.Task(["moon bird road moon"], [" bird road"], [" moon"])
    expected = mx.sweep(mx.ComponentValues(tiny, task, mx.heads(tiny), "zero"))
    assert effects(out) == pytest.approx(effects(json.dumps(expected.to_dict())), abs=1e-4)


def test_one_prompt_under_a_mean_needs_calibration(run, tmp_path, tiny):
    one = ("--prompt", "key cow key", "--answer", " cow", "--distractor", " key", *TINY)
    code, _, err = run("sweep", *one)
    assert code == 2
    assert "--calibration FILE" in err
    texts = ["tree boat tree", "moon bird moon", "apple snow apple"]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    code, out, _ = run("sweep", *one, "--calibration", "texts.txt", "--json")
    assert code == 0
    task = mx.Task(["key cow key"], [" cow"], [" key"])
    values = mx.ComponentValues(tiny, task, mx.heads(tiny), calibration=texts)
    assert effects(out) == pytest.approx(effects(json.dumps(mx.sweep(values).to_dict())), abs=1e-4)


def test_how_prompts_are_read_is_an_option_of_every_task(run, tiny):
    asked = ("--metric", "answer_log_probability", "--no-prepend-bos", "--ablation", "zero")
    code, out, _ = run("sweep", "induction", "--prompts", "4", *asked, *TINY, "--json")
    assert code == 0
    drawn = mx.load_task("induction", tiny, n_prompts=4)
    task = mx.Task(drawn.prompts, drawn.answers, metric="answer_log_probability", prepend_bos=False)
    expected = mx.sweep(mx.ComponentValues(tiny, task, mx.heads(tiny), "zero"))
    assert effects(out) == pytest.approx(effects(json.dumps(expected.to_dict())), abs=1e-4)


def test_layers_choose_units(run):
    code, out, _ = run("sweep", "induction", "--layers", "1", *TINY, "--json")
    assert code == 0
    assert {*effects(out)} == {"L1H0", "L1H1", "L1H2", "L1H3"}


@pytest.mark.parametrize(
    ("written", "layers"),
    [("0", {0}), ("1-3", {1, 2, 3}), ("0, 2-3", {0, 2, 3}), ("3,0", {0, 3})],
)
def test_layers_are_written_as_numbers_and_ranges(written, layers):
    heads = Shape("own", n_layers=4, n_heads=2, d_mlp=3).units("heads+mlps")
    chosen = of_layers(heads, written)
    assert chosen.units == tuple(unit for unit in heads if unit.layer in layers)


@pytest.mark.parametrize("written", ["", "a", "3-1", "-1", "1;2", "1-", "0x1"])
def test_what_names_no_layers_is_refused(written):
    heads = Shape("own", n_layers=4, n_heads=2, d_mlp=3).units("heads")
    with pytest.raises(Refused, match="write 20-29, or 0,3,5"):
        of_layers(heads, written)
    with pytest.raises(UnknownUnitError, match=r"no units of layer 4 here.*0 … 3"):
        of_layers(heads, "2-4")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "--prompts-from FILE, or --prompt and --answer"),
        (("ioi", "--prompt", "a", "--answer", "b"), "choose one"),
        (("--prompt", "key cow key"), "--prompt needs --answer"),
        (("--prompt", "", "--answer", " cow"), "--prompt is empty"),
        (("induction", "--answer", " cow"), "--answer goes with --prompt"),
        (("--prompts-from", "none.csv"), "cannot be read"),
        (("--prompts-from", "own.csv", "--prompt", "a", "--answer", "b"), "choose one"),
        (("own.csv",), "give it as --prompts-from own.csv"),
        (("induction", "--chat"), "--chat goes with prompts of your own"),
        (("induction", "--skip"), "--skip goes with prompts of your own"),
        (("induction", "--calibration", "none.txt"), "cannot be read"),
        (("induction", "--layers", "7"), "no units of layer 7"),
        (("induction", "--figure", "map.gif"), "end the name in .png"),
        (("induction", "--csv", "no/where.csv"), "cannot be written"),
        (("induction", "--metric", "accuracy"), "--metric"),
        (("--prompt", "key", "--answer", "zebra", "--ablation", "zero"), "zebra"),
    ],
)
def test_slips_are_told_before_the_model_is_loaded(run, table, unloaded, arguments, told):
    table()
    code, out, err = run("explain", *arguments, *TINY)
    assert code == 2
    assert not out
    assert told in " ".join(err.replace("│", " ").split())


def test_tasks_show_lists_the_tokens_of_one_prompt(run, table, unloaded):
    code, out, _ = run("tasks", "show", table(), *TINY)
    assert code == 0
    assert "moon bird road moon → bird road  (not moon)" in out
    assert out.count("read as") == 1
    assert "read as [<bos>][ key][ cow][ key] → [ cow]  (not [ key])" in out


@pytest.mark.parametrize(
    ("wanted", "n_there", "sizes"),
    [
        ((8,), 20, (8,)),
        ((8,), 5, (5,)),
        ((8, 8), 40, (8, 8)),
        ((8, 8), 8, (4, 4)),
        ((8, 32), 20, (4, 16)),
        ((8, 32), 5, (2, 3)),
        ((8, 32), 3, (2, 1)),
        ((8, 8), 2, (1, 1)),
    ],
)
def test_fewer_prompts_than_wanted_are_shared_out(wanted, n_there, sizes):
    assert sizes_of(wanted, n_there) == sizes


def test_stdout_that_is_ascii_gets_the_answer_with_other_signs(tmp_path):
    import os
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "mechspex.cli", "models"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert b"2 layers \\xd7 4 heads" in done.stdout
