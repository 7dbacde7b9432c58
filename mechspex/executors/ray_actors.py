"""Actors of Ray: workers of a cluster, which Ray places, or of this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mechspex.core.errors import Refused
from mechspex.executors.executor import WorkerLost
from mechspex.executors.measurer import Measurer
from mechspex.executors.processes import DEVICE, environment_of


class RayActors:
    """So many actors, in the cluster of ``$RAY_ADDRESS`` or on this machine.

    A session of Ray that is open already is used and left open. Every machine of a cluster has
    mechspex installed, and what the recipe names: the model's folder, the function's module.

    Args:
        n_workers: how many.
        options: options of an actor, such as ``num_gpus=0.5`` (two actors share a device) or
            ``num_cpus=2``, which is as many threads.

    Raises:
        Refused: Ray is not installed, there is no such cluster, or an unknown option.
    """

    def __init__(self, n_workers: int, options: Mapping[str, Any]) -> None:
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise Refused("Ray is not installed; pip install 'mechspex[ray]'") from None
        self._ray: Any = ray
        self.n_workers = n_workers
        n_threads = int(options.get("num_cpus", 1)) or 1
        variables = environment_of(n_threads)
        told = {name: variables[name] for name in ("OMP_NUM_THREADS", "PYTHONPATH")}
        if options.get("num_gpus"):
            told[DEVICE] = "cuda"
        try:
            self._actor = ray.remote(Measurer).options(
                **{"num_cpus": 1, **options}, runtime_env={"env_vars": told}
            )
        except (ValueError, TypeError) as error:
            raise Refused(f"ray: {error}") from None
        self._opened = not ray.is_initialized()
        if self._opened:
            _connect(ray)

    def start(self, number: int) -> Actor:
        """Ask Ray for an actor; it may have to wait for its place."""
        return Actor(self._ray, self._actor.remote())

    def close(self) -> None:
        """Leave the cluster, or end the one that was opened here."""
        if self._opened:
            self._ray.shutdown()


def _connect(ray: Any) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if os.environ.get("RAY_ADDRESS"):
            ray.init(**quiet)
        else:
            ray.init(address="local", include_dashboard=False, **quiet)
    except Exception as error:  # Ray raises nearly everything, plain exceptions among it
        where = os.environ.get("RAY_ADDRESS") or "this machine"
        raise Refused(f"no Ray on {where} ({error}); RAY_ADDRESS names a cluster") from None


class Actor:
    """One actor."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray = ray
        self._actor = actor

    def answer(self, request: bytes) -> bytes:
        """Wait for the answer to a request.

        Raises:
            WorkerLost: the actor or its machine is gone.
        """
        try:
            return self._ray.get(self._actor.answer.remote(request))
        except self._ray.exceptions.RayError as error:
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise WorkerLost(f"an actor ended ({first})") from None

    def close(self) -> None:
        """Kill it."""
        if self._ray.is_initialized():
            self._ray.kill(self._actor)
