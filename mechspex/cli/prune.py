"""``mechspex prune``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mechspex.cli.asks import asks
from mechspex.cli.choices import Decoder
from mechspex.cli.experiment import Experiment
from mechspex.cli.kept import FRESH, PRUNED, Question
from mechspex.cli.output import ANSWER, MASKS
from mechspex.cli.workers import with_workers
from mechspex.core.checks import check_from
from mechspex.core.errors import Refused

_SHARES = (1 / 2, 2 / 3, 5 / 6)


@with_workers
@asks(ablation="zero")
def prune(
    experiment: Experiment,
    shares: Annotated[
        list[float] | None,
        typer.Option(
            "--share",
            help="Of the units, kept; may be given several times. 1/2, 2/3 and 5/6 if not given.",
            rich_help_panel=ANSWER,
        ),
    ] = None,
    decoder: Annotated[
        Decoder,
        typer.Option(
            help="Of the function by which units are chosen.",
            case_sensitive=False,
            rich_help_panel=ANSWER,
        ),
    ] = "kernel",
    n_masks: Annotated[
        int,
        typer.Option(
            "--masks",
            "--budget",
            help="Masks of each choice, at least 50.",
            rich_help_panel=MASKS,
        ),
    ] = 1000,
    n_random: Annotated[
        int,
        typer.Option("--random", help="Random subsets of each size.", rich_help_panel=MASKS),
    ] = 20,
) -> None:
    """Keep a share of the units, by the recovered function, and hold the choice against rivals.

    Four times as many fresh prompts score the choices.
    """
    check_from(50, n_masks=n_masks)
    check_from(2, random=n_random)
    for share in shares or ():
        if not 0 < share < 1:
            raise Refused(f"share = {share}: give a share of the units between 0 and 1")
    question = Question.of(experiment, f"{experiment.about}-prune")

    def search(run: str, values: Any, fresh: Any) -> Any:
        import mechspex as mx

        return mx.prune_heads(
            values,
            fresh,
            shares=shares or _SHARES,
            n_masks=n_masks,
            decoder=decoder,
            n_random=n_random,
            run=run,
            seed=experiment.seed,
            progress=True,
        )

    n_prompts = experiment.prompts
    pruning = question.answered(PRUNED, search, n_prompts, FRESH * n_prompts)
    experiment.write(pruning)
    experiment.show(pruning)
