"""``mechspex self-repair``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mechspex.cli.choices import RepairSource
from mechspex.cli.experiment import Experiment, asks
from mechspex.cli.kept import REPAIRED, Question
from mechspex.cli.output import ANSWER, MASKS
from mechspex.core.checks import check_from, check_level

# Times as many fresh prompts test what is proposed on the first ones.
_FRESH = 4


@asks(ablation="zero")
def self_repair(
    experiment: Experiment,
    source: Annotated[
        RepairSource,
        typer.Option(
            help="What proposes the pairs: gradients (second_order), or the exact sweep of all "
            "pairs, which takes n² / 2 masks.",
            case_sensitive=False,
            rich_help_panel=MASKS,
        ),
    ] = "second_order",
    most: Annotated[
        int, typer.Option(help="Pairs that are measured, at most.", rich_help_panel=MASKS)
    ] = 50,
    level: Annotated[
        float, typer.Option(help="False discovery rate.", rich_help_panel=ANSWER)
    ] = 0.05,
) -> None:
    """Find which units make up for which when these are ablated, each confirmed exactly.

    Four times as many fresh prompts test what is proposed.
    """
    check_from(1, most=most)
    check_level(level)
    question = Question.of(experiment, f"{experiment.units}-{experiment.ablation}-self-repair")
    repair = question.answer(REPAIRED)
    if repair is None:
        repair = _measured(experiment, question, source, most, level)
    experiment.write(repair)
    experiment.show(repair)


def _measured(
    experiment: Experiment, question: Question, source: RepairSource, most: int, level: float
) -> Any:
    """Pairs proposed on the first prompts and measured on the others, kept as the answer."""
    import mechspex as mx
    from mechspex.runs.run import run_folder

    n_prompts = experiment.prompts
    values, fresh = experiment.values(n_prompts, _FRESH * n_prompts, say=question.say)
    with experiment.kept(values, question.about) as name:
        below = run_folder(name) / "proposed"
        proposed: Any
        if source == "sweep":
            proposed = mx.sweep(values, order=2, run=below, progress=True)
        else:
            proposed = mx.screen(values, source, run=below, seed=experiment.seed, progress=True)
        repair = mx.self_repair(proposed, fresh, most=most, level=level, run=name, progress=True)
    question.keep(run_folder(name), REPAIRED)
    return repair
