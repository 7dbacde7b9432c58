"""What a screen leaves for the search: units to ablate, a prior, and how far it can be trusted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, cast

from mechspex.core.units import check_same_units
from mechspex.core.value_function import ValueFunction, ValuesLike, as_value_function, as_values
from mechspex.runs.run import Run
from mechspex.screening.agreement import Agreement, agreement
from mechspex.screening.candidates import Candidates
from mechspex.screening.methods import MethodName, ScreenMethod
from mechspex.screening.screen import screen as propose
from mechspex.screening.survivors import Screening, survivors
from mechspex.set_functions.set_function import SetFunction

# Units that a screen lets through, how many at most, and the share they should explain.
FEWEST_SURVIVORS, _MOST_SURVIVORS, _EXPLAINED = 100, 800, 0.9


@dataclass(frozen=True)
class Screened:
    """What a screen leaves for the search.

    Attributes:
        candidates: what it proposes.
        columns: the units that survive it.
        screening: what it did, by columns of the survivors.
    """

    candidates: Candidates
    columns: list[int]
    screening: Screening

    @property
    def called(self) -> str:
        """Method and digest: another screen is another question."""
        return f"{self.candidates.method} {digest_of(self.candidates)}"

    def prior(self, max_order: int | None) -> SetFunction:
        """What the screen predicts of masks that ablate survivors only."""
        place = {column: number for number, column in enumerate(self.columns)}
        predicted = {
            tuple(place[column] for column in term): score
            for term, score in self.candidates.function.to_mapping().items()
            if all(column in place for column in term) and len(term) <= (max_order or len(term))
        }
        return SetFunction.from_mapping(len(self.columns), predicted, basis="ablated")


def screened(
    function: ValueFunction,
    screen: MethodName | ScreenMethod | Candidates | ValuesLike,
    run: Run,
    keep: float,
    seed: int,
) -> Screened:
    """What a screen proposes, the units that survive it, by column, and what it did."""
    candidates, agrees = _propose(function, screen, run, seed)
    with Run.open(run) as run:
        found, explained = survivors(
            run.record(function),
            candidates,
            n_units=FEWEST_SURVIVORS,
            most=_MOST_SURVIVORS,
            target=_EXPLAINED,
            keep=keep,
            seed=seed,
        )
    columns: list[int] = found.tolist()
    place = {column: number for number, column in enumerate(columns)}
    screening = Screening(
        method=candidates.method,
        considered=candidates.considered,
        n_units=function.n_units,
        n_survivors=len(columns),
        explained=explained,
        terms=tuple(tuple(place[column] for column in term) for term in candidates.terms),
        scores=tuple(candidates.scores.tolist()),
        seconds=candidates.cost.seconds,
        agreement=None if agrees is None else str(agrees),
        agrees=agrees,
    )
    return Screened(candidates, columns, screening)


def as_screen(name: str, given: object) -> Any:
    """Reads a screen: a method, candidates, or the value function of a cheaper model."""
    return given if isinstance(given, str | ScreenMethod | Candidates) else as_values(name, given)


def _propose(
    function: ValueFunction,
    screen: MethodName | ScreenMethod | Candidates | ValuesLike,
    run: Run,
    seed: int,
) -> tuple[Candidates, Agreement | None]:
    """Candidates, and how far they agree with the function where they come from elsewhere."""
    if isinstance(screen, str | ScreenMethod):
        return propose(
            function, cast("MethodName | ScreenMethod", screen), run=run, seed=seed
        ), None
    if not isinstance(screen, Candidates):
        screen = as_value_function(screen)
    check_same_units("the screen", screen.units, "the value function", function.units)
    if not isinstance(screen, Candidates):
        method = "second_order" if screen.differentiable else "ablation"
        screen = propose(screen, method, run=run.below("proxy"), seed=seed)
    with Run.open(run) as run:
        recorded = run.record(function.in_own_dtype, "agreement")
        recorded.stage = "agreement with the proxy"
        return screen, agreement(screen, recorded, seed=seed)


def digest_of(candidates: Candidates) -> str:
    """Of what is proposed: another screen is another question."""
    content = json.dumps([candidates.terms, candidates.scores.tolist()])
    return hashlib.sha256(content.encode()).hexdigest()[:16]
