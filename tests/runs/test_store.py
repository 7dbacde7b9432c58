import itertools
import sqlite3
import time
from typing import ClassVar

import numpy as np
import pytest
from value_function_laws import check_laws

import mechspex as mx
from mechspex.core.masks import all_masks, sample_masks
from mechspex.core.units import parts
from mechspex.core.value_function import FunctionValues
from mechspex.errors import RunError, StoreError
from mechspex.runs import recorded as local
from mechspex.runs import store, store_file
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.run import SWEEP, list_runs, run_folder
from mechspex.runs.store import VALUES, ValueStore

CONFIGURATION = {"model": "a", "ablation": "mean"}


class Counted:
    """A function of masks that counts what it is asked."""

    configuration: ClassVar = {"function": "counted"}

    def __init__(self, n_units):
        self.weights = np.arange(1, n_units + 1)
        self.asked = 0

    def __call__(self, masks):
        self.asked += len(masks)
        return np.stack([masks @ self.weights, masks.sum(1)], axis=1)


def recorded(folder, n_units=12):
    function = Counted(n_units)
    values = FunctionValues(function, parts(map(str, range(n_units))))
    function.asked = 0
    return RecordedValues(values, folder), function


@pytest.mark.parametrize("on_disk", [True, False])
def test_nothing_is_measured_twice(tmp_path, on_disk):
    values, function = recorded(tmp_path / "run" if on_disk else None)
    masks = sample_masks(12, 100, seed=0)
    measured = values(np.concatenate([masks, masks[::-1]]))
    distinct = len(np.unique(masks, axis=0))
    assert function.asked == values.measured == values.used == distinct
    assert np.array_equal(measured[:100], Counted(12)(masks))
    assert np.array_equal(measured[100:], measured[:100][::-1])
    assert np.array_equal(values(masks), measured[:100])
    assert function.asked == distinct


def test_the_laws_of_value_functions_hold_for_a_plain_function():
    values, _ = recorded(None)
    check_laws(values._value_function, np.array([78, 12]))


def test_another_process_goes_on_where_the_first_was_killed(tmp_path):
    masks = sample_masks(12, 200, seed=0)
    first, function = recorded(tmp_path)
    stop_after = 70

    def killed(batch):
        if function.asked >= stop_after:
            raise KeyboardInterrupt
        return function(batch)

    first._value_function = FunctionValues(killed, first.units)
    with pytest.raises(KeyboardInterrupt):
        first(masks)
    kept = len(first._store)
    assert kept >= 64, "all batches but the last one are committed"
    second, counted = recorded(tmp_path)
    assert np.array_equal(second(masks), Counted(12)(masks))
    assert counted.asked == len(np.unique(masks, axis=0)) - kept


class Clocked(Counted):
    """Takes so many seconds a mask, by a clock of its own."""

    def __init__(self, n_units, monkeypatch):
        super().__init__(n_units)
        self.now, self.pace, self.batches = 0.0, 0.0, []
        monkeypatch.setattr(local.time, "perf_counter", lambda: self.now)

    def __call__(self, masks):
        self.batches.append(len(masks))
        self.now += self.pace * len(masks)
        return super().__call__(masks)


def clocked(monkeypatch, pace, *, progress=False):
    function = Clocked(12, monkeypatch)
    values = RecordedValues(FunctionValues(function, parts(range(12))), None, progress=progress)
    function.batches.clear()
    function.pace = pace
    return values, function


@pytest.mark.parametrize(
    ("pace", "batches"),
    [
        (0.0, [32, 64, 128, 256, 512, 1024, 2048, 32]),
        (1 / 100, [32, *[64] * 63, 32]),
        (1 / 32, [32] * 128),
        (1 / 16, [32, *[16] * 254]),
        (9.0, [32, *[1] * 4064]),
    ],
)
def test_a_commit_takes_about_a_second(monkeypatch, pace, batches):
    values, function = clocked(monkeypatch, pace)
    values(all_masks(12))
    assert function.batches == batches


@pytest.mark.slow  # loads torch
@pytest.mark.parametrize(
    ("pace", "batches"),
    [(0.0, [4, 32, 64, 128, 28]), (0.5, [4, *[2] * 126]), (9.0, [4, *[1] * 252])],
)
def test_the_first_batch_of_a_model_is_small_and_grows_by_time(monkeypatch, pace, batches):
    monkeypatch.setattr(FunctionValues, "first_batch", mx.ComponentValues.first_batch)
    values, function = clocked(monkeypatch, pace)
    values(all_masks(12)[:256])
    assert function.batches == batches


