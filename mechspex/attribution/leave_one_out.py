"""Leave-one-out: what each unit alone is worth to the whole, a baseline."""

from __future__ import annotations

from pathlib import Path

from mechspex.attribution.attribution import Attribution
from mechspex.core.doors import door
from mechspex.core.finite import finite_values
from mechspex.core.masks import ablate_sets
from mechspex.core.value_function import ValuesLike, as_value_function, as_values
from mechspex.runs.run import Run, as_run


@door(values=as_values, run=as_run)
def leave_one_out(
    values: ValuesLike, *, run: str | Path | Run | None = None, progress: bool = False
) -> Attribution:
    """score_i = f(all) − f(all but i), from n + 1 masks.

    >>> import mechspex as mx
    >>> def soup(kept):  # salt alone is nothing, salt in water is soup
    ...     return 3.0 * (kept[:, 0] & kept[:, 1]) + 1.0 * kept[:, 2]
    >>> values = mx.FunctionValues(soup, mx.parts(["salt", "water", "bread"]))
    >>> mx.leave_one_out(values).scores
    array([3., 3., 1.])

    Args:
        values: what measures the masks.
        run: name or folder in which every value is kept, so that no mask is measured twice.
        progress: a progress bar on stderr.

    Raises:
        FailedMasksError: a mask has no finite value.
    """
    with Run.open(run, progress=progress) as opened:
        recorded = opened.record(as_value_function(values))
        recorded.stage = "leave one out"
        n_units = recorded.n_units
        sets = [(), *((column,) for column in range(n_units))]
        whole, *without = finite_values(recorded, ablate_sets(n_units, sets))
        scores = whole - without
    return Attribution(
        method="leave one out",
        units=recorded.units,
        outputs=tuple(recorded.outputs),
        output_scores=scores,
        intercept=whole - scores.sum(axis=0),
        n_masks=n_units + 1,
    )
