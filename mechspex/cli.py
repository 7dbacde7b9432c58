"""The command line: data on stdout, progress on stderr, exit codes that scripts can trust."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mechspex.errors import FailedMasksError, MechspexError, Refused, RunError, StoreError

_PICTURES = (".png", ".svg", ".pdf")
# With more units than these, random ablation alone finds little.
_MOST_UNSCREENED = 2_000
# The model whose scores the list of tasks shows.
_SCORED = "smollm2-135m"
# Times as many fresh prompts test what a screen proposes.
_FRESH_OF_A_SCREEN = 4

app = typer.Typer(
    name="mechspex",
    help="Find which parts of a language model act together, from as few ablations as possible.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

TaskName = Annotated[str, typer.Argument(help="A task (see mechspex tasks) or a TOML file.")]
UnitNames = Annotated[
    str, typer.Option("--units", help="heads, mlps, neurons, or a sum: heads+mlps.")
]
Ablation = Annotated[str, typer.Option(help="mean, zero, resample or corrupted.")]
Dtype = Annotated[str, typer.Option(help="float32 or bfloat16.")]
Precision = Annotated[
    str | None,
    typer.Option(help="bf16 measures faster and less exactly; tests stay in --dtype."),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps, …")]
RunName = Annotated[
    str | None,
    typer.Option("--run", help="Name of the run below $MECHSPEX_RUNS (default: runs)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON in place of text.")]
ModelName = Annotated[
    str, typer.Option("--model", help="tiny, smollm2-135m, a local folder or a Hub name.")
]
Prompts = Annotated[
    int,
    typer.Option(
        "--prompts",
        help="How many prompts; explain takes as many fresh ones to test what it finds, four "
        "times as many after a screen.",
    ),
]
Seed = Annotated[int, typer.Option(help="Of prompts, masks and decoder.")]


@app.command()
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
    from mechspex.runs import run_folder

    if run is not None:
        _refuse_unwritable(run_folder(run))
    bridge = mx.load_model(model, dtype=_dtype(dtype), device=device)
    chosen = _units(bridge, units)
    method = _screen_method(screen, len(chosen))
    # The first prompts to find the terms, the others to test them: more of them where a screen
    # has many small effects tested.
    fresh_prompts = prompts if method is None else _FRESH_OF_A_SCREEN * prompts
    drawn = mx.load_task(task, bridge, n_prompts=prompts + fresh_prompts, seed=seed)
    values = mx.ComponentValues(
        bridge, drawn[:prompts], chosen, ablation, precision=precision, seed=seed
    )
    fresh = mx.ComponentValues(bridge, drawn[prompts:], chosen, ablation, seed=seed)
    _tell_precision(values)
    name = run or _run_name(drawn.name, units, ablation, values.configuration)
    with _resumable(run_folder(name)):
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
    _print(explanation.to_dict() if as_json else str(explanation), as_json)
    if explanation.recovery.n_failed or explanation.validation.failed.any():
        raise typer.Exit(FailedMasksError.exit_code)


def _screen_method(asked: str | None, n_units: int) -> Any:
    if asked is None:
        return "second_order" if n_units > _MOST_UNSCREENED else None
    return None if asked == "none" else asked


@app.command()
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
    from mechspex.runs import run_folder

    if run is not None:
        _refuse_unwritable(run_folder(run))
    _refuse_files(csv, None, units)
    bridge = mx.load_model(model, dtype=_dtype(dtype), device=device)
    drawn = mx.load_task(task, bridge, n_prompts=prompts, seed=seed)
    whole = mx.ComponentValues(bridge, drawn, _units(bridge, units), ablation, seed=seed)
    values = whole if early_exit is None else whole.early_exit(early_exit)
    name = run or _run_name(drawn.name, units, f"{ablation}-screen", values.configuration)
    with _resumable(run_folder(name)):
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
        found.to_pandas().to_csv(csv, index=False)
    _print(found.to_dict() if as_json else str(found), as_json)


@app.command()
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
    from mechspex.answers import effect_tables, plain_rows
    from mechspex.executors.local import RecordedValues
    from mechspex.runs import run_folder

    if run is not None:
        _refuse_unwritable(run_folder(run))
    terms = _sets(sets)
    bridge = mx.load_model(model, dtype=_dtype(dtype), device=device)
    drawn = mx.load_task(task, bridge, n_prompts=prompts, seed=seed)
    chosen = _kinds_of(bridge, terms)
    values = mx.ComponentValues(bridge, drawn, chosen, ablation, seed=seed)
    name = run or _run_name(drawn.name, "sets", f"{ablation}-validate", values.configuration)
    with _resumable(run_folder(name)):
        recorded = RecordedValues(values, run_folder(name), progress=True)
        recorded.stage = "validating"
        tested = mx.validate(recorded, terms, level=level, contexts=contexts, seed=seed)
        recorded.close()
    frame = tested.to_pandas()
    if as_json:
        _print(
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


def _kinds_of(bridge: Any, terms: list[tuple[str, ...]]) -> Any:
    """All units of the kinds that the sets name."""
    import mechspex as mx
    from mechspex.units import UnitSet

    names = list(dict.fromkeys(name for term in terms for name in term))
    # Only kinds that are named: a mixture of experts has no neurons, and refuses.
    patterns = {r"L\d+MLP": mx.mlps, r"L\d+N\d+": mx.neurons}
    others = [make for p, make in patterns.items() if any(re.fullmatch(p, n) for n in names)]
    all_units = sum((make(bridge) for make in others), UnitSet())
    if not others or any(re.fullmatch(r"L\d+H\d+", name) for name in names):
        all_units = mx.heads(bridge) + all_units
    # An unknown name is refused before anything is measured.
    all_units.columns(names)
    return all_units


@app.command()
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
    from mechspex.runs import run_folder

    if run is not None:
        _refuse_unwritable(run_folder(run))
    _refuse_files(csv, figure, units)
    bridge = mx.load_model(model, dtype=_dtype(dtype), device=device)
    drawn = mx.load_task(task, bridge, n_prompts=prompts, seed=seed)
    chosen = _units(bridge, units)
    values = mx.ComponentValues(bridge, drawn, chosen, ablation, precision=precision, seed=seed)
    _tell_precision(values)
    name = run or _run_name(drawn.name, units, f"{ablation}-sweep", values.configuration)
    names = None if among is None else [name.strip() for name in among.split(",")]
    with _resumable(run_folder(name)):
        swept = mx.sweep(values, order=order, among=names, run=name, progress=True)
    _write_files(swept, csv, figure)
    _print(swept.to_dict() if as_json else str(swept), as_json)
    if swept.failed.any():
        raise typer.Exit(FailedMasksError.exit_code)


class Show(StrEnum):
    """What ``mechspex tasks`` prints."""

    all = "list"
    one = "show"


@app.command()
def tasks(
    what: Annotated[
        Show, typer.Argument(help="list all tasks, or show the prompts of one.")
    ] = Show.all,
    task: Annotated[str | None, typer.Argument(help="For show: a task or a TOML file.")] = None,
    model: ModelName = "smollm2-135m",
    prompts: Prompts = 8,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """List the tasks and how well SmolLM2 does them, or show the prompts of one.

    A folder named by $MECHSPEX_TASKS adds tasks of your own.
    """
    if what is Show.one:
        if task is None:
            raise typer.BadParameter("name a task: mechspex tasks show ioi")
        _show_task(task, model, prompts, seed, as_json)
    else:
        _list_tasks(as_json)


def _list_tasks(as_json: bool) -> None:
    from mechspex.recipes import read_recipe, task_files

    recipes = [read_recipe(name) for name in task_files()]
    scores = [recipe.scores.get(_SCORED) for recipe in recipes]
    if as_json:
        rows = [
            {"task": r.name, "metric": r.metric, "title": r.title, "scores": r.scores}
            for r in recipes
        ]
        _print(rows, True)
        return
    print(f"{'':12}  {'':22}  {_SCORED}")
    print(f"{'task':12}  {'metric':22}   clean  accuracy")
    for recipe, score in zip(recipes, scores, strict=True):
        told = "not measured           "
        if score is not None:
            can = "can" if score["can"] else "cannot"
            told = f"{score['clean']:+7.2f}  {score['accuracy']:8.2f}  {can:6}"
        print(f"{recipe.name:12}  {recipe.metric:22}  {told}  {recipe.title}")


def _show_task(task: str, model: str, prompts: int, seed: int, as_json: bool) -> None:
    import mechspex as mx
    from mechspex.recipes import read_recipe

    recipe = read_recipe(task)
    drawn = mx.load_task(task, mx.load_model(model), n_prompts=prompts, seed=seed)
    absent = [None] * len(drawn)
    rows = [
        {"prompt": prompt, "answer": answer, "distractor": distractor, "corrupted": corrupted}
        for prompt, answer, distractor, corrupted in zip(
            drawn.prompts,
            drawn.answers,
            drawn.distractors or absent,
            drawn.corrupted or absent,
            strict=True,
        )
    ]
    if as_json:
        _print(rows, True)
        return
    print(f"{recipe.title}\n{recipe.citation}\nmetric: {recipe.metric}")
    for known, roles in recipe.circuits.items():
        print(f"published circuit in {known}:")
        for role, names in roles.items():
            print(f"  {role.replace('_', ' ')}: {', '.join(names)}")
    for row in rows:
        print(f"\n{row['prompt']} →{_any_of(row['answer'])}  (not{_any_of(row['distractor'])})")
        print(f"  corrupted: {row['corrupted']}")


def _any_of(answer: str | tuple[str, ...]) -> str:
    if isinstance(answer, str):
        return answer
    return f" {' or '.join(text.strip() for text in answer)}"


@app.command()
def models(as_json: Json = False) -> None:
    """List the models that mechspex knows by name; local folders and Hub names work as well."""
    from mechspex.models import SHIPPED

    if as_json:
        _print([{"model": name, "about": about} for name, about in SHIPPED.items()], True)
        return
    for name, about in SHIPPED.items():
        print(f"{name:14} {about}")


@app.command()
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
    from mechspex.answers import plain_rows
    from mechspex.bench import ABLATIONS, BUDGETS, summary
    from mechspex.bench import bench as run_bench

    scored = run_bench(
        models,
        ablations=ablations or ABLATIONS,
        budgets=budgets or BUDGETS,
        seed=seed,
        progress=True,
    )
    if as_json:
        _print({"schema": "mechspex.bench/1", "seed": seed, "rows": plain_rows(scored)}, True)
    else:
        table = summary(scored).rename(columns=lambda name: name.removeprefix("screen "))
        _print(table.to_string(index=False, float_format="{:.3f}".format, na_rep="—"), False)


@app.command()
def status(
    run: Annotated[
        str | None, typer.Argument(help="Name of a run; all of them if left out.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the runs, or print the answer of one of them again."""
    from mechspex.runs import EXPLANATION, SWEEP, list_runs, run_folder

    if run is not None:
        from mechspex.explanation import Explanation

        folder = run_folder(run)
        if (folder / SWEEP).exists() and not (folder / EXPLANATION).exists():
            raise Refused(
                f"{folder} holds a sweep: read {folder / SWEEP}, or give the sweep command again, "
                "which measures nothing anew"
            )
        explanation = Explanation.load(folder)
        _print(explanation.to_dict() if as_json else str(explanation), as_json)
        return
    rows = list_runs()
    if as_json:
        _print(rows, True)
        return
    for row in rows:
        print(f"{row['run']:44} {row['masks']:8,} masks   {row['state']}")
    if not rows:
        print("no runs here yet; start one with: mechspex explain ioi", file=sys.stderr)


