"""Drives whose locks do nothing: every process writes a file of its own, and nothing is lost."""

import multiprocessing
import sqlite3

import numpy as np
import pytest

from mechspex.core.masks import all_masks
from mechspex.core.units import parts
from mechspex.core.value_function import FunctionValues
from mechspex.errors import RunError
from mechspex.runs import locks, store
from mechspex.runs.measured import measured_masks
from mechspex.runs.merge import merge
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.row_log import Row, RowLog, logs_in, read_log
from mechspex.runs.run import list_runs, run_folder
from mechspex.runs.salvage import salvage
from mechspex.runs.value_table import ValueTable

MASKS = all_masks(8)


def value(masks):
    return masks @ np.arange(1.0, 9.0)


value.configuration = {"function": "value"}  # pyright: ignore[reportFunctionMemberAccess]


def recorded(folder, function=value):
    return RecordedValues(FunctionValues(function, parts(8)), folder)


def test_locks_of_a_local_drive_hold(tmp_path):
    assert locks.locks_hold(tmp_path)
    assert not list(tmp_path.iterdir())


def test_locks_that_do_nothing_are_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(locks.fcntl, "fcntl", lambda *_: b"")
    assert not locks.locks_hold(tmp_path)


def test_a_drive_of_another_machine_is_not_relied_on(tmp_path, monkeypatch):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nserver:/a {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr(locks, "_MOUNTS", mounts)
    assert not locks.locks_hold(tmp_path)
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nserver:/a {tmp_path}/b nfs4 rw 0 0\n")
    assert locks.locks_hold(tmp_path)


@pytest.fixture
def lockless(monkeypatch):
    monkeypatch.setattr(store, "locks_hold", lambda _: False)


def measure(folder, seed):
    """What a process does: half of the masks, a few at a time."""
    store.locks_hold = lambda _: False
    rng = np.random.default_rng(seed)
    values = recorded(folder)
    for rows in np.array_split(rng.permutation(len(MASKS))[:128], 20):
        values(MASKS[rows])
    values.close()


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=measure, args=(tmp_path, seed)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(logs_in(tmp_path)) == 4
    asked = {row for seed in range(4) for row in np.random.default_rng(seed).permutation(256)[:128]}
    masks, found = measured_masks(tmp_path, 8, 1)
    assert len(masks) == len(np.unique(masks, axis=0)) == len(asked)
    assert np.array_equal(found[:, 0], value(masks))


def test_the_next_process_goes_on_with_and_without_locks(tmp_path, lockless, monkeypatch):
    first = recorded(tmp_path)
    first(MASKS[:100])
    second = recorded(tmp_path)
    second(MASKS[50:150])
    assert second.measured == 50
    monkeypatch.setattr(store, "locks_hold", lambda _: True)
    for n_measured in (106, 0):
        values = recorded(tmp_path)
        assert np.array_equal(values(MASKS)[:, 0], value(MASKS))
        assert values.measured == n_measured
        values.close()
    with sqlite3.connect(tmp_path / "values.sqlite") as database:
        assert database.execute("SELECT count(*) FROM value").fetchone() == (256,)


def test_another_question_is_refused_there_too(tmp_path, lockless):
    def other(masks):
        return value(masks) + 1

    other.configuration = {"function": "other"}  # pyright: ignore[reportFunctionMemberAccess]
    recorded(tmp_path)(MASKS[:1])
    with pytest.raises(RunError, match="another configuration|another function"):
        recorded(tmp_path, other)


def test_runs_there_are_listed(tmp_path, lockless, monkeypatch):
    monkeypatch.setenv("MECHSPEX_RUNS", str(tmp_path))
    recorded(run_folder("one"))(MASKS[:7])
    assert list_runs()[0]["masks"] == 7


def test_runs_there_are_exported_merged_and_saved(tmp_path, lockless):
    """What the columns stand for is said as the file is made, which is not written again."""
    recorded(tmp_path / "one")(MASKS[:7])
    merge([tmp_path / "one"], tmp_path / "two")
    salvage(tmp_path / "two", tmp_path / "three")
    table = ValueTable.of(tmp_path / "three")
    assert (len(table.masks), table.units) == (7, parts(8))
    assert ValueTable.of(tmp_path / "one").keep(tmp_path / "four") == 7
    assert len(ValueTable.of(tmp_path / "four").masks) == 7


def test_a_torn_or_flipped_row_is_measured_again_and_the_others_stay(tmp_path):
    log = RowLog(tmp_path)
    rows = [Row.of(bytes([number]), b"12345678") for number in range(9)]
    log.append("value", rows[:5])
    log.append("gradient", rows[5:])
    (file,) = logs_in(tmp_path)
    whole = file.read_bytes()
    assert [row for _, row in read_log(file)] == rows
    assert [table for table, _ in read_log(file)] == ["value"] * 5 + ["gradient"] * 4
    for end in range(len(whole)):
        file.write_bytes(whole[:end])
        found = [row for _, row in read_log(file)]
        assert found == rows[: end // (len(whole) // 9)]
    flipped = bytearray(whole)
    flipped[20] ^= 1
    file.write_bytes(flipped)
    assert [row for _, row in read_log(file)] == rows[1:]
