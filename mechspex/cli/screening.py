"""``mechspex screen`` proposes sets of units, ``mechspex validate`` measures them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from mechspex.cli.experiment import (
    Ablation,
    Device,
    Dtype,
    Json,
    ModelName,
    Prompts,
    Question,
    RunName,
    Seed,
    TaskName,
    UnitNames,
    print_answer,
    refuse_unwritable,
    writing,
)
from mechspex.errors import FailedMasksError, Refused


def screen(
    task: TaskName,
    model: ModelName = "smollm2-135m",
    units: UnitNames = "neurons",
    method: Annotated[
        Literal["first_order", "second_order", "ablation"],
        typer.Option(
            help="By gradients: single units, or sets of two and more; or by ablating groups, "
            "from whole layers down."
        ),
    ] = "second_order",
    terms: Annotated[int, typer.Option(help="Sets of each order that are proposed.")] = 200,
    max_order: Annotated[int, typer.Option(help="The largest sets of second_order.")] = 2,
    masks: Annotated[int, typer.Option(help="How many masks ablation may measure.")] = 1000,
    early_exit: Annotated[
        int | None,
        typer.Option(help="Screen the first so many blocks alone; how that agrees is printed."),
    ] = None,
    ablation: Ablation = "mean",
    prompts: Prompts = 8,
    dtype: Dtype = "float32",
    device: Device = "cpu",
    csv: Annotated[Path | None, typer.Option(help="Write one row a proposed set.")] = None,
    run: RunName = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Score all units and pairs cheaply; what is proposed here is not yet measured."""
    import mechspex as mx

    question = Question(task, model, units, ablation, dtype, device, run, seed)
    refuse_unwritable(csv)
    (whole,) = question.values(prompts)
    values = whole if early_exit is None else whole.early_exit(early_exit)
    with question.kept(values, f"{units}-{ablation}-screen") as name:
        found = mx.screen(
            values,
            method,
            n_terms=terms,
            max_order=max_order,
            n_masks=masks,
            run=name,
            seed=seed,
            progress=True,
        )
    if values is not whole:
        print(f"the proxy agrees with the model {mx.agreement(found, whole)}", file=sys.stderr)
    if csv is not None:
        with writing():
            found.to_pandas().to_csv(csv, index=False)
    print_answer(found.to_dict() if as_json else str(found), as_json)


def validate(
    task: TaskName,
    sets: Annotated[
        list[str],
        typer.Argument(help="Sets of units, L23H3,L24H4; or a CSV file of mechspex screen."),
    ],
    model: ModelName = "smollm2-135m",
    ablation: Ablation = "mean",
    prompts: Annotated[int, typer.Option(help="How many prompts.")] = 32,
    level: Annotated[float, typer.Option(help="False discovery rate.")] = 0.05,
    contexts: Annotated[
        int,
        typer.Option(
            help="Average over so many random masks of the other units; 0: keep them all."
        ),
    ] = 0,
    dtype: Dtype = "float32",
    device: Device = "cpu",
    run: RunName = None,
    seed: Annotated[int, typer.Option(help="Of the prompts; another one than the screen's.")] = 1,
    as_json: Json = False,
) -> None:
    """Measure sets of units exactly, by ablating every part of each of them."""
    import mechspex as mx
    from mechspex.core.json_values import plain_rows
    from mechspex.runs.recorded import RecordedValues
    from mechspex.runs.run import run_folder
    from mechspex.runs.text import effect_tables

    terms = _sets(sets)
    question = Question(task, model, _kinds(terms), ablation, dtype, device, run, seed)
    # An unknown name is refused before anything is measured.
    question.chosen.columns(name for term in terms for name in term)
    (values,) = question.values(prompts)
    with question.kept(values, f"sets-{ablation}-validate") as name:
        recorded = RecordedValues(values, run_folder(name), progress=True)
        recorded.stage = "validating"
        tested = mx.validate(recorded, terms, level=level, contexts=contexts, seed=seed)
        recorded.close()
    frame = tested.to_pandas()
    if as_json:
        print_answer(
            {"schema": "mechspex.validation/1", "level": level, "terms": plain_rows(frame)}, True
        )
    else:
        table = frame.assign(prompts=float(prompts))
        print("\n".join(effect_tables(table, beside="prompts")).strip())
    if tested.failed.any():
        raise typer.Exit(FailedMasksError.exit_code)


def _sets(given: list[str]) -> list[tuple[str, ...]]:
    """Sets of units by name, from the command line or from the CSV file of a screen."""
    import csv

    if len(given) == 1 and given[0].endswith(".csv"):
        try:
            with open(given[0], newline="") as file:
                rows = [row["units"].split(" × ") for row in csv.DictReader(file)]
        except (OSError, KeyError, UnicodeDecodeError) as error:
            raise Refused(f"{given[0]} is no CSV file of mechspex screen ({error!r})") from None
        return [tuple(row) for row in rows]
    return [tuple(name.strip() for name in names.split(",")) for names in given]


def _kinds(terms: list[tuple[str, ...]]) -> str:
    """The kinds of units that the sets name; heads where they name none."""
    # Only kinds that are named: a mixture of experts has no neurons, and refuses.
    patterns = {"heads": r"L\d+H\d+", "mlps": r"L\d+MLP", "neurons": r"L\d+N\d+"}
    names = {name for term in terms for name in term}
    named = [kind for kind, p in patterns.items() if any(re.fullmatch(p, n) for n in names)]
    return "+".join(named) or "heads"
