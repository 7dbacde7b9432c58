"""``mechspex circuit``, ``compare`` and ``bench``: circuits found, and held against known ones."""

from __future__ import annotations

import re
import sys
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mechspex.cli.experiment import (
    Ablation,
    Device,
    Dtype,
    Json,
    ModelName,
    Precision,
    Question,
    RunName,
    Seed,
    TaskName,
    UnitNames,
    print_answer,
    refuse_unwritable,
    writing,
)
from mechspex.errors import AblationError, Refused

# Times as many fresh prompts score what is found on the first ones.
_FRESH = 4


def circuit(
    task: TaskName,
    model: ModelName = "smollm2-135m",
    units: UnitNames = "heads",
    ablation: Ablation = "mean",
    size: Annotated[
        int | None, typer.Option(help="Of the circuit; the smallest that reaches --target.")
    ] = None,
    target: Annotated[
        float, typer.Option(help="Faithfulness to reach on the prompts of the search.")
    ] = 0.9,
    objective: Annotated[
        Literal["match", "best"],
        typer.Option(help="match: does what the whole model does; best: does as much as it can."),
    ] = "match",
    budget: Annotated[
        int, typer.Option(help="Masks before climbing, which takes some hundreds.")
    ] = 1000,
    prompts: Annotated[
        int,
        typer.Option(help="How many prompts of the search; four times as many fresh ones score."),
    ] = 8,
    dtype: Dtype = "float32",
    precision: Precision = None,
    device: Device = "cpu",
    graphml: Annotated[
        Path | None, typer.Option(help="Write members and their pairs for Gephi or Cytoscape.")
    ] = None,
    run: RunName = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Find the few units that carry a task by themselves, and score them on fresh prompts."""
    import mechspex as mx
    from mechspex.runs.recorded import RecordedValues
    from mechspex.runs.run import CIRCUIT, VALIDATION, run_folder

    question = Question(task, model, units, ablation, dtype, device, run, seed, precision)
    refuse_unwritable(graphml)
    values, fresh = question.values(prompts, _FRESH * prompts)
    with question.kept(values, f"{units}-{ablation}-circuit") as name:
        found = mx.find_circuit(
            values,
            fresh,
            size=size,
            target=target,
            objective=objective,
            budget=budget,
            run=name,
            seed=seed,
            progress=True,
        )
        roles = _roles(found.circuit, question.bridge, fresh.task)
        found = replace(found, circuit=found.circuit.with_roles(roles))
        found.circuit.save(run_folder(name) / CIRCUIT)
        with closing(RecordedValues(fresh, run_folder(name) / VALIDATION, progress=True)) as scored:
            scored.stage = "circuits of all sizes"
            shares = [k / fresh.n_units for k in found.front["size"]]
            answer = _Answer(
                found,
                front=mx.faithfulness_curve(scored, found.best, shares=shares, seed=seed),
                nearest=mx.faithfulness_curve(scored, found.matching, shares=shares, seed=seed),
                best=mx.faithfulness_curve(scored, found.best, seed=seed),
                matching=mx.faithfulness_curve(scored, found.matching, seed=seed),
                references=mx.reference_scores(
                    question.bridge, fresh.task, found.circuit, run=name, seed=seed, progress=True
                ),
            )
    if graphml is not None:
        with writing():
            found.circuit.to_graphml(graphml)
    if as_json:
        print_answer(answer.to_dict(), True)
    else:
        print_answer(f"{answer}\n\nsaved in {run_folder(name)}", False)


@dataclass(frozen=True)
class _Answer:
    """What was found, and how it does on fresh prompts.

    Attributes:
        found: a `Discovery`.
        front, nearest: faithfulness of the best subset, and of the one nearest to the whole model,
            of every size that was searched.
        best, matching: of the best subsets, and of those that do as the whole model, at the sizes
            of the MIB benchmark.
        references: the circuit's scores under every reference.
    """

    found: Any
    front: Any
    nearest: Any
    best: Any
    matching: Any
    references: Any

    def to_dict(self) -> dict[str, Any]:
        from mechspex.core.json_values import plain, plain_rows

        columns = ["faithfulness", "low", "high"]
        fresh = self.front.to_pandas()[columns].add_prefix("fresh ")
        nearest = self.nearest.to_pandas()[columns].add_prefix("fresh matching ")
        cpr, cmd = self.best.cpr, self.matching.cmd
        return {
            "schema": "mechspex.discovery/1",
            "circuit": plain(self.found.circuit.to_dict()),
            "front": plain_rows(self.found.front.join(fresh).join(nearest)),
            "cpr": [cpr.value, cpr.low, cpr.high],
            "cmd": [cmd.value, cmd.low, cmd.high],
            "references": plain(self.references.to_dict()),
            "masks": self.found.masks,
        }

    def __str__(self) -> str:
        columns = ["size", "predicted", "value", "faithfulness", "matching"]
        front = self.found.front[columns].copy()
        front.insert(4, "fresh", [str(score) for score in self.front.scores])
        front["fresh matching"] = [str(score) for score in self.nearest.scores]
        return "\n".join(
            [
                str(self.found),
                "",
                "best subset of each size: on the prompts of the search, and on fresh ones; "
                "matching: faithfulness of the subset nearest to the whole model",
                front.to_string(index=False, float_format="{:.3f}".format),
                f"CPR {self.best.cpr} of these   CMD {self.matching.cmd} of the subsets that come "
                "nearest to the whole model",
                "",
                f"the circuit under each reference, {self.references.n_prompts} fresh prompts",
                str(self.references),
            ]
        )


def _roles(found: Any, model: Any, task: Any) -> Any:
    """The roles of a circuit's heads; none where the model does not show where they look."""
    import pandas as pd

    import mechspex as mx

    heads = found.units[[name for name in found.names if found.units[name][0].kind == "head"]]
    effects = {found.units.names[column]: effect for column, effect in found.effects.items()}
    try:
        if len(heads):
            return mx.head_roles(model, task, heads, effects)
    except AblationError as error:
        print(f"no roles of heads: {error}", file=sys.stderr)
    return pd.DataFrame(columns=["unit", "role", "evidence"])


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
    import mechspex as mx

    one = _loaded(found)
    held = mx.compare_circuits(one, _published(one) if other is None else _loaded(other))
    if as_json:
        print_answer({"schema": "mechspex.comparison/1"} | asdict(held), True)
    else:
        print_answer(str(held), False)


def _loaded(named: str) -> Any:
    """A circuit from its file, or from the folder of a run."""
    import mechspex as mx
    from mechspex.runs.run import CIRCUIT, run_folder

    path = Path(named)
    if not path.is_file() and path.suffix != ".json":
        path = (path if path.is_dir() else run_folder(named)) / CIRCUIT
    return mx.Circuit.load(path)


def _published(found: Any) -> Any:
    """The circuit that the task file has for the model in which `found` lies."""
    import mechspex as mx
    from mechspex.tasks.task_file import read_task_file, task_files

    task = found.configuration.get("task", "").split(",")[0]
    model = found.configuration.get("model", "").rsplit(" ", 1)[0]
    known = read_task_file(task).circuits if task in task_files() else {}
    # A fetched model has the beginning of its weights' digest in its name.
    plain_name = re.sub(r"-[0-9a-f]{8}$", "", model)
    roles = known.get(model) or known.get(plain_name)
    if roles is None:
        raise Refused(
            f"no circuit of {task or 'its task'!r} is published for {model or 'its model'!r} "
            f"({', '.join(known) or 'none'} has one); name the circuit to compare with"
        )
    return mx.Circuit.published(roles, found.units)


def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Models whose circuits are known; all of them if none is named."),
    ] = None,
    ablations: Annotated[
        list[str] | None,
        typer.Option("--ablation", help="zero, resample or mean; may be given several times."),
    ] = None,
    budgets: Annotated[
        list[int] | None,
        typer.Option("--budget", help="Masks for the decoders; may be given several times."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of masks, decoders and resampled prompts.")] = 0,
    as_json: Json = False,
) -> None:
    """Score every decoder and screen on models whose circuits are known."""
    from mechspex.core.json_values import plain_rows
    from mechspex.experiments.bench import ABLATIONS, BUDGETS, summary
    from mechspex.experiments.bench import bench as run_bench

    scored = run_bench(
        models,
        ablations=ablations or ABLATIONS,
        budgets=budgets or BUDGETS,
        seed=seed,
        progress=True,
    )
    if as_json:
        print_answer({"schema": "mechspex.bench/1", "seed": seed, "rows": plain_rows(scored)}, True)
    else:
        table = summary(scored).rename(columns=lambda name: name.removeprefix("screen "))
        print_answer(table.to_string(index=False, float_format="{:.3f}".format, na_rep="—"), False)
