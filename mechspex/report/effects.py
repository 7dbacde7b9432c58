"""The effects of an answer, as the page shows them: a row a set of units, whatever found it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mechspex.circuits.circuit import Circuit
from mechspex.circuits.discovery import Discovery
from mechspex.core.json_values import plain
from mechspex.core.result import Result
from mechspex.effects.repair_map import SelfRepair
from mechspex.effects.sweep_table import Sweep
from mechspex.effects.validation import Validation
from mechspex.explanation.explanation import Explanation
from mechspex.screening.candidates import Candidates

# Rows of single units, of larger sets, and numbers by prompt in all: the page stays below 3 MB.
_MOST_SINGLES, _MOST_SETS, _MOST_NUMBERS = 1_500, 400, 60_000
# What is taken over from the table of an answer, where it has it.
_COLUMNS = ("effect", "low", "high", "confirmed", "recovered", "in_contexts")


def effect_rows(result: Result) -> list[dict[str, Any]]:
    """The exact effects of an answer: singles by column, then sets, the strongest first.

    A row has the columns of its ``term``, ``effect``, ``low`` and ``high`` (None without spread),
    whether it is ``confirmed`` (None where nothing could be), and, where they are known, the
    ``recovered`` effect, that ``in_contexts``, the effects by output as ``outputs``, and the
    ``relation`` of a pair.

    Args:
        result: any answer.

    Returns:
        The rows; none of an answer without exact effects.
    """
    if isinstance(result, Explanation):
        return _validated([(result.validation, result.to_pandas())])
    if isinstance(result, Sweep):
        return _validated([(tested, tested.to_pandas()) for tested in result.tested])
    if isinstance(result, Validation):
        return _validated([(result, result.to_pandas())])
    if isinstance(result, Discovery):
        return _of_circuit(result.circuit)
    if isinstance(result, Circuit):
        return _of_circuit(result)
    if isinstance(result, SelfRepair):
        return _of_repairs(result)
    return []


def single_numbers(result: Result, n_units: int) -> dict[str, list[float | None]]:
    """{what it is: a number for each unit}, for the map: recovered, predicted and exact effects.

    Args:
        result: any answer.
        n_units: how many units it is about.
    """
    found: dict[str, list[float | None]] = {}
    exact: list[float | None] = [None] * n_units
    for row in effect_rows(result):
        if len(row["term"]) == 1:
            exact[row["term"][0]] = row["effect"]
    function = getattr(result, "function", None)
    if function is not None:
        effects = function.ablated_effects()
        made = "predicted" if isinstance(result, Candidates) else "recovered"
        found[f"{made} effect of ablating each unit"] = [
            _short(effects.get((column,), 0.0)) for column in range(n_units)
        ]
    if any(number is not None for number in exact):
        found["exact effect of ablating each unit"] = exact
    return found


def _validated(tested: Sequence[tuple[Validation, pd.DataFrame]]) -> list[dict[str, Any]]:
    """A row a set, from validations and the table that shows each of them."""
    rows = []
    for validation, frame in tested:
        # Without a spread nothing can be confirmed; then that is no finding.
        sure = validation.has_spread or "in_contexts" in frame
        table = frame.to_dict("records")
        columns = zip(validation.terms, table, validation.output_effects, strict=True)
        for term, shown, outputs in columns:
            row: dict[str, Any] = {"term": list(term)}
            row |= {key: _short(shown[key]) for key in _COLUMNS if key in shown}
            row |= {"outputs": outputs} | ({} if sure else {"confirmed": None})
            rows.append(row)
    return _cut(rows)


def _cut(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The strongest singles, in their order, and the strongest sets; numbers by prompt as long as
    there is room for them."""

    def weakness(row: dict[str, Any]) -> float:
        return -abs(row["effect"] or 0.0)

    singles = sorted((row for row in rows if len(row["term"]) == 1), key=weakness)[:_MOST_SINGLES]
    strong = {row["term"][0] for row in singles}
    singles = [row for row in rows if len(row["term"]) == 1 and row["term"][0] in strong]
    sets = sorted((row for row in rows if len(row["term"]) > 1), key=weakness)[:_MOST_SETS]
    kept, room = singles + sets, _MOST_NUMBERS
    for row in sorted(kept, key=weakness):
        outputs = row["outputs"]
        room -= len(outputs)
        row["outputs"] = [_short(value) for value in outputs] if room >= 0 else None
    return kept


def _of_circuit(circuit: Circuit) -> list[dict[str, Any]]:
    absent = {"low": None, "high": None, "confirmed": None}
    rows: list[dict[str, Any]] = [
        {"term": [column], "effect": _short(effect)} | absent
        for column, effect in sorted(circuit.effects.items())
    ]
    for link in circuit.links:
        low, high = map(_short, link.interval)
        rows.append(
            {
                "term": list(link.members),
                "effect": _short(link.effect),
                "low": low,
                "high": high,
                "confirmed": True,
                "relation": link.relation,
            }
        )
    return rows


def _of_repairs(result: SelfRepair) -> list[dict[str, Any]]:
    """The effect of each unit, and the interaction of each tested direction."""
    alone = {repair.unit: repair.loss for repair in result.repairs}
    alone = {repair.by: repair.before for repair in result.repairs} | alone
    rows: list[dict[str, Any]] = [
        {
            "term": [column],
            "effect": _short(loss.value),
            "low": _short(loss.low),
            "high": _short(loss.high),
            "confirmed": loss.leaves_out_zero,
        }
        for column, loss in sorted(alone.items())
    ]
    for repair in result.repairs[:_MOST_SETS]:
        joint = repair.interaction
        rows.append(
            {
                "term": [repair.unit, repair.by],
                "effect": _short(joint.value),
                "low": _short(joint.low),
                "high": _short(joint.high),
                "confirmed": repair.confirmed,
                "relation": repair.relation,
                "directed": True,
            }
        )
    return rows


def _short(value: Any) -> Any:
    """A number with nine digits, as JSON has it; of fewer the page shows some that are not so."""
    value = plain(np.asarray(value).item())
    return float(f"{value:.9g}") if isinstance(value, float) else value
