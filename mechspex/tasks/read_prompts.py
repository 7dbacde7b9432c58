"""Prompts of your own, or published ones, as a task for one model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from mechspex.core.checks import Only
from mechspex.core.doors import door
from mechspex.core.errors import TaskError
from mechspex.models.load_model import Model, as_model
from mechspex.models.positions import most_positions
from mechspex.models.tokenizer import own_tokenizer
from mechspex.tasks.metric_names import METRICS
from mechspex.tasks.reading import reading_of
from mechspex.tasks.task import Task

_YES_OR_NO = Only((bool,), "True or False", TaskError)


@door(
    model=as_model,
    metric=Only((str,), f"a name: {', '.join(METRICS)}", TaskError),
    skip=_YES_OR_NO,
    chat=_YES_OR_NO,
)
def read_prompts(
    source: Any,
    model: Model | str | Path,
    *,
    metric: str | None = None,
    skip: bool = False,
    chat: bool = False,
    prepend_bos: bool | None = None,
    answer_tokens: str = "all",
) -> Task:
    """The prompts of a table that a model can read, as a task.

    The columns are ``prompt``, ``answer`` and, where there are any, ``distractor`` and
    ``corrupted``; a cell may hold a list. Published files are known by their columns: EAP-IG's CSV
    files, auto-circuit's JSON, LRE's relations, MIB, CounterFact and MMLU. Where no answer begins
    with a space and the prompts end in a word, a space is put before the answers.

    >>> import mechspex as mx
    >>> rows = [{"prompt": "key cow key", "answer": "cow"}, {"prompt": "key tree key", "answer": 5}]
    >>> mx.read_prompts(rows, mx.load_model("tiny"))
    Traceback (most recent call last):
    mechspex.core.errors.TaskError: 1 of 2 rows fit this model; these do not: row 1: answer ' 5' \
is not in this model's vocabulary; choose another word. Mend them, or go on without them: \
skip=True (--skip)

    Args:
        source: a .csv, .tsv, .json or .jsonl file, a data frame, a list of rows.
        model: the model, whose tokenizer decides which rows can be read.
        metric: see `mechspex.Task`; that of the layout, else ``logit_difference`` where there are
            distractors and ``answer_log_probability`` where there are none.
        skip: go on without the rows that do not fit; a warning says which.
        chat: put the tokenizer's chat template around each prompt; answers then begin the reply. A
            prompt may then be a list of turns, ``{"role": "user", "content": …}``; where the last
            one is the assistant's, the answers go on with it.
        prepend_bos, answer_tokens: see `mechspex.Task`.

    Raises:
        TaskError: a file that cannot be read, unknown columns, or rows that do not fit the model.
    """
    assert isinstance(model, Model)
    name = model.cfg.model_name
    read = reading_of(
        source,
        own_tokenizer(model.tokenizer) if chat else model.tokenizer,
        metric=metric,
        skip=skip,
        chat=chat,
        prepend_bos=prepend_bos,
        answer_tokens=answer_tokens,
        longest=most_positions(model),
    )
    for remark in read.remarks:
        warnings.warn(f"{remark} ({name})", stacklevel=3)
    return read.task
