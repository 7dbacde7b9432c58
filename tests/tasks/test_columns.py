"""Prompts and answers come in as people hold them; what is no text is named with its prompt."""

import numpy as np
import pandas as pd
import pytest
import torch

import mechspex as mx
from mechspex.components.batched_forward import checked_values
from mechspex.errors import ShapeError, TaskError
from mechspex.tasks.columns import several_in, spans_in, texts_in

PROMPTS = ["key cow key", "tree boat tree", "moon bird moon"]
ANSWERS = [" cow", " boat", " bird"]
OTHERS = [" key", " tree", " moon"]
FORMS = {
    "list": list,
    "tuple": tuple,
    "series": pd.Series,
    "categories": lambda texts: pd.Series(texts, dtype="category"),
    "index": pd.Index,
    "array": np.array,
    "objects": lambda texts: np.array(texts, dtype=object),
    "filtered": lambda texts: pd.Series(["gone", *texts]).iloc[1:],
    "generator": iter,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_column_is_the_same_task(form):
    held = FORMS[form]
    task = mx.Task(held(PROMPTS), held(ANSWERS), held(OTHERS), held(PROMPTS[::-1]))
    assert task == mx.Task(PROMPTS, ANSWERS, OTHERS, PROMPTS[::-1])
    assert {type(text) for text in (*task.prompts, *task.answers)} == {str}


@pytest.mark.parametrize("listed", [list, tuple, np.array, lambda one: np.array(one, dtype=object)])
def test_a_list_of_one_is_its_text_and_several_stay_several(listed):
    task = mx.Task(PROMPTS, [listed([text]) for text in ANSWERS])
    assert task.answers == tuple(ANSWERS)
    several = mx.Task(PROMPTS[:1], [listed([" cow", " boat"])])
    assert several.answers == ((" cow", " boat"),)


@pytest.mark.parametrize(
    ("missing", "shown"),
    [
        (None, "None"),
        (float("nan"), "nan"),
        (np.nan, "nan"),
        (pd.NA, "NA"),
        (7, "7"),
        (3.5, "3.5"),
        (np.int64(9), "9"),
        (b"cow", "b'cow'"),
        ([" cow", None], "None"),
        ([4, 5], "4"),
        ({"text": " cow"}, "text"),
    ],
)
@pytest.mark.parametrize("label", ["prompts", "answers", "distractors", "corrupted"])
def test_what_is_no_text_is_named_with_the_number_of_its_prompt(label, missing, shown):
    read = several_in if label in ("answers", "distractors") else texts_in
    with pytest.raises(TaskError, match="prompt 2 has") as refused:
        read(label, [" cow", " key", missing])
    assert label in str(refused.value)
    assert shown in str(refused.value)


@pytest.mark.parametrize("column", [5, {"a": " cow"}, {" cow", " key"}, " cow", 2.5])
def test_what_is_no_column_is_refused(column):
    with pytest.raises(TaskError, match="list of strings"):
        texts_in("answers", column)


def test_an_empty_column_is_no_task():
    for empty in ([], pd.Series([], dtype=object), np.array([], dtype=str)):
        with pytest.raises(TaskError, match="at least one prompt"):
            mx.Task(empty, [])
    with pytest.raises(TaskError, match="empty list of answers"):
        mx.Task(["key"], [[]])


def test_a_task_refuses_a_missing_cell_of_any_column():
    table = pd.DataFrame({"text": PROMPTS, "right": ANSWERS, "wrong": OTHERS})
    for column in table:
        holed = table.copy()
        holed.loc[1, column] = None
        with pytest.raises(TaskError, match="prompt 1 has nothing"):
            mx.Task(holed["text"], holed["right"], holed["wrong"])


def test_spans_are_one_mapping_a_prompt():
    with pytest.raises(TaskError, match="prompt 1 has None among the spans"):
        spans_in("spans", [{"first": "key"}, None])
    spans = pd.Series([{"first": "cow"}, {}, {}])
    assert mx.Task(PROMPTS, ANSWERS, spans=spans)[:1].spans == ({"first": "cow"},)


def test_an_unknown_metric_is_refused():
    with pytest.raises(TaskError, match="metric 'accuracy' is unknown"):
        mx.Task(PROMPTS, ANSWERS, metric="accuracy")


def returning(returned):
    return checked_values(lambda logits, prompts: returned, torch.zeros(2, 1, 5), torch.arange(2))


@pytest.mark.parametrize("returned", [[0.0, 1.0], np.array([0.0, 1.0]), torch.tensor([0.0, 1.0])])
def test_a_metric_may_return_numbers_of_any_kind(returned):
    assert returning(returned).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("returned", [1.0, None, "ab", np.zeros(3), [[0.0], [1.0]], ["a", "b"]])
def test_a_metric_that_returns_no_number_a_row_is_refused(returned):
    with pytest.raises(ShapeError, match=r"the metric returned .*; return .* \[2\]"):
        returning(returned)
