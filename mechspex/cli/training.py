"""``mechspex explain --training``: which training examples act together."""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mechspex.cli.output import print_answer, refuse_picture, refuse_unwritable, writing
from mechspex.core.errors import Refused

# What takes the place of a task, and options of the search that training examples have as well.
_PROMPTS = ("task", "prompts_from", "prompt", "text", "context")
_SHOWN = 20


def explain_training(chosen: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Explain a training task or the value function of a Python file, and print the answer.

    Args:
        chosen: the options of an experiment: ``training`` is the name of a task, or the file; those
            about models and prompts are not asked.
        own: the options of ``explain``.

    Raises:
        Refused: an unknown task, a file without a value function, or a task of prompts besides.
    """
    for name in _PROMPTS:
        if chosen.get(name) is not None:
            raise Refused(f"--training takes the place of a task; leave out {chosen[name]}")
    if own["screen"] is not None:
        raise Refused("--screen needs gradients, which training examples do not have; leave it out")
    if chosen["minutes"] is not None:
        raise Refused("--minutes goes with a task or prompts; give a --budget here")
    refuse_unwritable(chosen["csv"], chosen["figure"])
    refuse_picture(chosen["figure"])
    import mechspex as mx
    from mechspex.cli.explain import arguments, exit_where_masks_failed
    from mechspex.cli.run_names import run_name

    name, values, held_out, texts = _asked(chosen["training"], chosen["seed"])
    options = {**own, "seed": chosen["seed"]}
    explanation = mx.explain(
        values,
        held_out=held_out,
        run=chosen["run"] or run_name(f"training-{name}", values.configuration),
        progress=True,
        **arguments(options),
    )
    with writing():
        if chosen["csv"] is not None:
            explanation.to_pandas().to_csv(chosen["csv"], index=False)
        if chosen["figure"] is not None:
            explanation.plot().savefig(chosen["figure"], dpi=150)
    as_json = chosen["as_json"]
    print_answer(explanation.to_dict() if as_json else str(explanation), as_json)
    if texts and not as_json:
        columns = {column for term in explanation.validation.terms for column in term}
        lines = [f"{values.units.names[column]}: {texts[column]}" for column in sorted(columns)]
        print("\n".join(["", *lines[:_SHOWN], *["…"][: len(lines) > _SHOWN]]))
    exit_where_masks_failed([explanation])


def _asked(asked: str, seed: int) -> tuple[str, Any, Any, tuple[str, ...]]:
    """The name, the value functions to search with and to test on, and what the units say."""
    if not asked.endswith(".py"):
        from mechspex.training.ready import training_task

        task = training_task(asked, seed=seed)
        return task.name, task.values(), task.held_out(), task.texts
    file = Path(asked)
    if not file.is_file():
        raise Refused(f"--training {asked}: there is no such file")
    found = runpy.run_path(asked, run_name=file.stem)
    if "values" not in found:
        raise Refused(
            f"{asked} has no `values`; let it say values = mechspex.TrainingValues(…), and "
            "held_out = values.on(…) where there are fresh targets"
        )
    return file.stem, found["values"], found.get("held_out"), ()
