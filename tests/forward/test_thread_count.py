"""As many threads as have cores to compute on; values, and what was set before, stay."""

import numpy as np
import pytest
import torch
from small_models import ANSWERS, DISTRACTORS, PROMPTS

import mechspex as mx
from mechspex.forward import thread_count
from mechspex.forward.thread_count import ThreadCount, threads_that_pay, time_steps
from mechspex.prompts.row_forward import RowForward


class Cores:
    """A machine of which `free` cores are free; with too few, each product takes `delay` longer."""

    def __init__(self, free, delay=5.0, waiting=1.0):
        self.free, self.delay, self.waiting = free, delay, waiting
        self.n_timed = 0

    def __call__(self, threads, rows):
        self.n_timed += 1
        seconds = 1e-7 * rows / min(threads, self.free)
        if threads > self.free:
            seconds *= self.delay
        return seconds, seconds * min(threads, self.free) * self.waiting


@pytest.fixture(autouse=True)
def eight_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    assert torch.get_num_threads() == 8
    torch.set_num_threads(before)


def chosen_by(count):
    with count.applied():
        return torch.get_num_threads()


@pytest.mark.parametrize(
    ("free", "expected"), [(8, 8), (7, 8), (6, 4), (4, 4), (3, 2), (2, 2), (1, 1), (0.5, 1)]
)
def test_threads_are_halved_until_each_has_a_core(free, expected):
    assert chosen_by(ThreadCount(Cores(free))) == expected


def test_sleeping_threads_that_multiply_faster_are_kept():
    """Alone, but asleep a quarter of the time (OMP_WAIT_POLICY=passive)."""
    assert chosen_by(ThreadCount(Cores(8, waiting=0.75))) == 8
    assert chosen_by(ThreadCount(Cores(8, waiting=0.6))) == 1


def test_threads_with_cores_of_their_own_are_kept_where_they_gain_nothing():
    """Hyperthreads, or a memory that is too slow for more: what is set is meant."""

    def timed(threads, rows):
        return 1e-6, 1e-6 * threads

    assert chosen_by(ThreadCount(timed)) == 8


def test_measured_once_until_a_hundred_times_its_seconds_have_passed(monkeypatch):
    clock = iter(np.arange(0.0, 1e6, 1.0))
    monkeypatch.setattr(thread_count.time, "perf_counter", lambda: float(next(clock)))
    cores = Cores(8)
    count = ThreadCount(cores)
    chosen_by(count)  # begun at 0, ended at 1: holds until 101
    once = cores.n_timed
    cores.free = 1
    for _ in range(2, 102):
        assert chosen_by(count) == 8
    assert cores.n_timed == once
    assert chosen_by(count) == 1
    assert cores.n_timed > once


def test_another_number_of_threads_is_measured_anew():
    cores = Cores(4)
    count = ThreadCount(cores)
    assert chosen_by(count) == 4
    torch.set_num_threads(3)
    cores.free = 3
    assert chosen_by(count) == 3
    torch.set_num_threads(8)


def test_one_thread_is_not_measured():
    torch.set_num_threads(1)
    cores = Cores(1)
    assert chosen_by(ThreadCount(cores)) == 1
    assert cores.n_timed == 0
    torch.set_num_threads(8)


def test_what_was_set_returns_after_an_error():
    def fails():
        with ThreadCount(Cores(1)).applied():
            assert torch.get_num_threads() == 1
            raise RuntimeError("soup")

    with pytest.raises(RuntimeError, match="soup"):
        fails()
    assert torch.get_num_threads() == 8

    def broken(threads, rows):
        torch.set_num_threads(threads)
        raise MemoryError

    with pytest.raises(MemoryError):
        chosen_by(ThreadCount(broken))


def test_only_processors_have_threads():
    with threads_that_pay(torch.device("meta")):
        assert torch.get_num_threads() == 8


def test_who_measures_beside_another_takes_what_is_known():
    """A second thread of the process would only see the first."""
    inside = []

    def timed(threads, rows):
        inside.append(count._now(8))
        return 1e-6, 1e-6 * threads

    count = ThreadCount(timed)
    assert chosen_by(count) == 8
    assert set(inside) == {1}


def test_steps_are_timed_with_the_threads_that_are_asked_for():
    seconds, computed = time_steps(1, 256)
    assert torch.get_num_threads() == 1
    assert seconds > 0
    # Nothing else computes here: one thread computes at most all of the time, clocks are coarse.
    assert 0 <= computed <= 1.5 * seconds + 0.05
    torch.set_num_threads(8)


def in_this_thread(logits, prompts):
    """A metric that says how many threads compute."""
    seen.append(torch.get_num_threads())
    return logits[:, 3] - logits.mean(dim=-1)


seen = []


def test_every_batch_takes_as_many_as_pay(llama_folder, monkeypatch):
    model = mx.load_model(llama_folder)
    values, gradients = [], []
    for free in (8, 4, 2, 1):
        monkeypatch.setattr(thread_count, "_COUNT", ThreadCount(Cores(free)))
        task = mx.Task(PROMPTS, ANSWERS, DISTRACTORS, metric=in_this_thread)
        function = mx.ComponentValues(model, task, "heads", "mean")
        masks = mx.sample_masks(len(function.units), 30, keep=0.8, seed=1)
        seen.clear()
        values.append(function(masks))
        gradients.append(function.value_and_gradient(masks[:2].astype(np.float32))[1])
        assert seen[-1] == seen[-2] == free
    for other, of_other in zip(values[1:], gradients[1:], strict=True):
        assert np.allclose(values[0], other, rtol=1e-5, atol=1e-6)
        assert np.allclose(gradients[0], of_other, rtol=1e-4, atol=1e-6)


def test_words_take_as_many_as_pay(llama_folder, monkeypatch):
    monkeypatch.setattr(thread_count, "_COUNT", ThreadCount(Cores(4)))
    model = mx.load_model(llama_folder)
    values = mx.PromptValues(model, PROMPTS[0], by="word", response=ANSWERS[0])
    measured, inside = RowForward._of_copy, []

    def watched(*given):
        inside.append(torch.get_num_threads())
        return measured(*given)

    monkeypatch.setattr(RowForward, "_of_copy", watched)
    values(mx.sample_masks(values.n_units, 4, keep=0.5, seed=0))
    assert set(inside) == {4}
