"""``mechspex explain --training``: which training examples act together."""

from __future__ import annotations

import runpy
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechspex.cli.output import refuse_picture, refuse_unwritable, writing
from mechspex.core.csv_tables import write_csv
from mechspex.core.errors import MechspexError, Refused

if TYPE_CHECKING:
    from mechspex.cli.experiment import Experiment
    from mechspex.cli.kept import Question

# What takes the place of a task, and options of the search that training examples have as well.
_PROMPTS = ("task", "prompts_from", "prompt", "text", "context")
_SHOWN = 20


def explain_training(experiment: Experiment, own: Mapping[str, Any]) -> None:
    """Explain a training task or the value function of a Python file, and print the answer.

    The answer about a ready task is kept, so that the same command again trains nothing. A file of
    the user's is run each time, as it may read others; what it has trained before is kept.

    Args:
        experiment: its ``training`` is the name of a task, or the file; options about models and
            prompts are not asked.
        own: the options of ``explain``.

    Raises:
        Refused: an unknown task, a file without a value function, or a task of prompts besides.
    """
    for name in _PROMPTS:
        if getattr(experiment, name) is not None:
            refused = getattr(experiment, name)
            raise Refused(f"--training takes the place of a task; leave out {refused}")
    if own["screen"] is not None:
        raise Refused("--screen needs gradients, which training examples do not have; leave it out")
    if experiment.minutes is not None:
        raise Refused("--minutes goes with a task or prompts; give --masks here")
    refuse_unwritable(experiment.csv, experiment.figure)
    refuse_picture(experiment.figure)
    experiment.check_run()
    from mechspex.cli.explain import exit_where_masks_failed
    from mechspex.cli.kept import EXPLAINED, Question

    question = Question.of(experiment, "training")
    explanation = question.answer(EXPLAINED)
    shown = None
    if explanation is None:
        explanation, shown = _searched(experiment, question, own)
    with writing():
        if experiment.csv is not None:
            write_csv(experiment.csv, explanation.to_pandas())
        if experiment.figure is not None:
            _draw(explanation, experiment, shown)
    experiment.show(explanation)
    exit_where_masks_failed([explanation])


def _searched(
    experiment: Experiment, question: Question, own: Mapping[str, Any]
) -> tuple[Any, Any]:
    """The explanation, kept as the answer to the question, and what the units are."""
    import mechspex as mx
    from mechspex.cli.explain import arguments
    from mechspex.cli.kept import EXPLAINED
    from mechspex.runs.run import run_folder

    assert experiment.training is not None
    values, held_out, texts, shown = _asked(experiment.training, experiment.seed)
    with experiment.kept(values, question.about) as run:
        explanation = mx.explain(
            values,
            held_out=held_out,
            run=run,
            progress=True,
            **arguments({**own, "seed": experiment.seed}),
        )
    noise = getattr(values, "seed_noise", None)
    if noise is not None:
        question.say(noise)
    if texts:
        columns = sorted({column for term in explanation.validation.terms for column in term})
        for column in columns[:_SHOWN]:
            question.say(f"{values.units.names[column]}: {texts[column]}")
    question.keep(run_folder(run), EXPLAINED)
    return explanation, shown


def _draw(explanation: Any, experiment: Experiment, shown: Any) -> None:
    """The gallery where units are images or texts, else the usual figure."""
    from mechspex.figures import gallery

    assert experiment.training is not None
    if shown is None and not experiment.training.endswith(".py"):
        shown = _asked(experiment.training, experiment.seed)[-1]
    drawn = gallery(explanation, shown) if shown is not None and len(shown) else explanation.plot()
    assert experiment.figure is not None
    drawn.savefig(experiment.figure, dpi=150)


def _asked(asked: str, seed: int) -> tuple[Any, Any, tuple[str, ...], Any]:
    """The value functions to search with and to test on, what the units say, and what they are."""
    if not asked.endswith(".py"):
        from mechspex.training.ready import training_task

        task = training_task(asked, seed=seed)
        return task.values(), task.held_out(), task.texts, task.shown
    file = Path(asked)
    if not file.is_file():
        raise Refused(f"--training {asked}: there is no such file")
    found = _run(file)
    if "values" not in found:
        raise Refused(
            f"{asked} has no `values`; let it say values = mechspex.TrainingValues(…), and "
            "held_out = values.on(…) where there are fresh targets"
        )
    from mechspex.core.value_function import as_value_function

    return as_value_function(found["values"]), found.get("held_out"), (), ()


def _run(file: Path) -> dict[str, Any]:
    """The names that a Python file of the user's makes.

    Raises:
        Refused: it stopped with an error, whose line is told.
    """
    try:
        return runpy.run_path(str(file), run_name=file.stem)
    except MechspexError:
        raise
    except Exception as error:
        lines = [
            at.lineno
            for at in traceback.extract_tb(error.__traceback__)
            if at.filename == str(file)
        ]
        line = lines[-1] if lines else getattr(error, "lineno", None)
        where = "" if line is None else f", line {line}"
        raise Refused(
            f"--training {file}{where}: {type(error).__name__}: {error}; mend the file"
        ) from error
