"""``mechspex sweep``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mechspex.cli.asks import asks
from mechspex.cli.experiment import Experiment
from mechspex.cli.kept import SWEPT, Question
from mechspex.cli.output import MASKS
from mechspex.cli.texts import answers_about_texts, show_texts
from mechspex.cli.workers import with_workers
from mechspex.core.errors import FailedMasksError, Refused
from mechspex.core.units import names_in


@with_workers
@asks(texts=True)
def sweep(
    experiment: Experiment,
    order: Annotated[
        int,
        typer.Option(min=1, max=2, help="1: singles; 2: pairs as well.", rich_help_panel=MASKS),
    ] = 1,
    among: Annotated[
        str | None,
        typer.Option(
            help="Ablate only these units, keep the rest: L23H3,L24H4,…", rich_help_panel=MASKS
        ),
    ] = None,
) -> None:
    """Ablate every unit, or every pair, alone: what each costs, exactly.

    With --context the units are the parts of a text.
    """
    if experiment.within is not None:
        raise Refused("--within is a screen of a text, for explain; a sweep measures every unit")
    names = None if among is None else names_in(among)
    if names is not None and experiment.knows_units and not experiment.has_text:
        n_named = len({*experiment.chosen.columns(names)})
        if n_named < order:
            raise Refused(
                f"among has {n_named} units, a sweep of order {order} needs {order}; name more"
            )

    def search(run: str, values: Any) -> Any:
        import mechspex as mx

        return mx.sweep(values, order=order, among=names, run=run, progress=True)

    if experiment.has_text:
        answers = answers_about_texts(experiment, SWEPT, search, "-sweep")
        show_texts(experiment, answers)
    else:
        question = Question.of(experiment, f"{experiment.about}-sweep")
        answers = [question.answered(SWEPT, search, experiment.prompts)]
        experiment.write(answers[0])
        experiment.show(answers[0])
    if any(swept.failed.any() for swept in answers):
        raise typer.Exit(FailedMasksError.exit_code)
