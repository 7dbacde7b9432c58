"""What only a model's components have: roles of the heads, and scores under every reference."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from mechspex.circuits.circuit import Circuit
from mechspex.circuits.discovery import Discovery
from mechspex.circuits.head_roles import head_roles
from mechspex.circuits.reference_scores import scores_by_reference
from mechspex.components.component_values import ComponentValues
from mechspex.components.few_masks import SharedPasses
from mechspex.components.under_reference import under_reference
from mechspex.core.errors import AblationError, Refused
from mechspex.core.value_function import ValueFunction
from mechspex.runs.run import Run


def with_roles_and_references(
    found: Discovery,
    held_out: ValueFunction,
    *,
    run: str | Path | Run | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Discovery:
    """The discovery with both; as it is where the values are not those of components.

    Args:
        found: what the search found, with its curves.
        held_out: the value function on outputs that were not searched.
        run: name or folder in which the scores under references keep their values.
        seed: the only source of randomness, for intervals and for ``resample``.
        progress: progress bars on stderr.
    """
    if not isinstance(held_out, ComponentValues):
        return found
    remarks: list[str] = []
    circuit, references = found.circuit, None
    try:
        circuit = _with_roles(circuit, held_out)
    except AblationError as error:
        remarks.append(f"no roles of heads: {error}")
    try:
        values_of = partial(under_reference, held_out, seed=seed, shared=SharedPasses())
        references = scores_by_reference(
            values_of, held_out.task, circuit, run=run, seed=seed, progress=progress
        )
    except Refused as error:
        remarks.append(str(error))
    return replace(found, circuit=circuit, references=references, remarks=tuple(remarks))


def _with_roles(circuit: Circuit, values: ComponentValues) -> Circuit:
    """The circuit with the roles that the attention patterns of its heads propose."""
    units, names = circuit.units, circuit.names
    heads = units[[name for name in names if units[units.column_of[name]].kind == "head"]]
    if not len(heads):
        return circuit
    effects = {units.names[column]: effect for column, effect in circuit.effects.items()}
    return circuit.with_roles(head_roles(values.model, values.task, heads, effects))
