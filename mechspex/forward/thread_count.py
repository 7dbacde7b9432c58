"""How many threads a forward on a processor computes with, found by measurement."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

# Threads that wait for each other still compute, as they wait in a loop: with cores of their own
# they are computing .89 to .98 of the time, where another process computes as well .48 to .78.
_ALONE = 0.85
# Where threads are told to sleep while they wait (OMP_WAIT_POLICY=passive) they compute .75 to .97
# of the time alone. Then what decides is whether they multiply faster than half as many do.
_SLEEPING, _GAIN = 0.65, 1.25
# Measured again when this many times what measuring took has passed: one per cent.
_PAUSE = 100
# A product, an elementwise step, and another: threads wait for each other between them, as they do
# in a model's blocks.
_WIDTH, _ROWS_PER_THREAD, _STEPS, _TIMES = 512, 512, 4, 4


def time_steps(threads: int, rows: int) -> tuple[float, float]:
    """A few products and activations: seconds on the clock, and those that all threads computed.

    Args:
        threads: how many compute.
        rows: rows of each product.
    """
    torch.set_num_threads(threads)
    with torch.inference_mode():
        activations = torch.ones(rows, _WIDTH, dtype=torch.float32, device="cpu")
        weights = torch.ones(_WIDTH, _WIDTH, dtype=torch.float32, device="cpu")
        start, computed = time.perf_counter(), time.process_time()
        for _ in range(_STEPS):
            torch.nn.functional.gelu(activations @ weights)
        return time.perf_counter() - start, time.process_time() - computed


class ThreadCount:
    """The number of threads that pays now: halved while they do not get the cores that they want.

    Threads that share their cores with another process wait for each other at every product and
    lose more than their share, so that one thread is faster than two of which one has to wait.
    Measured on products of its own, since no batch of a sweep is to be measured twice. Values move
    by rounding at most, as with batches of another size.

    Args:
        timed: (threads, rows) → seconds of some products, and seconds that all threads computed.
    """

    def __init__(self, timed: Callable[[int, int], tuple[float, float]] = time_steps) -> None:
        self._timed = timed
        self._measuring = threading.Lock()
        self._given = self._chosen = 1
        self._valid_until = 0.0

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Compute with as many threads as pay, at most those that PyTorch has now; then with those.

        Measured at first, and whenever a hundred times what that took has passed.
        """
        given = torch.get_num_threads()
        if given == 1:
            yield
            return
        try:
            torch.set_num_threads(self._now(given))
            yield
        finally:
            torch.set_num_threads(given)

    def _now(self, given: int) -> int:
        # Two that measure at once would see each other.
        if self._measuring.acquire(blocking=False):
            try:
                start = time.perf_counter()
                if given != self._given or start > self._valid_until:
                    self._given, self._chosen = given, self._measured(given)
                    now = time.perf_counter()
                    self._valid_until = now + _PAUSE * (now - start)
            finally:
                self._measuring.release()
        return min(given, self._chosen)

    def _measured(self, threads: int) -> int:
        # The first products also wake threads and prepare libraries.
        self._timed(threads, threads * _ROWS_PER_THREAD)
        while threads > 1 and not self._pay(threads):
            threads //= 2
        return threads

    def _pay(self, threads: int) -> bool:
        """Whether so many threads have cores to compute on."""
        rows = threads * _ROWS_PER_THREAD
        seconds = computed = of_half = 0.0
        # In turns, so that what comes and goes meets both.
        for _ in range(_TIMES):
            clock, all_threads = self._timed(threads, rows)
            seconds += clock
            computed += all_threads
            of_half += self._timed(threads // 2, rows)[0]
        busy = computed / (threads * seconds)
        return busy >= _ALONE or (busy >= _SLEEPING and of_half >= _GAIN * seconds)


# What a machine has to spare is the same for all forwards of a process.
_COUNT = ThreadCount()


@contextmanager
def threads_that_pay(device: torch.device) -> Iterator[None]:
    """Compute on a processor with as many threads as pay now; elsewhere changes nothing.

    Args:
        device: where is computed.
    """
    if device.type != "cpu":
        yield
        return
    with _COUNT.applied():
        yield
