"""What a screen leaves for the search: units to ablate, a prior, and how far it can be trusted."""

from __future__ import annotations

import hashlib
import json
from contextlib import closing
from pathlib import Path
from typing import cast

from mechspex.core.units import check_same_units
from mechspex.core.value_function import ValueFunction, ValuesLike, as_value_function
from mechspex.runs.recorded import RecordedValues
from mechspex.screening.agreement import agreement
from mechspex.screening.candidates import Candidates
from mechspex.screening.screen import Method
from mechspex.screening.screen import screen as propose
from mechspex.screening.survivors import Screening, survivors
from mechspex.set_functions.set_function import SetFunction

# Units that a screen lets through, how many at most, and the share they should explain.
FEWEST_SURVIVORS, _MOST_SURVIVORS, _EXPLAINED = 100, 800, 0.9


def screened(
    function: ValueFunction,
    screen: Method | Candidates | ValuesLike,
    folder: Path | None,
    keep: float,
    seed: int,
    progress: bool,
) -> tuple[Candidates, list[int], Screening]:
    """What a screen proposes, the units that survive it, by column, and what it did."""
    candidates, agrees = _propose(function, screen, folder, seed, progress)
    with closing(RecordedValues(function, folder, progress=progress)) as recorded:
        found, explained = survivors(
            recorded,
            candidates,
            n_units=FEWEST_SURVIVORS,
            most=_MOST_SURVIVORS,
            target=_EXPLAINED,
            keep=keep,
            seed=seed,
        )
    columns: list[int] = found.tolist()
    place = {column: number for number, column in enumerate(columns)}
    return (
        candidates,
        columns,
        Screening(
            method=candidates.method,
            considered=candidates.considered,
            n_units=function.n_units,
            n_survivors=len(columns),
            explained=explained,
            terms=tuple(tuple(place[column] for column in term) for term in candidates.terms),
            scores=tuple(candidates.scores.tolist()),
            seconds=candidates.cost.seconds,
            agreement=agrees,
        ),
    )


def _propose(
    function: ValueFunction,
    screen: Method | Candidates | ValuesLike,
    folder: Path | None,
    seed: int,
    progress: bool,
) -> tuple[Candidates, str | None]:
    """Candidates, and how far they agree with the function where they come from elsewhere."""
    if isinstance(screen, str):
        method = cast("Method", screen)
        return propose(function, method, run=folder, seed=seed, progress=progress), None
    if not isinstance(screen, Candidates):
        screen = as_value_function(screen)
    check_same_units("the screen", screen.units, "the value function", function.units)
    if not isinstance(screen, Candidates):
        method = "second_order" if screen.differentiable else "ablation"
        below = None if folder is None else folder / "proxy"
        screen = propose(screen, method, run=below, seed=seed, progress=progress)
    below = None if folder is None else folder / "agreement"
    with closing(RecordedValues(function.in_own_dtype, below, progress=progress)) as recorded:
        recorded.stage = "agreement with the proxy"
        return screen, str(agreement(screen, recorded, seed=seed))


def prior_of(candidates: Candidates, columns: list[int], max_order: int | None) -> SetFunction:
    """What the screen predicts of masks that ablate survivors only."""
    place = {column: number for number, column in enumerate(columns)}
    predicted = {
        tuple(place[column] for column in term): score
        for term, score in candidates.function.to_mapping().items()
        if all(column in place for column in term) and len(term) <= (max_order or len(term))
    }
    return SetFunction.from_mapping(len(columns), predicted, basis="ablated")


def digest_of(candidates: Candidates) -> str:
    """Of what is proposed: another screen is another question."""
    content = json.dumps([candidates.terms, candidates.scores.tolist()])
    return hashlib.sha256(content.encode()).hexdigest()[:16]