def test_a_clock_that_jumps_changes_no_value_and_stops_nothing(monkeypatch, tmp_path):
    """Back by a day, and on by a week while a machine sleeps."""
    monkeypatch.setattr(time, "time", lambda: 0.0)
    function = Clocked(12, monkeypatch)
    values = RecordedValues(FunctionValues(function, parts(range(12))), tmp_path)
    masks, jumps = all_masks(12), itertools.cycle([0.01, -86_400.0, 0.02, 604_800.0, 0.0])
    function.batches.clear()
    for block in np.array_split(masks, 40):
        function.pace = next(jumps) / len(block)
        assert np.array_equal(values(block), Counted(12)(block))
    assert sum(function.batches) == len(masks), "each once"
    assert values.measured == len(masks)
    values.close()
    assert np.array_equal(recorded(tmp_path)[0](masks), Counted(12)(masks))


def test_a_batch_that_was_not_full_is_not_taken_for_fast(monkeypatch):
    values, function = clocked(monkeypatch, 1 / 100)
    masks = all_masks(12)
    for start in range(0, 40, 2):
        values(masks[start : start + 2])
    values(masks[40:80])
    assert function.batches[-2:] == [32, 8]


def test_progress_does_not_change_the_batches(monkeypatch, capsys):
    batches = []
    for progress in (False, True):
        values, function = clocked(monkeypatch, 1 / 100, progress=progress)
        values(all_masks(12)[:500])
        batches.append(function.batches)
    assert batches[0] == batches[1]
    out, err = capsys.readouterr()
    assert "500/500" in err
    assert "masks/s" in err
    assert not out


def test_one_bar_spans_all_blocks_and_leaves_out_what_is_known(tmp_path, capsys):
    masks = all_masks(8)
    recorded(tmp_path, 8)[0](masks[:100])
    values = RecordedValues(recorded(None, 8)[0]._value_function, tmp_path, progress=True)
    values.stage = "singles"
    blocks = (masks[start : start + 50] for start in range(0, 256, 50))
    measured = np.concatenate(list(values.in_blocks(blocks, 256)))
    assert np.array_equal(measured, Counted(8)(masks))
    err = capsys.readouterr().err
    assert err.count("\n") == 1, "one bar"
    assert "156/156" in err, "masks, whatever they have of outputs"
    list(values.in_blocks([masks], 256))
    assert not capsys.readouterr().err, "no bar where nothing is measured"


def test_two_processes_on_one_run_merge(tmp_path):
    masks = sample_masks(12, 60, seed=0)
    (one, _), (two, _) = recorded(tmp_path), recorded(tmp_path)
    one(masks[:40])
    two(masks[20:])
    assert len(one._store) == len(two._store) == len(np.unique(masks, axis=0))


def test_values_that_are_not_finite_come_back_as_they_were(tmp_path):
    with_nan = FunctionValues(lambda m: np.where(m[:, 0], 1.0, np.nan), parts(["a", "b"]))
    for _ in range(2):
        values = RecordedValues(with_nan, tmp_path)
        found = values(np.array([[True, True], [False, True]]))
        assert found[0, 0] == 1
        assert np.isnan(found[1, 0])
    assert values.measured == 0


def test_another_configuration_is_refused_with_the_difference(tmp_path):
    ValueStore(tmp_path, CONFIGURATION).close()
    with pytest.raises(RunError, match="ablation: mean there, zero here"):
        ValueStore(tmp_path, {**CONFIGURATION, "ablation": "zero"})
    ValueStore(tmp_path, CONFIGURATION).close()


def test_flipped_bytes_are_a_checksum_error(tmp_path):
    values, _ = recorded(tmp_path)
    masks = sample_masks(12, 5, seed=0)
    values(masks)
    with sqlite3.connect(tmp_path / VALUES) as database:
        database.execute("UPDATE value SET outputs = zeroblob(8)")
    with pytest.raises(StoreError, match="do not match their checksum"):
        recorded(tmp_path)[0](masks)


def test_a_file_that_is_no_store_is_refused(tmp_path):
    (tmp_path / VALUES).write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match="cannot be opened as a value store"):
        ValueStore(tmp_path, CONFIGURATION)


def test_a_newer_schema_asks_for_an_upgrade(tmp_path):
    ValueStore(tmp_path, CONFIGURATION).close()
    with sqlite3.connect(tmp_path / VALUES) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(RunError, match="schema 99.*upgrade mechspex"):
        ValueStore(tmp_path, CONFIGURATION)


