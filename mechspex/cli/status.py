"""What there is to look at: ``mechspex tasks``, ``models`` and ``status``."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from mechspex.cli.experiment import Experiment
from mechspex.cli.output import EXPERIMENT, Json, print_answer, to_stderr
from mechspex.cli.own_prompts import is_table

# The model whose scores the list of tasks shows.
_SCORED = "smollm2-135m"


class Show(StrEnum):
    """What ``mechspex tasks`` prints."""

    all = "list"
    one = "show"


def tasks(
    what: Annotated[
        str, typer.Argument(help="list all tasks, or show the prompts of one.")
    ] = Show.all,
    task: Annotated[
        str | None,
        typer.Argument(help="For show: a task, a TOML file, or a file of prompts of your own."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(help="Whose tokenizer the words are to suit.", rich_help_panel=EXPERIMENT),
    ] = "smollm2-135m",
    prompts: Annotated[
        int, typer.Option(help="How many prompts are shown.", rich_help_panel=EXPERIMENT)
    ] = 8,
    seed: Annotated[int, typer.Option(help="Of the prompts.", rich_help_panel=EXPERIMENT)] = 0,
    as_json: Json = False,
) -> None:
    """List the tasks and how well SmolLM2 does them, or show the prompts of one.

    A folder named by $MECHSPEX_TASKS adds tasks of your own.
    """
    if what == Show.all:
        _list_tasks(as_json)
        return
    if what != Show.one:
        # A task in the place of "show" says what is wanted.
        _refuse_word(what)
    if task is None:
        raise typer.BadParameter("name a task: mechspex tasks show ioi")
    asked: dict[str, Any] = {"task": task}
    if is_table(task):
        asked = {"prompts_from": Path(task), "skip": True}
    experiment = Experiment(**asked, model=model, prompts=prompts, seed=seed, ablation="zero")
    experiment.check()
    _show_task(experiment, as_json)


def _refuse_word(word: str) -> None:
    from mechspex.tasks.task_file import task_files

    if word in task_files() or Path(word).is_file():
        raise typer.BadParameter(f"to see the task's prompts: mechspex tasks show {word}")
    raise typer.BadParameter(f"{word!r} is neither 'list' nor 'show': mechspex tasks show ioi")


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


def _show_task(experiment: Experiment, as_json: bool) -> None:
    drawn = experiment.task_drawn(experiment.prompts, to_stderr)[: experiment.prompts]
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
    from mechspex.tasks.token_rows import read_as

    _show_about(experiment.task, drawn.metric)
    for number, row in enumerate(rows):
        wrong = row["distractor"]
        against = "" if wrong is None else f"  (not{_any_of(wrong)})"
        print(f"\n{row['prompt']} →{_any_of(row['answer'])}{against}")
        if row["corrupted"] is not None:
            print(f"  corrupted: {row['corrupted']}")
        if not number:
            print(f"  read as {read_as(drawn, experiment.tokenizer)}")


def _show_about(task: str | None, metric: str) -> None:
    from mechspex.tasks.task_file import read_task_file

    recipe = None if task is None else read_task_file(task)
    if recipe is not None:
        print(f"{recipe.title}\n{recipe.citation}")
    print(f"metric: {metric}")
    for known, roles in () if recipe is None else recipe.circuits.items():
        print(f"published circuit in {known}:")
        for role, names in roles.items():
            print(f"  {role.replace('_', ' ')}: {', '.join(names)}")


def _any_of(answer: str | tuple[str, ...]) -> str:
    if isinstance(answer, str):
        return answer
    return f" {' or '.join(text.strip() for text in answer)}"


def models(as_json: Json = False) -> None:
    """List the models that mechspex knows by name; local folders and Hub names work as well."""
    from mechspex.models.shipped import SHIPPED

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
    if run is None:
        list_all(as_json)
        return
    from mechspex.runs.run import folder_of

    # Before the tables load that an answer takes: a second.
    folder = folder_of(run)
    from mechspex.core.json_values import plain
    from mechspex.report.load import load

    answer = load(folder)
    print_answer(plain(answer.to_dict()) if as_json else str(answer), as_json)


def list_all(as_json: bool) -> None:
    """Print every run there is: its masks, its size, what was answered."""
    from mechspex.runs.run import list_runs

    rows = list_runs()
    if as_json:
        print_answer(rows, True)
        return
    width = max((len(str(row["run"])) for row in rows), default=0)
    for row in rows:
        size = f"{int(row['bytes']) / 1e6:,.1f} MB"
        print(f"{row['run']:{max(width, 44)}} {row['masks']:8,} masks {size:>10}   {row['state']}")
    if not rows:
        print("no runs here yet; start one with: mechspex explain ioi", file=sys.stderr)
