"""How many tokens one forward takes, found by measurement and bounded by memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import psutil
import torch

from mechspex.core.errors import MeasurementError

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

# The first try: where CPUs have reached their rate, and where graphics cards no longer wait for
# the next kernel.
_FIRST, _FIRST_OF_DEVICE = 1 << 11, 1 << 14
# What twice as many tokens must gain to be worth their memory.
_GAIN = 1.03
# Forwards of one size that are timed: the first of them also pays for fresh memory.
_TIMED = 3
_LARGEST = 1 << 17


class BatchSize:
    """Tokens of one forward: doubled while that pays, then kept; halved when memory runs out.

    Kept, because batches of another size round differently: once it is found, the same masks give
    the same bits again.

    Args:
        device: the device whose memory bounds the size.
        bytes_per_token: an estimate of the memory that one token of a forward takes.
    """

    def __init__(self, device: torch.device, bytes_per_token: int) -> None:
        # Half of what is free now: other processes and longer caches want some as well.
        fitting = max(1, _free_bytes(device) // 2 // bytes_per_token)
        self.tokens = min(_FIRST if device.type == "cpu" else _FIRST_OF_DEVICE, fitting)
        self._most = min(_LARGEST, fitting)
        self._rates: dict[int, list[float]] = {}
        self._settled = False

    def took(self, tokens: int, work: int, seconds: float) -> None:
        """Learn from a forward.

        Args:
            tokens: how many tokens it took.
            work: the work it did, in any unit that is the same for all forwards.
            seconds: how long it took.
        """
        # A batch that was not filled says little about its size.
        if self._settled or not 0.75 * self.tokens <= tokens <= self.tokens:
            return
        rates = self._rates.setdefault(self.tokens, [])
        rates.append(work / max(seconds, 1e-9))
        if len(rates) < _TIMED:
            return
        before = self._rates.get(self.tokens // 2)
        if before is not None and max(rates) < _GAIN * max(before):
            self.tokens //= 2
            self._settled = True
        elif 2 * self.tokens > self._most:
            self._settled = True
        else:
            self.tokens *= 2

    def ran_out(self, rows: int, length: int) -> None:
        """Halve after a forward of `rows` rows of `length` tokens did not fit in memory.

        Raises:
            MeasurementError: it was a single row.
        """
        if rows == 1:
            raise MeasurementError(
                f"out of memory for one row of {length} tokens; use shorter prompts, a smaller "
                "dtype or another device"
            )
        self.tokens = max(length, rows // 2 * length)
        self._settled = True
        _log.warning("out of memory with %d rows a forward; going on with %d", rows, rows // 2)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def unless_out_of_memory(measure: Callable[[], _T]) -> _T | None:
    """What `measure` returns; None when memory did not suffice."""
    try:
        return measure()
    except (torch.OutOfMemoryError, MemoryError):
        return None
    except RuntimeError as error:  # the CPU allocator has no exception class of its own
        if "can't allocate memory" not in str(error):
            raise
        return None
