"""``mechspex circuit``, ``compare`` and ``bench``: circuits found, and held against known ones."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from mechspex.cli.asks import asks
from mechspex.cli.choices import BenchAblation, KnownModel, Objective
from mechspex.cli.experiment import Experiment
from mechspex.cli.kept import DISCOVERED, FRESH, Question
from mechspex.cli.output import (
    ANSWER,
    EXPERIMENT,
    MASKS,
    OUTPUT,
    Json,
    print_answer,
    refuse_unwritable,
    writing,
)
from mechspex.cli.own_prompts import ALL_OWN
from mechspex.cli.workers import with_workers
from mechspex.core.checks import check_from, check_seed
from mechspex.core.counted import counted
from mechspex.core.errors import Refused


@with_workers
@asks()
def circuit(
    experiment: Experiment,
    size: Annotated[
        int | None,
        typer.Option(
            help="Of the circuit; the smallest that reaches --target.", rich_help_panel=ANSWER
        ),
    ] = None,
    target: Annotated[
        float,
        typer.Option(
            help="Faithfulness to reach on the prompts of the search.", rich_help_panel=ANSWER
        ),
    ] = 0.9,
    objective: Annotated[
        Objective,
        typer.Option(
            help="match: does what the whole model does; best: does as much as it can.",
            case_sensitive=False,
            rich_help_panel=ANSWER,
        ),
    ] = "match",
    n_masks: Annotated[
        int,
        typer.Option(
            "--masks",
            "--budget",
            help="Masks before climbing, which takes some hundreds.",
            rich_help_panel=MASKS,
        ),
    ] = 1000,
    certified: Annotated[
        bool,
        typer.Option(
            "--certify",
            help="Say what is sure of it; measures every unit once more on the fresh prompts.",
            rich_help_panel=ANSWER,
        ),
    ] = False,
    census: Annotated[
        bool,
        typer.Option(
            "--census",
            help="Certify it on prompts of your own that are all there are: none are held out.",
            rich_help_panel=ANSWER,
        ),
    ] = False,
    graphml: Annotated[
        Path | None,
        typer.Option(
            help="Write members and their pairs for Gephi or Cytoscape.", rich_help_panel=OUTPUT
        ),
    ] = None,
) -> None:
    """Find the few units that carry a task by themselves, and score them on fresh prompts.

    Four times as many fresh prompts score what is found; with --census all prompts do.
    """
    refuse_unwritable(graphml)
    _refuse_goal(experiment, size, target, objective, n_masks)
    if census and not experiment.has_own:
        raise Refused(
            "--census goes with prompts of your own (--prompts-from, --prompt): those of a task "
            "are drawn from more"
        )
    question = Question.of(experiment, f"{experiment.about}-circuit")

    def search(run: str, values: Any, fresh: Any = None) -> Any:
        import mechspex as mx

        if fresh is None:
            n_there = len(values.outputs)
            question.say(f"all {counted(n_there, 'prompt')} are searched, scored and certified")
        return mx.find_circuit(
            values,
            values.in_own_dtype if fresh is None else fresh,
            goal=mx.CircuitGoal(size, target, objective),
            n_masks=n_masks,
            certified="census" if census else certified,
            run=run,
            seed=experiment.seed,
            progress=True,
        )

    n_prompts = experiment.prompts
    parts = (ALL_OWN,) if census else (n_prompts, FRESH * n_prompts)
    found = question.answered(DISCOVERED, search, *parts)
    experiment.write(found)
    if graphml is not None:
        with writing():
            found.circuit.to_graphml(graphml)
    experiment.show(found)
    if not experiment.as_json:
        print(f"\nsaved in {question.run_folder}")


def _refuse_goal(
    experiment: Experiment, size: int | None, target: float, objective: str, n_masks: int
) -> None:
    """Refuse a circuit that cannot be, before a model is loaded; `mx.find_circuit` does it anew."""
    if n_masks < 50:
        raise Refused(f"n_masks = {n_masks}: give at least 50")
    if not 0 < target < (math.inf if objective == "best" else 1):
        raise Refused(f"target = {target}: give a faithfulness above 0, below 1 to match the model")
    if size is not None and experiment.knows_units:
        n_units = len(experiment.chosen)
        if not 1 <= size < n_units:
            raise Refused(f"size = {size}: choose from 1 to {n_units - 1} units")


def compare(
    found: Annotated[
        str, typer.Argument(help="A circuit: a file that was saved, or a run of mechspex circuit.")
    ],
    other: Annotated[
        str | None,
        typer.Argument(help="Likewise, taken as the truth; the published circuit if left out."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Hold a circuit against another one, or against the published one of its task and model."""
    one = _loaded(found)
    from mechspex.circuits.compare_circuits import compare_circuits

    held = compare_circuits(one, _published(one) if other is None else _loaded(other))
    print_answer(held.to_dict() if as_json else str(held), as_json)


