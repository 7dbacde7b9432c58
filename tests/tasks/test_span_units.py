"""The slots of a task's prompts as named spans, and those as units."""

import pytest

import mechspex as mx
from mechspex.errors import TaskError
from mechspex.tasks.draw_task import _names, _spans
from mechspex.tasks.tokens import tokenize


def test_slots_are_named_spans(tiny):
    task = mx.load_task("induction", tiny, spans=True)
    assert task.prompts == mx.load_task("induction", tiny).prompts
    assert task.spans is not None
    assert mx.spans(task).names == ("P", "A1", "B1", "C1", "D", "E", "Q", "A2", "B2", "C2")
    for prompt, spans, answer in zip(task.prompts, task.spans, task.answers, strict=True):
        words = {name: prompt[slice(*map(int, span))] for name, span in spans.items()}
        assert words["A1"] == words["A2"]
        assert words["C1"] == words["C2"] == prompt.split()[-1]
        assert sorted(words.values()) == sorted(prompt.split())
        assert str(answer).strip() == words["D"]


def test_slots_of_a_corrupted_prompt_are_called_as_those_whose_places_they_take(tiny):
    task = mx.load_task("induction", tiny, spans=True)
    assert task.spans is not None
    assert task.corrupted_spans is not None
    assert list(map(list, task.spans)) == list(map(list, task.corrupted_spans))
    tokens = tokenize(task, tiny.tokenizer)
    assert tokens.spans == tokens.corrupted_spans, "prompts are equally long"


def test_spans_lie_where_slots_are_filled():
    text = "When {IO} and {S} met, {S} gave {object.one} to"
    filling = {"IO": {"": "Anna"}, "S": {"": "Bo"}, "object": {"one": "it"}}
    spans = _spans(text, filling, _names(text))
    written = "When Anna and Bo met, Bo gave it to"
    assert {name: written[a:b] for name, (a, b) in spans.items()} == {
        "IO": "Anna", "S1": "Bo", "S2": "Bo", "object": "it",
    }  # fmt: skip


def test_units_are_the_spans_that_all_prompts_have():
    task = mx.Task(["a b c", "c b a"], [" d", " d"], metric="answer_log_probability",
                   spans=[{"one": "a", "two": "b"}, {"two": "b", "three": "c"}])  # fmt: skip
    (unit,) = mx.spans(task, hidden=True)
    assert (unit.kind, unit.label, unit.span) == ("hidden_word", "two", None)
    with pytest.raises(TaskError, match="no span that all of its prompts have"):
        mx.spans(mx.Task(["a"], [" b"], metric="answer_log_probability"))
    with pytest.raises(TaskError, match="a Task whose prompts have named spans"):
        mx.spans("ioi")  # pyright: ignore[reportArgumentType]
