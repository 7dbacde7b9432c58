"""Whether the values of a run are those of the function at hand."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool

from mechspex.core.errors import RunError
from mechspex.core.identity import Identity
from mechspex.core.value_function import ValueFunction
from mechspex.runs.store import IDENTITIES, ValueStore

# Kept masks that are measured again: so many in so many seconds, and no fewer than two.
_AGAIN, _FEWEST, _SECONDS = 8, 2, 5.0
# Values of which the spread is taken.
_SAMPLE = 256
# What batches of other sizes, in whatever precision, may change: shares of the values' spread and
# roundings of the largest.
_SHARE, _ROUNDINGS = 0.02, 64


def same_function(
    store: ValueStore, function: ValueFunction, here: Mapping[str, str]
) -> dict[str, str]:
    """The configuration of the store, whose values are those of `function`.

    They are where code and all that it reads are the same. Where some of that cannot be known, a
    few of the values are measured again and have to agree. What the function itself changes as it
    is called, such as a counter, does not count.

    Args:
        store: the values that are kept.
        function: the function at hand.
        here: its configuration, as it was before it was called.

    Raises:
        RunError: the values are those of another function.
    """
    there = store.configuration
    keys = [key for key in IDENTITIES if key in here]
    if store.is_empty:
        if there != here:
            store.rename(dict(here))
        return dict(here)
    identities = [(Identity.parse(there[key]), Identity.parse(here[key])) for key in keys]
    if there == here and all(identity.certain for _, identity in identities):
        return there
    differing = {
        what: key
        for key, (kept, given) in zip(keys, identities, strict=True)
        for what in kept.differing(given)
    }
    if differing and not {"name", "code"} & differing.keys():
        changing = _changed_by_a_call(function, keys)
        differing = {what: key for what, key in differing.items() if what not in changing}
    if differing:
        key = next(iter(differing.values()))
        raise _another(
            store,
            f"{', '.join(differing)} of its {key} {Identity.parse(here[key]).name} "
            f"{'is' if len(differing) == 1 else 'are'} not what it was",
        )
    _measure_again(store, function)
    return there


def _changed_by_a_call(function: ValueFunction, keys: list[str]) -> set[str]:
    """What of a function's state is another after one mask was measured."""
    before = function.configuration
    function(np.ones((1, function.n_units), dtype=bool))
    after = function.configuration
    pairs = ((Identity.parse(before[key]), Identity.parse(after[key])) for key in keys)
    return {what for one, other in pairs for what in one.differing(other)}


def _measure_again(store: ValueStore, function: ValueFunction) -> None:
    masks = store.some_masks(_SAMPLE, function.n_units)
    if not len(masks):
        store.forget_gradients()
        return
    n_outputs = len(function.outputs)
    kept = store.get(masks, n_outputs)
    values = np.array([kept[row] for row in range(len(masks))], dtype=np.float64)
    largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
    rounding = max(float(np.finfo(outputs.dtype).eps) for outputs in kept.values())
    allowed = _ROUNDINGS * rounding * largest + _SHARE * _spread(values)
    start, number = time.perf_counter(), 0
    for number, row in enumerate(_rows(masks)):
        if number >= _FEWEST and time.perf_counter() - start > _SECONDS:
            break
        again = np.asarray(function(masks[row][None]), dtype=np.float64)[0]
        same = np.isclose(again, values[row], rtol=0, atol=allowed, equal_nan=True)
        if not same.all():
            output = int(np.flatnonzero(~same)[0])
            raise _another(
                store,
                f"one of its masks has the value {values[row, output]:.6g} there and "
                f"{again[output]:.6g} now",
            )


def _rows(masks: Bool[np.ndarray, "mask unit"]) -> list[int]:
    """Rows worth measuring again: that with most units kept first, then drawn ones."""
    first = int(masks.sum(axis=1).argmax())
    return [first, *(row for row in range(len(masks)) if row != first)][:_AGAIN]


def _spread(values: np.ndarray) -> float:
    finite = values[np.isfinite(values).all(axis=1)]
    return float(finite.std(axis=0).min()) if len(finite) > 1 else 0.0


def _another(store: ValueStore, why: str) -> RunError:
    return RunError(
        f"run {store.folder} holds values of another function ({why}); choose another --run, or "
        "give a value function that says what its values depend on: `configuration`, {name: text}"
    )
