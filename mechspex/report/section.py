"""What the page shows of one answer, as plain numbers, lists and text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mechspex.circuits.circuit import Circuit
from mechspex.circuits.curve import Curve
from mechspex.circuits.discovery import Discovery
from mechspex.core.json_values import plain
from mechspex.core.kinds import KINDS
from mechspex.core.result import Result
from mechspex.core.units import UnitSet
from mechspex.effects.sweep_table import Sweep
from mechspex.explanation.explanation import Explanation
from mechspex.report.effects import effect_rows, single_numbers
from mechspex.report.patterns import shown_patterns
from mechspex.report.plain_words import plain_words
from mechspex.report.signed import signed
from mechspex.report.what_if import what_if
from mechspex.runs.result import RunResult
from mechspex.runs.text import metric_in_words, percent, subject
from mechspex.screening.candidates import Candidates

# Rows of the other tables of an answer.
_MOST_ROWS = 200
# Of more units only those are shown that are in an effect or a circuit.
_MOST_UNITS = 3_000
_CURVES = {
    "best_curve": "best subset of each size",
    "matching_curve": "subset nearest to the whole model",
}


def section(result: Result, name: str, folder: Path | None) -> dict[str, Any]:
    """All that the page shows of one answer.

    Args:
        result: any answer.
        name: what it is called on the page.
        folder: the folder of its run; None where it has none.
    """
    circuit = result.circuit if isinstance(result, Discovery) else result
    units: UnitSet | None = getattr(circuit, "units", None)
    configuration = dict(getattr(circuit, "configuration", {}))
    explanation = result if isinstance(result, Explanation) else None
    # What a screen predicts is a change: its function is known up to a constant.
    function = None if isinstance(result, Candidates) else getattr(result, "function", None)
    if units is not None and len(units) > _MOST_UNITS:
        function = None
    one = {
        "name": name,
        "called": result.called,
        "subject": result.in_short if units is None else subject(configuration, units),
        "metric": metric_in_words(configuration),
        "words": plain_words(result),
        "figures": _figures(result),
        "units": [] if units is None else _units(units),
        "rows": effect_rows(result),
        "numbers": {} if units is None else single_numbers(result, len(units)),
        "members": list(circuit.members) if isinstance(circuit, Circuit) else [],
        "roles": _roles(circuit),
        "patterns": shown_patterns(folder),
        "outputs": _outputs(result),
        "what_if": None if function is None else what_if(function, folder, explanation),
        "curves": _curves(result),
        "tables": _tables(result),
        "text": str(result),
        "provenance": _provenance(result, configuration),
    }
    return one if len(one["units"]) <= _MOST_UNITS else _without_the_rest(one)


def _without_the_rest(one: dict[str, Any]) -> dict[str, Any]:
    """The same with those units alone that are in an effect or a circuit, numbered anew."""
    columns = sorted({column for row in one["rows"] for column in row["term"]} | {*one["members"]})
    place = {column: number for number, column in enumerate(columns)}
    return one | {
        "units": [one["units"][column] for column in columns],
        "rows": [row | {"term": [place[column] for column in row["term"]]} for row in one["rows"]],
        "numbers": {
            name: [numbers[column] for column in columns]
            for name, numbers in one["numbers"].items()
        },
        "members": [place[column] for column in one["members"]],
    }


def _units(units: UnitSet) -> list[dict[str, Any]]:
    """Name, layer (None of what is in no layer) and number of each unit."""
    return [
        {
            "name": unit.name,
            "layer": None if KINDS[unit.kind].labelled else unit.layer,
            "number": unit.number,
            "kind": unit.kind,
        }
        for unit in units
    ]


def _figures(result: Result) -> dict[str, str]:
    """The few numbers that matter most."""
    if isinstance(result, Explanation):
        confirmed = _confirmed(result)
        return {
            "clean": signed(result.clean),
            "all ablated": signed(result.ablated),
            "held-out R²": f"{result.r2:.3f}",
            "additive R²": f"{result.additive_r2:.3f}",
            "non-additive share": f"{result.non_additive_share:.2f}",
        } | confirmed
    if isinstance(result, Sweep):
        return {"clean": signed(result.clean.mean())} | _confirmed(result)
    circuit = result.circuit if isinstance(result, Discovery) else result
    if isinstance(circuit, Circuit):
        figures = {"members": f"{len(circuit)} of {len(circuit.units)}"}
        if circuit.scores:
            figures |= {
                "faithfulness": f"{circuit.scores['faithfulness'][0]:.3f}",
                "the others alone": f"{circuit.scores['completeness'][0]:.3f}",
            }
            if circuit.scores.get("equivalent_within") is not None:
                figures["equivalent within"] = percent(circuit.scores["equivalent_within"])
        return figures
    return {}


def _confirmed(result: Explanation | Sweep) -> dict[str, str]:
    """How many effects are confirmed; nothing where none could be."""
    table = result.to_pandas()
    n_confirmed = np.count_nonzero(table["confirmed"])
    if not n_confirmed and not np.isfinite(table["low"]).any():
        return {}
    return {"confirmed": f"{n_confirmed} of {len(table)}"}


def _roles(circuit: object) -> dict[str, str]:
    """{unit: its role, and why} of the members of a circuit."""
    if not isinstance(circuit, Circuit):
        return {}
    names = circuit.units.names
    return {
        names[column]: " · ".join(filter(None, [role, circuit.evidence.get(column, "")]))
        for role, columns in circuit.roles.items()
        for column in columns
    }


def _outputs(result: Result) -> list[str] | None:
    """The names of the outputs that effects are of; None where an answer names others or none."""
    if isinstance(result, Explanation) and "validated on" not in result.settings:
        return list(result.outputs)
    return list(result.outputs) if isinstance(result, Sweep) else None


def _curves(result: Result) -> list[dict[str, Any]]:
    """Faithfulness by size with intervals, of each curve that an answer has."""
    found = []
    for attribute, title in _CURVES.items():
        curve = getattr(result, attribute, None)
        if isinstance(curve, Curve):
            found.append(
                {
                    "title": title,
                    "sizes": list(curve.sizes),
                    "scores": plain([score.to_list() for score in curve.scores]),
                }
            )
    return found


def _tables(result: Result) -> list[dict[str, Any]]:
    """Tables of what is not in the effects: members and links of a circuit, choices, repairs."""
    if isinstance(result, Explanation | Sweep):
        return []
    frames = {result.called: result.to_pandas()}
    if isinstance(result, Discovery):
        frames = {
            "members": result.circuit.to_pandas(),
            "circuits of every size": result.to_pandas(),
        }
        if result.membership is not None:
            frames["members where the prompts of the search are drawn again"] = (
                result.membership.to_pandas()
            )
        if result.references is not None:
            frames["the circuit under each reference"] = result.references.to_pandas()
        if result.certificate is not None:
            frames["certificate"] = result.certificate.to_pandas()
    return [_table(title, frame) for title, frame in frames.items() if len(frame)]


def _table(title: str, frame: pd.DataFrame) -> dict[str, Any]:
    shown = frame.head(_MOST_ROWS)
    return {
        "title": title,
        "columns": [str(column) for column in shown.columns],
        "rows": [[_cell(value) for value in row] for row in shown.itertuples(index=False)],
        "left": len(frame) - len(shown),
    }


def _cell(value: Any) -> dict[str, Any]:
    """What a cell shows, and what it is sorted by."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        text = "" if value != value else signed(value).removeprefix("+")
        return {"text": text, "sort": plain(value)}
    if isinstance(value, bool):
        return {"text": "yes" if value else "no", "sort": int(value)}
    return {"text": str(value), "sort": value if isinstance(value, int) else str(value)}


def _provenance(result: Result, configuration: Mapping[str, str]) -> dict[str, str]:
    """Where the numbers come from: command, what the values depend on, seeds, versions, cost."""
    rows: dict[str, Any] = {}
    if isinstance(result, RunResult):
        rows["command"] = result.made_by
    rows |= configuration
    for key, value in dict(getattr(result, "settings", {})).items():
        rows |= _flat(key, value)
    cost = getattr(result, "cost", None)
    if is_dataclass(cost) and not isinstance(cost, type):
        rows |= {f"cost: {key}": value for key, value in asdict(cost).items()}
    rows["schema"] = result.schema
    return {key: _in_words(value) for key, value in rows.items()}


def _flat(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {key: value}
    return {f"{key}: {inner}": part for inner, part in value.items()}


def _in_words(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)
