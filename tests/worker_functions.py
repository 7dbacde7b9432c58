"""Functions of masks that worker processes import, and faults that strike there."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from mechspex.core.recipe import Recipe
from mechspex.core.units import parts

N_UNITS = 8


def planted(masks):
    """Singles, a pair and a product of three, in double precision."""
    kept = masks.astype(np.float64)
    singles = kept @ np.arange(1.0, N_UNITS + 1)
    return singles / 3 - 2 * kept[:, 0] * kept[:, 3] + kept[:, 1] * kept[:, 2] * kept[:, 5]


class OwnError(Exception):
    """A type that nobody else knows."""


class Faulty:
    """`planted`, until a fault strikes: in workers alone, as the coordinator measures nothing.

    Args:
        folder: where it notes what it did: a file a process, and one for a fault that struck.
        fault: what happens at the mask that lacks units 0 and 1 alone.
        seconds: how long a mask takes.
    """

    units = parts(N_UNITS)
    outputs = ("output",)
    first_batch = 4
    configuration = {"function": "faulty"}  # noqa: RUF012

    def __init__(self, folder, fault="none", seconds=0.0):
        self.folder, self.fault, self.seconds = Path(folder), fault, seconds

    @property
    def recipe(self):
        given = {"folder": str(self.folder), "fault": self.fault, "seconds": self.seconds}
        return Recipe("worker_functions:Faulty", given)

    def __call__(self, masks):
        (self.folder / f"pid-{os.getpid()}").touch()
        time.sleep(self.seconds * len(masks))
        struck = ~masks[:, :2].any(axis=1) & masks[:, 2:].all(axis=1)
        if struck.any():
            getattr(self, self.fault)()
        return planted(masks)[:, None]

    def none(self):
        """Nothing."""

    def kill(self):
        """The process is killed, whoever it is."""
        os.kill(os.getpid(), signal.SIGKILL)

    def kill_once(self):
        """The first process is killed."""
        if self._first():
            self.kill()

    def hang_once(self):
        """The first process does not answer for long."""
        if self._first():
            time.sleep(3)

    def refuse(self):
        """An error of Python's own."""
        raise ValueError("unit 0 and unit 1 are both away")

    def refuse_unknown(self):
        """An error of a type that the coordinator cannot make."""
        raise OwnError("no luck")

    def _first(self):
        try:
            (self.folder / "struck").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True
