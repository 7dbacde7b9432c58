"""Sweeps that are killed at random moments; what their stores then hold, and what was measured."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import mechspex as mx
from mechspex.core.masks import pack
from mechspex.runs.store import ValueStore
from mechspex.runs.stored import Stored

# A sweep that takes longer, in seconds, hangs.
_HANGS = 120.0


@dataclass
class Tally:
    """What many kills did, over all sweeps.

    Attributes:
        sweeps, kills: how many sweeps were finished, and how many kills that took.
        acknowledged: rows of which the store said that they are there, over all attempts.
        lost: acknowledged rows that the store did not hold afterwards.
        wrong: rows that differ from those of an uninterrupted sweep in a single bit.
        furthest: the largest difference of a value from that of the uninterrupted sweep.
        again: masks measured more than once, in all.
        beyond_a_batch: kills after which more than one batch had to be measured again.
        answers_differ: finished sweeps whose answer is not the uninterrupted one, bit for bit.
    """

    sweeps: int = 0
    kills: int = 0
    acknowledged: int = 0
    lost: int = 0
    wrong: int = 0
    furthest: float = 0.0
    again: int = 0
    beyond_a_batch: int = 0
    answers_differ: int = 0
    measured: Counter = field(default_factory=Counter, repr=False)


def kill_sweeps(
    values: mx.ComponentValues,
    folder: Path,
    *,
    n_kills: int,
    n_sweeps: int = 0,
    share: float = 0.6,
    order: int = 2,
    seed: int = 0,
    prepare: Callable[[], None] = lambda: None,
) -> Tally:
    """Sweep again and again, each attempt in a process of its own that is killed at a random time.

    Args:
        values: what is swept; a process is a fork of this one, so that no model is loaded for it.
        folder: an empty one.
        n_kills: how many kills.
        n_sweeps: how many finished sweeps at least.
        share: the mean time until a kill, exponentially distributed, over that of a whole sweep;
            infinite where none is to be killed.
        order: of the sweeps.
        seed: of the times.
        prepare: called in each process before it begins.
    """
    import torch

    threads = torch.get_num_threads()
    # A fork has not the threads of this process, and would wait for them.
    torch.set_num_threads(1)
    try:
        return _kill_sweeps(values, folder, n_kills, n_sweeps, share, order, seed, prepare)
    finally:
        torch.set_num_threads(threads)


def _kill_sweeps(
    values: mx.ComponentValues,
    folder: Path,
    n_kills: int,
    n_sweeps: int,
    share: float,
    order: int,
    seed: int,
    prepare: Callable[[], None],
) -> Tally:
    start = time.perf_counter()
    whole = mx.sweep(values, order=order, run=folder / "whole")
    seconds = share * (time.perf_counter() - start)
    right = rows_of(folder / "whole")
    rng, tally = np.random.default_rng(seed), Tally()
    while tally.kills < n_kills or tally.sweeps < n_sweeps:
        run = folder / str(tally.sweeps)
        tally.measured.clear()
        while True:
            killed, batches, acknowledged = _attempt(
                lambda run=run: mx.sweep(values, order=order, run=run), rng.exponential(seconds),
                prepare,
            )  # fmt: skip
            _count(tally, rows_of(run), right, killed, batches, acknowledged)
            # Killed before anything was measured: the machine has become busier.
            seconds *= 1.0 if batches else 1.2
            if not killed:
                break
        tally.again += sum(number - 1 for number in tally.measured.values())
        tally.sweeps += 1
        answer = mx.Sweep.load(run)
        same = np.array_equal(answer.values, whole.values)
        same = same and np.array_equal(answer.output_effects, whole.output_effects)
        tally.answers_differ += not (same and answer.terms == whole.terms)
        away = np.abs(answer.values - whole.values).max()
        tally.furthest = max(tally.furthest, float(away))
    return tally


def _count(
    tally: Tally,
    there: dict[bytes, bytes],
    right: dict[bytes, bytes],
    killed: bool,
    batches: list[list[bytes]],
    acknowledged: list[bytes],
) -> None:
    tally.kills += killed
    tally.acknowledged += len(acknowledged)
    tally.lost += sum(key not in there for key in acknowledged)
    tally.wrong += sum(right[key] != outputs for key, outputs in there.items())
    for batch in batches:
        tally.measured.update(batch)
    unsaved = [batch for batch in batches if not there.keys() >= set(batch)]
    tally.beyond_a_batch += len(unsaved) > 1


def rows_of(run: Path) -> dict[bytes, bytes]:
    """{packed mask: its values, as bytes} of a run; none where it has no store yet."""
    if not (run / "values.sqlite").exists():
        return {}
    try:
        stored = Stored.open(run)
    except mx.errors.StoreError:
        # Killed before the first commit: the file is there, and says nothing yet.
        return {}
    return {row.key: row.outputs for row in stored.rows()}


def _attempt(
    work: Callable[[], object], seconds: float, prepare: Callable[[], None]
) -> tuple[bool, list[list[bytes]], list[bytes]]:
    """Whether it was killed, the batches it measured, and the rows it acknowledged."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 1
        try:
            _report(writing)
            prepare()
            work()
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    end = time.monotonic() + seconds
    told, status = _told_until(reading, child, end)
    killed = status is None
    if killed:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        # It may have ended by itself a moment before.
        killed = os.WIFSIGNALED(status)
    while part := os.read(reading, 1 << 16):
        told += part
    os.close(reading)
    assert killed or os.WEXITSTATUS(status or 0) == 0, "the sweep failed"
    # A report that the kill cut off is none.
    lines = told[: told.rfind(b"\n") + 1].splitlines()
    batches = [_keys(line[1:]) for line in lines if line[:1] == b"m"]
    acknowledged = [key for line in lines if line[:1] == b"a" for key in _keys(line[1:])]
    return killed, batches, acknowledged


def _told_until(reading: int, child: int, end: float) -> tuple[bytes, int | None]:
    os.set_blocking(reading, False)
    told, latest = b"", time.monotonic() + _HANGS
    while True:
        with suppress(BlockingIOError):
            told += os.read(reading, 1 << 16)
        pid, status = os.waitpid(child, os.WNOHANG)
        os.set_blocking(reading, pid != 0)
        if pid:
            return told, status
        if time.monotonic() > end:
            os.set_blocking(reading, True)
            return told, None
        assert time.monotonic() < latest, "the sweep hangs"
        time.sleep(0.001)


def _report(writing: int) -> None:
    """Say of every batch that it was measured, and that it is kept once the store has said so."""
    put = ValueStore.put

    def reported(self: ValueStore, masks: np.ndarray, values: np.ndarray) -> None:
        line = b",".join(row.tobytes().hex().encode() for row in pack(masks)) + b"\n"
        os.write(writing, b"m" + line)
        put(self, masks, values)
        os.write(writing, b"a" + line)

    ValueStore.put = reported


def _keys(line: bytes) -> list[bytes]:
    return [bytes.fromhex(key.decode()) for key in line.split(b",")]
