"""Masks of heads under ablation, measured once for all figures that are kept side by side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

from mechspex.components.component_values import ComponentValues
from mechspex.core.value_function import ValueFunction
from mechspex.experiments.experiment import Asked
from mechspex.models.load_model import load_model
from mechspex.models.units import units_of
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.store import IDENTITIES
from mechspex.tasks.load_task import load_task

# Layers whose heads are measured in small, from three quarters of the depth on.
_LAYERS = 4


def ioi_heads(asked: Asked) -> ComponentValues:
    """The task's metric when heads are replaced by their mean.

    In full all heads, on 8 prompts; in small those of four layers from three quarters of the depth
    on, on 4 prompts.

    Args:
        asked: model, task, size and seed; the seed draws the prompts.
    """
    model = load_model(asked.model)
    task = load_task(asked.task, model, n_prompts=8 if asked.full else 4, seed=asked.seed)
    heads = units_of(model, "heads")
    if asked.full:
        return ComponentValues(model, task, heads)
    n_layers = model.cfg.n_layers
    first = min(3 * n_layers // 4, max(n_layers - _LAYERS, 0))
    layers = range(first, first + _LAYERS)
    return ComponentValues(model, task, [head.name for head in heads if head.layer in layers])


@contextmanager
def shared(asked: Asked, values: ValueFunction) -> Iterator[RecordedValues]:
    """The value function with a store behind it that figures with neighbouring runs share.

    The store lies beside the folder of the figure's run and is named after what its values depend
    on. Without a run it is in memory, for as long as the block lasts.

    Args:
        asked: says where the figure's run is.
        values: the value function.
    """
    folder = None
    if asked.folder is not None:
        told = {k: v for k, v in values.configuration.items() if k not in IDENTITIES}
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
        folder = asked.folder.parent / f"masks-{values.n_units}-units-{digest}"
    recorded = RecordedValues(values, folder, progress=asked.progress)
    try:
        yield recorded
    finally:
        recorded.close()
