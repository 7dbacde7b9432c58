"""A shipped task or a task file, in prompts for one model."""

from __future__ import annotations

from pathlib import Path

from mechspex.core.checks import LARGEST, Only, Whole
from mechspex.core.doors import door
from mechspex.core.errors import TaskError
from mechspex.models.load_model import Model, as_model
from mechspex.tasks.draw_task import draw_task
from mechspex.tasks.task import Task


@door(
    name_or_path=Only(
        (str, Path), "the name of a task, such as 'ioi', or a TOML file, then the model", TaskError
    ),
    model=as_model,
    n_prompts=Whole(-LARGEST, 10**6, "a whole number of prompts", error=TaskError),
    seed=Whole(-LARGEST, 2**63 - 1, "a whole number from 0 up", error=TaskError),
)
def load_task(
    name_or_path: str | Path,
    model: Model | str | Path,
    *,
    n_prompts: int = 8,
    seed: int = 0,
    spans: bool = False,
) -> Task:
    """Draw the prompts of a task file for one model.

    The words of each list are filtered to those that are a single token for this model. Templates
    take turns, and each prompt draws words of its own. All prompts are equally long in tokens:
    templates and words that give another length than most are left out.

    Args:
        name_or_path: the name of a task (``mechspex tasks`` lists them) or a TOML file.
        model: the model, whose tokenizer decides which words are drawn.
        n_prompts: how many prompts, at least 1.
        seed: the only source of randomness.
        spans: whether the slots of the prompts are named spans, as `mechspex.spans` lists them;
            one that comes twice is numbered (``S1``, ``S2``). The ``mean`` is then taken span by
            span.

    Raises:
        TaskError: no such task, a file that breaks the format, or too few words in this model's
            vocabulary.
    """
    assert isinstance(model, Model)
    return draw_task(
        name_or_path,
        model.tokenizer,
        model.cfg.model_name,
        n_prompts=n_prompts,
        seed=seed,
        spans=spans,
    )


def task_of(model: Model, task: Task | str | Path, *, spans: bool = False) -> Task:
    """A task as it is; that of a name or file drawn for a model, eight prompts.

    Args:
        model: the model.
        task: the task.
        spans: whether the slots of prompts that are drawn are named spans.
    """
    return task if isinstance(task, Task) else load_task(task, model, spans=spans)
