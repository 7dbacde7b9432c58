"""Many runs in one table: every effect once, with all that tells it from the others."""

import json
import shutil
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mechspex as mx
from mechspex.errors import Refused, RunError

UNITS = mx.UnitSet(tuple(mx.Unit("head", layer, head) for layer in range(2) for head in range(3)))
WEIGHTS = np.array([1.0, -2.0, 3.0, 0.5, 0.0, 4.0])


def values(ablation, scale, seed=7):
    def value(masks):
        single = masks @ WEIGHTS
        return scale * np.stack([single + masks[:, 0] * masks[:, 1], 3 * single], axis=1)

    value.configuration = {  # pyright: ignore[reportFunctionMemberAccess]
        "task": f"ioi, 2 prompts {'0' * 16}", "model": "tiny",
        "ablation": f"{ablation}, seed {seed}", "metric": "logit_difference",
    }  # fmt: skip
    return mx.FunctionValues(value, UNITS)


@pytest.fixture
def folder(tmp_path):
    runs = tmp_path / "runs"
    mx.sweep(values("mean", 1.0), order=2, run=runs / "shard" / "mean")
    mx.sweep(values("zero", 2.0), run=runs / "zero")
    mx.validate(values("zero", 2.0), [(0, 1, 2)], run=runs / "triple")
    return runs


def test_every_effect_is_a_row_with_what_tells_it_apart(folder):
    found = mx.load_runs(folder)
    table = found.to_pandas()
    assert len(table) == 6 + 15 + 6 + 1
    single = table.query("ablation == 'zero' and unit == 'L1H2' and answer == 'sweep'").iloc[0]
    assert single[["run", "task", "model", "metric", "kind"]].tolist() == [
        "zero", "ioi", "tiny", "logit_difference", "head"
    ]  # fmt: skip
    assert single[["seed", "prompts", "layer", "head", "order"]].tolist() == [7, 2, 1, 2, 1]
    assert pd.isna(single.second_unit)
    assert pd.isna(single.position)
    assert single.effect == pytest.approx(-2 * (4 + 12) / 2)
    assert single.value == pytest.approx(single.clean + single.effect)
    assert single.se == pytest.approx(np.std([-8, -24], ddof=1) / np.sqrt(2))
    pair = table.query("second_unit == 'L0H1' and order == 2").iloc[0]
    assert (pair.run, pair.unit, pair.effect) == ("shard/mean", "L0H0", pytest.approx(0.5))
    (triple,) = table.query("answer == 'validation'").to_dict("records")
    assert (triple["unit"], triple["second_unit"], triple["order"]) == ("L0H0", "L0H1 × L0H2", 3)
    assert triple["ablation"] == "zero"


def test_densities_are_a_column_and_maps_of_their_own(folder):
    swept = mx.sweep(values("zero", 2.0), contexts=4, keep=0.5, run=folder / "half")
    mx.validate(values("zero", 2.0), [(0, 1)], contexts=4, keep=0.25, run=folder / "quarter")
    found = mx.load_runs(folder)
    table = found.to_pandas()
    told = table.groupby("run")["density"].unique().map(list).to_dict()
    assert told == {
        "shard/mean": [1.0], "zero": [1.0], "triple": [1.0], "half": [0.5], "quarter": [0.25],
    }  # fmt: skip
    assert table.query("run == 'half'")["se"].tolist() == pytest.approx(swept.standard_errors)
    assert "several runs" not in str(found), "effects of two densities are not the same"
    assert "density" in str(found)
    titles = [axes.get_title(loc="left") for axes in found.plot().axes]
    assert {"zero · density 1", "zero · density 0.5"} <= set(titles)
    assert type(found).from_dict(found.to_dict()) == found
    older = found.to_dict()
    del older["columns"]["density"]
    assert type(found).from_dict(older).to_pandas()["density"].isna().all()


def test_a_row_a_prompt(folder):
    table = mx.load_runs([folder / "zero"], per_prompt=True).to_pandas()
    assert len(table) == 12
    rows = table.query("unit == 'L1H2'")
    assert rows.effect.tolist() == pytest.approx([-8.0, -24.0])
    assert rows.output.tolist() == ["output 0", "output 1"]
    assert (rows.clean + rows.effect).tolist() == pytest.approx(rows.value.tolist())


