"""Scores of a circuit that was found: circuits of all sizes, roles of heads, other references."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mechspex.circuits.certify import Prompts, certify
from mechspex.circuits.curve import Curve
from mechspex.circuits.discovery import Discovery
from mechspex.circuits.faithfulness import faithfulness_curve, mib_sizes
from mechspex.core.value_function import ValueFunction
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.run import Run


def scored_discovery(
    found: Discovery,
    held_out: ValueFunction,
    scored: RecordedValues,
    *,
    certified: bool | Prompts = False,
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
        certified: whether to say what is sure of the circuit, a mask a unit; ``census`` where
            `held_out` are all prompts that there are.
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
    if certified:
        certificate = certify(scored, found.circuit, census=certified == "census", seed=seed)
        found = replace(found, certificate=certificate)
    if "model" not in scored.configuration:
        return found
    # Only where there is a model: nothing else here needs the libraries of models.
    from mechspex.circuits.roles_and_references import with_roles_and_references

    return with_roles_and_references(found, held_out, run=run, seed=seed, progress=progress)


def _curves(
    scored: RecordedValues, circuits: Mapping[int, tuple[int, ...]], seed: int
) -> tuple[Curve, Curve | None]:
    """Faithfulness at the sizes that there are, and at those of the MIB benchmark."""
    shares = [size / scored.n_units for size in circuits]
    at_all_sizes = faithfulness_curve(scored, circuits, shares=shares, seed=seed)
    if not set(mib_sizes(scored.n_units)) <= {*circuits, scored.n_units}:
        return at_all_sizes, None
    return at_all_sizes, faithfulness_curve(scored, circuits, seed=seed)
