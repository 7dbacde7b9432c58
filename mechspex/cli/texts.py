"""``--context FILE`` of a command: its answers about the parts of texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mechspex.cli.experiment import Experiment
from mechspex.cli.kept import Question
from mechspex.cli.output import print_answer, writing


def answers_about_texts(
    experiment: Experiment, kind: str, search: Callable[[str, Any], Any], suffix: str = ""
) -> list[Any]:
    """The answer about each context, kept ones as they are.

    Args:
        experiment: the options.
        kind: the file of such answers.
        search: takes the name of the run and the value function of a context.
        suffix: how the names of its runs end.
    """
    texts, answers = experiment.texts(), []
    for number, text in enumerate(texts):
        about = f"{experiment.by}-{experiment.remove}{suffix}"
        one = experiment
        if len(texts) > 1:
            about = f"{number}-{about}"
            run = None if experiment.run is None else f"{experiment.run}-{number}"
            one = replace(experiment, run=run)
        question = Question.of(one, about)
        kept = question.answer(kind)
        if kept is None:
            # The model is loaded once for all of them.
            kept = _searched(one, experiment.bridge, text, question, kind, search)
        answers.append(kept)
    return answers


def show_texts(experiment: Experiment, answers: list[Any]) -> None:
    """Write and print the answers.

    Args:
        experiment: the options.
        answers: an answer a context.
    """
    if len(answers) == 1:
        experiment.write(answers[0])
        experiment.show(answers[0])
        return
    with writing():
        if experiment.csv is not None:
            import pandas as pd

            from mechspex.core.csv_tables import write_csv

            frames = [answer.to_pandas().assign(context=n) for n, answer in enumerate(answers)]
            write_csv(experiment.csv, pd.concat(frames))
    if experiment.as_json:
        print_answer([answer.to_dict() for answer in answers], as_json=True)
    else:
        print_answer("\n\n".join(map(str, answers)), as_json=False)


def _searched(
    experiment: Experiment,
    model: Any,
    text: dict[str, Any],
    question: Question,
    kind: str,
    search: Callable[[str, Any], Any],
) -> Any:
    import mechspex as mx
    from mechspex.runs.run import run_folder

    ablation: Any = experiment.remove
    if experiment.replacement is not None:
        ablation = (ablation, experiment.replacement)
    distractor = text.get("distractor") or experiment.distractor
    values = mx.PromptValues(
        model,
        text["context"],
        text["question"],
        by=experiment.by,
        response=text["response"],
        distractor=distractor,
        ablation=ablation,
        metric=experiment.score,
        chat=experiment.chat,
        prepend_bos=experiment.prepend_bos,
    )
    with experiment.kept(values, question.about) as name:
        answer = search(name, values)
    question.keep(run_folder(name), kind)
    return answer
