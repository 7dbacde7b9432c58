"""mechspex: which parts of a language model act together, from as few ablations as possible."""

from mechspex.decoders import decode
from mechspex.explain import explain
from mechspex.explanation import Explanation
from mechspex.masks import pair_ablations, sample_masks, single_ablations
from mechspex.models import heads, load_model, mlps, neurons
from mechspex.set_function import SetFunction
from mechspex.tasks import Task, load_task
from mechspex.units import Unit, UnitSet, parts
from mechspex.validation import Validation, validate
from mechspex.values import ComponentValues, FunctionValues

__version__ = "0.1.0"

__all__ = [
    "ComponentValues",
    "Explanation",
    "FunctionValues",
    "SetFunction",
    "Task",
    "Unit",
    "UnitSet",
    "Validation",
    "decode",
    "explain",
    "heads",
    "load_model",
    "load_task",
    "mlps",
    "neurons",
    "pair_ablations",
    "parts",
    "sample_masks",
    "single_ablations",
    "validate",
]
