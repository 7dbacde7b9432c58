"""``mechspex sweeps``: every combination once, one model for all, and nothing done twice."""

import json
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from architectures import save_architecture

import mechspex as mx
from mechspex.cli.sweep_file import Shard, cells_of, read_sweep_file
from mechspex.errors import Refused

PLAN = """
tasks = ["induction", "own.jsonl"]
models = "tiny"  # one needs no list
ablations = ["zero", "leave_one_out"]
prompts = 4
"""


@pytest.fixture
def plan(tmp_path):
    rows = [
        {"prompt": f"{a} {b} moon {a}", "answer": f" {b}", "distractor": " fish"}
        for a, b in [("key", "cow"), ("bird", "road"), ("spoon", "key"), ("road", "apple")]
    ]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "plan.toml").write_text(PLAN)


def counted_loads(monkeypatch):
    load, loads = mx.load_model, []

    def counted(*args, **options):
        loads.append(args)
        return load(*args, **options)

    monkeypatch.setattr(mx, "load_model", counted)
    return loads


def test_every_combination_is_swept_with_one_model_and_none_twice(run, plan, monkeypatch):
    loads = counted_loads(monkeypatch)
    zero = ("sweeps", "plan.toml", "--json", "--ablation", "zero")
    code, out, err = run(*zero, "--csv", "all.csv")
    assert code == 0, err
    assert len(loads) == 1, "one model for all sweeps"
    columns = json.loads(out)["columns"]
    cells = set(zip(columns["task"], columns["ablation"], strict=True))
    assert cells == {("induction", "zero"), ("own", "zero")}
    assert len(columns["unit"]) == 2 * 8
    again = run(*zero)
    assert json.loads(again[1]) == json.loads(out)
    assert "induction · tiny · heads · zero" in again[2]
    assert run("sweep", "induction", "--model", "tiny", "--prompts", "4", "--ablation", "zero",
               "--json")[0] == 0  # fmt: skip
    assert len(loads) == 1, "what is done is found again, by the single command as well"
    dry = json.loads(run(*zero, "--dry-run", "--seed", "0")[1])
    assert [row["done"] for row in dry] == [True] * 2


def test_a_dry_run_counts_and_times_and_sweeps_nothing(run, plan, tmp_path):
    code, out, _ = run("sweeps", "plan.toml", "--dry-run", "--order", "2", "--task", "induction")
    assert code == 0
    assert out.count("37 masks, 148 forwards, about") == 2
    assert "2 of 2 sweeps to do: 74 masks, 296 forwards" in out
    assert "forwards/s, measured here" in out
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_goes_on_after_what_cannot_be_and_says_why(run, plan):
    tasks = ("--task", "ioi", "--task", "induction", "--task", "iio")
    asked = ("sweeps", "plan.toml", *tasks, "--ablation", "zero", "--ablation", "corrupted")
    code, out, _ = run(*asked, "--dry-run")
    assert code == 1
    *lines, summary = out.splitlines()
    told = {line.split(": ")[0].split(" · seed")[0]: line.partition(": ")[2] for line in lines}
    assert len(told) == 6
    assert "9 masks, 36 forwards" in told["induction · tiny · heads · zero"]
    assert "single tokens for tiny" in told["ioi · tiny · heads · zero"]
    assert "did you mean 'ioi'" in told["iio · tiny · heads · zero"]
    assert all("cannot be done" in why for name, why in told.items() if "induction" not in name)
    assert summary.startswith(f"{out.count(' masks, ') - 1} of 6 sweeps to do")
    assert summary.endswith(f"{out.count(': cannot be done')} cannot be done")
    rows = json.loads(run(*asked, "--dry-run", "--json")[1])
    assert [row["cannot"] is None for row in rows].count(False) == out.count(": cannot be done")
    assert run("sweeps", "plan.toml", "--task", "ioi", "--dry-run")[0] == 2, "nothing can be"


def test_a_sweep_that_cannot_be_does_not_keep_the_others_from_being(run, plan):
    """Of a product no single combination can be taken out."""
    code, out, err = run("sweeps", "plan.toml", "--task", "induction", "--ablation", "zero",
                         "--task", "iio")  # fmt: skip
    assert (code, "1 answer" in out, "1 of 2 sweeps failed" in err) == (1, True, True)
    assert err.startswith("mechspex: no task 'iio'; did you mean"), "before anything is measured"


