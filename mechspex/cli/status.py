"""What there is to look at: ``mechspex tasks``, ``models`` and ``status``."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from mechspex.cli.experiment import Json, ModelName, Prompts, Seed, print_answer
from mechspex.errors import Refused

# The model whose scores the list of tasks shows.
_SCORED = "smollm2-135m"


class Show(StrEnum):
    """What ``mechspex tasks`` prints."""

    all = "list"
    one = "show"


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
    from mechspex.tasks.task_file import read_task_file, task_files

    recipes = [read_task_file(name) for name in task_files()]
    scores = [recipe.scores.get(_SCORED) for recipe in recipes]
    if as_json:
        rows = [
            {"task": r.name, "metric": r.metric, "title": r.title, "scores": r.scores}
            for r in recipes
        ]
        print_answer(rows, True)
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
    from mechspex.tasks.task_file import read_task_file

    recipe = read_task_file(task)
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
        print_answer(rows, True)
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


def models(as_json: Json = False) -> None:
    """List the models that mechspex knows by name; local folders and Hub names work as well."""
    from mechspex.models.load_model import SHIPPED

    if as_json:
        print_answer([{"model": name, "about": about} for name, about in SHIPPED.items()], True)
        return
    for name, about in SHIPPED.items():
        print(f"{name:14} {about}")


def status(
    run: Annotated[
        str | None, typer.Argument(help="Name of a run; all of them if left out.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the runs, or print the answer of one of them again."""
    from mechspex.runs.run import CIRCUIT, EXPLANATION, SWEEP, list_runs, run_folder

    if run is not None:
        from mechspex.circuits.circuit import Circuit
        from mechspex.core.json_values import plain
        from mechspex.explanation.explanation import Explanation

        folder = run_folder(run)
        explained = (folder / EXPLANATION).exists()
        if (folder / CIRCUIT).exists() and not explained:
            circuit = Circuit.load(folder / CIRCUIT)
            print_answer(plain(circuit.to_dict()) if as_json else str(circuit), as_json)
            return
        if (folder / SWEEP).exists() and not explained:
            raise Refused(
                f"{folder} holds a sweep: read {folder / SWEEP}, or give the sweep command again, "
                "which measures nothing anew"
            )
        explanation = Explanation.load(folder)
        print_answer(explanation.to_dict() if as_json else str(explanation), as_json)
        return
    rows = list_runs()
    if as_json:
        print_answer(rows, True)
        return
    for row in rows:
        print(f"{row['run']:44} {row['masks']:8,} masks   {row['state']}")
    if not rows:
        print("no runs here yet; start one with: mechspex explain ioi", file=sys.stderr)
