"""How long a search takes, and how many masks fit into a time: from the rate of the first masks."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from mechspex.core.counted import counted, time_in_words
from mechspex.core.errors import BudgetError
from mechspex.core.value_function import ValueFunction
from mechspex.explanation.plan import MOST_MASKS, Plan, n_held_out
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.run import Run

# Masks that the exact tests of 30 terms take, about: what terms share is measured once.
_TESTED = 40
# The share of the whole time that decoding takes: 38 of 260 s for 1,000 masks of 270 heads.
_DECODING = 0.15
# Shorter searches need no announcement.
_WORTH_SAYING = 10.0


def say_how_long(
    recorded: RecordedValues,
    plan: Plan,
    masks: Bool[np.ndarray, "mask unit"],
    held_out: Bool[np.ndarray, "test unit"],
    n_fresh: int,
) -> None:
    """Measure the first masks, and say how long all will take, where progress is shown.

    Args:
        recorded: the values of the search.
        plan: what it will do.
        masks: the masks of its design.
        held_out: the fresh masks that score its answer.
        n_fresh: on how many outputs the terms will be tested.
    """
    if not recorded.progress:
        return
    pace = recorded.pace(held_out) or recorded.pace(masks)
    if pace is None:
        return
    n_outputs, sizes = len(recorded.outputs), plan.round_sizes
    tests = pace * _TESTED * n_fresh / n_outputs
    rest = pace * recorded.n_missing(held_out) + tests
    first, whole = (
        (rest + pace * recorded.n_missing(masks[:size])) / (1 - _DECODING)
        for size in (sizes[0], sizes[-1])
    )
    if whole < _WORTH_SAYING:
        return
    up_to = f"{sizes[-1]:,}"
    time = f"about {time_in_words(whole)}"
    if plan.target_r2 is not None and len(sizes) > 1:
        up_to = f"{sizes[0]:,} to {up_to}"
        time = (
            f"about {time_in_words(first)} up to a first answer, {time_in_words(whole)} at most; "
            f"it stops at a held-out R² of {plan.target_r2:g}"
        )
    recorded.say(
        f"{time}: {up_to} masks and {len(held_out):,} held-out ones × {n_outputs} outputs at "
        f"{n_outputs / pace:.3g} values/s, decoding, exact tests on {n_fresh} outputs"
    )


def masks_in(minutes: float, values: ValueFunction, n_fresh: int, plan: Plan, run: Run) -> int:
    """How many masks a search has time for, from the rate of the first that are to be measured.

    (N + held-out(N)) · s + tests · s = (1 − decoding) · time, s being the seconds that a mask
    takes. Masks that the run has count like the others, so that a search that is resumed ends where
    it would have ended.

    Args:
        minutes: the time of the whole: search, decoding and exact tests.
        values: what is searched.
        n_fresh: on how many outputs the terms will be tested.
        plan: what the search will do, with any number of masks.
        run: where the values are kept.

    Returns:
        At most 16,000, and that of the plan where it measures all masks.

    Raises:
        BudgetError: time for fewer masks than the decoder needs; it says how long those take.
    """
    if plan.is_exact:
        return plan.n_masks
    recorded = run.record(values)
    pace, drawn = None, plan.n_masks
    while pace is None and drawn <= MOST_MASKS:
        pace = recorded.pace(plan.masks.draw(plan.n_units, drawn, plan.seed))
        drawn *= 2
    if pace is None:
        return MOST_MASKS
    tests = _TESTED * n_fresh / len(values.outputs)

    def takes(n_masks: int) -> float:
        # A fifth as many are held out, at least 100.
        return (n_masks + n_held_out(n_masks, plan.target_r2) + tests) * pace / (1 - _DECODING)

    fitting = next((n for n in range(MOST_MASKS, 0, -1) if takes(n) <= 60 * minutes), 0)
    needed = max(1, plan.decoder.minimum_masks(plan.n_units))
    if fitting < needed:
        raise BudgetError(
            f"--minutes {minutes:g} has time for {counted(fitting, 'mask')} to learn from, and "
            f"decoder {plan.decoder.name!r} needs at least {needed:,} for {plan.n_units:,} units; "
            f"give about {takes(needed) / 60:.2g} minutes"
        )
    return fitting
