"""The same components under another reference."""

from __future__ import annotations

from dataclasses import replace

from mechspex.components.component_values import ComponentValues
from mechspex.components.few_masks import SharedPasses
from mechspex.components.forwards import AblatedModel
from mechspex.components.proof import proved
from mechspex.models.lock import lock_of


def under_reference(
    values: ComponentValues, ablation: str, *, seed: int, shared: SharedPasses | None = None
) -> ComponentValues:
    """The same units on the same prompts, in the model's own dtype, under a reference by name.

    Where that is the reference here, these are the values themselves, proved as they are. Others
    are measured through the bridge, which is what pays for a few masks.

    Args:
        values: the components under some reference.
        ablation: the name of a reference.
        seed: the seed of ``resample``.
        shared: clean passes that several references share; its own if not given.
    """
    own, here = values.in_own_dtype, values._proved.ablated
    drawn = ablation == "resample" and seed != here.seed
    changed = here.rescale or here.calibration is not None or values.n_blocks is not None
    if ablation == here.ablation and not (drawn or changed):
        return own if shared is None else own._of(replace(own._proved, shared=shared))
    with lock_of(values.model):
        ablated = AblatedModel.of(values.model, values.units, ablation, rescale=False, seed=seed)
        few = SharedPasses() if shared is None else shared
        return ComponentValues._of(proved(ablated, values.task, few=few))
