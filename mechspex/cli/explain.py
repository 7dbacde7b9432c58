"""``mechspex explain``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from math import isfinite
from typing import Annotated, Any

import typer

from mechspex.cli.asks import asks
from mechspex.cli.choices import Decoder, Design, ScreenOrNone
from mechspex.cli.experiment import Experiment
from mechspex.cli.kept import EXPLAINED, FRESH, Question
from mechspex.cli.output import ANSWER, MASKS, Level, say_needed
from mechspex.cli.pictures import show_pictures
from mechspex.cli.texts import answers_about_texts, show_texts
from mechspex.cli.workers import with_workers
from mechspex.core.checks import (
    check_contexts,
    check_keep,
    check_level,
    check_max_order,
    check_target_r2,
)
from mechspex.core.errors import FailedMasksError, Refused, TaskError

# With more units than these, random ablation alone finds little.
_MOST_UNSCREENED = 2_000
# Where nothing bounds a search it stops at this held-out R², or with so many masks.
_TARGET_R2, _MOST_MASKS = 0.95, 1_000
# More masks than any decoder needs but those that have a design of their own.
_AMPLE = 100


@with_workers
@asks(texts=True, searches=True)
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
    n_masks: Annotated[
        int | None,
        typer.Option(
            "--masks",
            "--budget",
            help="Masks to learn from; if not given up to 1000, as --target-r2 needs them.",
            rich_help_panel=MASKS,
        ),
    ] = None,
    target_r2: Annotated[
        float | None,
        typer.Option(
            help="Stop once the held-out R² reaches this; 0.95 without --masks and --minutes.",
            rich_help_panel=MASKS,
        ),
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
    level: Level = 0.05,
    contexts: Annotated[
        int,
        typer.Option(
            help="Measure what is confirmed in so many random masks of the others too.",
            rich_help_panel=ANSWER,
        ),
    ] = 0,
) -> None:
    """Find which units act alone and which act together, each confirmed by exact ablation.

    Masks are measured in rounds, from 250 up to 1,000, until the answer predicts fresh ones.
    What is found is tested on four times as many fresh prompts, or as many with --masks. With
    --context the units are the parts of a text.
    """
    options = {
        "n_masks": n_masks,
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
    if experiment.within is not None and screen is not None:
        raise Refused("--within is a screen of a text: it goes without --screen")
    if experiment.has_text:
        asked: dict[str, Any] = arguments(options)
        asked["screen"] = None if screen == "none" else screen

        def search(run: str, values: Any) -> Any:
            import mechspex as mx

            if experiment.within is not None:
                asked["screen"] = values.parted(experiment.within)
            return mx.explain(values, run=run, progress=True, **asked)

        answers = answers_about_texts(experiment, EXPLAINED, search)
        show_texts(experiment, answers)
        exit_where_masks_failed(answers)
        return
    question = Question.of(experiment, experiment.about)
    explanation = question.answer(EXPLAINED)
    if explanation is None:
        explanation = _searched(experiment, question, screen, options)
    experiment.write(explanation)
    experiment.show(explanation)
    if not experiment.as_json and question.run_folder is not None:
        show_pictures(explanation, question.run_folder)
    exit_where_masks_failed([explanation])


def exit_where_masks_failed(explanations: list[Any]) -> None:
    """End with the exit code of failed masks, where there are any."""
    if any(one.recovery.n_failed or one.validation.failed.any() for one in explanations):
        raise typer.Exit(FailedMasksError.exit_code)


def _searched(
    experiment: Experiment, question: Question, screen: str | None, options: dict[str, Any]
) -> Any:
    """The explanation of the first prompts, tested on the others and kept as the answer."""
    method = _screen_method(screen, experiment.most_units)
    if experiment.minutes is not None and method is not None:
        raise Refused("--minutes does not know how long a screen takes; give --masks")
    in_one_go = options["n_masks"] is not None
    bounded = experiment.minutes or any(
        options[name] for name in ("n_masks", "target_r2", "adaptive")
    )
    spex = "spex" in (options["decoder"], options["design"])
    if method is None and not (bounded or spex or options["decoder"] == "exhaustive"):
        options = options | {"target_r2": _TARGET_R2, "n_masks": _MOST_MASKS}

    def search(run: str, values: Any, fresh: Any) -> Any:
        import mechspex as mx
        from mechspex.explanation.explain import MOST_TERMS

        say_needed(len(fresh.outputs), MOST_TERMS, options["level"])
        asked = arguments(options)
        if experiment.minutes is not None:
            asked["n_masks"] = _masks_in(experiment.minutes, values, len(fresh.outputs), run, asked)
        return mx.explain(values, held_out=fresh, screen=method, run=run, progress=True, **asked)

    # A screen has many small effects tested: that takes more fresh prompts.
    n_fresh = experiment.prompts * (1 if method is None else FRESH)
    # With a number of masks alone they are as many as ever, so that kept runs answer.
    if not in_one_go and method is None:
        n_fresh = _n_fresh(experiment)
    return question.searched(EXPLAINED, search, experiment.prompts, n_fresh)


def _n_fresh(experiment: Experiment) -> int:
    """Four times as many prompts as are searched, where there are so many.

    Of the 20 interactions of IOI that 250 masks name 8 prompts confirm 6, and 32 confirm 12 and
    show 6 more to be small.
    """
    searched = experiment.prompts
    if experiment.task is None:
        there = len(experiment.task_drawn(searched))
        return min(FRESH * searched, max(searched, there - searched))
    for times in range(FRESH, 1, -1):
        with suppress(TaskError):
            experiment.task_drawn((1 + times) * searched)
            return times * searched
    return searched


def _masks_in(minutes: float, values: Any, n_fresh: int, run: str, asked: dict[str, Any]) -> int:
    """How many masks so many minutes allow."""
    from mechspex.explanation.plan import Plan
    from mechspex.explanation.timing import masks_in
    from mechspex.runs.run import Run

    with Run.open(run, progress=True) as opened:
        plan = Plan.of(values.n_units, **asked)
        return masks_in(minutes, values, n_fresh, plan, opened)


def _check(experiment: Experiment, options: dict[str, Any]) -> None:
    """Refuse what `mx.explain` would refuse, before a model is loaded."""
    minutes = experiment.minutes
    if minutes is not None:
        if not (minutes > 0 and isfinite(minutes)):
            raise Refused(f"--minutes {minutes:g}: give a number above 0")
        if options["n_masks"] is not None:
            raise Refused("--minutes and --masks are given; choose one")
        if experiment.has_text:
            raise Refused("--minutes goes with a task or prompts; give --masks with a text")
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
    n_masks = _AMPLE if options["n_masks"] is None else options["n_masks"]
    known = experiment.knows_units and not experiment.has_text
    if known and (spex or options["decoder"] == "exhaustive" or n_masks < _AMPLE):
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
        name: options[name] for name in ("n_masks", "seed")
    }


def _screen_method(asked: str | None, n_units: int) -> Any:
    if asked is None:
        return "second_order" if n_units > _MOST_UNSCREENED else None
    return None if asked == "none" else asked
