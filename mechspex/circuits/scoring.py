"""Scores of a circuit that was found: circuits of all sizes, roles of heads, other references."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mechspex.circuits.circuit import Circuit
from mechspex.circuits.curve import Curve
from mechspex.circuits.discovery import Discovery
from mechspex.circuits.faithfulness import faithfulness_curve, mib_sizes
from mechspex.circuits.head_roles import head_roles
from mechspex.circuits.reference_scores import reference_scores
from mechspex.components.component_values import ComponentValues
from mechspex.core.errors import AblationError, Refused
from mechspex.core.value_function import ValueFunction
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.run import Run


def scored_discovery(
    found: Discovery,
    held_out: ValueFunction,
    scored: RecordedValues,
    *,
    run: str | Path | Run | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Discovery:
    """A discovery with faithfulness over sizes, and where it is one of a model's components also
    with the roles of its heads and its scores under other references.

    Args:
        found: what the search found, without any of these.
        held_out: the value function on outputs that were not searched.
        scored: the same, recorded.
        run: name or folder in which the scores under references keep their values.
        seed: the only source of randomness, for intervals and for ``resample``.
        progress: progress bars on stderr.
    """
    scored.stage = "circuits of all sizes"
    best_curve, best_mib = _curves(scored, found.best, seed)
    matching_curve, matching_mib = _curves(scored, found.matching, seed)
    found = replace(
        found,
        best_curve=best_curve,
        matching_curve=matching_curve,
        best_mib=best_mib,
        matching_mib=matching_mib,
    )
    if not isinstance(held_out, ComponentValues):
        return found
    remarks: list[str] = []
    circuit, references = found.circuit, None
    try:
        circuit = _with_roles(circuit, held_out)
    except AblationError as error:
        remarks.append(f"no roles of heads: {error}")
    try:
        references = reference_scores(
            held_out.model, held_out.task, circuit, run=run, seed=seed, progress=progress
        )
    except Refused as error:
        remarks.append(str(error))
    return replace(found, circuit=circuit, references=references, remarks=tuple(remarks))


def _curves(
    scored: RecordedValues, circuits: Mapping[int, tuple[int, ...]], seed: int
) -> tuple[Curve, Curve | None]:
    """Faithfulness at the sizes that there are, and at those of the MIB benchmark."""
    shares = [size / scored.n_units for size in circuits]
    at_all_sizes = faithfulness_curve(scored, circuits, shares=shares, seed=seed)
    if not set(mib_sizes(scored.n_units)) <= {*circuits, scored.n_units}:
        return at_all_sizes, None
    return at_all_sizes, faithfulness_curve(scored, circuits, seed=seed)


def _with_roles(circuit: Circuit, values: ComponentValues) -> Circuit:
    """The circuit with the roles that the attention patterns of its heads propose."""
    units, names = circuit.units, circuit.names
    heads = units[[name for name in names if units[units.column_of[name]].kind == "head"]]
    if not len(heads):
        return circuit
    effects = {units.names[column]: effect for column, effect in circuit.effects.items()}
    return circuit.with_roles(head_roles(values.model, values.task, heads, effects))
