"""Task files: what is read from them, and that every fault is met with file, line and next step."""

import re
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mechspex as mx
from mechspex.errors import TaskError
from mechspex.tasks.draw_task import draw
from mechspex.tasks.task_file import read_task_file, task_files
from mechspex.tasks.toml_lines import line_of

RECIPE = """\
title = "Where things stand"
citation = "our own"
metric = "logit_difference"

# Two ways to say it.
[[templates]]
prompt = "{A} {B.thing} {A} {B.thing} {A}"
corrupted = "{A} {C.thing} {A} {C.thing} {A}"
answer = " {B.thing}"
distractor = " {C.place}"

[[templates]]
prompt = "{B.thing} {A} {B.thing}"
corrupted = '''{C.thing} {A} \\
{C.thing}'''
answer = " {A}"
distractor = " {B.place}"

[slots]
A = "word"
B = "stand"
C = "stand"

[words]
word = [
    "apple", "bird",
    "boat",
]

[words.stand]
columns = ["thing", "place"]
rows = [
    ["book", "table"], ["cow", "garden"],
    ["key", "door"],
    ["coat", "chair"],
]

[circuits.gpt2]
mover = ["L9H9", "L8MLP"]

[scores.tiny]
prompts = 64
clean = 2
interval = [1.5, 2.5]
corrupted = 0.1
accuracy = 1.0
can = true
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("tasks") / "stand.toml"

    def write(text):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_what_is_in_the_file_is_read(file):
    recipe = read_task_file(file(RECIPE))
    assert recipe.name == "stand"
    assert recipe.words["word"] == ({"": "apple"}, {"": "bird"}, {"": "boat"})
    assert recipe.words["stand"][1] == {"thing": "cow", "place": "garden"}
    assert recipe.columns_used("stand") == {"thing", "place"}
    assert recipe.circuits == {"gpt2": {"mover": ["L9H9", "L8MLP"]}}
    assert recipe.scores["tiny"]["can"]


FAULTS = [
    # (what is in the file, what is put there, the line, the complaint)
    ('title = "Where things stand"', "title = ", 1, "not TOML .Invalid value.; mind quotes"),
    ("coat", "coat\n", 35, "not TOML"),
    ('"boat",\n]', '"boat",\n', 30, "not TOML"),
    ("can = true", 'can = "', 47, "not TOML"),
    ("can = true", "can = true\ncan = true", 48, "not TOML .Cannot overwrite a value.*"),
    ('title = "Where things stand"\n', "", 1, r"missing \['title'\]; a task file needs title, te"),
    ('citation = "our own"', 'cite = "our own"', 2, r"unknown \['cite'\]; a task file has circui"),
    ('citation = "our own"', "citation = 2023", 2, "'citation' is 2023; it must be a text in quo"),
    ('citation = "our own"', 'citation = ""', 2, "'citation' is empty; give it at least one entry"),
    ("logit_difference", "loss", 3, "metric 'loss' is unknown; choose logit_difference, prob"),
    ('"{B.thing} {A} {B.thing}"', '"{B.thing} {D} {B.thing}"', 13, r"prompt of template 2 has sl"),
    ("{C.thing} {A} \\\n{C", "{C.thing} {D} \\\n{C", 14, "corrupted of template 2 has slot {D}"),
    ('"{B.thing} {A} {B.thing}"', '"{B} {A} {B.thing}"', 13, r"write {B.thing} or {B.place}"),
    ('"{B.thing} {A} {B.thing}"', '"{B.size} {A} {B.thing}"', 13, r"{B.size}; write {B.thing} or"),
    ('"{B.thing} {A} {B.thing}"', '"{B.thing} {A.b} {B.thing}"', 13, r"has {A.b}; write {A}"),
    ('"{B.thing} {A} {B.thing}"', '"{B.thing} { A } {A}"', 13, "has a brace that is no slot"),
    ('"{B.thing} {A} {B.thing}"', '"{>A} {B.thing} {A}"', 13, "are compared in answer and distra"),
    ('answer = " {A}"', 'answer = "{>A}"', 16, "set metric = 'probability_difference'"),
    ('answer = " {B.thing}"\n', "", 6, r"template 1 has .*needs prompt, answer and may"),
    ('answer = " {A}"', 'answers = " {A}"', 16, "template 2 has .*'answers'.*needs prompt, answ"),
    ('answer = " {A}"', "answer = 3", 16, "'answer' is 3; it must be a text in quotes"),
    ('answer = " {A}"', 'answer = " {C.thing}"', 16, r"{C}, which the prompt has not"),
    ('distractor = " {B.place}"', 'distractor = " {A}"', 17, "distractor is the same text as ans"),
    ('"{A} {C.thing} {A} {C.thing} {A}"', '"{A} {B.thing} {A} {B.thing} {A}"', 8, "same text as"),
    ('A = "word"', 'A = "verb"', 20, "slot 'A' takes words of 'verb'; .* only word, stand"),
    ('A = "word"', 'A = ["word"]', 20, r"'A' is \['word'\]; it must be a text in quotes"),
    ('A = "word"', 'A = "word"\n\n# spare\nD = "word"', 23, "slot 'D' is in no template; use it"),
    ('A = "word"', 'A = "word"\n"a b" = "word"', 21, "slot 'a b': a slot's name has letters"),
    ('word = [\n    "apple", "bird",\n    "boat",\n]', "word = []", 25, "'word' is empty"),
    ('word = [\n    "apple", "bird",\n    "boat",\n]', 'word = "apple"', 25, "must be a list"),
    ('"boat",', '"boat", 7,', 27, "7 is no word; write it in quotes"),
    ('"boat",', '"boat",\n    " key",', 28, "' key' is no word; .*without outer spaces"),
    ('"boat",', '"boat",\n\n    "bird",', 29, "'bird' is twice in 'word'; leave one"),
    ("[words]\n", '[words]\nverb = ["go"]\n', 25, "list 'verb' has no slot; use it or remove it"),
    ('columns = ["thing", "place"]', "", 30, r"missing \['columns'\]; a list of rows needs colum"),
    ('"thing", "place"]', '"thing", "thing"]', 31, "'thing' is twice in 'columns'"),
    ('["key", "door"],', '["key"],', 34, r"row \['key'\] needs a list of thing, place"),
    ('["key", "door"],', '["cow", "garden"],', 34, "is there twice; leave one"),
    ('["key", "door"],', '"key",', 34, "row 'key' needs a list of thing, place"),
    ('["key", "door"],', '["key", 4],', 34, "4 is no word"),
    ('"L8MLP"', '"8.MLP"', 39, "'8.MLP' is no unit; write 'L9H6'"),
    ("mover = ", "mover = 9 # ", 39, "'mover' is 9; it must be a list"),
    ("clean = 2", 'clean = "2"', 43, "'clean' is '2'; it must be a number"),
    ("clean = 2", "clean = nan", 43, "'clean' is nan; a finite number is needed"),
    ("clean = 2", "clean = true", 43, "'clean' is True; it must be a number"),
    ("[1.5, 2.5]", "[1.5]", 44, r"'interval' is \[1.5\], not two"),
    ("[1.5, 2.5]", "[1.5,\n1979-05-27]", 45, "'interval' is datetime.date.*; it must be a number"),
    ("can = true\n", "", 41, r"missing \['can'\]; a score needs prompts"),
    ("can = true", "can = 1", 47, "'can' is 1; it must be true or false"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "complaint"), FAULTS)
def test_a_fault_is_met_with_file_line_and_next_step(file, old, new, line, complaint):
    assert old in RECIPE
    path = file(RECIPE.replace(old, new, 1))
    with pytest.raises(TaskError, match=complaint) as caught:
        read_task_file(path)
    assert str(caught.value).startswith(f"{path}, line ")
    assert int(re.match(r", line (\d+): ", str(caught.value)[len(str(path)) :])[1]) == line


def test_lists_with_too_few_entries_are_refused(file):
    text = RECIPE.replace('    ["key", "door"],\n    ["coat", "chair"],\n', "")
    text = text.replace('["book", "table"], ', "")
    with pytest.raises(TaskError, match="line 30: list 'stand' has 1 entries for 2 slots; add"):
        read_task_file(file(text))


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfe", b"title = '\xe9'", b"\0", b"", b"\n\n", b"[[[", b"x = " + b"[" * 5000,
        b"x = " + b"9" * 5000, b"title = 0x" + b"9" * 5000,
        b"x = 1979-13-01", b"templates = 3", b"[templates]\na = 1",
        b"templates = [1]\nslots = {a = 'w'}\nwords = {w = ['x']}\ntitle = 't'",
        b"title = 't'\ntemplates = []\nslots = {a = 'w'}\nwords = {w = ['x']}",
        b"title = 't'\ntemplates = []\nslots = 3\nwords = 4",
        b"title = nan\ntemplates = []\nslots = {}\nwords = {}",
    ],
)  # fmt: skip
def test_no_bytes_raise_anything_but_a_task_error(file, data):
    with pytest.raises(TaskError, match=r"stand.toml, line \d+: "):
        read_task_file(file(data))


@settings(max_examples=150, deadline=None)
@given(
    cut=st.integers(0, len(RECIPE)),
    length=st.integers(0, 30),
    put=st.sampled_from(["", "{", "}", '"', "[", "]", "=", "\n", ",", "3", "A", ".", "#", "{>A}"]),
)
def test_mutated_files_are_read_or_refused(tiny, file, cut, length, put):
    path = file(RECIPE[:cut] + put + RECIPE[cut + length :])
    try:
        recipe = read_task_file(path)
        draw(recipe, recipe.words, tiny.tokenizer, n_prompts=2, seed=0)
    except TaskError:
        return


def test_lines_are_those_on_which_values_begin():
    text = (
        "a = 1\n\n[b]\nc.d = 2 # c\nlong = '''\n[b.e]\nf = 3\n'''\n[[g]]\n[[g]]\nh = [\n [1],\n [2,"
        "\n  3],\n\n # four\n [4]]\n'i j' = {k = 5}\n"
    )
    tomllib.loads(text)
    expected = {
        ("a",): 1, ("b",): 3, ("b", "c", "d"): 4, ("b", "long"): 5, ("g", 0): 9, ("g", 1): 10,
        ("g", 1, "h"): 11, ("g", 1, "h", 0): 12, ("g", 1, "h", 1): 13, ("g", 1, "h", 2): 17,
        ("g", 1, "i j", "k"): 18, (): 1, ("g", 1, "absent"): 10, ("b", "e", "f"): 3,
    }  # fmt: skip
    assert {path: line_of(text, path) for path in expected} == expected


def test_a_folder_adds_tasks(file, tmp_path, monkeypatch, tiny):
    own = tmp_path / "stands.toml"
    own.write_text(RECIPE)
    monkeypatch.setenv("MECHSPEX_TASKS", str(tmp_path))
    assert list(task_files())[-1] == "stands"
    assert mx.load_task("stands", tiny, n_prompts=2).name == "stands"
    own.rename(tmp_path / "ioi.toml")
    with pytest.raises(TaskError, match="ioi.toml has the name of a shipped task; rename"):
        task_files()
    monkeypatch.setenv("MECHSPEX_TASKS", str(tmp_path / "absent"))
    with pytest.raises(TaskError, match="absent' is no folder; name one, or unset it"):
        read_task_file("ioi")


@pytest.mark.parametrize("name", ["iio", "a\0b", "x" * 5000, "."])
def test_unknown_tasks_are_refused_with_those_there_are(name):
    with pytest.raises(TaskError, match="no task .*choose .*induction, ioi"):
        read_task_file(name)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [("{A} {B.thing} {A}", "{Z}", 7), ('"L8MLP"', '"L8"', 39), ("can = true", "can = 3", 47)],
)
def test_lines_are_the_same_in_files_of_windows(file, old, new, line):
    text = RECIPE.replace(old, new, 1)
    for ending in ("\n", "\r\n"):
        with pytest.raises(TaskError, match=f"line {line}:"):
            read_task_file(file(text.replace("\n", ending)))
    whole = RECIPE.replace("\n", "\r\n")
    assert read_task_file(file(whole)) == read_task_file(file(RECIPE))


def without(*parts):
    return re.sub(rf"(?ms)^({'|'.join(parts)}) = ('''.*?'''|[^\n]*)\n", "", PLACES)


PLACES = """\
title = "Where things stand"
lengths = "any"
[[templates]]
prompt = "{B.place} {A.thing} {A.place}"
corrupted = "{B.place} {A.thing} {C.place}"
answer = " {A.thing}"
distractor = " {B.thing}"
[slots]
A = "stand"
B = "stand"
C = "stand"
[words.stand]
columns = ["thing", "place"]
rows = [
    ["book", "table"], ["cow", "garden gate"], ["key", "door"],
    ["coat", "chair"], ["bird", "tree in the road"], ["zebra", "lake"],
]
"""


def test_only_answers_are_words_where_prompts_may_have_any_length(file, tiny):
    task = mx.load_task(file(PLACES), tiny, n_prompts=16, seed=2)
    assert len({len(tiny.tokenizer(prompt).input_ids) for prompt in task.prompts}) > 1
    assert any("tree in the road" in prompt for prompt in task.prompts)
    assert not any("zebra" in text for text in (*task.answers, *task.distractors))
    assert task.corrupted
    equal = mx.load_task(file(PLACES.replace('"any"', '"equal"')), tiny, n_prompts=6, seed=2)
    assert not any("tree in the road" in prompt for prompt in equal.prompts)


@pytest.mark.parametrize("parts", [("corrupted",), ("distractor",), ("corrupted", "distractor")])
def test_corrupted_and_distractor_are_left_out_where_nothing_needs_them(file, tiny, parts):
    text = without(*parts).replace("title", 'metric = "answer_log_probability"\ntitle', 1)
    if "corrupted" in parts:
        text = text.replace('C = "stand"\n', "")
    task = mx.load_task(file(text), tiny, n_prompts=6)
    assert (task.corrupted is None) == ("corrupted" in parts)
    assert (task.distractors is None) == ("distractor" in parts)
    assert len(task.answers) == 6


def test_a_difference_needs_a_distractor_and_templates_have_the_same_parts(file):
    text = without("distractor")
    with pytest.raises(TaskError, match="'logit_difference' needs a distractor in every template"):
        read_task_file(file(text))
    second = '[[templates]]\nprompt = "{A.thing} {A.place}"\nanswer = " {A.place}"\n'
    with pytest.raises(TaskError, match="do not both have corrupted"):
        read_task_file(file(PLACES.replace("[slots]", second + "[slots]")))
    with pytest.raises(TaskError, match="line 2: 'lengths' is 'some'; choose equal or any"):
        read_task_file(file(PLACES.replace('"any"', '"some"')))
