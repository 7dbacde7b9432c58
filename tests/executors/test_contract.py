"""What every executor owes: the values of the function itself, whatever becomes of workers."""

import importlib.util
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from thread_workers import Threads
from worker_functions import N_UNITS, Faulty, planted

import mechspex as mx
from mechspex.core.masks import all_masks
from mechspex.errors import Refused, WorkerError
from mechspex.executors import work
from mechspex.executors.executor import WorkerLost
from mechspex.executors.named import Named
from mechspex.executors.pool import Pool
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.stored import Stored

UNITS = mx.parts(N_UNITS)
MASKS = all_masks(N_UNITS)


def n_cuda_devices():
    """Asked of the driver's files: the mathematics' tests load no torch."""
    return len([name for name in os.listdir("/dev") if name.removeprefix("nvidia").isdigit()])


def installed(library):
    return pytest.mark.skipif(
        importlib.util.find_spec(library) is None, reason=f"{library} is not installed"
    )


TWO = min(2, len(os.sched_getaffinity(0)))
EXECUTORS = [
    "here",
    f"processes:{TWO}",
    pytest.param("gpus", marks=pytest.mark.skipif(not n_cuda_devices(), reason="no CUDA device")),
    pytest.param("ray:2", marks=installed("ray")),
    pytest.param("slurm:2,cluster=local", marks=installed("submitit")),
]


@pytest.fixture(scope="module", params=EXECUTORS)
def pool(request, tmp_path_factory):
    os.environ["MECHSPEX_RUNS"] = str(tmp_path_factory.mktemp("runs"))
    opened = Pool(Threads(2)) if request.param == "here" else mx.executor(request.param)
    opened.kind = request.param  # pyright: ignore[reportAttributeAccessIssue]
    yield opened
    opened.close()
    del os.environ["MECHSPEX_RUNS"]


@contextmanager
def in_force(pool):
    """As in its ``with`` block, but the workers stay for the next test."""
    from mechspex.core.in_force import IN_FORCE

    token = IN_FORCE.set(pool)
    try:
        yield
    finally:
        IN_FORCE.reset(token)


def rows_of(folder):
    return sorted((row.key, row.outputs) for row in Stored.open(folder).rows())


def test_values_are_those_of_the_function_itself_bit_for_bit(pool):
    values = mx.FunctionValues(planted, UNITS)
    spread = pool.on(values)
    assert spread(MASKS).dtype == np.float64
    assert np.array_equal(spread(MASKS), values(MASKS))
    assert np.array_equal(spread(MASKS[:1]), values(MASKS[:1]))
    assert spread(MASKS[:0]).shape == (0, 1)
    assert spread.configuration == values.configuration
    assert pool.on(spread) is spread


def test_every_row_comes_once_whoever_measures_it(pool, tmp_path):
    spread = pool.on(Faulty(tmp_path, seconds=0.002))
    parts = list(spread.as_they_come(MASKS))
    assert len(parts) > 2
    assert sorted(np.concatenate([rows for rows, _ in parts])) == list(range(len(MASKS)))
    for rows, values in parts:
        assert np.array_equal(values[:, 0], planted(MASKS[rows]))
    if pool.kind != "here" and pool.n_workers > 1:
        assert len(list(tmp_path.glob("pid-*"))) > 1


def search(folder):
    """Rounds that depend on one another, and tests of what they found."""
    return mx.explain(
        planted, units=UNITS, n_masks=120, design=mx.Adaptive(), decoder="additive", run=folder
    )


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """The search by this process alone, and its store."""
    folder = tmp_path_factory.mktemp("serial")
    return search(folder), rows_of(folder)


def test_the_time_of_a_mask_is_that_of_workers_which_are_there(pool, tmp_path):
    with in_force(pool):
        values = RecordedValues(Faulty(tmp_path, seconds=0.05), None)
    assert 0.05 <= values.pace(MASKS) * pool.n_workers < 0.15


def test_an_adaptive_search_and_its_store_are_those_of_one_process(pool, serial, tmp_path):
    with in_force(pool):
        spread = search(tmp_path)
    assert spread.to_pandas().equals(serial[0].to_pandas())
    assert spread.cost.measured == serial[0].cost.measured
    assert rows_of(tmp_path) == serial[1]


