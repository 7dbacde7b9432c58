"""Small multiples: what is drawn where, whatever the table."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
from figure_laws import check_readable
from matplotlib.container import ErrorbarContainer
from matplotlib.patches import Rectangle

from mechspex.experiments.paper_figure import Published
from mechspex.experiments.reproduction import Axes
from mechspex.figures.panels import panels


@dataclass
class Table:
    rows: list[dict]
    axes: Axes
    published: tuple[Published, ...] = ()
    panel_axes: Mapping[str, Axes] = field(default_factory=dict)

    def to_pandas(self):
        return pd.DataFrame(self.rows)


def row(panel, series, x, y, half=0.1):
    return {"panel": panel, "series": series, "x": x, "y": y, "low": y - half, "high": y + half}


def lines():
    rows = [
        row(panel, name, x, shift + np.log2(x))
        for panel in ("one", "two")
        for shift, name in enumerate(("additive", "a very long name of a decoder with options"))
        for x in (0.5, 1.0, 2.0, 4.0)
    ]
    paper = tuple(Published("additive", y, "stated", "paper", x) for x, y in ((1.0, 2.0), (2.0, 3)))
    return Table(rows, Axes("masks / (n log₂ n)", "R²", log=True), paper)


def test_a_panel_a_case_and_a_line_a_series():
    figure = panels(lines(), heading="Recovery")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["one", "two", "paper"]
    assert all(len(axes.containers) == 2 for axes in figure.axes[:2])
    (paper,) = figure.axes[2].lines
    np.testing.assert_allclose(np.asarray(paper.get_ydata(), dtype=float), [2, 3])
    assert paper.get_markerfacecolor() == "none"
    assert figure.axes[0].get_xscale() == "log"
    # One legend for all panels.
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 3
    check_readable(figure)


@pytest.mark.parametrize("log", [False, True])
def test_a_line_goes_through_its_points_in_order(log):
    rows = [row("p", "s", x, x**2) for x in (4.0, 1.0, 2.0)]
    figure = panels(Table(rows, Axes("x", "y", log=log)))
    (container,) = figure.axes[0].containers
    assert isinstance(container, ErrorbarContainer)
    line, *_ = container.lines
    x, y = (np.asarray(data, dtype=float) for data in line.get_data())
    np.testing.assert_allclose(x, [1, 2, 4])
    np.testing.assert_allclose(y, [1, 4, 16])


def test_bars_stand_side_by_side_and_are_as_high_as_the_numbers():
    rows = [row("p", name, x, y) for y, name in enumerate("abc", 1) for x in ("here", "there")]
    figure = panels(Table(rows, Axes("", "share", kind="bars")))
    (axes,) = figure.axes
    bars = [bar.get_bbox() for bar in axes.patches if isinstance(bar, Rectangle)]
    assert sorted(bar.height for bar in bars) == [1, 1, 2, 2, 3, 3]
    spans = sorted((bar.x0, bar.x1) for bar in bars)
    assert all(right <= left + 1e-9 for (_, right), (left, _) in itertools.pairwise(spans))
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["here", "there"]
    check_readable(figure)


@pytest.mark.parametrize("kind", ["lines", "bars"])
def test_numbers_without_an_interval_have_none(kind):
    rows = [row("p", "s", x, 1.0, half) for x, half in ((1.0, np.nan), (2.0, 0.5))]
    (axes,) = panels(Table(rows, Axes("x", "y", kind=kind))).axes
    found = [c for c in axes.containers if isinstance(c, ErrorbarContainer)]
    segments = [segment for c in found for segment in c.lines[2][0].get_segments()]
    assert [np.ptp(segment[:, 1]) for segment in segments if len(segment)] == [1.0]


def test_bars_of_one_series_stand_over_their_names_whatever_was_published():
    paper = tuple(Published("theirs", y, "stated", "paper", x) for x, y in (("a", 1.0), ("b", 2.0)))
    rows = [row("here", "ours", x, 1.0, np.nan) for x in ("a", "b")]
    here, there = panels(Table(rows, Axes("", "y", kind="bars"), paper)).axes
    centres = [bar.get_bbox() for bar in here.patches if isinstance(bar, Rectangle)]
    np.testing.assert_allclose([(bar.x0 + bar.x1) / 2 for bar in centres], here.get_xticks())
    (line,) = there.lines
    assert line.get_linestyle() == "None", "names are not joined by a line"


def test_a_map_has_a_cell_a_head_and_maps_of_a_quantity_one_scale():
    maps = [
        row(panel, f"head {head}", layer, times * (layer - head), np.nan)
        for panel, times in (("before", 1.0), ("after", 3.0))
        for layer in range(3)
        for head in range(2)
    ]
    bars = [row("sorted", "before", name, 1.0) for name in ("L0H0", "L1H1")]
    of_maps = Axes("layer", "effect (logits)", kind="map")
    table = Table(
        [*maps, *bars], Axes("", "effect", kind="bars"),
        panel_axes={"before": of_maps, "after": of_maps},
    )  # fmt: skip
    figure = panels(table)
    before, after, sorted_, bar = figure.axes
    for axes, times in ((before, 1.0), (after, 3.0)):
        (image,) = axes.images
        np.testing.assert_allclose(
            np.asarray(image.get_array()),
            times * (np.arange(3)[None] - np.arange(2)[:, None]),
        )
        assert image.get_clim() == (-6, 6)
    assert not sorted_.images
    assert bar.get_ylabel() == "effect (logits)"
    check_readable(figure)


def test_points_lie_at_both_their_numbers_with_the_diagonal():
    paper = (Published("theirs", 3.0, "stated", "p", 2.0),)
    rows = [row("p", "s", x, y, np.nan) for x, y in ((1.0, 2.0), (1.0, 0.5))]
    (axes,) = panels(Table(rows, Axes("f(C)", "f(M)", kind="points"), paper)).axes
    points, theirs, diagonal = axes.lines
    np.testing.assert_allclose(np.asarray(points.get_xydata()), [[1, 2], [1, 0.5]])
    np.testing.assert_allclose(np.asarray(theirs.get_xydata()), [[2, 3]])
    assert theirs.get_linestyle() == "None"
    along = np.asarray(diagonal.get_xydata())
    np.testing.assert_allclose(along[:, 0], along[:, 1])


def test_ticks_of_crowded_numbers_do_not_stand_on_each_other():
    rows = [row("p", "s", x, 1.0) for x in (1, 50, 100, 200, 301, 400, 800, 804, 1600)]
    figure = panels(Table(rows, Axes("models", "LDS", log=True)))
    check_readable(figure)
    shown = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert shown[0] == "1"
    assert len(shown) > 4


def test_no_two_series_look_alike():
    rows = [row("p", f"series {number}", 1.0, number) for number in range(14)]
    figure = panels(Table(rows, Axes("x", "y")))
    entries, _ = figure.axes[0].get_legend_handles_labels()
    drawn = [entry.lines[0] for entry in entries if isinstance(entry, ErrorbarContainer)]
    looks = {(line.get_color(), line.get_marker()) for line in drawn}
    assert len(looks) == 14