def test_many_prompts_are_told_of_at_once_and_more_are_refused(run, plan):
    code, out, err = run("sweeps", "plan.toml", "--prompts", "200000", "--dry-run")
    assert (code, err) == (2, "")
    assert "n_prompts = 200000: give at most 100,000" in out
    code, out, err = run("sweeps", "plan.toml", "--prompts", "1001", "--task", "induction",
                         "--ablation", "zero", "--dry-run")  # fmt: skip
    assert code == 0
    assert re.fullmatch(r"drawing 1,001 prompts of induction, about \d+ s …", err.splitlines()[0])
    assert "9 masks, 9,009 forwards" in out


def test_one_that_fails_does_not_stop_the_others(run, plan, monkeypatch):
    sweep = mx.sweep

    def fails(values, **options):
        if values.configuration["task"].startswith("induction"):
            raise Refused("no induction today")
        return sweep(values, **options)

    monkeypatch.setattr(mx, "sweep", fails)
    code, out, err = run("sweeps", "plan.toml", "--ablation", "zero")
    assert code == 1
    assert "no induction today" in err
    assert "1 of 2 sweeps failed" in err
    assert "1 answer" in out


def test_shards_are_neighbours_of_nearly_equal_work_and_together_all(run, plan):
    weights = [5, 1, 1, 1, 8, 3, 3, 2]
    taken = [Shard(number, 3).takes(weights) for number in (1, 2, 3)]
    assert [sum(column) for column in zip(*taken, strict=True)] == [1] * 8
    sums = [sum(w for w, t in zip(weights, part, strict=True) if t) for part in taken]
    assert max(sums) - min(sums) <= max(weights)
    told = [
        {row["sweep"] for row in json.loads(run("sweeps", "plan.toml", "--dry-run", "--json",
                                                "--shard", f"{n}/2", "--task", "induction")[1])}
        for n in (1, 2)
    ]  # fmt: skip
    assert [len(part) for part in told] == [1, 1]
    assert told[0] != told[1]


def test_what_cannot_be_is_told_by_one_shard_alone(run, plan):
    """Heads that the model does not have, and an ablation that needs corrupted prompts."""
    asked = ("--units", "heads", "--units", "L9H9", "--ablation", "zero", "--ablation", "corrupted")
    shards = [
        json.loads(run("sweeps", "plan.toml", *asked, "--dry-run", "--json",
                       "--shard", f"{n}/4")[1])
        for n in (1, 2, 3, 4)
    ]  # fmt: skip
    told = [row["sweep"] for rows in shards for row in rows]
    assert len(told) == len(set(told)) == 8
    cannot = [[row["cannot"] is not None for row in rows].count(True) for rows in shards]
    assert (sum(cannot), max(cannot)) == (5, 2)


def test_units_that_only_a_loaded_model_tells_are_told_by_one_shard_as_well(run, plan, tmp_path):
    save_architecture("gpt2", tmp_path / "own")
    asked = ("--model", "own", "--units", "L0H0", "--units", "L9H9", "--ablation", "zero",
             "--task", "own.jsonl")  # fmt: skip
    codes = [run("sweeps", "plan.toml", *asked, "--dry-run", "--shard", f"{n}/2")
             for n in (1, 2)]  # fmt: skip
    assert sorted("L9H9" in out for _, out, _ in codes) == [False, True]
    assert sorted("2 masks, 8 forwards" in out for _, out, _ in codes) == [False, True]


def test_an_empty_shard_has_nothing_to_do_and_says_so(run, plan, tmp_path):
    asked = ("sweeps", "plan.toml", "--task", "induction", "--ablation", "zero", "--shard", "1/16")
    for flags, said in (((), ""), (("--dry-run",), ""), (("--dry-run", "--json"), "[]\n")):
        code, out, err = run(*asked, *flags)
        assert (code, out) == (0, said)
        assert "shard 1/16 is empty: 1 sweep in all" in err
    assert not (tmp_path / "runs").exists()


