"""Jobs of SLURM, submitted through submitit, that connect to the coordinator and work for it."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import Any

from mechspex.core.errors import Refused
from mechspex.executors.executor import WorkerLost
from mechspex.executors.processes import DEVICE, environment_of
from mechspex.executors.serve import KEY
from mechspex.runs.run import runs_folder

# Seconds after which a job that has not connected is looked at again.
_LOOKS = 1.0
# Seconds that jobs have to end by themselves before they are cancelled.
_ENDING = 2.0


class SlurmJobs:
    """So many jobs; those that SLURM has started measure, the others follow.

    A job connects to the coordinator's machine with a key of this session: each side proves that it
    has it, and nothing but bytes goes through, in the clear. What submitit writes for a job, its
    own pickle with this address and key, lies in ``$MECHSPEX_RUNS/.slurm``, which only you can
    read, on a drive that all machines see. A job that has reached its time limit is followed by
    another. SLURM's own variables say the rest: SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT.

    Args:
        n_workers: how many.
        options: options of ``submitit.AutoExecutor.update_parameters``, such as
            ``timeout_min=60``, ``gpus_per_node=1`` or ``cpus_per_task=4``, which is as many
            threads; ``cluster=local`` runs jobs on this machine.

    Raises:
        Refused: submitit is not installed, there is no SLURM here, or an unknown option.
    """

    def __init__(self, n_workers: int, options: Mapping[str, Any]) -> None:
        try:
            import submitit  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise Refused("submitit is not installed; pip install 'mechspex[slurm]'") from None
        self.n_workers = n_workers
        asked = {"name": "mechspex", "timeout_min": 60, "cpus_per_task": 1, **options}
        cluster = str(asked.pop("cluster", "slurm"))
        folder = runs_folder().absolute() / ".slurm"
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        try:
            self._executor = submitit.AutoExecutor(folder, cluster)
            self._executor.update_parameters(**asked)
        except (RuntimeError, ValueError, NameError, TypeError, AssertionError) as error:
            raise Refused(f"slurm: {error}") from None
        self._variables = _variables(int(asked["cpus_per_task"]), "gpus_per_node" in asked)
        self._key = secrets.token_bytes(32)
        self._host = "127.0.0.1" if cluster == "local" else socket.gethostname()
        self._door = socket.create_server((self._host if cluster == "local" else "", 0))
        self._arrived: dict[str, SimpleQueue[Connection]] = {}
        self._closed = Event()
        self._submitting = Lock()
        self._jobs: list[Any] = []
        Thread(target=self._accept, daemon=True).start()

    def start(self, number: int) -> Job:
        """Submit a job and wait until it has connected, which may be long.

        Raises:
            WorkerLost: it ended before.
        """
        name = secrets.token_hex(8)
        arrived = self._arrived[name] = SimpleQueue()
        with self._submitting:
            port = self._door.getsockname()[1]
            job = self._executor.submit(
                work, self._host, port, self._key.hex(), name, self._variables
            )
        self._jobs.append(job)
        while not self._closed.is_set():
            with suppress(Empty):
                return Job(job, arrived.get(timeout=_LOOKS))
            if job.done():
                break
        raise WorkerLost(f"job {job.job_id} ended before it had begun; see {job.paths.stderr}")

    def close(self) -> None:
        """Take no more connections, and cancel what has not ended by itself soon."""
        self._closed.set()
        self._door.close()
        end = time.monotonic() + _ENDING
        while time.monotonic() < end and not all(job.done() for job in self._jobs):
            time.sleep(_ENDING / 20)
        for job in self._jobs:
            # Jobs on this machine write a traceback when they are cancelled: only if they must be.
            with suppress(Exception):  # it may have ended by now, or SLURM does not answer
                if not job.done():
                    job.cancel(check=False)

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                caller, _ = self._door.accept()
            except OSError:
                return
            # Who says nothing keeps nobody waiting.
            Thread(target=self._let_in, args=(caller,), daemon=True).start()

    def _let_in(self, caller: socket.socket) -> None:
        connection = Connection(caller.detach())
        try:
            deliver_challenge(connection, self._key)
            answer_challenge(connection, self._key)
            self._arrived[connection.recv_bytes(64).decode()].put(connection)
        except (OSError, EOFError, AuthenticationError, KeyError, ValueError):
            connection.close()  # somebody else


class Job:
    """One job that is connected."""

    def __init__(self, job: Any, connection: Connection) -> None:
        self._job = job
        self._connection = connection

    def answer(self, request: bytes) -> bytes:
        """Wait for the answer to a request.

        Raises:
            WorkerLost: the job has ended.
        """
        try:
            self._connection.send_bytes(request)
            return self._connection.recv_bytes()
        except (EOFError, OSError):
            raise WorkerLost(
                f"job {self._job.job_id} ended; see {self._job.paths.stderr}"
            ) from None

    def close(self) -> None:
        """Hang up, at which it ends."""
        with suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as ending:
            ending.shutdown(socket.SHUT_RDWR)


def _variables(n_threads: int, on_devices: bool) -> dict[str, str]:
    """What a job needs to know of this process' environment."""
    here = environment_of(n_threads)
    told = {name: here[name] for name in ("PYTHONPATH", "OMP_NUM_THREADS")}
    return told | ({DEVICE: "cuda"} if on_devices else {})


def work(host: str, port: int, key: str, name: str, variables: Mapping[str, str]) -> None:
    """What a job does: it becomes a worker process that serves the coordinator.

    Args:
        host, port: where the coordinator listens.
        key: what both have to know.
        name: which job it is.
        variables: the environment of the worker.
    """
    # Libraries of arithmetic read their number of threads when they are loaded: a fresh process.
    os.environ.update({**variables, KEY: key})
    os.execv(
        sys.executable, [sys.executable, "-m", "mechspex.executors.serve", host, str(port), name]
    )
