"""mechspex: which parts of a language model act together, from as few ablations as possible."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mechspex.ablation_sweep import Sweep, sweep
    from mechspex.circuit import Circuit
    from mechspex.circuit_discovery import find_circuit
    from mechspex.circuit_references import reference_scores
    from mechspex.circuit_scores import Faithfulness, faithfulness, faithfulness_curve
    from mechspex.circuit_search import (
        additive_choice,
        best_subset,
        front,
        greedy,
        matching_subsets,
    )
    from mechspex.comparison import compare_circuits
    from mechspex.decoders import decode
    from mechspex.drawing import load_task
    from mechspex.explanation import Explanation
    from mechspex.link import Link, monotone_link
    from mechspex.masks import pair_ablations, sample_masks, single_ablations
    from mechspex.models import heads, load_model, mlps, neurons
    from mechspex.pruned import Pruning
    from mechspex.pruning import prune_heads
    from mechspex.recovery import Recovery, recover
    from mechspex.repair import self_repair
    from mechspex.repair_map import SelfRepair
    from mechspex.roles import head_roles
    from mechspex.screening import Agreement, Candidates, Missed, agreement, missed, screen
    from mechspex.set_function import SetFunction
    from mechspex.spex_design import SpexDesign
    from mechspex.structure import Structure, structure_of
    from mechspex.subset import Front, Subset
    from mechspex.tasks import Task
    from mechspex.units import Unit, UnitSet, parts
    from mechspex.validation import Validation, validate
    from mechspex.values import ComponentValues, FunctionValues
    from mechspex.workflow import explain

__version__ = "0.1.0"

__all__ = [
    "Agreement",
    "Candidates",
    "Circuit",
    "ComponentValues",
    "Explanation",
    "Faithfulness",
    "Front",
    "FunctionValues",
    "Link",
    "Missed",
    "Pruning",
    "Recovery",
    "SelfRepair",
    "SetFunction",
    "SpexDesign",
    "Structure",
    "Subset",
    "Sweep",
    "Task",
    "Unit",
    "UnitSet",
    "Validation",
    "additive_choice",
    "agreement",
    "best_subset",
    "compare_circuits",
    "decode",
    "explain",
    "faithfulness",
    "faithfulness_curve",
    "find_circuit",
    "front",
    "greedy",
    "head_roles",
    "heads",
    "load_model",
    "load_task",
    "matching_subsets",
    "missed",
    "mlps",
    "monotone_link",
    "neurons",
    "pair_ablations",
    "parts",
    "prune_heads",
    "recover",
    "reference_scores",
    "sample_masks",
    "screen",
    "self_repair",
    "single_ablations",
    "structure_of",
    "sweep",
    "validate",
]

# Where the public names live. They are imported when they are first used: the model libraries take
# seconds to load, and `mechspex --help`, `tasks` and `status` need none of them.
_HOMES = {
    "Agreement": "screening",
    "Candidates": "screening",
    "Circuit": "circuit",
    "ComponentValues": "values",
    "Explanation": "explanation",
    "Faithfulness": "circuit_scores",
    "Front": "subset",
    "FunctionValues": "values",
    "Link": "link",
    "Missed": "screening",
    "Pruning": "pruned",
    "Recovery": "recovery",
    "SelfRepair": "repair_map",
    "SetFunction": "set_function",
    "SpexDesign": "spex_design",
    "Structure": "structure",
    "Subset": "subset",
    "Sweep": "ablation_sweep",
    "Task": "tasks",
    "Unit": "units",
    "UnitSet": "units",
    "Validation": "validation",
    "additive_choice": "circuit_search",
    "agreement": "screening",
    "best_subset": "circuit_search",
    "compare_circuits": "comparison",
    "decode": "decoders",
    "explain": "workflow",
    "faithfulness": "circuit_scores",
    "faithfulness_curve": "circuit_scores",
    "find_circuit": "circuit_discovery",
    "front": "circuit_search",
    "greedy": "circuit_search",
    "head_roles": "roles",
    "heads": "models",
    "load_model": "models",
    "load_task": "drawing",
    "matching_subsets": "circuit_search",
    "missed": "screening",
    "mlps": "models",
    "monotone_link": "link",
    "neurons": "models",
    "pair_ablations": "masks",
    "parts": "units",
    "prune_heads": "pruning",
    "recover": "recovery",
    "reference_scores": "circuit_references",
    "sample_masks": "masks",
    "screen": "screening",
    "self_repair": "repair",
    "single_ablations": "masks",
    "structure_of": "structure",
    "sweep": "ablation_sweep",
    "validate": "validation",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