def test_a_killed_worker_leaves_the_store_of_one_process(pool, tmp_path):
    if pool.kind == "here":
        pytest.skip("a thread cannot be killed")
    lost = pool.lost
    serial = RecordedValues(Faulty(tmp_path), tmp_path / "serial")
    serial(MASKS)
    with in_force(pool):
        spread = RecordedValues(Faulty(tmp_path, "kill_once", 0.001), tmp_path / "spread")
    spread(MASKS)
    assert pool.lost == lost + 1
    assert spread.measured == serial.measured == len(MASKS)
    assert rows_of(tmp_path / "spread") == rows_of(tmp_path / "serial")


def test_an_error_comes_back_of_its_type_with_its_text_and_place(pool, tmp_path):
    with pytest.raises(ValueError, match="unit 0 and unit 1 are both away") as met:
        pool.on(Faulty(tmp_path, "refuse"))(MASKS)
    assert "in refuse" in met.value.__notes__[0]
    with pytest.raises(WorkerError, match="OwnError in a worker: no luck"):
        pool.on(Faulty(tmp_path, "refuse_unknown"))(MASKS)
    # The workers are there still.
    assert np.array_equal(pool.on(Faulty(tmp_path))(MASKS)[:, 0], planted(MASKS))


def test_what_came_before_an_error_is_kept(pool, tmp_path):
    # The mask at which it strikes is the last.
    struck = np.ones((1, N_UNITS), dtype=bool)
    struck[0, :2] = False
    others = MASKS[~(struck == MASKS).all(axis=1)]
    with in_force(pool):
        values = RecordedValues(Faulty(tmp_path, "refuse", 0.002), tmp_path / "run")
    with pytest.raises(ValueError, match="both away"):
        values(np.concatenate([others, struck]))
    assert 0 < values.measured == len(rows_of(tmp_path / "run"))


def test_a_mask_that_kills_every_worker_is_told(pool, tmp_path):
    if pool.kind == "here":
        pytest.skip("a thread cannot be killed")
    with pytest.raises(WorkerError, match="lost again and again"):
        pool.on(Faulty(tmp_path, "kill"))(MASKS)
    assert np.array_equal(pool.on(Faulty(tmp_path))(MASKS)[:, 0], planted(MASKS))


def test_a_worker_that_makes_other_values_is_refused(pool, tmp_path):
    other = Faulty(tmp_path)
    other.configuration = {"function": "faulty", "model": "other"}
    with pytest.raises(WorkerError, match="model: other asked, None made"):
        pool.on(other)(MASKS)


def test_a_late_answer_is_asked_of_another_and_changes_nothing_when_it_comes(tmp_path, monkeypatch):
    monkeypatch.setattr(work, "_LATE", 0.2)
    monkeypatch.setattr("mechspex.executors.pool._LOOKS", 0.05)
    with Pool(Threads(2)):
        start = time.monotonic()
        values = RecordedValues(Faulty(tmp_path, "hang_once"), tmp_path / "run")
        assert np.array_equal(values(MASKS)[:, 0], planted(MASKS))
        assert time.monotonic() - start < 2.5
        before = rows_of(tmp_path / "run")
        time.sleep(max(0.0, 3.2 - (time.monotonic() - start)))
        # The answer has come; the next call is not disturbed by it.
        assert np.array_equal(values._value_function(MASKS)[:, 0], planted(MASKS))
    assert rows_of(tmp_path / "run") == before
    assert values.measured == len(MASKS)


def test_a_row_that_is_answered_twice_counts_once():
    one = work.Work(("name", b""), "__call__", np.zeros((6, 1)), work.Pace(4))
    assert one.settle(np.array([0, 1, 1, 3])).tolist() == [True, True, False, True]
    assert one.settle(np.array([1, 2, 3])).tolist() == [False, True, False]
    assert not one.is_done
    assert one.settle(np.array([4, 5, 0])).tolist() == [True, True, False]
    assert one.is_done


class Unstartable(Threads):
    def start(self, number):
        raise WorkerLost("no such machine")


