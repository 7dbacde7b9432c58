"""Executors by name: ``processes:4``, ``gpus``, ``ray:2``, ``slurm:16``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mechspex.core.checks import Only
from mechspex.core.doors import door
from mechspex.core.errors import Refused
from mechspex.executors.executor import Executor
from mechspex.executors.pool import Pool

_FORM = re.compile(r"(?P<kind>[a-z]+)(:(?P<number>[0-9]+))?(?P<options>(,[a-z_]+=[^,=]+)*)")
_KINDS = {
    "processes": "worker processes of this machine, which share its cores: processes:4",
    "gpus": "a worker process for each CUDA device, or for so many: gpus, gpus:2",
    "ray": "actors of Ray: ray:8, ray:8,num_gpus=0.5",
    "slurm": "jobs of SLURM, through submitit: slurm:16, slurm:16,timeout_min=60",
}


@dataclass(frozen=True)
class Named:
    """What the name of an executor says.

    Attributes:
        kind: which one.
        n_workers: how many workers; None where the name leaves it open.
        options: {what else is asked of Ray or SLURM: a number or a text}.
    """

    kind: str
    n_workers: int | None
    options: dict[str, int | float | str]

    @classmethod
    def read(cls, text: str) -> Named:
        """Read a name.

        Raises:
            Refused: there is no such executor, or no worker in it.
        """
        match = _FORM.fullmatch(text.strip())
        kind = match["kind"] if match else None
        if match is None or kind not in _KINDS:
            told = "; ".join(f"{name} ({about})" for name, about in _KINDS.items())
            raise Refused(f"executor {text!r} is unknown; choose {told}")
        number = None if match["number"] is None else int(match["number"])
        if number == 0 or (number is None and kind != "gpus"):
            raise Refused(f"executor {text!r}: say how many workers, as in {kind}:2")
        pairs = (entry.split("=") for entry in match["options"].split(",")[1:])
        options = {name: _number_or_text(value) for name, value in pairs}
        if options and kind not in ("ray", "slurm"):
            raise Refused(f"executor {text!r}: {kind} has no {next(iter(options))}; leave it out")
        return cls(kind, number, options)

    def open(self) -> Executor:
        """The executor.

        Raises:
            Refused: more workers than cores or devices, or a library that is not installed.
        """
        makers: dict[str, Callable[[], Any]] = {
            "processes": self._processes,
            "gpus": self._gpus,
            "ray": self._ray,
            "slurm": self._slurm,
        }
        return makers[self.kind]()

    def _processes(self) -> Executor:
        from mechspex.executors.processes import Processes

        return Processes(self.n_workers or 1)

    def _gpus(self) -> Executor:
        from mechspex.executors.processes import cuda_devices

        return cuda_devices(self.n_workers)

    def _ray(self) -> Executor:
        from mechspex.executors.ray_actors import RayActors

        return RayActors(self.n_workers or 1, self.options)

    def _slurm(self) -> Executor:
        from mechspex.executors.slurm import SlurmJobs

        return SlurmJobs(self.n_workers or 1, self.options)


def _number_or_text(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


@door(name=Only((str,), "the name of an executor, such as 'processes:2'"))
def executor(name: str) -> Pool:
    """Workers that measure in the place of this process: a ``with`` block spreads all runs in it.

        with mx.executor("processes:4"):
            mx.explain(values, run="ioi")  # every door, unchanged

    Every value that a run records in the block is measured by the workers and written by this
    process alone, as soon as it comes. A worker that is lost is replaced and its masks are given to
    another; an error in a worker is raised here, of its own type; when the block ends, however it
    does, so do the workers. ``mx.executor(name).on(values)`` is a value function again.

    Each worker makes the value function by its recipe, and refuses where that has another
    configuration: models are known by name or folder, functions by their module.

    Args:
        name: ``processes:4`` (processes of this machine, each with its share of the cores),
            ``gpus`` or ``gpus:2`` (one a CUDA device), ``ray:8`` (actors, in the cluster of
            ``$RAY_ADDRESS`` or on this machine; with options of Ray such as ``,num_gpus=0.5``),
            ``slurm:16`` (jobs, with options of submitit such as ``,timeout_min=60``).

    Raises:
        Refused: an unknown name, more workers than cores or devices, or a library that is not
            installed.
    """
    return Pool(Named.read(name).open())
