"""What an executor is: workers that take a request and give an answer, and may be lost.

A request holds masks and says which value function they are for; the first of a value function
holds its recipe (`mechspex.core.recipe`). Nobody but the coordinator writes to a store. An answer
may come late, twice or not at all: masks are known by their rows, the first answer counts, and
what is not answered is asked of another worker.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable


class WorkerLost(Exception):
    """A worker is gone, or could not be started; its text says how."""


@runtime_checkable
class Worker(Protocol):
    """One worker, as the coordinator's thread for it sees it."""

    def answer(self, request: bytes) -> bytes:
        """Wait for the answer of `mechspex.executors.measurer.Measurer` to a request.

        Raises:
            WorkerLost: there will be none.
        """
        ...

    def close(self) -> None:
        """End it at once, whatever it does; called from any thread, maybe more than once."""
        ...


@runtime_checkable
class Executor(Protocol):
    """Starts workers of one kind.

    Attributes:
        n_workers: how many there are to be.
    """

    n_workers: int

    def start(self, number: int) -> Worker:
        """Start a worker in the place of this number, as often as one is lost there.

        Raises:
            WorkerLost: it ended before it was there.
        """
        ...

    def close(self) -> None:
        """Give back what all workers share; the workers are closed already."""
        ...
