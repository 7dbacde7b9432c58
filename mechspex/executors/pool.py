"""The coordinator's side: masks handed to workers as they are free, until each has one answer."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from threading import Condition, Lock, Thread
from typing import Any

import numpy as np

from mechspex.core import errors
from mechspex.core.errors import WorkerError
from mechspex.core.in_force import IN_FORCE
from mechspex.core.value_function import ValuesLike, as_value_function
from mechspex.executors.executor import Executor, Worker, WorkerLost
from mechspex.executors.messages import packed, unpacked
from mechspex.executors.spread_values import SpreadValues
from mechspex.executors.work import Part, Work

# Workers lost one after another, none of which gave an answer: then it is no accident.
_LOST = 3
# How long a thread sleeps before it looks for a worker that is late.
_LOOKS = 1.0
# What a closed pool waits for threads whose workers are gone.
_CLOSING = 5.0


class Pool:
    """Workers that measure; in a ``with`` block they measure whatever runs record in it.

    Workers are started when there is something to measure, one for each place, and again where one
    is lost. They end with the block, whatever they do then.

    Args:
        executor: starts the workers.

    Attributes:
        lost: how many workers were lost so far.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._calling = Lock()
        self._changed = Condition()
        self._work: Work | None = None
        self._workers: dict[int, Worker] = {}
        self._threads: list[Thread] = []
        self._closed = False
        self._failures = 0
        self._tokens: list[Any] = []
        self.lost = 0

    @property
    def n_workers(self) -> int:
        """How many workers there are."""
        return self._executor.n_workers

    def on(self, values: ValuesLike) -> SpreadValues:
        """The same value function, measured by the workers.

        Args:
            values: a value function with a recipe: of a named model, of a function that can be
                imported, or of your own class with a `recipe`.

        Raises:
            Refused: another process cannot make it.
        """
        values = as_value_function(values)
        return values if isinstance(values, SpreadValues) else SpreadValues(values, self)

    def answers(self, work: Work) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """Rows of some work and their answers as they come, every row once.

        Raises:
            WorkerError: workers are lost again and again, or one made other values.
            Exception: what the value function raised, of the same type where that is known here.
        """
        with self._calling:
            self._begin(work)
            try:
                while not work.is_done:
                    rows, arrays = _together(work.answers)
                    fresh = work.settle(rows)
                    if fresh.any():
                        yield rows[fresh], [array[fresh] for array in arrays]
            finally:
                with self._changed:
                    self._work = None

    def close(self) -> None:
        """End all workers; what they were measuring is lost, what was yielded is not."""
        with self._changed:
            self._closed = True
            workers = list(self._workers.values())
            self._changed.notify_all()
        for worker in workers:
            worker.close()
        self._executor.close()
        for thread in self._threads:
            thread.join(_CLOSING)

    def __enter__(self) -> Pool:
        self._tokens.append(IN_FORCE.set(self))
        return self

    def __exit__(self, *_: object) -> None:
        IN_FORCE.reset(self._tokens.pop())
        self.close()

    def _begin(self, work: Work) -> None:
        with self._changed:
            if self._closed:
                raise WorkerError("these workers ended with their block; open another executor")
            self._work = work
            self._failures = 0
            self._changed.notify_all()
        for number in range(len(self._threads), self.n_workers):
            self._threads.append(Thread(target=self._serve, args=(number,), daemon=True))
            self._threads[-1].start()

    def _awaited(self) -> Work | None:
        """Work of which a part may be taken, once there is some; None when the pool is closed."""
        with self._changed:
            while not self._closed:
                if self._work is not None and self._work.has_some:
                    return self._work
                self._changed.wait(None if self._work is None else _LOOKS)
        return None

    def _serve(self, number: int) -> None:
        """The thread of one place: it starts a worker, and another where one is lost."""
        worker: Worker | None = None
        made: set[str] = set()
        while (work := self._awaited()) is not None:
            part = None
            try:
                if worker is None:
                    worker, made = self._started(number), set()
                # Masks are taken by a worker that can measure: others may be there sooner.
                if work.made_by[0] not in made:
                    _read(worker.answer(work.made_by[1]))
                    made.add(work.made_by[0])
                part = work.take(self.n_workers)
                if part is not None:
                    work.answered(part, *_asked(worker, work, part))
                    self._failures = 0
            except WorkerLost as lost:
                if worker is not None:
                    worker.close()
                worker = None
                self._note_loss(number, work, part, lost)
            except BaseException as error:
                work.fail(error)
        if worker is not None:
            worker.close()

    def _started(self, number: int) -> Worker:
        worker = self._executor.start(number)
        with self._changed:
            self._workers[number] = worker
            closed = self._closed
        if closed:
            worker.close()
        return worker

    def _note_loss(self, number: int, work: Work, part: Part | None, lost: WorkerLost) -> None:
        with self._changed:
            self._workers.pop(number, None)
            if self._closed:
                return
            self.lost += 1
            self._failures += 1
            again = part is None or work.give_back(part)
            if not again or self._failures >= _LOST * self.n_workers:
                work.fail(
                    WorkerError(
                        f"workers are lost again and again, the last one so: {lost}; where memory "
                        "ran out, fewer workers have more each"
                    )
                )
            self._changed.notify_all()


def _asked(worker: Worker, work: Work, part: Part) -> tuple[list[np.ndarray], float]:
    """The answer of a worker, which makes the value function anew where it has dropped it."""
    name, making = work.made_by
    request = packed({"of": name, "ask": work.ask}, work.masks[part.rows])
    header, arrays = _read(worker.answer(request))
    if header.get("unknown"):
        _read(worker.answer(making))
        header, arrays = _read(worker.answer(request))
    if any(len(array) != len(part.rows) for array in arrays) or not arrays:
        raise WorkerError("a worker's answer has another number of rows than its request")
    return arrays, header["seconds"]


def _read(message: bytes) -> tuple[dict[str, Any], list[np.ndarray]]:
    header, arrays = unpacked(message)
    if "error" in header:
        raise _as_raised(header["error"])
    return header, arrays


def _as_raised(told: dict[str, str]) -> Exception:
    """The error that a worker met: of its own type where that is one of ours or of Python's."""
    kind = getattr(errors, told["kind"], None) or getattr(builtins, told["kind"], None)
    try:
        assert isinstance(kind, type)
        assert issubclass(kind, Exception)
        error = kind(told["text"])
    except Exception:  # no such type, or one that is made of other things than a text
        error = WorkerError(f"{told['kind']} in a worker: {told['text']}")
    error.add_note(f"raised in a worker:\n{told['trace']}")
    return error


def _together(answers: SimpleQueue[Any]) -> tuple[np.ndarray, list[np.ndarray]]:
    """All answers that are there, as one: they are committed together.

    Raises:
        Exception: an error in the place of an answer, once those before it were taken.
    """
    found = [answers.get()]
    while not isinstance(found[-1], BaseException):
        try:
            found.append(answers.get_nowait())
        except Empty:
            break
    if isinstance(found[-1], BaseException):
        if len(found) == 1:
            raise found[0]
        answers.put(found.pop())
    rows = [rows for rows, _ in found]
    arrays = [np.concatenate(alike) for alike in zip(*(a for _, a in found), strict=True)]
    return np.concatenate(rows), arrays
