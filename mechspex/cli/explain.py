"""``mechspex explain``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

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
)
from mechspex.errors import FailedMasksError

# With more units than these, random ablation alone finds little.
_MOST_UNSCREENED = 2_000
# Times as many fresh prompts test what a screen proposes.
_FRESH_OF_A_SCREEN = 4


def explain(
    task: TaskName,
    model: ModelName = "smollm2-135m",
    units: UnitNames = "heads",
    ablation: Ablation = "mean",
    keep: Annotated[
        float | None,
        typer.Option(help="Probability with which a unit is kept; 0.9, or 0.5 in SPEX's design."),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(help="Masks the decoder may use; 1000 without --target-r2.")
    ] = None,
    target_r2: Annotated[
        float | None, typer.Option(help="Stop once the held-out R² reaches this.")
    ] = None,
    decoder: Annotated[
        str,
        typer.Option(help="automatic, additive, pursuit, proxyspex, kernel, spex or exhaustive."),
    ] = "automatic",
    design: Annotated[
        Literal["random", "mixed", "spex"] | None,
        typer.Option(
            help="mixed: every second mask at 0.5; spex: masks that show sets of up to five units."
        ),
    ] = None,
    adaptive: Annotated[
        bool, typer.Option("--adaptive", help="Spend masks where the answer is least certain.")
    ] = False,
    level: Annotated[float, typer.Option(help="False discovery rate.")] = 0.05,
    max_order: Annotated[int | None, typer.Option(help="The largest interaction wanted.")] = None,
    screen: Annotated[
        Literal["first_order", "second_order", "ablation", "none"] | None,
        typer.Option(
            help="Score all units by gradients (or by ablating groups) first, ablate only the "
            "strongest; second_order where there are more than 2,000 units."
        ),
    ] = None,
    contexts: Annotated[
        int,
        typer.Option(help="Measure what is confirmed in so many random masks of the others too."),
    ] = 0,
    prompts: Prompts = 8,
    dtype: Dtype = "float32",
    precision: Precision = None,
    device: Device = "cpu",
    run: RunName = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Find which units act alone and which act together, each confirmed by exact ablation."""
    import mechspex as mx

    question = Question(task, model, units, ablation, dtype, device, run, seed, precision)
    method = _screen_method(screen, len(question.chosen))
    # The first prompts to find the terms, the others to test them: more of them where a screen
    # has many small effects tested.
    fresh_prompts = prompts if method is None else _FRESH_OF_A_SCREEN * prompts
    values, fresh = question.values(prompts, fresh_prompts)
    with question.kept(values, f"{units}-{ablation}") as name:
        explanation = mx.explain(
            values,
            budget=budget,
            target_r2=target_r2,
            keep=keep,
            decoder=decoder,
            design=design,
            adaptive=adaptive,
            level=level,
            max_order=max_order,
            validate_on=fresh,
            screen=method,
            contexts=contexts,
            run=name,
            seed=seed,
            progress=True,
        )
    print_answer(explanation.to_dict() if as_json else str(explanation), as_json)
    if explanation.recovery.n_failed or explanation.validation.failed.any():
        raise typer.Exit(FailedMasksError.exit_code)


def _screen_method(asked: str | None, n_units: int) -> Any:
    if asked is None:
        return "second_order" if n_units > _MOST_UNSCREENED else None
    return None if asked == "none" else asked
