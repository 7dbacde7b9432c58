"""A run never answers one function with the values of another."""

import functools
import threading
import time
from typing import ClassVar

import numpy as np
import pytest

import mechspex as mx
from mechspex.core.identity import Identity
from mechspex.core.value_function import ValueFunction
from mechspex.errors import RunError
from mechspex.runs.recorded import RecordedValues

UNITS = mx.parts("pqrs")


def both(masks, one, other):
    return (masks[:, one] & masks[:, other]).astype(float)


class Pair:
    def __init__(self, one, other):
        self.one, self.other = one, other

    def measure(self, masks):
        return both(masks, self.one, self.other)

    __call__ = measure


class Slotted:
    __slots__ = ("one", "other")

    def __init__(self, one, other):
        self.one, self.other = one, other

    def __call__(self, masks):
        return both(masks, self.one, self.other)


class Derived(ValueFunction):
    """A value function that does not say what its values depend on."""

    units, outputs = UNITS, ("value",)  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    def __init__(self, one, other):
        self.held = {"pair": [one, other]}

    def __call__(self, masks):
        return both(masks, *self.held["pair"])[:, None]


class Foreign:
    units, outputs = UNITS, ("value",)

    def __init__(self, one, other):
        self.pair = np.array([one, other])

    def __call__(self, masks):
        return both(masks, *self.pair)[:, None]


def edited(one, other):
    """The same name and clean value, other constants: as after an edit and a restart."""
    scope = {}
    exec(f"def f(masks):\n return (masks[:, {one}] & masks[:, {other}]) * 1.0", scope)
    return scope["f"]


def a_lambda(one, other):
    if (one, other) == (0, 1):
        return lambda masks: (masks[:, 0] & masks[:, 1]) * 1.0
    return lambda masks: (masks[:, 1] & masks[:, 2]) * 1.0


def closure(one, other):
    return lambda masks: both(masks, one, other)


def default(one, other):
    return lambda masks, pair=(one, other): both(masks, *pair)


def reads_a_global(one, other):
    scope = {"PAIR": (one, other)}
    exec("def f(masks):\n return (masks[:, PAIR[0]] & masks[:, PAIR[1]]) * 1.0", scope)
    return scope["f"]


def calls_an_edited_helper(one, other):
    scope = {"helper": edited(one, other)}
    exec("def f(masks):\n return helper(masks)", scope)
    return scope["f"]


class Opaque:
    """Of a class whose state cannot be seen: what it holds is in a local of a thread."""

    def __init__(self, one, other):
        self._held = threading.local()
        self._held.pair = one, other

    def __call__(self, masks):
        return both(masks, *self._held.pair)


KINDS = {
    "edited": edited,
    "lambda": a_lambda,
    "closure": closure,
    "default": default,
    "global": reads_a_global,
    "helper": calls_an_edited_helper,
    "partial": lambda one, other: functools.partial(both, one=one, other=other),
    "method": lambda one, other: Pair(one, other).measure,
    "callable": Pair,
    "slots": Slotted,
    "derived": Derived,
    "foreign": Foreign,
    "opaque": Opaque,
}


def pairs_of(function, run):
    units = None if isinstance(function, Derived | Foreign) else UNITS
    found = mx.explain(function, units=units, run=run)
    return found.interactions()["units"].tolist(), found.cost.measured


@pytest.mark.parametrize("kind", KINDS)
def test_another_function_is_refused_and_the_same_one_answered(kind, tmp_path):
    make = KINDS[kind]
    assert pairs_of(make(0, 1), tmp_path)[0] == ["p × q"]
    assert pairs_of(make(0, 1), tmp_path) == (["p × q"], 0), "made anew it is the same function"
    with pytest.raises(RunError, match="another function .*; choose another --run, or give"):
        pairs_of(make(1, 2), tmp_path)
    assert pairs_of(make(1, 2), tmp_path / "other")[0] == ["q × r"]


def test_what_is_not_the_same_is_named(tmp_path):
    pairs_of(Pair(0, 1), tmp_path)
    with pytest.raises(RunError, match=r"\(other of its function .*Pair is not what it was\)"):
        pairs_of(Pair(0, 2), tmp_path)
    pairs_of(edited(0, 1), tmp_path / "edited")
    with pytest.raises(RunError, match=r"\(code of its function"):
        pairs_of(edited(0, 2), tmp_path / "edited")