def _loaded(named: str) -> Any:
    """A circuit from its file, or from the folder of a run."""
    path = circuit_file(named)
    from mechspex.circuits.circuit import Circuit

    return Circuit.load(path)


def circuit_file(named: str) -> Path:
    """The file that is named, or that of the run that is.

    Args:
        named: a file, or the name or the folder of a run of ``mechspex circuit``.

    Raises:
        Refused: the run holds no circuit.
        RunError: neither a file nor a run.
    """
    from mechspex.runs.run import CIRCUIT, folder_of

    path = Path(named)
    if not path.is_file() and path.suffix != ".json":
        path = folder_of(named) / CIRCUIT
        if not path.is_file():
            raise Refused(f"{path.parent} holds no circuit; run mechspex circuit first")
    return path


def _published(found: Any) -> Any:
    """The circuit that the task file has for the model in which `found` lies."""
    from mechspex.circuits.circuit import Circuit
    from mechspex.core.provenance import Provenance
    from mechspex.tasks.task_file import read_task_file, task_files

    provenance = Provenance.of(found.configuration)
    task, model = provenance.task or "", provenance.model or ""
    known = read_task_file(task).circuits if task in task_files() else {}
    # A fetched model has the beginning of its weights' digest in its name.
    plain_name = re.sub(r"-[0-9a-f]{8}$", "", model)
    roles = known.get(model) or known.get(plain_name)
    if roles is None:
        raise Refused(
            f"no circuit of {task or 'its task'!r} is published for {model or 'its model'!r} "
            f"({', '.join(known) or 'none'} has one); name the circuit to compare with"
        )
    return Circuit.published(roles, found.units)


def bench(
    models: Annotated[
        list[KnownModel] | None,
        typer.Argument(
            help="Models whose circuits are known; all of them if none is named.",
            show_choices=True,
        ),
    ] = None,
    ablations: Annotated[
        list[BenchAblation] | None,
        typer.Option(
            "--ablation",
            help="May be given several times.",
            case_sensitive=False,
            rich_help_panel=EXPERIMENT,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(help="Of masks, decoders and resampled prompts.", rich_help_panel=EXPERIMENT),
    ] = 0,
    n_masks: Annotated[
        list[int] | None,
        typer.Option(
            "--masks",
            "--budget",
            help="Masks for the decoders; may be given several times.",
            rich_help_panel=MASKS,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Score every decoder and screen on models whose circuits are known."""
    check_seed(seed)
    check_from(1, n_masks=min(n_masks or [1]))
    from mechspex.core.json_values import plain_rows
    from mechspex.experiments.bench import ABLATIONS, N_MASKS, summary
    from mechspex.experiments.bench import bench as run_bench

    scored = run_bench(
        [name.value for name in models] if models else None,
        ablations=[name.value for name in ablations] if ablations else ABLATIONS,
        n_masks=n_masks or N_MASKS,
        seed=seed,
        progress=True,
    )
    if as_json:
        print_answer({"schema": "mechspex.bench/1", "seed": seed, "rows": plain_rows(scored)}, True)
    else:
        table = summary(scored).rename(columns=lambda name: name.removeprefix("screen "))
        print_answer(table.to_string(index=False, float_format="{:.3f}".format, na_rep="—"), False)
