"""Threads that share a model get the values that one thread gets."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

import mechspex as mx
from mechspex.core.masks import sample_masks
from mechspex.models.lock import lock_of
from mechspex.runs.recorded import RecordedValues

N_THREADS, ROUNDS = 4, 6
MASKS = [sample_masks(8, 60, keep=0.7, seed=seed) for seed in range(N_THREADS)]


def task_of(model):
    return mx.load_task("induction", model, n_prompts=4)


def shared(model):
    return [mx.ComponentValues(model, task_of(model), mx.heads(model))] * N_THREADS


def each_its_own(model):
    task = task_of(model)
    ablations = ("mean", "zero", "resample", "mean")
    return [mx.ComponentValues(model, task, mx.heads(model), name) for name in ablations]


def through_the_bridge(model):
    values = shared(model)
    model.add_hook("blocks.0.attn.hook_z", lambda activation, hook: activation * 1.0)
    return values


@pytest.mark.filterwarnings("ignore:the model carries hooks")
@pytest.mark.parametrize("made", [shared, each_its_own, through_the_bridge])
def test_values_and_gradients_are_those_of_one_thread(made):
    model = mx.load_model("tiny")
    values = made(model)
    right = [one(masks) for one, masks in zip(values, MASKS, strict=True)]
    soft = MASKS[0][:3].astype(np.float32)
    slopes = [one.value_and_gradient(soft)[1] for one in values]
    together = Barrier(N_THREADS)

    def work(place):
        together.wait()
        off = 0.0
        for _ in range(ROUNDS):
            off = max(off, np.abs(values[place](MASKS[place]) - right[place]).max())
            gradients = values[place].value_and_gradient(soft)[1]
            off = max(off, np.abs(gradients - slopes[place]).max())
        return off

    with ThreadPoolExecutor(N_THREADS) as pool:
        assert max(pool.map(work, range(N_THREADS))) < 1e-4


def test_preparing_does_not_disturb_measuring():
    model = mx.load_model("tiny")
    task = task_of(model)
    values = mx.ComponentValues(model, task, mx.heads(model), "zero")
    right = values(MASKS[0])
    together = Barrier(2)

    def prepare():
        together.wait()
        for _ in range(ROUNDS):
            mx.ComponentValues(model, task, mx.heads(model), "mean")

    def measure():
        together.wait()
        return max(np.abs(values(MASKS[0]) - right).max() for _ in range(5 * ROUNDS))

    with ThreadPoolExecutor(2) as pool:
        preparing, measuring = pool.submit(prepare), pool.submit(measure)
        preparing.result()
        assert measuring.result() < 1e-4


def test_one_store_serves_all_threads(tmp_path):
    model = mx.load_model("tiny")
    values = mx.ComponentValues(model, task_of(model), mx.heads(model))
    right = [values(masks) for masks in MASKS]
    recorded = RecordedValues(values, tmp_path)
    with ThreadPoolExecutor(N_THREADS) as pool:
        found = list(pool.map(recorded, MASKS))
    for one, other in zip(found, right, strict=True):
        assert np.abs(one - other).max() < 1e-4
    assert len(recorded._store) == len(np.unique(np.concatenate(MASKS), axis=0))


def test_the_lock_is_that_of_the_weights_and_may_be_taken_twice():
    model, other = mx.load_model("tiny"), mx.load_model("tiny")
    with lock_of(model), lock_of(model):
        pass
    assert lock_of(model) is lock_of(model)
    assert lock_of(model) is not lock_of(other)
