"""``mechspex explain``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mechspex.cli.choices import Decoder, Design, ScreenOrNone
from mechspex.cli.experiment import Experiment, asks
from mechspex.cli.kept import EXPLAINED, FRESH, Question
from mechspex.cli.output import ANSWER, MASKS, say_needed
from mechspex.cli.texts import explained_texts, show_texts
from mechspex.cli.training import Training
from mechspex.core.checks import (
    check_contexts,
    check_keep,
    check_level,
    check_max_order,
    check_target_r2,
)
from mechspex.core.errors import FailedMasksError

# With more units than these, random ablation alone finds little.
_MOST_UNSCREENED = 2_000
# More masks than any decoder needs but those that have a design of their own.
_AMPLE = 100


@asks(texts=True)
def explain(
    experiment: Experiment,
    keep: Annotated[
        float | None,
        typer.Option(
            help="Probability with which a unit is kept; 0.9, 0.5 in SPEX's design, less where "
            "up to 64 units meet few masks.",
            rich_help_panel=MASKS,
        ),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            help="Masks the decoder may use; 1000 without --target-r2.", rich_help_panel=MASKS
        ),
    ] = None,
    target_r2: Annotated[
        float | None,
        typer.Option(help="Stop once the held-out R² reaches this.", rich_help_panel=MASKS),
    ] = None,
    design: Annotated[
        Design | None,
        typer.Option(
            help="mixed: every second mask at 0.5; spex: masks that show sets of up to five units.",
            case_sensitive=False,
            rich_help_panel=MASKS,
        ),
    ] = None,
    adaptive: Annotated[
        bool,
        typer.Option(
            "--adaptive",
            help="Spend masks where the answer is least certain.",
            rich_help_panel=MASKS,
        ),
    ] = False,
    screen: Annotated[
        ScreenOrNone | None,
        typer.Option(
            help="Score all units by gradients (or by ablating groups) first, ablate only the "
            "strongest; second_order where there are more than 2,000 units.",
            case_sensitive=False,
            rich_help_panel=MASKS,
        ),
    ] = None,
    decoder: Annotated[
        Decoder,
        typer.Option(
            help="What recovers the terms from the masks.",
            case_sensitive=False,
            rich_help_panel=ANSWER,
        ),
    ] = "automatic",
    max_order: Annotated[
        int | None, typer.Option(help="The largest interaction wanted.", rich_help_panel=ANSWER)
    ] = None,
    level: Annotated[
        float, typer.Option(help="False discovery rate.", rich_help_panel=ANSWER)
    ] = 0.05,
    training: Training = None,
    contexts: Annotated[
        int,
        typer.Option(
            help="Measure what is confirmed in so many random masks of the others too.",
            rich_help_panel=ANSWER,
        ),
    ] = 0,
) -> None:
    """Find which units act alone and which act together, each confirmed by exact ablation.

    What is found is tested on as many fresh prompts, four times as many after a screen. With
    --context the units are the parts of a text.
    """
    options = {
        "budget": budget,
        "target_r2": target_r2,
        "keep": keep,
        "decoder": decoder,
        "design": design,
        "adaptive": adaptive,
        "level": level,
        "max_order": max_order,
        "contexts": contexts,
        "seed": experiment.seed,
    }
    _check(experiment, options)
    if experiment.has_text:
        asked = arguments(options) | {"screen": None if screen == "none" else screen}
        answers = explained_texts(experiment, asked)
        show_texts(experiment, answers)
        exit_where_masks_failed(answers)
        return
    question = Question.of(experiment, f"{experiment.units}-{experiment.ablation}")
    explanation = question.answer(EXPLAINED)
    if explanation is None:
        explanation = _searched(experiment, question, screen, options)
    experiment.write(explanation)
    experiment.show(explanation)
    exit_where_masks_failed([explanation])


def exit_where_masks_failed(explanations: list[Any]) -> None:
    """End with the exit code of failed masks, where there are any."""
    if any(one.recovery.n_failed or one.validation.failed.any() for one in explanations):
        raise typer.Exit(FailedMasksError.exit_code)


def _searched(
    experiment: Experiment, question: Question, screen: str | None, options: dict[str, Any]
) -> Any:
    """The explanation of the first prompts, tested on the others and kept as the answer."""
    method = _screen_method(screen, len(experiment.chosen))

    def search(run: str, values: Any, fresh: Any) -> Any:
        import mechspex as mx
        from mechspex.explanation.explain import MOST_TERMS

        say_needed(len(fresh.outputs), MOST_TERMS, options["level"])
        asked = arguments(options)
        return mx.explain(values, held_out=fresh, screen=method, run=run, progress=True, **asked)

    # A screen has many small effects tested: that takes more fresh prompts.
    n_fresh = experiment.prompts * (1 if method is None else FRESH)
    return question.searched(EXPLAINED, search, experiment.prompts, n_fresh)


def _check(experiment: Experiment, options: dict[str, Any]) -> None:
    """Refuse what `mx.explain` would refuse, before a model is loaded."""
    for name, check in (
        ("level", check_level),
        ("keep", check_keep),
        ("contexts", check_contexts),
        ("target_r2", check_target_r2),
        ("max_order", check_max_order),
    ):
        if options[name] is not None:
            check(options[name])
    spex = "spex" in (options["decoder"], options["design"])
    budget = _AMPLE if options["budget"] is None else options["budget"]
    known = experiment.is_shipped and not experiment.has_text
    if known and (spex or options["decoder"] == "exhaustive" or budget < _AMPLE):
        from mechspex.explanation.plan import Plan

        Plan.of(len(experiment.chosen), **arguments(options))


def arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """What `mx.explain` takes in place of the separate options of the shell."""
    from dataclasses import replace

    from mechspex.decoders import find_decoder
    from mechspex.explanation.designs import design_of
    from mechspex.explanation.plan import ExactTests

    decoder = options["decoder"]
    drawn = {name: options[name] for name in ("keep", "target_r2", "adaptive", "decoder")}
    design = design_of(options["design"], **drawn)
    if options["max_order"] is not None:
        decoder = replace(find_decoder(decoder), max_order=options["max_order"])
    tests = ExactTests(options["level"], options["contexts"])
    return {"design": design, "decoder": decoder, "tests": tests} | {
        name: options[name] for name in ("budget", "seed")
    }


def _screen_method(asked: str | None, n_units: int) -> Any:
    if asked is None:
        return "second_order" if n_units > _MOST_UNSCREENED else None
    return None if asked == "none" else asked
