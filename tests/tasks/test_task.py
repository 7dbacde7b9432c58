import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import mechspex as mx
from mechspex import tasks
from mechspex.errors import TaskError
from mechspex.models.shipped import TINY
from mechspex.tasks.draw_task import draw
from mechspex.tasks.next_token import encode, runs_on
from mechspex.tasks.task_file import read_task_file
from mechspex.tasks.tokens import first_tokens, tokenize

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
word = ["apple", "bird", "boat", "volcano"]
"""


@pytest.fixture
def tokenizer():
    return AutoTokenizer.from_pretrained(TINY)


@pytest.fixture
def recipe(tmp_path):
    def write(text):
        path = tmp_path / "copy.toml"
        path.write_text(text)
        return path

    return write


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
    assert task.corrupted
    assert task.distractors
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


def test_corrupted_prompts_may_have_another_length_and_are_read_where_they_count(tokenizer):
    task = mx.Task(["apple bird", "boat key"], [" bird", " key"], None, ["apple boat", "zebra"])
    assert tokenize(task, tokenizer, with_corrupted=False).corrupted is None
    with pytest.raises(TaskError, match="'zebra' in prompt 'zebra'"):
        tokenize(task, tokenizer)
    shorter = replace(task, corrupted=["apple boat", "boat"])
    assert [len(ids) for ids in tokenize(shorter, tokenizer).corrupted] == [3, 2]


def test_answers_of_several_tokens_are_read_whole_or_by_their_first(tokenizer):
    known = tokenizer.convert_tokens_to_ids
    task = mx.Task(["apple"], [[" bird boat", " bird", " bird boat"]], [" key"])
    # What begins with another answer is counted in that one already.
    assert tokenize(task, tokenizer).answers == (((known("Ġbird"),),),)
    longer = replace(task, answers=[[" bird boat", " lake", " bird boat"]])
    both = (tuple(known(["Ġbird", "Ġboat"])), (known("Ġlake"),))
    assert tokenize(longer, tokenizer).answers == (both,)
    first = replace(task, answer_tokens="first")
    assert tokenize(first, tokenizer).answers == (((known("Ġbird"),),),), "each token once"
    with pytest.raises(TaskError, match=r"prompt 0 has \['Ġbird'\] as their first token among its"):
        tokenize(replace(first, distractors=[" bird key"]), tokenizer)
    with pytest.raises(TaskError, match=r"prompt 0 has \['Ġbird'\] among its answers and its"):
        tokenize(replace(task, distractors=[[" key", " bird"]]), tokenizer)
    for answer, distractor in ((" bird", " bird key"), (" bird key", " bird")):
        begun = mx.Task(["apple"] * 2, [" key", answer], [" boat", [" key", distractor]])
        with pytest.raises(TaskError, match="prompt 1 has answer .*one of which begins with the"):
            tokenize(begun, tokenizer)
        # Where they are not read both, it does no harm.
        for metric in ("kl_divergence", "answer_probability", lambda logits, prompts: logits[:, 0]):
            assert tokenize(replace(begun, metric=metric), tokenizer).distractors
    same = mx.Task(["apple"], [" bird"], [" bird"], metric="kl_divergence")
    assert tokenize(same, tokenizer).distractors == (((known("Ġbird"),),),)
    with pytest.raises(TaskError, match="answer_tokens = 'some'; choose all, mean, first"):
        replace(task, answer_tokens="some")
    with pytest.raises(TaskError, match="answer ' volcano' is not in this model's vocabulary"):
        tokenize(mx.Task(["apple"], [" volcano"]), tokenizer)


def test_a_space_at_the_end_of_a_prompt_is_named_wherever_it_is_read(tokenizer):
    with pytest.raises(TaskError, match="prompt 'apple bird ' ends in a space"):
        tokenize(mx.Task(["boat", "apple bird "], [" key", "boat"]), tokenizer)


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


class Characters:
    """A tokenizer with a token a character."""

    bos_token_id = unk_token_id = None

    def __call__(self, text, *, add_special_tokens=True):
        return SimpleNamespace(input_ids=[*map(ord, text)])

    def convert_ids_to_tokens(self, ids):
        return [*map(chr, ids)]


def test_answers_without_their_space_are_told():
    def read(prompts, answers, metric="answer_probability"):
        return tokenize(mx.Task(prompts, answers, metric=metric), Characters())

    with pytest.warns(UserWarning, match=r"reads 'apple birdkey'; .* write ' key'"):
        read(["apple bird", "apple lake"], [["key", "cow"], "boat"])
    # One with its space shows that it is meant, and what is not read does no harm.
    read(["apple", "boat"], [" key", "cow"])
    read(["apple"], ["key"], "kl_divergence")


@pytest.mark.parametrize(
    ("prompt", "text", "told"),
    [("is", "Oslo", True), ("Answer:", "B", True), ("is", " Oslo", False), ("16", "48", False),
     ("日", "本", False), ("f(", "x", False), ("<reply>", "Oslo", False), ("is ", "Oslo", False)],
)  # fmt: skip
def test_where_words_run_together(prompt, text, told):
    assert runs_on(prompt, text) == told


def test_tasks_can_be_named_in_their_room_without_torch():
    code = "import sys; from mechspex.tasks import Task; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tasks.Task, tasks.tokenize) == (mx.Task, tokenize)


def test_a_logit_difference_without_distractors_is_refused(tiny):
    with pytest.raises(TaskError, match="needs distractors"):
        mx.ComponentValues(tiny, mx.Task(["apple"] * 2, [" bird"] * 2), mx.heads(tiny), "zero")


def test_one_of_several_answers_may_be_given_as_a_list(tokenizer):
    task = mx.Task(["apple", "boat"], [[" bird", " key"], " lake"], [" moon", [" lamp", " rose"]])
    assert task.answers == ((" bird", " key"), " lake")
    tokens = tokenize(task, tokenizer)
    known = tokenizer.convert_tokens_to_ids
    assert tokens.distractors is not None
    answers, distractors = first_tokens(tokens.answers), first_tokens(tokens.distractors)
    assert answers.tolist() == [known(["Ġbird", "Ġkey"]), [known("Ġlake"), -1]]
    assert distractors.tolist() == [[known("Ġmoon"), -1], known(["Ġlamp", "Ġrose"])]
    assert task[1:].answers == (" lake",)
    assert first_tokens(tokenize(task[1:], tokenizer).answers).shape == (1,)
    with pytest.raises(TaskError, match="prompt 1 has an empty list of answers"):
        mx.Task(["apple", "boat"], [" bird", []])
    with pytest.raises(TaskError, match="the answer of 'apple' is an empty text"):
        tokenize(mx.Task(["apple"], [[" key", ""]]), tokenizer)


ROWS = """
title = "Rows"
[[templates]]
prompt = "{A.one} {B.one}"
corrupted = "{C.one} {B.one}"
answer = " {A.two}"
distractor = " {B.two}"
[slots]
A = "pair"
B = "pair"
C = "pair"
[words.pair]
columns = ["one", "two"]
rows = [
    ["apple", "garden"], ["bird", "garden"], ["boat", "lake"], ["book", "school"],
    ["volcano", "island"],
]
"""


def test_rows_are_drawn_whole_and_share_no_word(tiny, recipe):
    task = mx.load_task(recipe(ROWS), tiny, n_prompts=10)
    two = {"apple": "garden", "bird": "garden", "boat": "lake", "book": "school"}
    assert task.corrupted
    assert task.distractors
    rows = zip(task.prompts, task.corrupted, task.answers, task.distractors, strict=True)
    for prompt, corrupted, answer, distractor in rows:
        first, second = prompt.split()
        third = corrupted.split()[0]
        assert (answer, distractor) == (f" {two[first]}", f" {two[second]}")
        assert len({two[first], two[second], two[third]}) == 3
    with pytest.raises(TaskError, match="gave only 10 different prompts"):
        mx.load_task(recipe(ROWS), tiny, n_prompts=11)
    with pytest.raises(TaskError, match="gave only 10 different .*, 1000000 were asked for"):
        # Not a hundred million draws for a million prompts: after the last there are no more.
        mx.load_task(recipe(ROWS), tiny, n_prompts=10**6)


def test_only_the_columns_that_are_shown_must_be_single_tokens(tiny, recipe):
    text = ROWS.replace('"two"]', '"two", "three"]')
    for word in ("garden", "lake", "school", "island"):
        text = text.replace(f'{word}"]', f'{word}", "volcano volcano"]')
    assert mx.load_task(recipe(text), tiny, n_prompts=10)


def test_templates_of_another_length_are_left_out(tiny, recipe):
    other = """