def test_a_store_that_cannot_grow_says_so_and_keeps_what_it_has(tmp_path):
    values, _ = recorded(tmp_path)
    masks = sample_masks(12, 400, seed=0)
    values(masks[:50])
    database = values._store._database
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="all values committed before are safe"):
        values(masks)
    assert np.array_equal(recorded(tmp_path)[0](masks[:50]), Counted(12)(masks[:50]))


def test_run_names_stay_below_the_runs_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MECHSPEX_RUNS", str(tmp_path))
    assert run_folder("ioi-1.2_b") == tmp_path / "ioi-1.2_b"
    assert run_folder(tmp_path / "here") == tmp_path / "here"
    for name in ("../../x", "a/b", "", ".hidden", "a\0b"):
        with pytest.raises(RunError, match="is refused"):
            run_folder(name)


def test_folders_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be made"):
        ValueStore(tmp_path / "file" / "run", CONFIGURATION)


def test_runs_are_listed(tmp_path, monkeypatch):
    monkeypatch.setenv("MECHSPEX_RUNS", str(tmp_path))
    assert list_runs() == []
    values, _ = recorded(run_folder("one"))
    values(sample_masks(12, 3, seed=0))
    (listed,) = list_runs()
    size = listed.pop("bytes")
    assert isinstance(size, int)
    assert size > (run_folder("one") / VALUES).stat().st_size
    assert listed == {"run": "one", "masks": 3, "state": "no answer yet"}
    (run_folder("one") / SWEEP).write_text("")
    assert list_runs()[0]["state"] == "swept"


def test_a_store_that_is_deleted_under_a_run_is_told(tmp_path):
    values, _ = recorded(tmp_path)
    values(sample_masks(12, 5, seed=0))
    (tmp_path / VALUES).unlink()
    with pytest.raises(StoreError, match="was moved, deleted or replaced"):
        values(sample_masks(12, 50, seed=1))


def test_a_locked_store_is_refused_in_one_timeout(tmp_path, monkeypatch):
    monkeypatch.setattr(store_file, "PATIENCE", 0.3)
    holder = sqlite3.connect(tmp_path / VALUES, isolation_level=None)
    holder.execute("CREATE TABLE other (x)")
    holder.execute("BEGIN EXCLUSIVE")
    start = time.monotonic()
    with pytest.raises(RunError, match="is locked.*name a local folder in MECHSPEX_RUNS"):
        recorded(tmp_path)
    assert time.monotonic() - start < 3
    holder.close()


def test_a_store_that_may_only_be_read_gives_what_it_has(tmp_path, monkeypatch):
    masks = sample_masks(12, 5, seed=0)
    values, _ = recorded(tmp_path)
    values(masks)
    values.close()
    before = (tmp_path / VALUES).read_bytes()
    monkeypatch.setattr(store, "may_only_be_read", lambda folder: True)
    again, function = recorded(tmp_path)
    assert np.array_equal(again(masks), Counted(12)(masks))
    assert not function.asked
    with pytest.raises(RunError, match="is read-only and lacks values"):
        again(sample_masks(12, 5, seed=1))
    assert (tmp_path / VALUES).read_bytes() == before


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_come_back_in_the_precision_in_which_they_came(tmp_path, dtype):
    masks = all_masks(4)

    def large(masks):
        return dtype(1e8) + (2 * (masks[:, 0] & masks[:, 1]) + masks[:, 2]).astype(dtype)

    large.configuration = {"function": "large"}  # pyright: ignore[reportFunctionMemberAccess]
    for _ in range(2):
        values = RecordedValues(FunctionValues(large, parts("abcd")), tmp_path)
        found = values(masks)
        assert found.dtype == dtype
        assert np.array_equal(found[:, 0], large(masks))
    assert values.measured == 0


def test_older_runs_kept_float64_in_single_precision(tmp_path):
    masks = all_masks(3)
    rng = np.random.default_rng(0)
    table = rng.normal(size=8)

    def value(masks):
        return table[masks @ [1, 2, 4]]

    old = RecordedValues(FunctionValues(value, parts("abc")), tmp_path)
    old._store.put(masks, value(masks)[:, None].astype(np.float32))
    old.close()
    again = RecordedValues(FunctionValues(value, parts("abc")), tmp_path)
    assert np.abs(again(masks)[:, 0] - value(masks)).max() < 1e-6
    assert again.measured == 0
