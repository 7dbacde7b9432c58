"""The store under any sequence of what may happen to it, held against a dictionary."""

import itertools
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mechspex.core.masks import all_masks
from mechspex.errors import RunError
from mechspex.runs import store as stores
from mechspex.runs.check_store import check_store
from mechspex.runs.measured import measured_masks
from mechspex.runs.merge import merge
from mechspex.runs.salvage import salvage
from mechspex.runs.store import VALUES, ValueStore

CONFIGURATION = {"model": "a"}
MASKS = all_masks(4)
ROWS = st.lists(st.integers(0, 15), min_size=1, max_size=9, unique=True)
DTYPES = st.sampled_from([np.float32, np.float64])


class StoreMachine(RuleBasedStateMachine):
    """Two processes on one run: each opens, writes, ends well or badly; files come and go."""

    def __init__(self):
        super().__init__()
        self.scratch = Path(tempfile.mkdtemp())
        self.folder = self.scratch / "run"
        self.names = itertools.count()
        self.known = {}  # row: its values, as they were first written
        self.open = {}
        self.logs = False
        self.locks = stores.locks_hold

    def teardown(self):
        stores.locks_hold = self.locks
        for store in self.open.values():
            store.close()
        shutil.rmtree(self.scratch)

    @rule(process=st.integers(0, 1), locks=st.booleans())
    def opens(self, process, locks):
        if process in self.open:
            return
        # A drive has locks or it has none; processes that are there already decided that.
        locks = locks if not self.open else all(s._log is None for s in self.open.values())
        stores.locks_hold = lambda _: locks
        self.open[process] = ValueStore(self.folder, CONFIGURATION)
        self.logs = self.logs or not locks
        assert self.open[process].get(MASKS, 2).keys() == self.known.keys()

    @precondition(lambda self: self.open)
    @rule(data=st.data(), rows=ROWS, dtype=DTYPES)
    def writes(self, data, rows, dtype):
        store = self.open[data.draw(st.sampled_from(sorted(self.open)))]
        # A process measures what it does not see. What both measured is the same.
        values = value(rows).astype(dtype)
        store.put(MASKS[rows], values)
        for row, outputs in zip(rows, values, strict=True):
            self.known.setdefault(row, []).append(outputs)
        if not self.logs:
            self.reads_first_values(store)

    def reads_first_values(self, store):
        for row, outputs in store.get(MASKS, 2).items():
            assert same(outputs, self.known[row][0])

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def reads(self, data):
        store = self.open[data.draw(st.sampled_from(sorted(self.open)))]
        found = store.get(MASKS, 2)
        for row, outputs in found.items():
            # What came first stays; without locks a process may not have seen it.
            first = self.known[row] if self.logs else self.known[row][:1]
            assert any(same(outputs, written) for written in first)
        if store._log is None:
            assert found.keys() == self.known.keys()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def ends(self, data):
        self.open.pop(data.draw(st.sampled_from(sorted(self.open)))).close()

    @precondition(lambda self: self.open)
    @rule(data=st.data(), rows=ROWS)
    def is_killed_as_it_writes(self, data, rows):
        """A transaction that was begun and not ended: nothing of it is there."""
        store = self.open.pop(data.draw(st.sampled_from(sorted(self.open))))
        if store._log is None:
            store._database.execute("BEGIN")
            for row in rows:
                store._database.execute(
                    "INSERT OR IGNORE INTO value VALUES (?, ?, ?)", (bytes([row]), b"", 0)
                )
            store._database.rollback()
        store._database.close()

    @rule(rows=ROWS)
    def another_question_is_refused(self, rows):
        if (self.folder / VALUES).exists():
            with pytest.raises(RunError, match="model: a there, b here"):
                ValueStore(self.folder, {"model": "b"})

    @precondition(lambda self: not self.open and self.known)
    @rule()
    def is_merged_with_itself(self):
        into = self.scratch / str(next(self.names))
        assert merge([self.folder, self.folder], into)[0].n_values == len(self.known)
        self.folder = into

    @precondition(lambda self: not self.open and self.known)
    @rule()
    def is_salvaged(self):
        into = self.scratch / str(next(self.names))
        assert salvage(self.folder, into)[0].n_values == len(self.known)
        self.folder = into

    @precondition(lambda self: not self.open and self.known)
    @rule()
    def is_copied(self):
        into = self.scratch / str(next(self.names))
        shutil.copytree(self.folder, into)
        self.folder = into

    @invariant()
    def every_row_is_there_and_right(self):
        if not (self.folder / VALUES).exists():
            return
        masks, found = measured_masks(self.folder, 4, 2)
        order = {bytes(mask): row for row, mask in enumerate(MASKS)}
        there = {order[bytes(mask)]: out for mask, out in zip(masks, found, strict=True)}
        assert there.keys() == self.known.keys()
        for row, outputs in there.items():
            assert any(np.array_equal(outputs, w.astype(float)) for w in self.known[row])
        assert not check_store(self.folder).damage


def value(rows):
    masks = MASKS[rows]
    return np.stack([masks @ np.arange(1.0, 5.0) / 3, masks[:, 0] / 7], axis=1)


def same(one, other):
    return one.dtype == other.dtype and np.array_equal(one, other)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
