"""The masks of one call: which are still to be asked for, which are asked for, which answered."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Lock
from typing import Any

import numpy as np

# How long an answer should take: a lost worker loses no more than that.
_SECONDS = 0.5
# The most masks of an answer.
_MOST = 4096
# Times that the same masks are given to workers which are lost over them.
_TRIES = 3
# An answer is late after so many seconds, and so many times what the slowest has taken.
_LATE, _TIMES = 10.0, 4.0


@dataclass
class Pace:
    """How many masks are asked of a worker at once, by the time that answers take.

    Attributes:
        size: how many.
        slowest: the seconds of the slowest answer.
        each: the seconds that a mask took a worker, in the last answer.
    """

    size: int
    slowest: float = 0.0
    each: float = 0.0

    def see(self, n_masks: int, seconds: float) -> None:
        """Size the next request by an answer."""
        self.slowest, self.each = max(self.slowest, seconds), seconds / n_masks
        if seconds > 1.5 * _SECONDS:
            self.size = max(1, min(self.size, int(n_masks * _SECONDS / seconds)))
        elif seconds < 0.5 * _SECONDS and n_masks == self.size:
            self.size = min(_MOST, 2 * self.size)


@dataclass(eq=False)
class Part:
    """Masks that were asked of a worker.

    Attributes:
        rows: their rows.
        tries: how many workers were lost over them.
        since: when they were asked for.
        doubled: whether another worker was asked for them as well, as this one is late.
    """

    rows: np.ndarray
    tries: int = 0
    since: float = 0.0
    doubled: bool = False


@dataclass(eq=False)
class Work:
    """One call.

    Attributes:
        made_by: the name of the value function among workers, and the request that makes it.
        ask: what is asked for.
        masks: packed, or soft ones.
        pace: how many are asked for at once.
        answers: what has come: (rows, arrays), or an error.
        failed: whether an error ended it.
    """

    made_by: tuple[str, bytes]
    ask: str
    masks: np.ndarray
    pace: Pace
    answers: SimpleQueue[Any] = field(default_factory=SimpleQueue)
    failed: bool = False

    def __post_init__(self) -> None:
        self._lock = Lock()
        self._open = np.ones(len(self.masks), dtype=bool)
        self._begun = 0
        self._again: deque[Part] = deque()
        self._asked: list[Part] = []

    @property
    def is_done(self) -> bool:
        """Whether every row has its answer."""
        return not self._open.any()

    @property
    def has_some(self) -> bool:
        """Whether a free worker finds something to measure."""
        with self._lock:
            begun = self._begun == len(self.masks)
            return not self.failed and (bool(self._again) or not begun or self._late() is not None)

    def take(self, n_workers: int) -> Part | None:
        """What a free worker should measure; None where nothing is left for it."""
        with self._lock:
            part = self._given_back() or self._fresh(n_workers)
            if part is None and (late := self._late()) is not None:
                late.doubled = True
                part = Part(self._still_open(late), late.tries, doubled=True)
            if part is not None:
                part.since = time.monotonic()
                self._asked.append(part)
            return part

    def answered(self, part: Part, arrays: list[np.ndarray], seconds: float) -> None:
        """A worker has answered."""
        with self._lock:
            self._asked.remove(part)
            self.pace.see(len(part.rows), seconds)
        self.answers.put((part.rows, arrays))

    def give_back(self, part: Part) -> bool:
        """A worker was lost: whether its masks may be given to another one, as they now are."""
        with self._lock:
            self._asked.remove(part)
            self._again.append(Part(part.rows, part.tries + 1))
            return part.tries + 1 < _TRIES

    def fail(self, error: BaseException) -> None:
        """End the call by an error, after the answers that are there."""
        self.failed = True
        self.answers.put(error)

    def settle(self, rows: np.ndarray) -> np.ndarray:
        """Which of these rows have their first answer now; a row that came twice counts once."""
        _, first = np.unique(rows, return_index=True)
        fresh = np.zeros(len(rows), dtype=bool)
        fresh[first] = True
        with self._lock:
            fresh &= self._open[rows]
            self._open[rows] = False
        return fresh

    def _still_open(self, part: Part) -> np.ndarray:
        return part.rows[self._open[part.rows]]

    def _given_back(self) -> Part | None:
        while self._again:
            part = self._again.popleft()
            rows = self._still_open(part)
            if len(rows):
                return Part(rows, part.tries)
        return None

    def _fresh(self, n_workers: int) -> Part | None:
        left = len(self.masks) - self._begun
        if not left:
            return None
        # Towards the end in smaller parts, so that all workers are done at the same time.
        size = min(self.pace.size, math.ceil(left / (2 * n_workers)))
        rows = np.arange(self._begun, self._begun + size)
        self._begun += size
        return Part(rows)

    def _late(self) -> Part | None:
        """What a worker should have answered by now, and no other was asked for."""
        now = time.monotonic()
        patience = max(_LATE, _TIMES * self.pace.slowest)
        for part in self._asked:
            if not part.doubled and now - part.since > patience and len(self._still_open(part)):
                return part
        return None
