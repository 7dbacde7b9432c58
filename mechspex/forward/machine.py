"""What this machine can do: rates of matrix products, threads, memory, devices."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch

# Rows of the square matrices that are multiplied: a few milliseconds on a processor, as many on a
# GPU, which needs larger ones to show what it can do.
_ROWS, _ROWS_OF_A_GPU = 768, 4096
# Products are repeated so long, in seconds; the fastest counts.
_SECONDS = 0.2
_TIMES = 20
# What a faster way must gain to be advised.
_GAIN = 1.2
_CPU = "cpu"


@dataclass(frozen=True)
class Device:
    """A device that multiplies.

    Attributes:
        name: the word that PyTorch has for it.
        about: what it is.
        rates: {number format: GFLOP/s of a square product}.
        free, total: bytes of its memory.
    """

    name: str
    about: str
    rates: dict[str, float]
    free: int
    total: int


@dataclass(frozen=True)
class Machine:
    """A machine as measured now; a busy one measures less.

    Attributes:
        devices: the processor, then others.
        cores: how many this process may use.
        threads: how many PyTorch uses.
        one_thread: GFLOP/s of float32 with one thread.
    """

    devices: tuple[Device, ...]
    cores: int
    threads: int
    one_thread: float

    @property
    def advice(self) -> list[str]:
        """What to set, from what was measured."""
        lines = []
        processor, *others = self.devices
        if self.threads > 1 and processor.rates["float32"] < _GAIN * self.one_thread:
            lines.append("OMP_NUM_THREADS=1: more threads gain nothing here, or others compute")
        elif self.threads < self.cores:
            lines.append(f"OMP_NUM_THREADS={self.cores} would use every core")
        for device in self.devices:
            gain = device.rates["bfloat16"] / device.rates["float32"]
            does = "pays" if gain > _GAIN else "does not pay"
            way = "" if device.name == _CPU else f" --device {device.name}"
            lines.append(
                f"--precision bf16{way} {does}: {gain:.2g} times the products of float32 a second"
            )
        if others:
            lines.append(f"--device {others[0].name} for models and sweeps")
        return lines

    def __str__(self) -> str:
        lines = []
        for device in self.devices:
            rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in device.rates.items())
            memory = f"{device.free / 2**30:.1f} of {device.total / 2**30:.1f} GiB free"
            lines.append(f"{device.name}: {device.about}; {memory}\n  GFLOP/s: {rates}")
        threads = f"{self.threads} threads of {self.cores} cores; {self.one_thread:,.0f} with one"
        return "\n".join([lines[0], f"  {threads}", *lines[1:], *self.advice])


def measure_machine() -> Machine:
    """Multiply matrices for about a second on every device."""
    threads = torch.get_num_threads()
    formats = (torch.float32, torch.bfloat16)
    memory = psutil.virtual_memory()
    about = f"{os.cpu_count()} processors"
    processor = Device(_CPU, about, _rates(_CPU, formats), int(memory.available), int(memory.total))
    with _threads(1):
        alone = product_rate(_CPU, torch.float32)
    devices = [processor]
    for number in range(torch.cuda.device_count()):
        name = f"cuda:{number}" if number else "cuda"
        free, total = torch.cuda.mem_get_info(number)
        rates = _rates(name, (*formats, torch.float16))
        devices.append(Device(name, torch.cuda.get_device_name(number), rates, free, total))
    return Machine(tuple(devices), len(psutil.Process().cpu_affinity() or ()), threads, alone)


def why_not(device: str) -> str | None:
    """Why a device cannot be used here, in PyTorch's words; None where it can.

    Args:
        device: a word that is to name one.
    """
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        return str(error).splitlines()[0]
    return None


def product_rate(device: str | torch.device, dtype: torch.dtype) -> float:
    """GFLOP/s of a square product of a number format, as fast as it was in a fifth of a second.

    Args:
        device: where it is multiplied.
        dtype: the number format.
    """
    rows = _ROWS_OF_A_GPU if torch.device(device).type == "cuda" else _ROWS
    matrix = torch.ones(rows, rows, dtype=dtype, device=device)
    return 2 * rows**3 / fastest(lambda: _product(matrix)) / 1e9


def _rates(device: str, formats: tuple[torch.dtype, ...]) -> dict[str, float]:
    return {str(dtype).removeprefix("torch."): product_rate(device, dtype) for dtype in formats}


def _product(matrix: torch.Tensor) -> None:
    _ = matrix @ matrix
    if matrix.is_cuda:
        torch.cuda.synchronize(matrix.device)


def fastest(work: Callable[[], None]) -> float:
    """Seconds of the fastest of some runs, of which an unseen one comes first.

    Args:
        work: what is timed.
    """
    work()
    least, start = float("inf"), time.perf_counter()
    for _ in range(_TIMES):
        before = time.perf_counter()
        work()
        now = time.perf_counter()
        least = min(least, now - before)
        if now - start > _SECONDS:
            break
    return least


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
