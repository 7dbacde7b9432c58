"""What a screen leaves for the search: units to ablate, a prior, and how far it can be trusted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from mechspex.core.masks import ablate_sets
from mechspex.core.units import check_same_units
from mechspex.core.value_function import ValueFunction, ValuesLike, as_value_function, as_values
from mechspex.runs.run import Run
from mechspex.screening.agreement import Agreement, agreement
from mechspex.screening.candidates import Candidates
from mechspex.screening.coarser_parts import CoarserParts, holds_all, parts_that_matter
from mechspex.screening.methods import MethodName
from mechspex.screening.screen import screen as propose
from mechspex.screening.screen_method import ScreenMethod
from mechspex.screening.survivors import Screening, survivors
from mechspex.set_functions.set_function import SetFunction

# Units that a screen lets through, how many at most, and the share they should explain.
FEWEST_SURVIVORS, _MOST_SURVIVORS, _EXPLAINED = 100, 800, 0.9
# Sets of coarser parts whose effects are compared: at least so many; the largest that are named.
_FEWEST_SETS, _LARGEST = 3, 10


@dataclass(frozen=True)
class Screened:
    """What a screen leaves for the search.

    Attributes:
        candidates: what it proposes.
        columns: the units that survive it.
        screening: what it did, by columns of the survivors.
        parts: what was measured of coarser parts, where the screen was made of these.
    """

    candidates: Candidates
    columns: list[int]
    screening: Screening
    parts: CoarserParts | None = None

    @property
    def called(self) -> str:
        """Method and digest: another screen is another question."""
        return f"{self.candidates.method} {digest_of(self.candidates)}"

    def held_against(self, found: SetFunction) -> Screening:
        """What the screen did; and of coarser parts, how the answer agrees with what was measured
        of them: by how much the value changes when all units of one or two of them are ablated.

        Args:
            found: the recovered function.
        """
        parts = self.parts
        # Of fewer sets a rank correlation says nothing.
        if parts is None or len(parts.parts) < _FEWEST_SETS:
            return self.screening
        whole, *without = found.predict(ablate_sets(found.n_units, [(), *parts.parts]))
        agrees = Agreement(parts.parts, np.array(without) - whole, parts.changes, _LARGEST)
        return replace(self.screening, agreement=str(agrees), agrees=agrees)

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
    if not isinstance(screen, str | ScreenMethod | Candidates):
        screen = as_value_function(screen)
        if holds_all(screen.units, function.units):
            found = parts_that_matter(
                function, screen, run, target=_EXPLAINED, keep=keep, seed=seed
            )
            return _of(function, found.candidates, found.columns, found.explained, parts=found)
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
    return _of(function, candidates, found.tolist(), explained, agrees=agrees)


def _of(
    function: ValueFunction,
    candidates: Candidates,
    columns: list[int],
    explained: float,
    *,
    agrees: Agreement | None = None,
    parts: CoarserParts | None = None,
) -> Screened:
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
    return Screened(candidates, columns, screening, parts)


def as_screen(name: str, given: object) -> Any:
    """Reads a screen: a method, candidates, or the value function of a cheaper model."""
    return given if isinstance(given, str | ScreenMethod | Candidates) else as_values(name, given)


def _propose(
    function: ValueFunction,
    screen: str | ScreenMethod | Candidates | ValueFunction,
    run: Run,
    seed: int,
) -> tuple[Candidates, Agreement | None]:
    """Candidates, and how far they agree with the function where they come from elsewhere."""
    if isinstance(screen, str | ScreenMethod):
        return propose(
            function, cast("MethodName | ScreenMethod", screen), run=run, seed=seed
        ), None
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
    if not candidates.terms:
        content = json.dumps(candidates.single_scores.tolist())
    return hashlib.sha256(content.encode()).hexdigest()[:16]
