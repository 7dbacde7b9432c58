"""``mechspex screen`` proposes sets of units, ``mechspex validate`` measures them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Any

import typer

from mechspex.cli.asks import asks
from mechspex.cli.choices import Screen
from mechspex.cli.experiment import Experiment
from mechspex.cli.kept import SCREENED, TESTED, Question
from mechspex.cli.output import ANSWER, EXPERIMENT, MASKS, Contexts, Level, say_needed
from mechspex.cli.workers import with_workers
from mechspex.core.checks import check_contexts, check_from, check_level
from mechspex.core.errors import FailedMasksError, Refused
from mechspex.core.kinds import as_named, kind_of_name, listed_kinds
from mechspex.core.units import names_in

# How a latent is called, wherever it is ablated.
_LATENT = re.compile(r"\.latent(\d+)(?:@|$)")


@with_workers
@asks(without={"precision"}, units="neurons")
def screen(
    experiment: Experiment,
    method: Annotated[
        Screen,
        typer.Option(
            help="By gradients: single units, or sets of two and more; or by ablating groups, "
            "from whole layers down.",
            case_sensitive=False,
            rich_help_panel=MASKS,
        ),
    ] = "second_order",
    masks: Annotated[
        int, typer.Option(help="How many masks ablation may measure.", rich_help_panel=MASKS)
    ] = 1000,
    early_exit: Annotated[
        int | None,
        typer.Option(
            help="Screen the first so many blocks alone; how that agrees is printed.",
            rich_help_panel=MASKS,
        ),
    ] = None,
    terms: Annotated[
        int, typer.Option(help="Sets of each order that are proposed.", rich_help_panel=ANSWER)
    ] = 200,
    max_order: Annotated[
        int, typer.Option(help="The largest sets of second_order.", rich_help_panel=ANSWER)
    ] = 2,
) -> None:
    """Score all units and pairs cheaply; what is proposed here is not yet measured."""
    check_from(1, n_terms=terms, n_masks=masks)
    check_from(2, max_order=max_order)
    question = Question.of(experiment, f"{experiment.about}-screen")
    found = question.answer(SCREENED)
    if found is None:
        import mechspex as mx

        chosen = {
            "second_order": mx.SecondOrder(max_order=max_order),
            "ablation": mx.CoarseToFine(n_masks=masks),
        }.get(method, method)
        found = _proposed(experiment, question, chosen, terms, early_exit)
    experiment.write(found)
    experiment.show(found)


def _proposed(
    experiment: Experiment, question: Question, method: Any, n_terms: int, early_exit: int | None
) -> Any:
    """Candidates of the model, or of its first blocks; kept as the answer."""
    import mechspex as mx
    from mechspex.runs.run import run_folder

    (whole,) = experiment.values(experiment.prompts)
    values = whole if early_exit is None else whole.early_exit(early_exit)
    seed = experiment.seed
    with experiment.kept(values, question.about) as name:
        found = mx.screen(values, method, n_terms=n_terms, run=name, seed=seed, progress=True)
    if values is not whole:
        question.say(f"the proxy agrees with the model {mx.agreement(found, whole)}")
    question.keep(run_folder(name), SCREENED)
    return found


@with_workers
@asks(without={"precision", "units"}, sets="sets", prompts=32, seed=1)
def validate(
    experiment: Experiment,
    sets: Annotated[
        list[str] | None,
        typer.Argument(help="Sets of units, L23H3,L24H4; or a CSV file of mechspex screen."),
    ] = None,
    dictionary: Annotated[
        str | None,
        typer.Option(
            help="Whose latents are among the sets: smollm2-135m-l15, FOLDER or FOLDER@HOOK.",
            rich_help_panel=EXPERIMENT,
        ),
    ] = None,
    level: Level = 0.05,
    contexts: Contexts = 0,
) -> None:
    """Measure sets of units exactly, by ablating every part of each of them.

    The prompts are to be others than those of the screen: so is the seed.
    """
    check_level(level)
    check_contexts(contexts)
    if not sets:
        raise Refused("name sets of units to measure: L23H3,L24H4; or a CSV file of screen")
    terms = _sets(sets)
    # The sets themselves are asked about, not the name of a file that holds them now.
    asked = {**experiment.asked, "sets": terms}
    experiment = replace(experiment, units=_units(terms, dictionary), asked=asked)
    experiment.check()
    if experiment.knows_units:
        experiment.chosen.columns(name for term in terms for name in term)
    question = Question.of(experiment, f"sets-{experiment.ablation}-validate")

    def search(run: str, values: Any) -> Any:
        import mechspex as mx

        # An unknown name is refused before there is a folder.
        values.units.columns(name for term in terms for name in term)
        say_needed(len(values.outputs), len(terms), level)
        options = {"contexts": contexts, "seed": experiment.seed}
        return mx.validate(values, terms, level=level, run=run, progress=True, **options)

    tested = question.answered(TESTED, search, experiment.prompts)
    experiment.write(tested)
    experiment.show(tested)
    if tested.failed.any():
        raise typer.Exit(FailedMasksError.exit_code)


def _sets(given: list[str]) -> list[tuple[str, ...]]:
    """Sets of units by name, from the command line or from the CSV file of a screen."""
    import csv

    if len(given) == 1 and given[0].endswith(".csv"):
        try:
            with open(given[0], newline="") as file:
                rows = [names_in(row["units"]) for row in csv.DictReader(file)]
        except (OSError, KeyError, ValueError, TypeError, AttributeError, csv.Error) as error:
            raise Refused(f"{given[0]} is no CSV file of mechspex screen ({error!r})") from None
        return rows
    return [names_in(names) for names in given]


def _units(terms: list[tuple[str, ...]], dictionary: str | None) -> str:
    """The kinds of units that the sets name, at their places, and the latents; heads if none."""
    named = {as_named(name) for term in terms for name in term}
    latents = {int(found[1]): name for name in named if (found := _LATENT.search(name))}
    if dictionary is None and latents:
        raise Refused(
            f"{min(latents.values())} is a latent; name its dictionary, as --dictionary "
            "smollm2-135m-l15 or --dictionary FOLDER"
        )
    # Only kinds that are named: a mixture of experts has no neurons, and refuses.
    kinds = {(kind_of_name(name), name.partition("@")[2]) for name in named}
    asked = [
        "@".join(filter(None, (kind.asked_for, place)))
        for kind in listed_kinds()
        for place in sorted(place for of, place in kinds if of == kind.kind)
    ]
    if dictionary is not None:
        folder, *places = dictionary.split("@")
        # One of them comes with the error term, where that alone is named.
        numbers = ",".join(map(str, sorted(latents) or [0]))
        asked.append("@".join([f"latents:{folder}:{numbers}", *places]))
    return "+".join(asked) or "heads"