def test_a_file_of_prompts_counts_those_that_it_has_and_no_seed_that_draws_nothing(run, plan):
    asked = ("sweeps", "plan.toml", "--prompts", "6", "--seed", "0", "--seed", "1", "--dry-run")
    rows = json.loads(run(*asked, "--json", "--ablation", "zero", "--ablation", "resample")[1])
    own = [row for row in rows if row["sweep"].startswith("own")]
    assert [row["sweep"].split(" · ", 3)[3] for row in own] == [
        "zero · seed 0 · order 1", "resample · seed 0 · order 1", "resample · seed 1 · order 1"
    ]  # fmt: skip
    assert {row["forwards"] for row in own} == {9 * 4}, "the file has four prompts"
    drawn = [row["forwards"] for row in rows if row["sweep"].startswith("induction")]
    assert drawn == [9 * 6] * 4


@pytest.mark.parametrize("text", ["3", "0/2", "3/2", "a/b", "1/0", "-1/2"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(Refused, match="write 3/16"):
        Shard.read(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("tasks = ['ioi']\n\ntask = 3", "line 3: unknown 'task'; there are models, tasks"),
        ("tasks = [3]", "line 1: 'tasks' is .3.; it takes text in quotes"),
        ("seeds = [true]", "line 1: 'seeds' is .True.; it takes whole numbers"),
        ("prompts = [3]", "it takes whole numbers"),
        ("models = []", "it takes text"),
        ("tasks = [", "is no TOML file"),
        (
            "tasks = ['ioi']\nmasks = 500",
            "line 2: 'masks' is of masks that are decoded.*--keep 0.9",
        ),
        ("tasks = ['ioi']\ndensities = ['half']", "line 2: 'densities' is .*; it takes numbers"),
        ("tasks = ['ioi']\ndensities = [true]", "line 2: 'densities' is .*; it takes numbers"),
        ("keep = 0.5\ndensity = 0.9", "line 2: 'density' is 'densities' once more"),
        ("order = 1\norders = [2]", "line 2: 'orders' is 'order' once more"),
        ("order = ['two']", "it takes whole numbers"),
    ],
)
def test_faults_of_a_file_are_told_with_their_line(tmp_path, text, complaint):
    file = tmp_path / "plan.toml"
    file.write_text(text)
    with pytest.raises(Refused, match=complaint):
        read_sweep_file(file)


def test_lists_are_combined_those_of_one_model_together():
    cells = cells_of({"tasks": ["a", "b"], "models": ["m", "n"], "seeds": [1, 2, 1], "prompts": 3})
    assert len(cells) == 8
    assert [cell["model"] for cell in cells] == ["m"] * 4 + ["n"] * 4
    assert cells[0] == {"task": "a", "model": "m", "units": "heads", "ablation": "mean", "seed": 1,
                        "prompts": 3}  # fmt: skip
    with pytest.raises(Refused, match="no tasks"):
        cells_of({})


@pytest.mark.parametrize("orders", ["order = [1, 2]", "orders = [1, 2, 1]"])
def test_orders_are_combined_as_well(tmp_path, orders):
    file = tmp_path / "plan.toml"
    file.write_text(f"tasks = ['a', 'b']\n{orders}")
    cells = cells_of(read_sweep_file(file))
    assert [(cell["task"], cell["order"]) for cell in cells] == [
        ("a", 1), ("a", 2), ("b", 1), ("b", 2)
    ]  # fmt: skip
    file.write_text("tasks = ['a']\norder = 2")
    assert [cell["order"] for cell in cells_of(read_sweep_file(file))] == [2]


DENSE = """
tasks = ["induction", "own.jsonl"]
models = ["tiny"]
ablations = ["zero"]
densities = [1, 0.9, 0.5]
contexts = 3
prompts = 4
"""


def test_densities_stand_beside_each_other_in_the_table(run, plan, tmp_path, monkeypatch):
    (tmp_path / "dense.toml").write_text(DENSE)
    loads = counted_loads(monkeypatch)
    dense = ("sweeps", "dense.toml", "--task", "induction", "--json")
    planned = json.loads(run(*dense, "--dry-run")[1])
    loads.clear()
    code, out, err = run(*dense, "--figure", "maps.png")
    assert (code, len(loads)) == (0, 1), err
    table = pd.DataFrame(json.loads(out)["columns"])
    assert table.groupby("density").size().to_dict() == {0.5: 8, 0.9: 8, 1.0: 8}
    assert table["run"].nunique() == 3, "each density has a run of its own"
    assert table["se"].notna().all()
    assert table["clean"].nunique() == 1
    answers: list[Any] = [mx.load(tmp_path / "runs" / name) for name in dict.fromkeys(table["run"])]
    assert sorted(one.cost.masks for one in answers) == sorted(row["masks"] for row in planned)
    half = next(one for one in answers if one.keep == 0.5)
    assert 1 + 3 < half.cost.masks <= 1 + 3 * 9
    assert [row["sweep"].split(" · ")[6:] for row in planned] == [[], ["density 0.9"],
                                                                  ["density 0.5"]]  # fmt: skip
    # By hand, on a model that is loaded anew.
    model = mx.load_model("tiny")
    task = mx.load_task("induction", model, n_prompts=4)
    values = mx.ComponentValues(model, task, mx.heads(model), "zero")
    direct = mx.validate(values, half.terms, contexts=3, keep=0.5)
    assert np.allclose(half.effects, direct.effects, atol=1e-4)
    assert np.allclose(half.standard_errors, direct.standard_errors, atol=1e-4)
    loads.clear()
    single = ("sweep", "induction", "--model", "tiny", "--prompts", "4", "--ablation", "zero")
    code, out, err = run(*single, "--contexts", "3", "--keep", "0.5", "--json")
    assert (code, loads) == (0, []), "the single command finds its own, " + err
    assert [row["effect"] for row in json.loads(out)["terms"]] == half.effects.tolist()
    assert all(row["done"] for row in json.loads(run(*dense, "--dry-run")[1]))
    assert loads == []


def test_densities_are_sharded_and_drawn_by_the_seed(run, plan, tmp_path):
    (tmp_path / "dense.toml").write_text(DENSE)
    dense = ("sweeps", "dense.toml", "--task", "own.jsonl", "--seed", "0", "--seed", "1",
             "--dry-run", "--json")  # fmt: skip
    told = [row["sweep"].split(" · ", 4)[4] for row in json.loads(run(*dense)[1])]
    # Of prompts that are there, and zeros, a seed draws the contexts alone.
    assert told == [
        "seed 0 · order 1", "seed 0 · order 1 · density 0.9", "seed 0 · order 1 · density 0.5",
        "seed 1 · order 1 · density 0.9", "seed 1 · order 1 · density 0.5",
    ]  # fmt: skip
    parts = [
        [row["sweep"] for row in json.loads(run(*dense, "--shard", f"{n}/2")[1])] for n in (1, 2)
    ]
    assert [sweep.split(" · ", 4)[4] for part in parts for sweep in part] == told
    assert len(parts[0]) == 3, "the one of all kept is the least work"


def test_a_density_of_a_single_sweep_is_that_of_contexts(run, plan):
    code, _, err = run("sweep", "induction", "--model", "tiny", "--keep", "0.5")
    assert (code, "--keep 0.5 is the density of contexts: add --contexts 8" in err) == (2, True)
    assert run("sweep", "induction", "--model", "tiny", "--contexts", "1")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("nothing.toml",), "cannot be read"),
        (("plan.toml", "--task", "iio"), "iio"),
        (("plan.toml", "--ablation", "none"), "none"),
        (("plan.toml", "--order", "3"), "order = 3"),
        (("plan.toml", "--order", "0"), "order = 0"),
        (("plan.toml", "--density", "1.5"), "densities: 1.5 is none; give probabilities above 0"),
        (("plan.toml", "--density", "0"), "densities: 0.0 is none"),
        (("plan.toml", "--density", "nan"), "densities: nan is none"),
        (("plan.toml", "--density", "0.5", "--contexts", "1"), "contexts = 1"),
        (("plan.toml", "--density", "1", "--contexts", "4"), "add a line such as: densities"),
        (("plan.toml", "--units", "L9H9"), "L9H9"),
        (("plan.toml", "--csv", "no/all.csv"), "cannot be written"),
    ],
)
def test_slips_are_told_before_a_model_is_loaded(run, plan, monkeypatch, arguments, complaint):
    monkeypatch.setattr(mx, "load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    code, out, err = run("sweeps", *arguments)
    assert (code, out, complaint in err) == (2, "", True), err
