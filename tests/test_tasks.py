import pytest
from transformers import AutoTokenizer

import mechspex as mx
from mechspex.errors import TaskError
from mechspex.models import _TINY
from mechspex.recipes import read_recipe, task_files
from mechspex.tasks import encode, tokenize

RECIPE = """
title = "Copy"
[[templates]]
prompt = "{A} {B} {A}"
corrupted = "{C} {B} {A}"
answer = " {B}"
distractor = " {A}"
[slots]
A = "word"
B = "word"
C = "word"
[words]
word = ["apple", "bird", "boat", "volcano", "apple"]
"""


@pytest.fixture
def tokenizer():
    return AutoTokenizer.from_pretrained(_TINY)


@pytest.fixture
def recipe(tmp_path):
    def write(text):
        path = tmp_path / "copy.toml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("name", task_files())
def test_shipped_recipes_are_whole(name):
    recipe = read_recipe(name)
    assert recipe.citation
    assert len(recipe.templates) >= 2


def test_prompts_follow_the_seed_and_have_equal_length(tiny):
    task = mx.load_task("induction", tiny, n_prompts=10, seed=3)
    tokens = tokenize(task, tiny.tokenizer)
    assert len({len(prompt) for prompt in (*tokens.prompts, *tokens.corrupted)}) == 1
    assert len(set(task.prompts)) == 10
    assert mx.load_task("induction", tiny, n_prompts=10, seed=3) == task
    assert mx.load_task("induction", tiny, n_prompts=10, seed=4).prompts != task.prompts


def test_words_unknown_to_the_tokenizer_are_left_out(tiny, recipe):
    task = mx.load_task(recipe(RECIPE), tiny, n_prompts=6)
    words = {word for prompt in task.prompts for word in prompt.split()}
    assert words <= {"apple", "bird", "boat"}
    for prompt, corrupted, answer, distractor in zip(
        task.prompts, task.corrupted, task.answers, task.distractors, strict=True
    ):
        first, second, third = prompt.split()
        assert first == third
        assert (answer, distractor) == (f" {second}", f" {first}")
        assert corrupted.split()[1:] == [second, third]
        assert corrupted.split()[0] not in (first, second)


def test_more_prompts_than_the_words_can_make_are_refused(tiny, recipe):
    with pytest.raises(TaskError, match="only 6 different prompts"):
        mx.load_task(recipe(RECIPE), tiny, n_prompts=7)
    with pytest.raises(TaskError, match="n_prompts = 0"):
        mx.load_task(recipe(RECIPE), tiny, n_prompts=0)


def test_a_task_whose_words_the_model_lacks_is_refused(tiny):
    with pytest.raises(TaskError, match="0 of the 30 words of list 'name'.*for tiny"):
        mx.load_task("ioi", tiny)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('title = "Copy"', "title = ", "line 2"),
        ('title = "Copy"', "", r"missing \['title'\]"),
        ('title = "Copy"', 'title = "Copy"\nsed = 1', r"unknown \['sed'\]"),
        ('A = "word"', 'A = "verb"', "slot 'A' takes words of 'verb'"),
        ('corrupted = "{C} {B} {A}"\n', "", "template 1 has"),
        ("{A} {B} {A}", "{A} {B} {D}", r"slot \{D\}"),
    ],
)
def test_bad_files_are_refused_with_the_place(recipe, old, new, complaint):
    path = recipe(RECIPE.replace(old, new, 1))
    with pytest.raises(TaskError, match=complaint) as caught:
        read_recipe(path)
    assert str(path) in str(caught.value)


def test_an_unknown_metric_is_refused(tiny, recipe):
    with pytest.raises(TaskError, match="metric 'loss' is unknown"):
        mx.load_task(recipe(f'metric = "loss"\n{RECIPE}'), tiny, n_prompts=2)


def test_unknown_tasks_are_refused_with_those_there_are():
    with pytest.raises(TaskError, match="no task 'iio'; choose induction, ioi"):
        read_recipe("iio")


def test_unequal_corrupted_prompts_are_refused_naming_the_pair(tokenizer):
    task = mx.Task(["apple bird", "boat key"], [" bird", " key"], None, ["apple boat", "boat"])
    with pytest.raises(TaskError, match="prompt 1 has 3 tokens and its corrupted prompt 2.*'boat'"):
        tokenize(task, tokenizer)


def test_answers_of_several_tokens_are_refused_showing_them(tokenizer):
    with pytest.raises(TaskError, match=r"answer ' bird boat'.*\['Ġbird', 'Ġboat'\]"):
        tokenize(mx.Task(["apple"], [" bird boat"]), tokenizer)
    with pytest.raises(TaskError, match="answer ' volcano' is not in this model's vocabulary"):
        tokenize(mx.Task(["apple"], [" volcano"]), tokenizer)


def test_bos_follows_the_tokenizer_unless_told(tokenizer):
    assert tokenizer.convert_ids_to_tokens(encode(tokenizer, "apple", None)) == ["<bos>", "Ġapple"]
    assert tokenizer.convert_ids_to_tokens(encode(tokenizer, "apple", False)) == ["Ġapple"]
    assert encode(tokenizer, "apple", True) == encode(tokenizer, "apple", None)
    with pytest.raises(TaskError, match="no tokens"):
        encode(tokenizer, "", False)
    tokenizer.bos_token = None
    with pytest.raises(TaskError, match="no BOS token"):
        encode(tokenizer, "apple", True)


def test_lists_that_do_not_fit_are_refused():
    with pytest.raises(TaskError, match="at least one prompt"):
        mx.Task([], [])
    with pytest.raises(TaskError, match="1 answers for 2 prompts"):
        mx.Task(["a", "b"], [" c"])
    with pytest.raises(TaskError, match="is one string"):
        mx.Task("a", [" c"])
    with pytest.raises(TaskError, match="'loss' is unknown; choose logit_difference"):
        mx.Task(["a"], [" b"], metric="loss")


def test_a_logit_difference_without_distractors_is_refused(tiny):
    with pytest.raises(TaskError, match="needs distractors"):
        mx.ComponentValues(tiny, mx.Task(["apple"] * 2, [" bird"] * 2), mx.heads(tiny), "zero")
