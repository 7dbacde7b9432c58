"""Values to search with: in bfloat16, as what is found is scored in the model's own dtype."""

from __future__ import annotations

from mechspex.components.component_values import ComponentValues
from mechspex.core.units import UnitSet
from mechspex.models.load_model import Model
from mechspex.tasks.task import Task


def quick_values(
    model: Model, task: Task, units: UnitSet, ablation: str, *, rescale: bool = False
) -> ComponentValues:
    """Component values in bfloat16; in the model's own dtype where that is no faster.

    Args:
        model: the model.
        task: the prompts to search with.
        units: the columns of the masks.
        ablation: what replaces an ablated activation.
        rescale: multiply the kept heads of a layer by (heads of the layer) / (heads kept).
    """
    return ComponentValues(model, task, units, ablation, rescale=rescale, precision="auto")
