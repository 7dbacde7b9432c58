import matplotlib
import matplotlib.style
import numpy as np
import pytest
from figure_laws import check_readable
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from planted_answers import heads, planted

import mechspex as mx
from mechspex import figures
from mechspex.errors import Refused, ShapeError

SIZES = {"270 heads": (30, 9), "5 heads": (1, 5), "8 heads": (2, 4)}


@pytest.fixture(params=SIZES)
def units(request):
    return heads(*SIZES[request.param])


def test_a_map_reads_at_every_size(units):
    check_readable(figures.head_map(planted(units)))


def test_colours_are_exact_in_a_frame_where_that_was_measured_and_recovered_elsewhere():
    found = planted(heads(30, 9))
    figure = figures.head_map(found)
    grid = np.asarray(figure.axes[0].images[0].get_array())
    exact = found.validation.ablated_effects()
    recovered = found.function.to_basis("ablated").to_mapping()
    framed = {
        (patch.get_y() + 0.5, patch.get_x() + 0.5)
        for patch in figure.axes[0].patches
        if isinstance(patch, Rectangle)
    }
    assert len(framed) == 12
    for column, unit in enumerate(found.units):
        cell = (unit.number, unit.layer)
        known = exact.get((column,), recovered.get((column,), 0.0))
        assert grid[cell] == pytest.approx(known)
        assert (cell in framed) == ((column,) in exact)
    assert "frame: measured exactly" in figure.get_supxlabel()
    swept = mx.sweep(lambda m: 1.0 * m[:, 0], units=heads(2, 4))
    assert not figures.head_map(swept).axes[0].patches, "all that a sweep says is exact"


def test_several_maps_share_one_scale():
    one, other = planted(heads(2, 4)), planted(heads(2, 4), seed=5)
    figure = figures.head_map(one, other, names=["prompts", "fresh prompts"])
    check_readable(figure)
    limits = {axes.images[0].get_clim() for axes in figure.axes[:2]}
    assert len(limits) == 1
    largest = max(np.nanmax(np.abs(f.exact_single_effects)) for f in (one, other))
    assert limits.pop()[1] == pytest.approx(largest)
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == ["prompts", "fresh prompts"]
    with pytest.raises(ShapeError, match="1 names for 2 maps"):
        figures.head_map(one, other, names=["one"])
    with pytest.raises(Refused, match="leave ax out"):
        figures.head_map(one, other, ax=figure.axes[0])


def test_any_number_of_any_unit_with_a_layer_has_a_map():
    units = heads(3, 2) + mx.UnitSet((mx.Unit("mlp", 1, 0), mx.Unit("head", 2, 1, -1)))
    figure = figures.unit_map(units, np.arange(8.0), quantity="share of attention")
    check_readable(figure)
    axes, bar = figure.axes
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == ["0", "1", "1@-1", "MLP"]
    grid = np.ma.masked_invalid(np.ma.asarray(axes.images[0].get_array()))
    assert grid[3, 1] == 6
    assert grid[2, 2] == 7
    assert grid.count() == 8
    assert axes.images[0].get_clim() == (0, 7), "numbers that are never below 0 have one colour"
    assert bar.get_ylabel() == "share of attention"
    with pytest.raises(ShapeError, match=r"\[2\] of 'a' for 8 units"):
        figures.unit_map(units, {"a": [1.0, 2.0]})
    with pytest.raises(Refused, match="all lie in layers"):
        figures.unit_map(mx.parts("ab"), [1.0, 2.0])
    with pytest.raises(Refused, match="2,000 rows"):
        figures.unit_map(heads(1, 2000), np.zeros(2000))


def test_a_map_is_drawn_on_the_axes_that_are_given_and_leaves_their_style():
    mine = Figure(figsize=(9, 3))
    left, right = mine.subplots(1, 2)
    found = planted(heads(2, 4))
    assert figures.head_map(found, ax=right) is mine
    assert right.images
    assert not left.images
    assert not mine.get_suptitle()
    title = " ".join(right.get_title(loc="left").split())
    assert "ioi · smollm2-135m · mean ablation · 8 prompts" in title


def test_a_dark_style_changes_no_colour_and_nothing_global_changes():
    before, backend = dict(matplotlib.rcParams), matplotlib.get_backend()
    with matplotlib.style.context("dark_background"):
        check_readable(figures.head_map(planted(heads(2, 4))))
        check_readable(figures.interactions(planted(heads(2, 4))))
    assert dict(matplotlib.rcParams) == before
    assert matplotlib.get_backend() == backend