def _units(model: Any, names: str) -> Any:
    import mechspex as mx
    from mechspex.units import UnitSet

    kinds = {"heads": mx.heads, "mlps": mx.mlps, "neurons": mx.neurons}
    chosen = UnitSet()
    for name in names.split("+"):
        if name not in kinds:
            raise typer.BadParameter(f"{name!r}: choose heads, mlps, neurons or a sum of them")
        chosen = chosen + kinds[name](model)
    return chosen


def _dtype(name: str) -> Any:
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in known:
        raise typer.BadParameter(f"dtype {name!r}: choose {', '.join(known)}")
    return known[name]


def _tell_precision(values: Any) -> None:
    if values.precision_error is not None:
        print(values.precision_error, file=sys.stderr)


def _run_name(task: str, units: str, ablation: str, configuration: dict[str, str]) -> str:
    """The same question gets the same folder, any other question another one."""
    import hashlib

    digest = hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{task}-{units}-{ablation}").strip("-._")
    return f"{name}-{digest[:8]}"


def _refuse_unwritable(folder: Path) -> None:
    """Before a model is loaded: minutes are lost when this is found out at the end."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise RunError(f"run folder {folder} cannot be written; choose another --run")


def _refuse_files(csv: Path | None, figure: Path | None, units: str) -> None:
    """The same for the files that a sweep is asked to write."""
    for file in (csv, figure):
        if file is None:
            continue
        there = file if file.exists() else file.absolute().parent
        if file.is_dir() or not os.access(there, os.W_OK):
            raise Refused(
                f"{file} cannot be written; name a file in a folder that exists and is writable"
            )
    if figure is None:
        return
    if figure.suffix not in _PICTURES:
        raise Refused(f"--figure {figure}: end the name in {', '.join(_PICTURES)}")
    if units != "heads":
        raise Refused(f"--figure draws layer × head, not {units}; leave it out or take heads")


def _write_files(swept: Any, csv: Path | None, figure: Path | None) -> None:
    try:
        if csv is not None:
            swept.to_pandas().to_csv(csv, index=False)
        if figure is not None:
            from mechspex.figures import head_map

            metric = swept.configuration["metric"].replace("_", " ")
            head_map(swept, metric=metric).savefig(figure, dpi=150)
    except OSError as error:
        raise StoreError(
            f"{error.filename or 'a file'} could not be written ({error.strerror}); the values are "
            "kept, the same command measures nothing again"
        ) from None


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """What is committed stays; say how to go on when the run is stopped."""
    try:
        yield
    except (KeyboardInterrupt, _Terminated):
        command = shlex.join(["mechspex", *sys.argv[1:]])
        print(f"\nstopped; the values are kept in {folder}. Resume: {command}", file=sys.stderr)
        raise


class _Terminated(Exception):
    """SIGTERM, as schedulers send it before they take a machine away."""


def _terminate(_signal: int, _frame: object) -> None:
    raise _Terminated


def _print(content: Any, as_json: bool) -> None:
    print(json.dumps(content, indent=1, allow_nan=False) if as_json else content)


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 failed, 2 usage, 3 done with failed masks, 130 interrupted (Ctrl-C), 143
    terminated (SIGTERM).
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # … | head: the reader has what it wanted. What is still buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except MechspexError as error:
        print(f"mechspex: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except _Terminated:
        raise SystemExit(143) from None


if __name__ == "__main__":
    main()
