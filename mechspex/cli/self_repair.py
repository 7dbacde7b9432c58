"""``mechspex self-repair``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mechspex.cli.asks import asks
from mechspex.cli.choices import RepairSource
from mechspex.cli.experiment import Experiment
from mechspex.cli.kept import FRESH, REPAIRED, Question
from mechspex.cli.output import MASKS, Level, say_needed
from mechspex.cli.workers import with_workers
from mechspex.core.checks import check_from, check_level


@with_workers
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
    level: Level = 0.05,
) -> None:
    """Find which units make up for which when these are ablated, each confirmed exactly.

    Four times as many fresh prompts test what is proposed.
    """
    check_from(1, most=most)
    check_level(level)
    question = Question.of(experiment, f"{experiment.about}-self-repair")

    def search(run: str, values: Any, fresh: Any) -> Any:
        import mechspex as mx
        from mechspex.runs.run import run_folder

        say_needed(len(fresh.outputs), most, level)
        below = run_folder(run) / "proposed"
        proposed: Any
        if source == "sweep":
            proposed = mx.sweep(values, order=2, run=below, progress=True)
        else:
            proposed = mx.screen(values, source, run=below, seed=experiment.seed, progress=True)
        return mx.self_repair(proposed, fresh, most=most, level=level, run=run, progress=True)

    n_prompts = experiment.prompts
    repair = question.answered(REPAIRED, search, n_prompts, FRESH * n_prompts)
    experiment.write(repair)
    experiment.show(repair)
