"""``mechspex explain --context FILE``: which parts of a text act together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mechspex.cli.experiment import Experiment
from mechspex.cli.kept import EXPLAINED, Question
from mechspex.cli.output import print_answer, writing


def explained_texts(experiment: Experiment, arguments: dict[str, Any]) -> list[Any]:
    """The explanation of each context, kept ones as they are.

    Args:
        experiment: the options.
        arguments: what `mx.explain` is given.
    """
    texts, answers = experiment.texts(), []
    for number, text in enumerate(texts):
        about = f"{experiment.by}-{experiment.remove}"
        one = experiment
        if len(texts) > 1:
            about = f"{number}-{about}"
            run = None if experiment.run is None else f"{experiment.run}-{number}"
            one = replace(experiment, run=run)
        question = Question.of(one, about)
        kept = question.answer(EXPLAINED)
        if kept is None:
            # The model is loaded once for all of them.
            kept = _explained(one, experiment.bridge, text, question, arguments)
        answers.append(kept)
    return answers


def show_texts(experiment: Experiment, answers: list[Any]) -> None:
    """Write and print the explanations.

    Args:
        experiment: the options.
        answers: an explanation a context.
    """
    if len(answers) == 1:
        experiment.write(answers[0])
        experiment.show(answers[0])
        return
    with writing():
        if experiment.csv is not None:
            import pandas as pd

            frames = [answer.to_pandas().assign(context=n) for n, answer in enumerate(answers)]
            pd.concat(frames).to_csv(experiment.csv, index=False)
    if experiment.as_json:
        print_answer([answer.to_dict() for answer in answers], as_json=True)
    else:
        print_answer("\n\n".join(map(str, answers)), as_json=False)


def _explained(
    experiment: Experiment,
    model: Any,
    text: dict[str, Any],
    question: Question,
    arguments: dict[str, Any],
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
        answer = mx.explain(values, run=name, progress=True, **arguments)
    question.keep(run_folder(name), EXPLAINED)
    return answer
