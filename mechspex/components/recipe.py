"""How another process makes the same values of a model: names, texts, and no object."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from mechspex.components.component_values import ComponentValues
from mechspex.components.weight_values import WeightValues
from mechspex.core.backward_rules import BackwardRules
from mechspex.core.errors import Refused
from mechspex.core.recipe import Recipe, import_path, imported
from mechspex.core.units import UnitSet
from mechspex.models.dictionary import Dictionary
from mechspex.models.latent_units import LatentUnits
from mechspex.models.load_dictionary import load_dictionary
from mechspex.models.named import loaded, name_of
from mechspex.tasks.task import Task

# What of a task is no text: published circuits, which values do not depend on, and metrics.
_APART = ("circuits", "metric")


def recipe_of(values: ComponentValues) -> Recipe:
    """The recipe of ablated components.

    Raises:
        Refused: a metric that cannot be imported, a model that has no name, or a dictionary of
            latents that has no folder.
    """
    ablated, task, ablation = values._proved.ablated, values.task, values.ablation
    model = name_of(values.model)
    given = {
        "model": model,
        **_as_given(task),
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
    if isinstance(values.units, LatentUnits):
        given["dictionaries"] = [_place_of(one) for one in values.units.dictionaries.values()]
    return Recipe(import_path(_component_values), given, str(model))


def recipe_of_weights(values: WeightValues) -> Recipe:
    """The recipe of two models' weights.

    Raises:
        Refused: a metric that cannot be imported, or a model that has no name.
    """
    models = [name_of(model) for model in (values.before, values.after)]
    given = {"models": models, **_as_given(values.task)}
    return Recipe(import_path(_weight_values), given, str(models))


def _as_given(task: Task) -> dict[str, Any]:
    """The texts of a task, and its metric."""
    return {
        "task": {f.name: getattr(task, f.name) for f in fields(task) if f.name not in _APART},
        "metric": task.metric if isinstance(task.metric, str) else [import_path(task.metric)],
    }


def _place_of(dictionary: Dictionary) -> list[str]:
    """Where a dictionary lies, and the hook point of what it reads."""
    if dictionary.folder is None:
        raise Refused(
            f"the dictionary {dictionary.called} was made of tensors, and another process can only "
            "read one from a folder; save it, and take load_dictionary(folder)"
        )
    return [str(dictionary.folder), dictionary.reads]


def _component_values(
    model: Mapping[str, str],
    task: Mapping[str, Any],
    metric: str | list[str],
    units: list[list[Any]],
    ablation: str | Mapping[str, str],
    n_blocks: int | None,
    rules: Mapping[str, Any],
    options: Mapping[str, Any],
    dictionaries: Sequence[Sequence[str]] = (),
) -> ComponentValues:
    """Follows the recipe."""
    read = [load_dictionary(folder, hook) for folder, hook in dictionaries]
    listed = UnitSet.from_list(units)
    values = ComponentValues(
        loaded(**model),
        _task(task, metric),
        LatentUnits(listed.units, {one.called: one for one in read}) if read else listed,
        ablation if isinstance(ablation, str) else load(base64.b64decode(ablation["tensors"])),
        **options,
    )
    values = values if n_blocks is None else values.early_exit(n_blocks)
    return values.with_backward(BackwardRules(**rules))


def _weight_values(
    models: Sequence[Mapping[str, str]], task: Mapping[str, Any], metric: str | list[str]
) -> WeightValues:
    """Follows the recipe of two models' weights."""
    before, after = (loaded(**model) for model in models)
    return WeightValues(before, after, _task(task, metric))


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
