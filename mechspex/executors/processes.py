"""Worker processes on this machine, and one worker a CUDA device."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from threading import Lock

from mechspex.core.counted import counted
from mechspex.core.errors import Refused
from mechspex.executors.executor import WorkerLost

# What the libraries of arithmetic take their number of threads from, as they are loaded.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# The device on which a worker loads models; without it that of the coordinator's model.
DEVICE = "MECHSPEX_DEVICE"
_WAIT = 10


class Processes:
    """So many worker processes, each a fresh interpreter; the cores are divided among them.

    Masks, values and recipes go through a socket as JSON and bytes, so nothing is pickled, and a
    script needs no ``if __name__ == "__main__"``.

    Args:
        n_workers: how many.
        environments: {variable: value} of each worker beyond those of this process.

    Raises:
        Refused: more workers than cores, which would wait for one another.
    """

    def __init__(
        self, n_workers: int, environments: Sequence[Mapping[str, str]] | None = None
    ) -> None:
        n_cores = len(os.sched_getaffinity(0))
        if n_workers > n_cores:
            raise Refused(
                f"{n_workers} workers on {counted(n_cores, 'core')}: give at most {n_cores}, as "
                "more wait for one another"
            )
        self.n_workers = n_workers
        self._environments = environments or [{}] * n_workers
        own = os.environ.get("OMP_NUM_THREADS", "")
        self._n_threads = min(
            n_cores // n_workers, int(own) if own.isdecimal() and int(own) else n_cores
        )

    def start(self, number: int) -> Process:
        """Start a process; whether it lives shows when it is asked."""
        return Process(environment_of(self._n_threads) | dict(self._environments[number]))

    def close(self) -> None:
        """They share nothing."""


def cuda_devices(n_workers: int | None = None) -> Processes:
    """A worker process for each CUDA device, or for the first so many.

    Raises:
        Refused: there are not so many.
    """
    import torch

    there = torch.cuda.device_count()
    wanted = n_workers or there
    if not 1 <= wanted <= there:
        raise Refused(
            f"{counted(there, 'CUDA device')} here, {max(wanted, 1)} asked for; take processes:N "
            "to measure on cores"
        )
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name for name in seen.split(",") if name] or [str(n) for n in range(there)]
    return Processes(
        wanted, [{"CUDA_VISIBLE_DEVICES": name, DEVICE: "cuda"} for name in names[:wanted]]
    )


def environment_of(n_threads: int) -> dict[str, str]:
    """The variables of a worker: what this process imports it can import, with its share of the
    cores."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    kept = {name: value for name, value in os.environ.items() if name != DEVICE}
    return kept | dict.fromkeys(_THREADS, str(n_threads)) | {"PYTHONPATH": path}


class Process:
    """A worker process.

    Attributes:
        pid: its number.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        own, other = socket.socketpair()
        # What it says on its way down, for the error; nobody reads it else.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self._last = ""
        self._closing = Lock()
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mechspex.executors.serve", str(other.fileno())],
                env=environment,
                pass_fds=(other.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
            )
        self.pid = self._process.pid
        self._connection = Connection(own.detach())

    def answer(self, request: bytes) -> bytes:
        """Wait for the answer to a request.

        Raises:
            WorkerLost: the process has ended.
        """
        try:
            self._connection.send_bytes(request)
            return self._connection.recv_bytes()
        except (EOFError, OSError):
            raise WorkerLost(self._how_it_ended()) from None

    def close(self) -> None:
        """Kill it: nothing but the coordinator's store persists."""
        with self._closing:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_WAIT)
            if not self._said.closed:
                self._said.seek(0)
                lines = self._said.read().decode(errors="replace").strip().splitlines()
                self._last = f", {lines[-1]}" if lines else ""
                self._said.close()

    def _how_it_ended(self) -> str:
        self.close()
        code = self._process.returncode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return f"process {self.pid} ended ({how}{self._last})"
