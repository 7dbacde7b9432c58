import numpy as np
import pytest
from figure_laws import check_readable
from matplotlib.colors import to_rgba
from matplotlib.patches import FancyArrowPatch, Rectangle
from planted_answers import CONFIGURATION, evidence, heads, long_names, planted

import mechspex as mx
from mechspex import figures
from mechspex.circuits.circuit import Circuit
from mechspex.circuits.member_pair import MemberPair
from mechspex.core.statistics import Estimate
from mechspex.errors import Refused, ShapeError

UNITS = {
    "270 heads": (heads(30, 9), 26),
    "5 heads": (heads(1, 5), 3),
    "64 units with long names": (long_names(64), 40),
}
RELATIONS = ("together", "backup", "opposed")


def circuit(units, size):
    rng = np.random.default_rng(0)
    members = tuple(sorted(rng.choice(len(units), size, replace=False).tolist()))
    pairs = dict.fromkeys(
        tuple(sorted(rng.choice(members, 2, replace=False).tolist())) for _ in range(size // 2 + 1)
    )
    return Circuit(
        units,
        members,
        CONFIGURATION,
        effects={column: float(rng.normal()) for column in members},
        links=tuple(
            MemberPair(pair, Estimate(rng.normal(), -2.0, 2.0), RELATIONS[number % 3])
            for number, pair in enumerate(pairs)
        ),
        roles={"name_mover": members[: size // 3], "duplicate_token": members[size // 2 :]},
    )


@pytest.mark.parametrize("units", UNITS)
def test_a_circuit_is_its_members_by_layer_with_their_pairs_and_roles(units):
    found = circuit(*UNITS[units])
    figure = found.plot()
    check_readable(figure)
    axes = figure.axes[0]
    lines = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    assert len(lines) == len(found.links)
    colours = {to_rgba(line.get_edgecolor())[:3] for line in lines}
    assert len(colours) == len({link.relation for link in found.links})
    labels = [text.get_text() for text in (*axes.texts, *axes.get_yticklabels())]
    assert sum("name mover" in label for label in labels) == len(found.roles["name_mover"])
    assert f"{len(found)} of {len(found.units)} units" in figure.get_suptitle()


def test_the_curve_goes_through_the_scores_with_its_controls():
    values = mx.FunctionValues(lambda m: 3.0 * (m[:, 0] & m[:, 1]) + m[:, 2], mx.parts("abc"))
    curve = mx.faithfulness_curve(values, ["a", "b", "c"], shares=[1 / 3, 2 / 3, 1.0])
    figure = figures.faithfulness_by_size(
        {"ranking": curve}, controls={2: [0.1, 0.2]}, chosen=(2, Estimate(0.7, 0.6, 0.8))
    )
    check_readable(figure)
    axes = figure.axes[0]
    lines = {str(line.get_label()): np.asarray(line.get_xydata()) for line in axes.lines}
    assert lines["ranking"] == pytest.approx(np.array([[1, 0], [2, 0.75], [3, 1]]))
    assert lines["random circuits of that size"] == pytest.approx(np.array([[2, 0.1], [2, 0.2]]))


@pytest.mark.parametrize("names", [None, long_names(20).names])
def test_stability_shows_intervals_and_the_share_of_halves_that_pick_a_term(names):
    found = evidence(20)
    figure = found.plot(names)
    check_readable(figure)
    left, right = figure.axes
    dots = np.asarray(left.collections[-1].get_offsets())
    assert dots[:, 0] == pytest.approx(found.coefficients[:20])
    bars = [bar.get_width() for bar in right.patches if isinstance(bar, Rectangle)]
    assert bars == pytest.approx(found.selected[:20])


def test_energies_are_drawn_by_order_and_answer():
    one, other = (planted(heads(2, 4), seed=seed).structure for seed in (0, 1))
    figure = figures.energy_by_order({"one": one, "other": other})
    check_readable(figure)
    for line, structure in zip(figure.axes[0].lines, (one, other), strict=True):
        drawn = np.asarray(line.get_ydata(), dtype=float)[: len(structure.energy_by_order)]
        assert drawn == pytest.approx(structure.energy_by_order)


def test_patterns_have_a_map_a_head_with_its_role():
    rng = np.random.default_rng(0)
    words = "<|begin_of_text|> When $Mary$ andJohn went to the very_long_word"
    tokens = tuple(words.replace("and", "and\n").split(" "))
    patterns = rng.dirichlet(np.ones(len(tokens)), size=(7, len(tokens)))
    found = mx.AttentionPatterns("smollm2-135m", heads(1, 9)[1:8], tokens, patterns)
    figure = found.plot({"name_mover": ["L0H2", "L0H3"]})
    check_readable(figure)
    maps = [axes for axes in figure.axes if axes.images]
    assert len(maps) == 7
    titles = [axes.get_title(loc="left") for axes in maps]
    assert titles[:3] == ["L0H1", "L0H2 · name mover", "L0H3 · name mover"]
    for number, axes in enumerate(maps):
        assert np.asarray(axes.images[0].get_array()) == pytest.approx(patterns[number])
        assert axes.images[0].get_clim() == (0.0, 1.0)
    many = mx.AttentionPatterns("tiny", heads(5, 5), ("a",), np.ones((25, 1, 1)))
    with pytest.raises(Refused, match="25 heads"):
        many.plot()


def test_bars_say_how_many_are_left_out():
    figure = figures.bars([f"unit {n}" for n in range(30)], np.linspace(-1, 1, 30), most=5)
    check_readable(figure)
    assert "25 more are not shown" in figure.get_supxlabel()
    with pytest.raises(ShapeError, match="1 names for 2 values"):
        figures.bars(["a"], [1.0, 2.0])


def test_predictions_lie_beside_what_was_measured():
    terms = ((0,), (1,), (0, 1))
    found = mx.Agreement(terms, np.array([1.0, 2.0, 0.5]), np.array([1.5, 1.0, 0.0]), 2)
    figure = found.plot()
    check_readable(figure)
    singles, pairs = (np.asarray(dots.get_offsets()) for dots in figure.axes[0].collections)
    assert singles == pytest.approx(np.array([[1.0, 1.5], [2.0, 1.0]]))
    assert pairs == pytest.approx(np.array([[0.5, 0.0]]))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("method_lines", "scores of methods"),
        ("r2_by_masks", "learning curves"),
        *[(name, "exact effects") for name in ("beeswarm", "force", "network", "upset")],
        ("pair_matrix", "exact effects"),
    ],
)
def test_an_answer_of_another_kind_is_refused(name, wanted):
    for other in (circuit(heads(1, 5), 2), 3, None):
        with pytest.raises(Refused, match=f"give .*{wanted}"):
            getattr(figures, name)(other)