def test_edges_are_where_their_writers_are_and_make_no_map(tmp_path):
    edges = {
        "embed→L0H1.q": (None, None), "L0H1→L1H3.k": (0, 1), "L0MLP→L1MLP": (0, None),
        "L1H13→output": (1, 13),
    }  # fmt: skip
    heads = (mx.Unit("head", 1, 2), mx.Unit("part", 0, 0, None, "L5H5→salt"))
    units = mx.UnitSet(tuple(mx.Unit("edge", 7, 0, None, name) for name in edges) + heads)
    mx.sweep(mx.FunctionValues(lambda masks: masks @ np.arange(6.0), units), run=tmp_path / "edges")
    found = mx.load_runs(tmp_path)
    table = found.to_pandas()
    there = {
        row["unit"]: tuple(None if pd.isna(n) else int(n) for n in (row["layer"], row["head"]))
        for row in table.to_dict("records")
    }
    assert there == {**edges, "L1H2": (1, 2), "L5H5→salt": (None, None)}
    layers = dict(iter(table.query("kind == 'edge'").groupby("layer")["effect"]))
    assert {layer: effects.sum() for layer, effects in layers.items()} == {0: -3.0, 1: -3.0}
    (image,) = (image for axes in found.plot().axes for image in axes.images)
    cells: Any = image.get_array()
    assert np.ma.masked_invalid(cells).count() == 1, "the head alone"


def test_a_map_a_run_with_titles_that_tell_them_apart(folder):
    titles = [axes.get_title(loc="left") for axes in mx.load_runs(folder).plot().axes]
    assert {"mean", "zero"} <= set(titles)
    with pytest.raises(Refused, match="single units with layers"):
        mx.load_runs(folder / "triple").plot()


def test_what_cannot_be_read_is_said_and_the_rest_is_there(folder):
    file = folder / "zero" / "sweep.json"
    file.write_text(file.read_text().replace('"order": 1', '"order": 2'))
    (folder / "shard" / "mean" / "sweep.json").unlink()
    found = mx.load_runs(folder)
    assert [why.split(":")[0] for why in found.unread] == ["zero", "mean"]
    assert len(found.rows) == 1
    assert "not read: zero" in str(found)


def test_a_copied_run_counts_once(folder):
    once = mx.load_runs(folder)
    shutil.copytree(folder / "zero", folder / "zero again")
    found = mx.load_runs([folder, folder / "triple"])
    assert found.rows == once.rows
    assert (found.n_answers, found.n_copies) == (once.n_answers, 2)
    assert found.in_short.startswith("3 answers (2 copies left out), ")
    assert "copies" not in once.in_short
    assert type(found).from_dict(found.to_dict()) == found
    mx.sweep(values("zero", 2.0, seed=8), run=folder / "eight")
    assert mx.load_runs(folder).n_answers == 4, "another seed is no copy"


def test_the_text_does_not_fill_up_with_zeros(folder):
    lines = str(mx.load_runs(folder / "zero")).splitlines()
    assert not any("0.000" in line.split()[-2] for line in lines[3:-1])
    assert len(lines) == 3 + 5 + 1
    assert lines[-1] == "… and 1 weaker ones"


def test_the_text_tells_runs_of_two_seeds_apart(folder):
    assert "seed" not in str(mx.load_runs(folder))
    mx.sweep(values("zero", 2.0, seed=8), run=folder / "eight")
    lines = str(mx.load_runs(folder)).splitlines()
    assert lines[2].split() == [
        "task", "model", "ablation", "seed", "unit", "second_unit", "effect", "se"
    ]  # fmt: skip
    assert len({line for line in lines if " L1H2 " in line and " zero " in line}) == 2


def test_effects_that_several_runs_measured_are_said_to_be_told_apart_by_the_run(folder):
    assert "several runs" not in str(mx.load_runs(folder))
    mx.sweep(values("zero", 2.0), order=2, run=folder / "pairs")
    found = mx.load_runs(folder)
    # Six single effects in each of two runs; no pair is in another.
    said, lines = str(found), str(found).splitlines()
    assert "12 effects of the same sets, task, model, ablation, metric, seed and" in said
    assert len(found.rows) == 28 + 6 + 15, "none is dropped"
    header = next(line for line in lines if "second_unit" in line)
    assert "run" in header.split()
    doubled = [line for line in lines if " L1H2 " in line and " zero " in line and "×" not in line]
    assert any(" pairs " in line for line in doubled)


def test_folders_without_runs_are_refused(tmp_path):
    with pytest.raises(RunError, match="no folder"):
        mx.load_runs(tmp_path / "nowhere")
    with pytest.raises(RunError, match="holds exact effects"):
        mx.load_runs(tmp_path)
    with pytest.raises(Refused, match="folder"):
        mx.load_runs(5)  # pyright: ignore[reportArgumentType]


def test_the_shell_writes_table_and_picture_and_knows_the_seed(run, tmp_path):
    tiny = ("sweep", "induction", "--model", "tiny", "--prompts", "4", "--ablation", "zero")
    for seed in ("0", "3"):
        assert run(*tiny, "--seed", seed)[0] == 0
    code, out, _ = run("collect", "--csv", "all.csv", "--figure", "all.png", "--json")
    assert code == 0
    assert sorted(set(json.loads(out)["columns"]["seed"])) == [0, 3]
    table = pd.read_csv(tmp_path / "all.csv")
    assert table.groupby("seed").effect.count().tolist() == [8, 8]
    assert (tmp_path / "all.png").exists()
    assert run("collect", "nowhere")[0] == 2
