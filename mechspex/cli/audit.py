"""``mechspex audit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mechspex.cli.asks import asks
from mechspex.cli.circuits import circuit_file
from mechspex.cli.experiment import Experiment
from mechspex.cli.output import MASKS, Level, NamedTask, to_stderr
from mechspex.cli.run_names import keep_options, run_name
from mechspex.cli.workers import with_workers
from mechspex.core.checks import check_from, check_level
from mechspex.core.errors import Refused


@with_workers
@asks(
    without=("task", "units", "layers", "precision", "calibration"),
    named=(("task", "task"),),
    prompts=32,
)
def audit(
    experiment: Experiment,
    file: Annotated[
        str,
        typer.Argument(
            help="A circuit: a run of mechspex circuit or its file, JSON of MIB or EAP-IG, or an "
            "attribution graph of heads and MLPs."
        ),
    ],
    task: NamedTask = None,
    n_others: Annotated[
        int,
        typer.Option(
            "--others",
            help="Units outside the circuit that are put in, largest gradients first.",
            rich_help_panel=MASKS,
        ),
    ] = 50,
    level: Level = 0.05,
) -> None:
    """Test a circuit of any tool exactly: what holds, what is missing, which AND and OR it hides.

    Take another --seed than the one whose prompts found the circuit.
    """
    check_from(0, n_others=n_others)
    check_level(level)
    path = circuit_file(file)
    if not path.is_file():
        raise Refused(
            f"{file} is no file; name the JSON of a circuit, or a run of mechspex circuit"
        )
    prompts = experiment.task_drawn(experiment.prompts, to_stderr)
    to_stderr(f"loading {experiment.model} and proving its ablations exact …")
    import mechspex as mx

    about = f"{experiment.task_name}-{Path(file).stem}-{experiment.ablation}-audit"
    run = experiment.run or run_name(about, {k: str(v) for k, v in experiment.asked.items()})
    found = mx.audit(
        experiment.bridge,
        prompts,
        path,
        experiment.ablation,
        n_others=n_others,
        level=level,
        run=run,
        seed=experiment.seed,
        progress=True,
    )
    keep_options(run, experiment.task_name, experiment)
    experiment.write(found)
    experiment.show(found)