[[templates]]
prompt = "{A} {B} {C} {A}"
corrupted = "{C} {B} {C} {A}"
answer = " {B}"
distractor = " {C}"
[[templates]]
prompt = "{B} {A} {B}"
corrupted = "{C} {A} {B}"
answer = " {A}"
distractor = " {B}"
[slots]"""
    task = mx.load_task(recipe(RECIPE.replace("[slots]", other)), tiny, n_prompts=6)
    assert {len(prompt.split()) for prompt in task.prompts} == {3}


def test_corrupted_prompts_of_another_length_are_refused(tiny, recipe):
    text = RECIPE.replace('"{C} {B} {A}"', '"{C} {B}"')
    with pytest.raises(TaskError, match="task 'copy': '.*' and the corrupted '.*' are not equally"):
        mx.load_task(recipe(text), tiny)


SPAN = """
title = "Greater than"
metric = "probability_difference"
[[templates]]
prompt = "from 17{YY} to 17"
corrupted = "from 1701 to 17"
answer = "{>YY}"
distractor = "{<=YY}"
[slots]
YY = "year"
[words]
year = [%s]
""" % ", ".join(f'"{year:02}"' for year in range(2, 99))  # noqa: UP031


def years_as(pattern):
    """A tokenizer that reads digits by this pattern."""
    pieces = ["<unk>", "from", " to", " ", *map(str, range(10)), *(f"{n:02}" for n in range(100))]
    words = Tokenizer(models.WordLevel({p: i for i, p in enumerate(pieces)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split(
        Regex(rf" ?[^\s\d]+|{pattern}| "), behavior="isolated"
    )
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")


def spans(task):
    return zip(
        (int(prompt.split()[1][2:]) for prompt in task.prompts),
        map(numbers, task.answers),
        map(numbers, task.distractors),
        strict=True,
    )


def numbers(texts):
    return {int(text) for text in ([texts] if isinstance(texts, str) else texts)}


def test_years_are_compared_by_whole_tokens(recipe):
    span = read_task_file(recipe(SPAN))
    task = draw(span, span.words, years_as(r"\d\d"), n_prompts=40, seed=0)  # pyright: ignore[reportArgumentType]
    for year, right, wrong in spans(task):
        assert right == {other for other in range(2, 99) if other > year}
        assert wrong == {other for other in range(2, 99) if other <= year}


def test_years_read_digit_by_digit_are_compared_by_the_first_that_decides(recipe):
    span = read_task_file(recipe(SPAN))
    tokenizer = years_as(r"\d")
    task = draw(span, span.words, tokenizer, n_prompts=40, seed=0)  # pyright: ignore[reportArgumentType]
    for year, right, wrong in spans(task):
        later = {other // 10 for other in range(2, 99) if other > year}
        earlier = {other // 10 for other in range(2, 99) if other <= year}
        assert right == later - earlier
        assert wrong == earlier - later
        assert year % 10 == 9 or year // 10 not in right | wrong, "undecided by the first digit"
    read = tokenize(task, tokenizer)  # pyright: ignore[reportArgumentType]
    assert first_tokens(read.answers).shape[1] > 1


def test_a_task_is_split_into_its_prompts_from_the_first_on():
    task = mx.Task(["a", "b", "c", "d"], [" x", " y", " z", " w"], corrupted=["A", "B", "C", "D"])
    first, second = task.split(1, 2)
    assert (first.prompts, second.prompts) == (("a",), ("b", "c"))
    assert (second.answers, second.corrupted) == ((" y", " z"), ("B", "C"))
    assert task.split() == ()
    for sizes in ((3, 2), (0, 2), (-1,)):
        with pytest.raises(TaskError, match=r"4 prompts cannot be split into"):
            task.split(*sizes)
