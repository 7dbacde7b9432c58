"""``mechspex compare-models``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mechspex.cli.asks import asks
from mechspex.cli.choices import Decoder
from mechspex.cli.experiment import Experiment
from mechspex.cli.output import MASKS, Level, NamedTask, to_stderr
from mechspex.cli.run_names import keep_options, run_name
from mechspex.cli.workers import with_workers
from mechspex.core.checks import check_from, check_level


@with_workers
@asks(
    without=("model", "task", "precision", "calibration"),
    named=(("before", "model"), ("task", "task")),
    silences={"weights": ("units", "layers", "ablation")},
)
def compare_models(
    experiment: Experiment,
    before: Annotated[
        str, typer.Argument(help="A model: tiny, smollm2-135m, a local folder or a Hub name.")
    ],
    after: Annotated[
        str, typer.Argument(help="The other one, such as the same fine-tuned or quantised.")
    ],
    task: NamedTask = None,
    decoder: Annotated[
        Decoder,
        typer.Option(
            help="Of the difference of values.", case_sensitive=False, rich_help_panel=MASKS
        ),
    ] = "automatic",
    n_masks: Annotated[
        int,
        typer.Option(
            "--masks",
            "--budget",
            help="Random masks on which the difference is decoded, at least 50.",
            rich_help_panel=MASKS,
        ),
    ] = 500,
    level: Level = 0.05,
    weights: Annotated[
        bool,
        typer.Option(
            "--weights",
            help="Ask whose weights make the change: attentions and MLPs of AFTER get those of "
            "BEFORE; without --units, --layers and --ablation.",
        ),
    ] = False,
) -> None:
    """Find which units and which interactions act otherwise in one model than in another.

    As many fresh prompts as are searched test every unit and what the search proposes.
    """
    from mechspex.models.shipped import check_model_name

    check_from(50, n_masks=n_masks)
    check_level(level)
    check_model_name(after)
    prompts = experiment.task_drawn(2 * experiment.prompts, to_stderr)
    to_stderr(f"loading {before} and {after} and proving their ablations exact …")
    import torch

    import mechspex as mx

    other = mx.load_model(after, dtype=getattr(torch, experiment.dtype), device=experiment.device)
    kind = "weights" if weights else f"{experiment.about}-models"
    about = f"{experiment.task_name}-{kind}"
    run = experiment.run or run_name(about, {k: str(v) for k, v in experiment.asked.items()})
    options: dict[str, Any] = {
        "n_masks": n_masks,
        "decoder": decoder,
        "run": run,
        "seed": experiment.seed,
        "progress": True,
    }
    if weights:
        half = len(prompts) // 2
        searched, fresh = prompts.split(half, len(prompts) - half)
        values = mx.WeightValues(experiment.bridge, other, searched)
        tests = mx.ExactTests(level=level)
        found = mx.explain(values, held_out=values.on(fresh), tests=tests, **options)
    else:
        units = experiment.units
        if experiment.dictionaries or experiment.layers is not None:
            units = experiment.chosen_on(prompts[: len(prompts) // 2])
        found = mx.compare_models(
            experiment.bridge, other, prompts, units, experiment.ablation, level=level, **options
        )
    keep_options(run, experiment.task_name, experiment)
    experiment.write(found)
    experiment.show(found)
