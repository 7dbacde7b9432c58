"""How another process makes the same `PromptValues`: names, texts, and no object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mechspex.core.recipe import Recipe, import_path, imported
from mechspex.core.units import UnitSet
from mechspex.models.named import loaded, name_of
from mechspex.prompts.prompt_values import PromptValues
from mechspex.prompts.text_units import TextUnits


def recipe_of(values: PromptValues) -> Recipe:
    """The recipe of the parts of a prompt; responses that a model wrote are in it.

    Raises:
        Refused: a metric that cannot be imported.
    """
    asked, model = values._asked, values.model
    metric, units = asked.metric, asked.units
    named = None if model is None else name_of(model)
    given = {
        "model": named,
        "metric": metric if isinstance(metric, str) else [import_path(metric)],
        "context": {
            "units": units.to_list(),
            "text": units.text,
            "by": units.by,
            "turns": units.turns,
        },
        "options": {
            "question": None if asked.questions == (None,) else asked.questions,
            "response": values.responses or None,
            "distractor": asked.distractors,
            "ablation": asked.ablation
            if asked.replacement is None
            else [asked.ablation, asked.replacement],
            "spans": asked.spans,
            "chat": asked.prompts[0].template is not None,
            "prepend_bos": None if values._scored is None else values._scored.prepend_bos,
        },
    }
    return Recipe(import_path(_prompt_values), given, str(named))


def _prompt_values(
    model: Mapping[str, str] | None,
    metric: str | list[str],
    context: Mapping[str, Any],
    options: Mapping[str, Any],
) -> PromptValues:
    """Follows the recipe."""
    turns, spans = context["turns"], options["spans"]
    if spans is not None:
        # Places in a text, which JSON has as lists, are pairs again.
        options = {**options, "spans": [s if isinstance(s, str) else tuple(s) for s in spans]}
    units = TextUnits(
        UnitSet.from_list(context["units"]).units,
        context["text"],
        context["by"],
        None if turns is None else tuple((role, (begin, end)) for role, (begin, end) in turns),
    )
    return PromptValues(
        None if model is None else loaded(**model),
        units,
        metric=metric if isinstance(metric, str) else imported(metric[0]),
        **options,
    )
