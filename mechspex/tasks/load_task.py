"""A shipped task or a task file, in prompts for one model."""

from __future__ import annotations

from pathlib import Path

from mechspex.models.load_model import Model
from mechspex.tasks.draw_task import draw_task
from mechspex.tasks.task import Task


def load_task(name_or_path: str | Path, model: Model, *, n_prompts: int = 8, seed: int = 0) -> Task:
    """Draw the prompts of a task file for one model.

    The words of each list are filtered to those that are a single token for this model. Templates
    take turns, and each prompt draws words of its own. All prompts are equally long in tokens:
    templates and words that give another length than most are left out.

    Args:
        name_or_path: the name of a task (``mechspex tasks`` lists them) or a TOML file.
        model: the model, whose tokenizer decides which words are drawn.
        n_prompts: how many prompts, at least 1.
        seed: the only source of randomness.

    Raises:
        TaskError: no such task, a file that breaks the format, or too few words in this model's
            vocabulary.
    """
    return draw_task(
        name_or_path, model.tokenizer, model.cfg.model_name, n_prompts=n_prompts, seed=seed
    )
