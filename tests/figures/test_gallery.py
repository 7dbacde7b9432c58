"""The gallery of examples that act together: the right sets on the right side, as they are."""

import numpy as np
import pytest
from figure_laws import check_readable, texts_of

import mechspex as mx
from mechspex import figures
from mechspex.errors import Refused, ShapeError

TEXTS = ("zorb is in quil", "quil is in pask", "mirt is in dorn", "mirt is in dorn", "and so on")


def values(masks):
    """An AND of the first two, an OR of the next two, an AND and an OR of three for all."""
    kept = np.asarray(masks)
    both, either = kept[:, 0] & kept[:, 1], kept[:, 2] | kept[:, 3]
    return (5.0 * both + 3.0 * either)[:, None] * np.array([0.9, 1.0, 1.1])


@pytest.fixture(scope="module")
def swept():
    return mx.sweep(values, order=2, units=mx.parts(5))


def said(figure):
    return [text for text, _, _ in texts_of(figure)]


def test_texts_stand_with_the_sets_that_act_together(swept):
    figure = figures.gallery(swept, TEXTS, most=1)
    check_readable(figure)
    words = said(figure)
    synergy, redundancy = (
        next(place for place, text in enumerate(words) if text.startswith(kind))
        for kind in ("synergy", "redundancy")
    )
    assert synergy < words.index("zorb is in quil") < words.index("quil is in pask") < redundancy
    assert "+5" in words[synergy:redundancy]
    assert "-3" in words[redundancy:]
    assert words.count("mirt is in dorn") == 2
    assert "and so on" not in words


def test_images_are_drawn_as_they_are(swept):
    images = np.random.default_rng(0).random((5, 4, 3))
    figure = figures.gallery(swept, images, most=1)
    check_readable(figure)
    drawn = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    assert len(drawn) == 4
    assert all(np.array_equal(one, image) for one, image in zip(drawn, images, strict=False))
    groups = [[image, image] for image in images]
    assert len(figures.gallery(swept, groups, most=1).axes) == len(figure.axes)


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda m: 1.0 * m.all(axis=1), "synergy"),
        (lambda m: 1.0 * m.any(axis=1), "redundancy"),
        (lambda m: -1.0 * m.any(axis=1), "redundancy"),
    ],
)
def test_three_that_need_or_replace_each_other_are_told_apart(function, kind):
    found = mx.explain(lambda m: function(np.asarray(m)), units=mx.parts(3))
    words = said(figures.gallery(found, "abc"))
    names = [one for one in words if one.startswith(("synergy", "redundancy"))]
    assert len(names) == 1
    assert names[0].startswith(kind)


def test_nothing_together_makes_a_figure_that_says_so():
    found = mx.explain(lambda masks: 1.0 * masks[:, 0], units=mx.parts("ab"))
    assert "no set of 2 and more units to show" in said(figures.gallery(found, ["one", "other"]))


def test_slips_are_refused(swept):
    with pytest.raises(ShapeError, match="4 are shown of 5 units"):
        figures.gallery(swept, TEXTS[:4])
    with pytest.raises(Refused, match="no text and no image"):
        figures.gallery(swept, [1, 2, 3, 4, 5])


def test_ready_tasks_have_what_is_shown():
    digits = mx.training_task("digits", n_examples=8)
    assert np.shape(digits.shown) == (8, 8, 8)
    assert np.array_equal(np.reshape(digits.shown, (8, -1)), digits.options["dataset"][0])
    assert mx.training_task("poison", n_examples=8).shown[0].count(" is in ") == 1
    assert len(mx.training_task("iris", n_examples=8).shown) == 0
