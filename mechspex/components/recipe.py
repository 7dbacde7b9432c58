"""How another process makes the same `ComponentValues`: names, texts, and no object."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from mechspex.components.component_values import ComponentValues
from mechspex.core.backward_rules import BackwardRules
from mechspex.core.recipe import Recipe, import_path, imported
from mechspex.core.units import UnitSet
from mechspex.models.named import loaded, name_of
from mechspex.tasks.task import Task

# What of a task is no text: published circuits, which values do not depend on, and metrics.
_APART = ("circuits", "metric")


def recipe_of(values: ComponentValues) -> Recipe:
    """The recipe of ablated components.

    Raises:
        Refused: a metric that cannot be imported, or a model that has no name.
    """
    ablated, task, ablation = values._proved.ablated, values.task, values.ablation
    model = name_of(values.model)
    given = {
        "model": model,
        "task": {f.name: getattr(task, f.name) for f in fields(task) if f.name not in _APART},
        "metric": task.metric if isinstance(task.metric, str) else [import_path(task.metric)],
        "units": values.units.to_list(),
        "ablation": ablation if isinstance(ablation, str) else _as_text(ablation),
        "n_blocks": values.n_blocks,
        "rules": asdict(values._proved.rules),
        "options": {
            "rescale": ablated.rescale,
            "precision": values.precision,
            "seed": ablated.seed,
            "calibration": ablated.calibration,
        },
    }
    return Recipe(import_path(_component_values), given, str(model))


def _component_values(
    model: Mapping[str, str],
    task: Mapping[str, Any],
    metric: str | list[str],
    units: list[list[Any]],
    ablation: str | Mapping[str, str],
    n_blocks: int | None,
    rules: Mapping[str, Any],
    options: Mapping[str, Any],
) -> ComponentValues:
    """Follows the recipe."""
    values = ComponentValues(
        loaded(**model),
        _task(task, metric),
        UnitSet.from_list(units),
        ablation if isinstance(ablation, str) else load(base64.b64decode(ablation["tensors"])),
        **options,
    )
    values = values if n_blocks is None else values.early_exit(n_blocks)
    return values.with_backward(BackwardRules(**rules))


def _task(texts: Mapping[str, Any], metric: str | list[str]) -> Task:
    """The task; places in a text, which JSON has as lists, are pairs again."""
    pairs = {
        name: [
            {key: piece if isinstance(piece, str) else tuple(piece) for key, piece in one.items()}
            for one in texts[name]
        ]
        for name in ("spans", "corrupted_spans")
        if texts[name] is not None
    }
    named = metric if isinstance(metric, str) else imported(metric[0])
    return Task(**{**texts, **pairs, "metric": named})


def _as_text(ablation: Mapping[str, Tensor]) -> dict[str, str]:
    whole = {hook: activations.contiguous() for hook, activations in ablation.items()}
    return {"tensors": base64.b64encode(save(whole)).decode()}
