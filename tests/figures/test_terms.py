import numpy as np
import pytest
from figure_laws import check_readable
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from planted_answers import heads, long_names, planted

import mechspex as mx
from mechspex import figures
from mechspex.figures.terms import strongest

ANSWERS = {
    "270 heads": lambda: planted(heads(30, 9)),
    "5 heads": lambda: planted(heads(1, 5), n_pairs=3),
    "64 units with long names": lambda: planted(long_names(64), n_pairs=60),
}
DRAWN = ["network", "pair_matrix", "upset", "waterfall", "beeswarm", "force", "interactions"]
ON_AXES = [name for name in DRAWN if name != "upset"]


def rectangles(axes):
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


@pytest.fixture(scope="module", params=ANSWERS)
def found(request):
    return ANSWERS[request.param]()


@pytest.fixture(scope="module")
def small():
    return ANSWERS["5 heads"]()


@pytest.fixture(scope="module")
def nothing():
    return mx.explain(lambda masks: np.ones(len(masks)), units=mx.parts("ab"))


@pytest.mark.parametrize("name", DRAWN)
def test_no_text_lies_over_another_at_any_size(found, name):
    figure = getattr(figures, name)(found)
    check_readable(figure)
    assert "ioi · smollm2-135m · mean ablation · 8 prompts" in " ".join(
        figure.get_suptitle().split()
    )


@pytest.mark.parametrize("name", DRAWN)
def test_an_answer_without_interactions_makes_a_figure(nothing, name):
    check_readable(getattr(figures, name)(nothing))


@pytest.mark.parametrize("name", [*DRAWN[:3], "beeswarm", "force"])
def test_interactions_that_are_all_zero_make_a_figure(name):
    added = mx.sweep(mx.FunctionValues(lambda masks: 1.0 * masks[:, 0], 3), order=2)
    check_readable(getattr(figures, name)(added))


@pytest.mark.parametrize("name", ON_AXES)
def test_figures_of_one_axes_are_drawn_where_they_are_asked_for(small, name):
    mine = Figure()
    left, right = mine.subplots(1, 2)
    assert getattr(figures, name)(small, ax=left) is mine
    assert left.has_data() or left.patches
    assert not right.has_data()
    assert not mine.get_suptitle()


def test_the_network_has_a_line_for_each_pair_and_one_to_each_member_of_a_larger_set(found):
    drawn = strongest(found, 25, least=2)
    axes = figures.network(found).axes[0]
    lines = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    assert len(lines) == sum(1 if len(one.term) == 2 else len(one.term) for one in drawn)
    hubs = [line for line in axes.lines if line.get_marker() == "s"]
    assert len(hubs) == sum(len(one.term) > 2 for one in drawn)
    members = {column for one in drawn for column in one.term}
    (discs,) = axes.collections
    assert len(np.asarray(discs.get_offsets())) == len(members)


def test_units_stand_in_the_column_of_their_layer():
    found = planted(heads(30, 9))
    axes = figures.network(found).axes[0]
    ticks = dict(
        zip([t.get_text() for t in axes.get_xticklabels()], axes.get_xticks(), strict=True)
    )
    for text in axes.texts:
        layer = text.get_text().removeprefix("L").split("H")[0]
        assert text.get_position()[0] == pytest.approx(ticks[layer])


def test_the_matrix_of_pairs_is_symmetric_and_grey_where_nothing_was_measured():
    masks = mx.FunctionValues(lambda m: 2.0 * (m[:, 0] & m[:, 2]) + m[:, 1], mx.parts("abc"))
    figure = figures.pair_matrix(mx.sweep(masks, order=2))
    grid = np.ma.masked_invalid(np.ma.asarray(figure.axes[0].images[0].get_array()))
    assert grid[0, 2] == grid[2, 0] == pytest.approx(2.0)
    assert grid[0, 1] == pytest.approx(0.0)
    assert np.array_equal(np.ma.getmaskarray(grid), np.eye(3, dtype=bool))
    many = figures.pair_matrix(mx.sweep(lambda m: 1.0 * m[:, 0], units=heads(20, 4), order=2))
    check_readable(many)
    assert many.axes[0].get_xlabel() == "layer"


def test_upset_has_a_bar_a_set_and_a_dot_a_member(found):
    drawn = strongest(found, 16, least=2)
    bars, dots = figures.upset(found).axes
    assert [bar.get_height() for bar in rectangles(bars)] == pytest.approx(
        [one.effect for one in drawn]
    )
    members = [np.asarray(points.get_offsets()) for points in dots.collections[-len(drawn) :]]
    assert [len(points) for points in members] == [len(one.term) for one in drawn]
    names = [label.get_text() for label in dots.get_yticklabels()]
    if len(found.units) == 5:
        first = {names[int(row)] for _, row in members[0]}
        assert first == {found.units.names[column] for column in drawn[0].term}


def test_one_step_that_is_left_is_a_single():
    figure = figures.waterfall(planted(heads(1, 5), n_pairs=3), most=2)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert "1 other single" in names


def test_without_effects_of_single_units_there_is_no_scale_of_them():
    values = mx.FunctionValues(lambda m: 1.0 * (m[:, 0] & m[:, 1]), mx.parts("abc"))
    pairs = mx.validate(values, [(0, 1)])
    assert len(figures.network(pairs).axes) == 1


def test_the_waterfall_ends_at_the_clean_value(found):
    axes = figures.waterfall(found).axes[0]
    first, *steps, last = rectangles(axes)
    assert first.get_width() == pytest.approx(found.ablated)
    assert last.get_width() == pytest.approx(found.clean)
    assert found.ablated + sum(s.get_width() for s in steps) == pytest.approx(found.clean)
    assert steps[-1].get_width() == pytest.approx(0.4), "what the planted function leaves out"
    level = found.ablated
    for step in steps:
        assert step.get_x() == pytest.approx(level)
        level += step.get_width()


def test_the_swarm_has_a_dot_a_prompt_at_its_effect(found):
    drawn = strongest(found, 14)[::-1]
    axes = figures.beeswarm(found).axes[0]
    swarms = [c for c in axes.collections if len(np.asarray(c.get_offsets())) == 8]
    assert len(swarms) == len(drawn)
    for row, (one, swarm) in enumerate(zip(drawn, swarms, strict=True)):
        points = np.asarray(swarm.get_offsets())
        assert points[:, 0] == pytest.approx(found.output_effects[one.row])
        assert (np.abs(points[:, 1] - row) <= 0.4).all()


def test_the_bars_of_a_prompt_add_up_to_the_sum_of_its_terms(found):
    axes = figures.force(found).axes[0]
    ends = axes.lines[0].get_xdata()
    sums = np.zeros(8)
    for bar in rectangles(axes):
        sums[round(bar.get_y() + bar.get_height() / 2)] += bar.get_width()
    assert sums == pytest.approx(np.asarray(ends))
    assert np.sort(sums) == pytest.approx(np.sort(found.output_effects.sum(axis=0)))