def test_what_a_call_changes_is_not_what_a_value_depends_on(tmp_path):
    calls, kept = [], {}

    def remembers(masks):
        calls.append(len(masks))
        kept.update({mask.tobytes(): 1 for mask in masks})
        return both(masks, 0, 1)

    first = pairs_of(remembers, tmp_path)
    assert pairs_of(remembers, tmp_path) == (first[0], 0)
    calls.clear()
    assert pairs_of(remembers, tmp_path) == (first[0], 0)


def test_runs_that_knew_names_alone_are_measured_again_here_and_there(tmp_path):
    """As a run of an older version: it answers the same function and refuses another."""
    units = " ".join(UNITS.names)

    class Old(Pair):
        configuration: ClassVar = {"function": f"{__name__}.Pair"}

    old = RecordedValues(mx.FunctionValues(Old(0, 1), UNITS), tmp_path)
    assert old.configuration == {"function": f"{__name__}.Pair", "units": units, "clean": "1"}
    old(mx.sample_masks(4, 12, keep=0.5, seed=0))
    old.close()
    again = RecordedValues(mx.FunctionValues(Pair(0, 1), UNITS), tmp_path)
    assert again.configuration == old.configuration
    with pytest.raises(RunError, match=". there and . now"):
        RecordedValues(mx.FunctionValues(Pair(1, 2), UNITS), tmp_path)


def test_a_configuration_of_ones_own_is_taken_at_its_word(tmp_path):
    for pair in ((0, 1), (1, 2)):
        function = Pair(*pair)
        function.configuration = {"version": "3"}  # pyright: ignore[reportAttributeAccessIssue]
        assert pairs_of(function, tmp_path)[0] == ["p × q"]
    function.configuration = {"version": "4"}  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(RunError, match="version: 3 there, 4 here"):
        pairs_of(function, tmp_path)


def test_an_empty_store_takes_the_new_function(tmp_path):
    RecordedValues(mx.FunctionValues(Pair(0, 1), UNITS), tmp_path).close()
    values = RecordedValues(mx.FunctionValues(Pair(1, 2), UNITS), tmp_path)
    values(np.ones((1, 4), dtype=bool))
    values.close()
    with pytest.raises(RunError, match="another function"):
        RecordedValues(mx.FunctionValues(Pair(0, 1), UNITS), tmp_path)


def test_an_identity_is_the_same_in_another_place_and_text():
    """Comments, lines and files are no part of it, the order of a set neither."""
    texts = ["def f(m):\n return m[:, 0] * 2", "# new\n\ndef f(m):\n  # why\n  return m[:, 0] * 2"]
    found = []
    for place, text in enumerate(texts):
        scope = {"__name__": "mine"}
        exec(compile(text, f"file{place}.py", "exec"), scope)
        found.append(str(Identity.of(scope["f"])))
    assert found[0] == found[1]
    for members in ({"salt", "leek", "oil"}, {"oil", "salt", "leek"}):
        found.append(str(Identity.of(functools.partial(both, one=members))))
    assert found[2] == found[3]


@pytest.mark.parametrize("kind", KINDS)
def test_an_identity_is_read_as_it_was_written(kind):
    identity = Identity.of(KINDS[kind](0, 1))
    assert Identity.parse(str(identity)) == identity
    assert identity.certain == (kind != "opaque")
    assert Identity.of(KINDS[kind](0, 1)).differing(identity) == []


def test_a_slow_function_loses_one_mask_at_most(tmp_path):
    """Whoever stops it: a foreign class tells nothing of its speed, a function is timed once."""

    class Slow(Foreign):
        asked = 0

        def __call__(self, masks):
            if self.asked + len(masks) > 4:
                raise KeyboardInterrupt
            self.asked += len(masks)
            time.sleep(0.8 * len(masks))
            return super().__call__(masks)

    values = RecordedValues(Slow(0, 1), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        values(mx.sample_masks(4, 12, seed=0))
    assert len(values._store) >= 3


class Own(mx.FunctionValues):
    """One that is a function of itself."""

    def __init__(self, one, other):
        self.pair = one, other
        super().__init__(self._of, UNITS)

    def _of(self, masks):
        return both(masks, *self.pair)


def test_an_object_that_holds_its_own_function_is_told_apart(tmp_path):
    assert str(Identity.of(Own(0, 1)._of)) == str(Identity.of(Own(0, 1)._of))
    assert Own(0, 1).configuration == Own(0, 1).configuration
    assert Identity.parse(Own(0, 1).configuration["function"]).certain
    mx.explain(Own(0, 1), run=tmp_path)
    with pytest.raises(RunError, match="pair of its function"):
        mx.explain(Own(1, 2), run=tmp_path)
