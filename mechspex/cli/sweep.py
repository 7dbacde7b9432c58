"""``mechspex sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mechspex.cli.experiment import (
    Ablation,
    Device,
    Dtype,
    Json,
    ModelName,
    Precision,
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

_PICTURES = (".png", ".svg", ".pdf")


def sweep(
    task: TaskName,
    model: ModelName = "smollm2-135m",
    units: UnitNames = "heads",
    order: Annotated[int, typer.Option(min=1, max=2, help="1: singles; 2: pairs as well.")] = 1,
    among: Annotated[
        str | None, typer.Option(help="Ablate only these units, keep the rest: L23H3,L24H4,…")
    ] = None,
    ablation: Ablation = "mean",
    prompts: Prompts = 8,
    dtype: Dtype = "float32",
    device: Device = "cpu",
    precision: Precision = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write one row a single or pair: effect, interval, value.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw the singles, layer × head (.png, .svg or .pdf).")
    ] = None,
    run: RunName = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Ablate every unit, or every pair, alone: what each costs, exactly."""
    import mechspex as mx

    question = Question(task, model, units, ablation, dtype, device, run, seed, precision)
    refuse_unwritable(csv, figure)
    _refuse_figure(figure, units)
    (values,) = question.values(prompts)
    names = None if among is None else [name.strip() for name in among.split(",")]
    with question.kept(values, f"{units}-{ablation}-sweep") as name:
        swept = mx.sweep(values, order=order, among=names, run=name, progress=True)
    _write_files(swept, csv, figure)
    print_answer(swept.to_dict() if as_json else str(swept), as_json)
    if swept.failed.any():
        raise typer.Exit(FailedMasksError.exit_code)


def _refuse_figure(figure: Path | None, units: str) -> None:
    if figure is None:
        return
    if figure.suffix not in _PICTURES:
        raise Refused(f"--figure {figure}: end the name in {', '.join(_PICTURES)}")
    if units != "heads":
        raise Refused(f"--figure draws layer × head, not {units}; leave it out or take heads")


def _write_files(swept: Any, csv: Path | None, figure: Path | None) -> None:
    with writing():
        if csv is not None:
            swept.to_pandas().to_csv(csv, index=False)
        if figure is not None:
            from mechspex.figures.heads import head_map

            metric = swept.configuration["metric"].replace("_", " ")
            head_map(swept, metric=metric).savefig(figure, dpi=150)
