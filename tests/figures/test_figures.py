import io

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

import mechspex as mx
from mechspex import figures
from mechspex.errors import Refused
from mechspex.figures.style import PALE


@pytest.fixture(scope="module")
def explanation(tiny):
    task = mx.load_task("induction", tiny, n_prompts=16)
    return mx.explain(mx.ComponentValues(tiny, task, mx.heads(tiny)))


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def test_the_head_map_shows_the_effect_of_every_head(explanation):
    figure = figures.head_map(explanation)
    (image,) = figure.axes[0].images
    grid = np.asarray(image.get_array())
    assert grid.shape == (4, 2)
    effects = explanation.to_pandas().set_index("units")["effect"]
    assert grid[3, 1] == pytest.approx(effects["L1H3"], abs=1e-4)
    assert grid[0, 0] == pytest.approx(0, abs=1e-3)
    assert "induction · tiny" in figure.get_suptitle()
    (dots,) = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert sorted(map(tuple, np.asarray(dots.get_xydata()).tolist())) == [(0, 1), (1, 3)]
    assert png(figure).startswith(b"\x89PNG")


def test_the_head_map_of_a_sweep_shows_exact_effects_and_leaves_out_the_rest(tiny):
    task = mx.load_task("induction", tiny, n_prompts=16)
    values = mx.ComponentValues(tiny, task, mx.heads(tiny))
    swept = mx.sweep(values, order=2, among=["L0H1", "L1H3", "L1H0"])
    figure = figures.head_map(swept)
    (image,) = figure.axes[0].images
    grid = np.ma.masked_invalid(np.ma.asarray(image.get_array()))
    assert grid.count() == 3
    effects = swept.singles().set_index("units")["effect"]
    assert grid[3, 1] == pytest.approx(effects["L1H3"])
    assert grid[1, 0] == pytest.approx(effects["L0H1"])
    (dots,) = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert sorted(map(tuple, np.asarray(dots.get_xydata()).tolist())) == [(0, 1), (1, 3)]
    assert png(figure).startswith(b"\x89PNG")


def test_results_know_their_picture(tiny, explanation):
    (image,) = explanation.plot().axes[0].images
    (same,) = figures.head_map(explanation).axes[0].images
    assert np.array_equal(np.ma.asarray(image.get_array()), np.ma.asarray(same.get_array()))
    label = " ".join(explanation.plot().axes[1].get_ylabel().split())
    assert label == "effect of ablation on logit difference (logits)"
    assert explanation.plot()._repr_png_().startswith(b"\x89PNG"), "a notebook shows it"
    task = mx.load_task("induction", tiny, n_prompts=4)
    swept = mx.sweep(mx.ComponentValues(tiny, task, mx.heads(tiny)))
    assert " ".join(swept.plot("nats").axes[1].get_ylabel().split()) == "effect of ablation on nats"
    parts = mx.explain(lambda masks: 1.0 * masks[:, 0], units=mx.parts("ab"))
    (text,) = parts.plot().axes[0].texts
    assert text.get_text() == "no interaction to show"


def test_bars_are_exact_effects_with_their_intervals(explanation):
    figure = figures.interactions(explanation)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["L0H1 × L1H3"]
    (bar,) = axes.patches
    assert isinstance(bar, Rectangle)
    assert bar.get_width() == pytest.approx(explanation.interactions()["effect"][0])
    assert axes.get_xlabel() == "interaction effect on logit difference (logits)"
    assert png(figure).startswith(b"\x89PNG")


def test_bars_of_one_output_are_not_called_unconfirmed(explanation):
    found = mx.explain(lambda kept: 1.0 * (kept[:, 0] & kept[:, 1]), units=mx.parts("ab"))
    figure = figures.interactions(found)
    (bar,) = figure.axes[0].patches
    assert bar.get_facecolor() != to_rgba(PALE)
    notes = [text.get_text() for text in figure.texts]
    assert any("no interval" in note and "not confirmed" not in note for note in notes), notes
    notes = [text.get_text() for text in figures.interactions(explanation).texts]
    assert any("not confirmed" in note for note in notes), notes


def test_no_interactions_make_a_figure_that_says_so():
    found = mx.explain(lambda masks: 1.0 * masks[:, 0], units=mx.parts("ab"))
    (text,) = figures.interactions(found).axes[0].texts
    assert text.get_text() == "no interaction to show"
    with pytest.raises(Refused, match="all lie in layers"):
        figures.head_map(found)
    with pytest.raises(Refused, match="all lie in layers"):
        figures.head_map(mx.sweep(lambda masks: 1.0 * masks[:, 0], units=mx.parts("ab")))


def test_named_bars_say_the_unit_of_the_metric(tiny, tiny_task):
    values = mx.ComponentValues(tiny, tiny_task, mx.heads(tiny))
    changed = mx.compare_models(tiny, tiny, tiny_task, n_masks=50)
    verdicts = mx.audit(tiny, tiny_task, mx.Circuit(values.units, (1, 7)))
    for answer in (mx.screen(values, "ablation"), changed, verdicts):
        assert answer.plot().axes[0].get_xlabel().endswith("logit difference (logits)")