def test_workers_that_never_start_are_told():
    with pytest.raises(WorkerError, match="no such machine"):
        Pool(Unstartable(2)).on(mx.FunctionValues(planted, UNITS))(MASKS)


def test_outside_of_its_block_nothing_is_spread(tmp_path):
    values = RecordedValues(Faulty(tmp_path), None)
    values(MASKS[:1])
    assert [path.name for path in tmp_path.glob("pid-*")] == [f"pid-{os.getpid()}"]
    with Pool(Threads(2)) as pool:
        pass
    with pytest.raises(WorkerError, match="ended with their block"):
        pool.on(Faulty(tmp_path))(MASKS)


def test_what_a_worker_cannot_make_is_refused_before_anything_starts(tmp_path):
    pool = Pool(Threads(2))
    with pytest.raises(Refused, match=r"lambda> cannot be imported by a worker"):
        pool.on(mx.FunctionValues(lambda masks: masks[:, 0], UNITS))

    class Own:
        units, outputs, configuration = UNITS, ("output",), {"function": "own"}

        def __call__(self, masks):
            return planted(masks)

    with pytest.raises(Refused, match="Own does not say how a worker makes it"):
        pool.on(Own())
    assert not pool._threads


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("threads:2", "'threads:2' is unknown; choose processes"),
        ("processes", "say how many workers, as in processes:2"),
        ("processes:0", "say how many workers"),
        ("processes:2,num_gpus=1", "processes has no num_gpus"),
        ("processes:99999", "99999 workers on .* give at most"),
    ],
)
def test_names_that_are_none(name, told):
    with pytest.raises(Refused, match=told):
        mx.executor(name)


@pytest.mark.parametrize(("name", "library"), [("ray:2", "ray"), ("slurm:2", "submitit")])
def test_a_library_that_is_not_installed_is_named(name, library):
    if importlib.util.find_spec(library) is not None:
        pytest.skip(f"{library} is installed")
    with pytest.raises(Refused, match=rf"not installed; pip install 'mechspex\[{name[:-2]}\]'"):
        mx.executor(name)


def test_options_of_a_name():
    read = Named.read("ray:4,num_gpus=0.5,num_cpus=1")
    assert (read.kind, read.n_workers) == ("ray", 4)
    assert read.options == {"num_gpus": 0.5, "num_cpus": 1}


@installed("submitit")
def test_jobs_end_by_themselves_and_say_nothing(tmp_path):
    script = """if True:
        import sys
        import mechspex as mx
        from worker_functions import Faulty
        with mx.executor("slurm:2,cluster=local") as jobs:
            mx.sweep(Faulty(sys.argv[1], seconds=0.3), order=2, run=sys.argv[2], progress=False)
        assert all(job.done() for job in jobs._executor._jobs)
    """
    environment = os.environ | {"MECHSPEX_RUNS": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", script, str(tmp_path), "run"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


SCRIPT = """if True:
    import signal
    import sys
    import mechspex as mx
    # A suite that a shell runs in the background hands down that SIGINT is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from mechspex.core.masks import all_masks
    from worker_functions import Faulty
    with mx.executor("processes:1"):
        mx.sweep(Faulty(sys.argv[1], seconds=0.2), order=2, run=sys.argv[2], progress=False)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_coordinator_leaves_its_store_and_no_process(tmp_path, number):
    environment = os.environ | {"MECHSPEX_RUNS": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    coordinator = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path), "run"],
        env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    store = tmp_path / "run" / "values.sqlite"
    until(lambda: store.is_file() and n_rows(store) > 3)
    os.killpg(coordinator.pid, number)
    _, said = coordinator.communicate(timeout=10)
    (worker,) = (int(path.name.removeprefix("pid-")) for path in tmp_path.glob("pid-*"))
    until(lambda: not is_alive(worker))
    masks, values = Stored.open(tmp_path / "run").measured()
    assert 3 < len(masks) < 37
    assert np.array_equal(values[:, 0], planted(masks))
    assert ("measured and kept in" in said) == (number == signal.SIGINT)


def n_rows(store):
    try:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as database:
            return database.execute("SELECT count(*) FROM value").fetchone()[0]
    except sqlite3.Error:
        return 0


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def until(happened, seconds=20):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
