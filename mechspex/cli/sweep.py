"""``mechspex sweep``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mechspex.cli.asks import asks
from mechspex.cli.experiment import Experiment
from mechspex.cli.kept import SWEPT, Question
from mechspex.cli.output import MASKS, Contexts
from mechspex.cli.texts import answers_about_texts, show_texts
from mechspex.cli.workers import with_workers
from mechspex.core.checks import check_contexts, check_keep
from mechspex.core.errors import FailedMasksError, Refused
from mechspex.core.units import names_in

# Masks in which effects at a density are measured, where none is said.
CONTEXTS = 8


def around_of(contexts: int, keep: float | None, seed: int) -> dict[str, Any]:
    """What `mx.sweep` takes of the masks of the other units; nothing where it keeps them all.

    Args:
        contexts: how many masks.
        keep: their density; that of `mx.sweep` if not given.
        seed: what they are drawn by.
    """
    if not contexts:
        return {}
    return {"contexts": contexts, "keep": 0.9 if keep is None else keep, "seed": seed}


def about_sweep(about: str, around: dict[str, Any]) -> str:
    """A sweep in short, as in the name of its run: each density and each draw has one of its own.

    Args:
        about: what is ablated, and how.
        around: what `around_of` returned.
    """
    drawn = f"-keep{around['keep']}-seed{around['seed']}" if around else ""
    return f"{about}-sweep{drawn}"


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
    contexts: Contexts = 0,
    keep: Annotated[
        float | None,
        typer.Option(
            help="The probability with which these masks keep a unit.", rich_help_panel=MASKS
        ),
    ] = None,
) -> None:
    """Ablate every unit, or every pair, alone: what each costs, exactly.

    With --contexts 8 --keep 0.5 among others of which each is kept with that probability.
    With --context the units are the parts of a text.
    """
    if experiment.within is not None:
        raise Refused("--within is a screen of a text, for explain; a sweep measures every unit")
    check_contexts(contexts)
    if keep is not None:
        check_keep(keep)
        if not contexts:
            raise Refused(f"--keep {keep:g} is the density of contexts: add --contexts {CONTEXTS}")
    around = around_of(contexts, keep, experiment.seed)
    names = None if among is None else names_in(among)
    if names is not None and experiment.knows_units and not experiment.has_text:
        n_named = len({*experiment.chosen.columns(names)})
        if n_named < order:
            raise Refused(
                f"among has {n_named} units, a sweep of order {order} needs {order}; name more"
            )

    def search(run: str, values: Any) -> Any:
        import mechspex as mx

        return mx.sweep(values, order=order, among=names, run=run, progress=True, **around)

    if experiment.has_text:
        answers = answers_about_texts(experiment, SWEPT, search, about_sweep("", around))
        show_texts(experiment, answers)
    else:
        question = Question.of(experiment, about_sweep(experiment.about, around))
        answers = [question.answered(SWEPT, search, experiment.prompts)]
        experiment.write(answers[0])
        experiment.show(answers[0])
    if any(swept.failed.any() for swept in answers):
        raise typer.Exit(FailedMasksError.exit_code)
