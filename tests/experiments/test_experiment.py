"""Experiments: what is kept is not measured again, and what is written can be read."""

import numpy as np
import pytest

from mechspex.core.result import same
from mechspex.errors import Refused
from mechspex.experiments.experiment import Asked, Measured, experiment
from mechspex.experiments.paper_figure import Claim, PaperFigure, Published
from mechspex.experiments.reproduction import Axes, Reproduction, points

FIGURE = PaperFigure("a-figure", "Somebody 2025, Figure 1", "A title", "What.", "How.", (1, 2))
COUNT, CUT = [], []


class Cut(Exception):
    pass


@experiment(FIGURE, (Published("a number", 0.5, "stated"),))
def a_figure(asked: Asked) -> Measured:
    def cell(x):
        COUNT.append(x)
        if CUT and x == 2.0:
            raise Cut
        return [
            {"panel": "p", "series": "s", "y": x * (1 + asked.seed), "low": np.nan, "high": 9.0}
        ]

    rows = [row for x in (1.0, 2.0) for row in asked.cell({"x": x}, lambda x=x: cell(x))]
    return Measured(rows, Axes("x", "y"), (Claim("y grows", rows[1]["y"] > rows[0]["y"], "yes"),))


@pytest.fixture(autouse=True)
def uncounted():
    COUNT.clear()


def test_goes_on_with_the_cell_where_it_was_cut_off(tmp_path):
    CUT.append(True)
    with pytest.raises(Cut):
        a_figure(run=tmp_path / "run")
    CUT.clear()
    found = a_figure(run=tmp_path / "run")
    assert COUNT == [1.0, 2.0, 2.0], "the first cell is measured once"
    assert same(a_figure(run=tmp_path / "run").rows, found.rows)
    assert len(COUNT) == 3
    whole = a_figure(run=tmp_path / "other")
    assert same(whole.rows, found.rows)


def test_another_seed_or_size_is_measured_anew(tmp_path):
    first = a_figure(run=tmp_path / "run")
    assert [row["y"] for row in first.rows] == [1, 2]
    assert [row["y"] for row in a_figure(run=tmp_path / "run", seed=1).rows] == [2, 4]
    a_figure(run=tmp_path / "run", full=True)
    assert len(COUNT) == 6


def test_everything_is_written(tmp_path):
    found = a_figure(run=tmp_path / "run")
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {
        "cells.json", "figure.png", "figure.svg", "numbers.txt", "reproduction.json", "table.csv",
    }  # fmt: skip
    assert Reproduction.load(tmp_path / "run" / "reproduction.json") == found
    numbers = (tmp_path / "run" / "numbers.txt").read_text()
    assert "y grows: holds here (yes)" in numbers
    assert "a number: 0.5   [stated]" in numbers


def test_what_is_not_asked_of_it_is_refused():
    with pytest.raises(Refused, match="has no task"):
        a_figure(task="ioi")
    with pytest.raises(Refused, match="'tiny': .* has no model"):
        a_figure(model="tiny")
    with pytest.raises(Refused, match="a row lacks"):
        points([{"panel": "p", "series": "s", "x": 1}])


def test_it_is_a_function_that_says_what_it_does():
    assert a_figure.__name__ == "a_figure"
    assert a_figure.__doc__.startswith("What.\n\nSomebody 2025")


def test_maps_and_points_are_told_by_what_stands_out():
    rows = points(
        [{"panel": "map", "series": f"head {head}", "x": layer, "y": layer - 2.0 * head,
          "low": None, "high": None} for layer in range(9) for head in range(2)]
        + [{"panel": "points", "series": "random", "x": x, "y": y, "low": None, "high": None}
           for x, y in ((1.0, 1.5), (2.0, 0.5))]
    )  # fmt: skip
    axes = {"map": Axes("layer", "y", kind="map")}
    found = Reproduction(
        FIGURE, rows, Axes("x", "y", kind="points"), (), (), {}, 0.0, panel_axes=axes
    )
    told = str(found)
    assert "map: the strongest of 18\n  layer 8, head 0: 8.00\n" in told
    assert "random: 2 points, |y − x| 1.00 in the mean, farthest at x 2.00, y 0.50" in told
    assert Reproduction.from_dict(found.to_record()) == found


def test_a_table_that_is_too_wide_is_turned():
    rows = points(
        [{"panel": "p", "series": name, "x": float(x), "y": x, "low": x - 1.0, "high": x + 1.0}
         for name in ("ours", "theirs") for x in range(30)]
    )  # fmt: skip
    lines = str(Reproduction(FIGURE, rows, Axes("x", "y"), (), (), {}, 0.0)).splitlines()
    at = lines.index("p")
    assert lines[at + 1].split() == ["ours", "theirs"]
    assert lines[at + 8].split() == ["6", "6.00", "[5.00,", "7.00]", "6.00", "[5.00,", "7.00]"]
    assert max(map(len, lines)) < 160
