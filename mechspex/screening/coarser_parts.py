"""Coarser parts of the same text as a screen: sentences, then the words of those that matter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np
from jaxtyping import Float

from mechspex.core.errors import Refused
from mechspex.core.masks import ablate_sets
from mechspex.core.units import Term, UnitSet
from mechspex.core.value_function import ValueFunction
from mechspex.runs.run import Run
from mechspex.screening.candidates import Candidates
from mechspex.screening.coarse_to_fine import CoarseToFine
from mechspex.screening.screen import screen
from mechspex.screening.survivors import explaining

# What this screen is called.
PARTS = "coarser parts"
# Masks of the coarser parts, for each of them: half find their effects, half those of pairs.
_MASKS_PER_PART = 4


@dataclass(frozen=True)
class CoarserParts:
    """What coarser parts of a text say of the units within them.

    Attributes:
        candidates: an even share of its part's effect for each unit; no set is proposed.
        columns: the units within the strongest parts: those that masks ablate.
        explained: how well these alone predict masks of all units, see `explaining`.
        parts: the units of each of these parts, and of the pairs of them that were measured.
        changes: by how much ablating each of `parts` changes the value, mean over outputs.
    """

    candidates: Candidates
    columns: list[int]
    explained: float
    parts: tuple[Term, ...]
    changes: Float[np.ndarray, " part"]


def holds_all(coarser: UnitSet, units: UnitSet) -> bool:
    """Whether some units are other, and fewer, parts of the text in which other units lie."""
    placed = all(unit.span is not None for unit in (*coarser, *units))
    return placed and coarser != units and len(coarser) < len(units)


def parts_that_matter(
    function: ValueFunction,
    coarser: ValueFunction,
    run: Run,
    *,
    target: float,
    keep: float,
    seed: int,
) -> CoarserParts:
    """The units within the strongest parts, as many as explain what masks of all units do.

    The effect of each part and of pairs of the strongest ones is measured by `CoarseToFine`. The
    strongest part comes first, then two, four, eight and so on, until their units alone explain
    enough.

    Args:
        function: the value function of the units.
        coarser: one of the parts in which they lie, of the same text.
        run: where the values are kept.
        target: the R² that is enough.
        keep: the probability with which a random mask keeps a unit.
        seed: the seed of the random masks.

    Raises:
        Refused: a text in which the units do not lie.
    """
    inside = _inside(function.units, coarser.units)
    method = CoarseToFine(n_masks=_MASKS_PER_PART * len(coarser.units))
    found = screen(coarser, method, run=run.below("parts"), seed=seed)
    order = np.argsort(-np.hypot(found.single_scores, found.reach), kind="stable").tolist()
    # A search needs two units at least.
    counts = [n for n in _doubling(len(order)) if sum(len(inside[p]) for p in order[:n]) > 1]
    nested = [sorted(u for part in order[:n] for u in inside[part]) for n in counts]
    with Run.open(run) as opened:
        columns, explained = explaining(
            opened.record(function), nested, target=target, keep=keep, seed=seed
        )
    kept = set(columns.tolist())
    chosen = {part for part in order if not kept.isdisjoint(inside[part])}
    sets = [(part,) for part in sorted(chosen)]
    sets += [pair for pair in found.terms if len(pair) > 1 and chosen.issuperset(pair)]
    place = {column: number for number, column in enumerate(columns.tolist())}
    whole, *changed = found.function.predict(ablate_sets(len(inside), [(), *sets]))
    return CoarserParts(
        candidates=_in_shares(function.units, found, inside),
        columns=columns.tolist(),
        explained=explained,
        parts=tuple(tuple(sorted(place[u] for p in one for u in inside[p])) for one in sets),
        changes=np.array(changed) - whole,
    )


def _doubling(most: int) -> list[int]:
    """1, 2, 4, … up to `most`, which comes last."""
    return [*takewhile(lambda n: n < most, (1 << power for power in range(most))), most]


def _in_shares(units: UnitSet, found: Candidates, inside: list[list[int]]) -> Candidates:
    """The effects of parts in even shares among their units."""
    shares = np.zeros(len(units))
    for effect, members in zip(found.single_scores, inside, strict=True):
        shares[members] = effect / max(1, len(members))
    return replace(
        found,
        units=units,
        terms=(),
        scores=np.empty(0),
        method=PARTS,
        single_scores=shares,
        reach=np.zeros(len(units)),
    )


def _inside(units: UnitSet, coarser: UnitSet) -> list[list[int]]:
    """The columns of the units within each of the coarser parts.

    Raises:
        Refused: another text, or a unit across two parts.
    """
    # Units that were read from a file no longer know their text.
    text, other = (str(getattr(one, "text", "")) for one in (units, coarser))
    if text and other and text != other:
        raise Refused(
            f"the screen is of the text {other[:40]!r} …, the values of {text[:40]!r} …; "
            "give both the same text"
        )
    spans = [unit.span for unit in coarser if unit.span is not None]
    inside: list[list[int]] = [[] for _ in spans]
    for column, unit in enumerate(units):
        begin, end = unit.span or (0, 0)
        touched = [part for part, (a, b) in enumerate(spans) if a < end and begin < b]
        # What lies between the parts is always kept, whoever screens.
        if len(touched) == 1 and spans[touched[0]][0] <= begin and end <= spans[touched[0]][1]:
            inside[touched[0]].append(column)
        elif touched:
            raise Refused(
                f"unit {unit.name!r} lies in no single part of the screen but across "
                f"{coarser.label(touched)}; screen with parts that hold whole units, such as "
                "sentences of words"
            )
    if not any(inside):
        raise Refused("no unit lies in any part of the screen; give parts of the same text")
    return inside
