"""Self-repair: which units take over when one is ablated."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from mechspex.core.checks import PROBABILITY, WHOLE, Only
from mechspex.core.doors import door
from mechspex.core.errors import FailedMasksError, Refused
from mechspex.core.finite import finite_values
from mechspex.core.masks import ablate_sets
from mechspex.core.old_keywords import takes_old
from mechspex.core.statistics import Estimate, discovered, mean_estimate, one_sided_p
from mechspex.core.units import Term, UnitSet, check_same_units
from mechspex.core.value_function import ValuesLike, as_value_function, as_values
from mechspex.effects.repair_map import Repair, Repaired, SelfRepair, is_repair
from mechspex.effects.validate import validate
from mechspex.effects.validation import Validation
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.run import Run, as_run
from mechspex.set_functions.set_function import SetFunction


@runtime_checkable
class Effects(Protocol):
    """Units and what ablating sets of them does: an explanation, a screen's candidates, a
    validation, a sweep."""

    @property
    def units(self) -> UnitSet: ...

    def ablated_effects(self) -> dict[Term, float]:
        """{term: coefficient in the ``ablated`` basis}."""
        ...


Source = SetFunction | Effects

# What float32 makes of sums of values, relative to the largest of them.
_ROUNDING_OF_EFFECTS = 1e-5


@takes_old({"fresh": "held_out"})
@door(
    source=Only((SetFunction, Effects), "an explanation, a function, candidates or a sweep"),
    held_out=as_values,
    most=WHOLE,
    level=PROBABILITY,
    run=as_run,
)
def self_repair(
    source: Source,
    held_out: ValuesLike,
    *,
    most: int = 50,
    level: float = 0.05,
    run: str | Path | Run | None = None,
    progress: bool = False,
) -> SelfRepair:
    """For every unit, which others make up for it when it is ablated, confirmed exactly.

    Effects are those of ablation, as everywhere (a unit that supports the behaviour has a negative
    one). With a_i, a_j and a_ij the coefficients of the ``ablated`` basis,

    - a_i = f(all but i) − f(all) is what ablating i does in the whole model;
    - a_{i|j} = a_i + a_ij = f(all but i, j) − f(all but j), what it does where j is gone: i's
      direct effect, with nothing that j could make up for;
    - j repairs i where |a_i| < |a_{i|j}|: ablating i does less with j in place. The share of the
      direct effect that is repaired is 1 − a_i / a_{i|j} = a_ij / a_{i|j}, between 0 and 2; 1 is
      a full backup, an OR.

    Seen from j, whose effect was a_j before and is a_{j|i} = a_j + a_ij after i is ablated: j
    *takes over* where its effect grows in the direction of i's direct effect (a_{j|i} has the sign
    of a_ij), and *opposes less* where it worked against i and does so less (Wang et al. 2023 saw
    both in GPT-2's name movers). Nothing of this asks for the sign of i: heads that work against
    the behaviour have backups too. An AND is no repair: there |a_{i|j}| < |a_i|.

    The pairs with the largest proposed |a_ij| for which this is predicted in either direction are
    measured on `held_out`, in the whole model. A repair is confirmed where a_ij is (see `validate`)
    and 2a_i + a_ij has its sign by a one-sided Student's t, which is the same as |a_i| < |a_{i|j}|:
    the larger p of the two counts, with the false discovery rate `level` among both directions of
    all pairs measured (Benjamini & Hochberg 1995).

    Args:
        source: where a_i and a_ij are predicted: a recovered function, the `Explanation` that
            holds one, `Candidates` of a screen, a `Validation`, or a `Sweep` of order 2. What is
            not among its terms counts as 0.
        held_out: the model, on outputs (prompts) that `source` has not seen.
        most: pairs that are measured, at most.
        level: the expected share of false interactions among the confirmed.
        run: name or folder in which every value is kept, and the answer as ``self_repair.json``.
        progress: a progress bar on stderr.

    Raises:
        Refused: a source of other units, or a number of pairs or a level that makes no sense.
        FailedMasksError: a mask of a pair has no finite value.
    """
    if most < 1:
        raise Refused(f"most = {most}: measure at least 1 pair")
    held_out = as_value_function(held_out)
    predicted = _predicted(source, held_out.units)
    pairs = _proposed(predicted, most)
    with Run.open(run, progress=progress) as run:
        recorded = run.record(held_out.in_own_dtype)
        recorded.stage = "pairs"
        tested = validate(recorded, pairs, level=level)
        single = _single_effects(recorded, pairs)
        repairs = tuple(
            sorted(_repairs_of(tested, single, predicted, level), key=_confirmed_and_strong)
        )
        recorded.stage = "without the backups"
        repaired = _without_backups(recorded, repairs)
    found = SelfRepair(
        units=held_out.units,
        configuration=recorded.configuration,
        repairs=repairs,
        repaired=repaired,
        n_pairs=len(pairs),
        level=level,
        n_outputs=len(held_out.outputs),
        masks=recorded.used,
    )
    run.keep(found)
    return found


def _predicted(source: Source, units: UnitSet) -> dict[Term, float]:
    """{term: coefficient in the ``ablated`` basis}."""
    if isinstance(source, SetFunction):
        if source.n_units != len(units):
            raise Refused(
                f"the function has {source.n_units} units and held_out {len(units)}; give both the "
                "same units"
            )
    else:
        check_same_units("the source", source.units, "held_out", units)
    return source.ablated_effects()


def _proposed(predicted: Mapping[Term, float], most: int) -> list[Term]:
    """The pairs that are predicted to repair, in either direction, strongest first."""
    rounding = _ROUNDING_OF_EFFECTS * max(
        (abs(effect) for term, effect in predicted.items() if term), default=0
    )
    pairs = [
        term
        for term, effect in predicted.items()
        if len(term) == 2
        and abs(effect) > rounding
        and any(is_repair(predicted.get((i,), 0.0), effect) for i in term)
    ]
    return sorted(pairs, key=lambda pair: (-abs(predicted[pair]), pair))[:most]


def _single_effects(
    recorded: RecordedValues, pairs: list[Term]
) -> dict[int, Float[np.ndarray, " output"]]:
    """{i: a_i on every output}, of all units in the pairs; all of it is in the store by now."""
    columns = sorted(set(chain.from_iterable(pairs)))
    clean, *without = _values(recorded, [(), *((column,) for column in columns)])
    return {column: value - clean for column, value in zip(columns, without, strict=True)}


def _values(recorded: RecordedValues, sets: list[Term]) -> Float[np.ndarray, "set output"]:
    """The value with each set ablated."""
    return finite_values(recorded, ablate_sets(recorded.n_units, sets), "ablations")


def _repairs_of(
    tested: Validation,
    single: Mapping[int, Float[np.ndarray, " output"]],
    predicted: Mapping[Term, float],
    level: float,
) -> list[Repair]:
    """Both directions of each pair, where repair is predicted or measured."""
    if tested.failed.any():
        label = tested.units.label(tested.terms[int(tested.failed.argmax())])
        raise FailedMasksError(f"ablating {label} gives no finite value; mend the value function")
    found = []
    rows = zip(tested.terms, tested.output_effects, tested.intervals, tested.confirmed, strict=True)
    p_values = [
        _p_value(single[unit], joint)
        for pair, joint in zip(tested.terms, tested.output_effects, strict=True)
        for unit in pair
    ]
    directions = iter(discovered(p_values, level))
    for pair, joint, (low, high), holds in rows:
        for unit, by in (pair, pair[::-1]):
            loss = single[unit]
            sure = bool(next(directions)) and bool(holds)
            foretold = is_repair(predicted.get((unit,), 0.0), predicted[pair])
            if not foretold and not is_repair(loss.mean(), joint.mean()):
                continue
            found.append(
                Repair(
                    unit=unit,
                    by=by,
                    loss=mean_estimate(loss),
                    direct=mean_estimate(loss + joint),
                    before=mean_estimate(single[by]),
                    after=mean_estimate(single[by] + joint),
                    interaction=Estimate(float(joint.mean()), float(low), float(high)),
                    confirmed=sure,
                )
            )
    return found


def _p_value(loss: Float[np.ndarray, " output"], joint: Float[np.ndarray, " output"]) -> float:
    """Of a_ij = 0, or of 2a_i + a_ij without its sign: the larger one. Of a single output, which
    has no spread, 0 or 1."""
    along = (2 * loss + joint) * np.sign(joint.mean())
    if not along.mean() > _ROUNDING_OF_EFFECTS * max(np.abs(loss).max(), np.abs(joint).max()):
        return 1.0
    if len(along) == 1:
        return 0.0
    interaction, direction = one_sided_p(np.stack([joint * np.sign(joint.mean()), along]))
    return float(max(2 * interaction, direction))


def _without_backups(recorded: RecordedValues, repairs: tuple[Repair, ...]) -> tuple[Repaired, ...]:
    """Each unit's effect where all that is confirmed to repair it is gone. The backups were chosen
    on the same outputs, so these shares lean high."""
    backups: dict[int, list[int]] = {}
    for repair in repairs:
        if repair.confirmed:
            backups.setdefault(repair.unit, []).append(repair.by)
    if not backups:
        return ()
    sets = [
        ablated for unit, by in backups.items() for ablated in ((), (unit,), tuple(by), (*by, unit))
    ]
    values = _values(recorded, sets).reshape(len(backups), 4, -1)
    found = [
        Repaired(unit, tuple(by), mean_estimate(without - clean), mean_estimate(all_gone - gone))
        for (unit, by), (clean, without, gone, all_gone) in zip(
            backups.items(), values, strict=True
        )
    ]
    return tuple(sorted(found, key=lambda one: -abs(one.direct.value - one.loss.value)))


def _confirmed_and_strong(repair: Repair) -> tuple[bool, bool, float]:
    idle = repair.relation == "no repair"
    return not repair.confirmed, idle, -abs(repair.interaction.value)
