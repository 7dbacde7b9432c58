"""Tables of prompts: every form of a table is the same task, and what does not fit is counted."""

import json

import numpy as np
import pandas as pd
import pytest

import mechspex as mx
from mechspex.errors import TaskError
from mechspex.tasks.prompt_layouts import layout_of
from mechspex.tasks.prompt_records import records_of
from mechspex.tasks.reading import reading_of

# ruff: noqa: E501
ROWS = [
    {"prompt": "key cow key", "answer": " cow", "distractor": " key", "corrupted": "cow cow key"},
    {"prompt": "tree boat tree", "answer": " boat", "distractor": " tree", "corrupted": "boat boat tree"},
    {"prompt": "moon bird road moon", "answer": " bird road", "distractor": " moon", "corrupted": "bird bird road moon"},
]  # fmt: skip
TASK = mx.Task(
    [row["prompt"] for row in ROWS],
    [row["answer"] for row in ROWS],
    [row["distractor"] for row in ROWS],
    [row["corrupted"] for row in ROWS],
    name="prompts",
)


def write(form, path):
    frame = pd.DataFrame(ROWS)
    if form == "csv":
        frame.to_csv(path, index=False)
    elif form == "tsv":
        frame.to_csv(path, index=False, sep="\t")
    elif form == "windows.csv":
        path.write_bytes(b"\xef\xbb\xbf" + frame.to_csv(index=False).replace("\n", "\r\n").encode())
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif form == "json":
        path.write_text(json.dumps(ROWS))
    elif form == "rows.json":
        path.write_text(json.dumps({"about": "own", "data": ROWS}))
    else:
        path.write_text(json.dumps(frame.to_dict("list")))
    return path


@pytest.mark.parametrize(
    "form", ["csv", "tsv", "windows.csv", "jsonl", "json", "rows.json", "columns.json"]
)
def test_every_form_of_a_file_is_the_same_task(form, tiny, tmp_path):
    task = mx.read_prompts(write(form, tmp_path / f"prompts.{form}"), tiny)
    assert task.prompts == TASK.prompts
    assert (task.answers, task.distractors, task.corrupted) == (
        TASK.answers, TASK.distractors, TASK.corrupted,
    )  # fmt: skip


@pytest.mark.parametrize(
    "table", [ROWS, tuple(ROWS), pd.DataFrame(ROWS), pd.DataFrame(ROWS).to_dict("list"), iter(ROWS)]
)
def test_every_table_in_memory_is_the_same_task(table, tiny):
    assert mx.read_prompts(table, tiny) == TASK


def test_rows_that_do_not_fit_are_counted_with_their_reasons(tiny):
    rows = [
        *ROWS,
        {**ROWS[0], "answer": " zebra"},
        {**ROWS[1], "answer": None},
        {**ROWS[2], "distractor": float("nan")},
        {**ROWS[0], "distractor": " cow"},
        {**ROWS[0], "prompt": "key xylophone"},
    ]
    with pytest.raises(TaskError) as refused:
        mx.read_prompts(rows, tiny)
    told = str(refused.value)
    assert told.startswith("3 of 8 rows fit this model; these do not: ")
    for place, reason in {
        3: "zebra",
        4: "no answer",
        5: "no distractor",
        6: "distractors",
        7: "xylophone",
    }.items():
        part = told.split(f"row {place}: ")[1].split("; row ")[0]
        assert reason in part
        assert "prompt 0" not in part
    assert "skip=True" in told
    with pytest.warns(UserWarning, match="3 of 8 rows fit"):
        assert mx.read_prompts(rows, tiny, skip=True) == TASK


def test_no_row_that_fits_is_no_task_even_when_skipping(tiny):
    with pytest.raises(TaskError, match="none of 1 rows fit this model.*zebra") as refused:
        mx.read_prompts([{"prompt": "key", "answer": " zebra"}], tiny, skip=True)
    assert "skip=True" not in str(refused.value)


def test_many_reasons_are_cut_short_and_counted(tiny):
    rows = [ROWS[0], *[{"prompt": "key", "answer": " zebra", "distractor": " cow"}] * 30]
    with pytest.raises(TaskError, match="1 of 31 rows fit.*and 22 more"):
        mx.read_prompts(rows, tiny)


@pytest.mark.parametrize(
    ("cell", "texts"),
    [
        ('[" cow", " boat"]', (" cow", " boat")),
        ("[' cow', ' boat']", (" cow", " boat")),
        ('[" cow"]', " cow"),
        (" cow", " cow"),
        ([" cow", " cow", " boat"], (" cow", " boat")),
        (np.array([" cow"]), " cow"),
    ],
)
def test_a_cell_may_hold_a_list(cell, texts, tiny):
    task = mx.read_prompts([{"prompt": "key", "answer": cell}], tiny)
    assert task.answers == (texts,)
    assert task.metric == "answer_log_probability"


def test_the_metric_decides_what_a_row_needs(tiny):
    rows = [{**row, "distractor": ""} for row in ROWS]
    assert mx.read_prompts(rows, tiny).distractors is None
    with pytest.raises(TaskError, match="no distractor, which logit_difference needs"):
        mx.read_prompts(rows, tiny, metric="logit_difference")
    task = mx.read_prompts(ROWS, tiny, metric="answer_probability", answer_tokens="first")
    assert (task.metric, task.answer_tokens) == ("answer_probability", "first")


def test_one_space_parts_answers_from_prompts_that_end_in_words(tiny):
    rows = [{"prompt": "key cow key", "answer": "cow"}, {"prompt": "tree", "answer": "boat"}]
    with pytest.warns(UserWarning, match="a space was put before the answers"):
        assert mx.read_prompts(rows, tiny).answers == (" cow", " boat")
    trailing = [{**row, "prompt": row["prompt"] + " "} for row in rows]
    with pytest.warns(UserWarning, match="moved to the answers"):
        moved = mx.read_prompts(trailing, tiny)
    assert moved.prompts == ("key cow key", "tree")
    assert moved.answers == (" cow", " boat")


class Letters:
    """A token a character; and one that many tokenizers have, so that it does not begin with do."""

    bos_token_id = unk_token_id = None
    does, one = " does", "\0"

    def __call__(self, text, *, add_special_tokens=True):
        return type("Read", (), {"input_ids": [*map(ord, text.replace(self.does, self.one))]})

    def convert_ids_to_tokens(self, ids):
        return [chr(number) for number in ids]


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [("from 16", "48"), ("3+4=", "7"), ("f(", "x"), ("line\n", "x"), ("日", "本"), ("“", "…")],
)
def test_no_space_is_put_where_none_belongs(prompt, answer):
    read = reading_of([{"prompt": prompt, "answer": answer}], Letters())
    assert read.task.answers == (answer,)
    assert not read.remarks


def test_answers_of_which_one_has_its_space_are_left_as_they_are():
    rows = [{"prompt": "key", "answer": "s"}, {"prompt": "key", "answer": " cow"}]
    assert reading_of(rows, Letters()).task.answers == ("s", " cow")


COLOUR = {
    "prompt": "Box A is red. The red box is",
    "choices": {"label": ["A", "B"], "text": ["red", "blue"]},
}
LAYOUTS = {
    "relation": (
        [{"prompt_templates": ["{} eats", "Food of {}:"], "subject": s, "object": o}
         for s, o in [("cow", "grass"), ("goat", "grass"), ("cat", ["fish", "mice"])]],
        ("cow eats", " grass", " fish", "cat eats", "logit_difference"),
    ),
    "counterfact": (
        [{"case_id": 3, "requested_rewrite": {"prompt": "{} speaks", "subject": "Ana", "relation_id": "P1",
          "target_true": {"str": "Czech", "id": "Q1"}, "target_new": {"str": "Thai", "id": "Q2"}}}],
        ("Ana speaks", " Czech", " Thai", None, "logit_difference"),
    ),
    "counterfact, flat": (
        [{"prompt": "Ana speaks", "subject": "Ana", "target_true": " Czech", "target_false": " Thai"}],
        ("Ana speaks", " Czech", " Thai", None, "logit_difference"),
    ),
    "MIB names": (
        [{"prompt": "Jo met Al. Al paid", "metadata": {"subject": "Al", "indirect_object": "Jo"},
          "s2_io_flip_counterfactual": {"prompt": "Jo met Al. Jo paid"}}],
        ("Jo met Al. Al paid", " Jo", " Al", "Jo met Al. Jo paid", "logit_difference"),
    ),
    "MIB choices": (
        [{**COLOUR, "answerKey": 0, "symbol_counterfactual": {**COLOUR, "prompt": "Box B is red.", "answerKey": 1}}],
        (COLOUR["prompt"], " A", " B", "Box B is red.", "logit_difference"),
    ),
    "MIB sums": (
        [{"prompt": "12+30=", "label": 42, "random_counterfactual": {"prompt": "11+50=", "label": "61"}}],
        ("12+30=", "42", "61", "11+50=", "logit_difference"),
    ),
    "MMLU": (
        [{"question": "Wet?", "subject": "own", "choices": ["sand", "rain"], "answer": 1}],
        ("Wet?\nA. sand\nB. rain\nAnswer:", " B", " A", None, "logit_difference"),
    ),
    "hypernyms": (
        [{"clean": "oaks and other", "answers": "['trees', 'plants']", "answers_idx": "[1, 2]",
          "corrupted": "cods and other", "corrupted_answers": "['fish']"}],
        ("oaks and other", (" trees", " plants"), " fish", "cods and other", "probability_difference"),
    ),
    "countries": (
        [{"clean": "Riga, the capital of", "capital": "Riga", "country": "Latvia", "country_idx": 7,
          "corrupted": "Oslo, the capital of", "corrupted_country": "Norway", "corrupted_country_idx": 8}],
        ("Riga, the capital of", " Latvia", " Norway", "Oslo, the capital of", "logit_difference"),
    ),
    "pronouns": (
        [{"clean": "The pilot ran, and", "corrupted": "The woman ran, and", "clean_answer_idx": 5, "corrupted_answer_idx": 6}],
        ("The pilot ran, and", " he", " she", "The woman ran, and", "logit_difference"),
    ),
    "verbs": (
        [{"clean": "The cat", "corrupted": "The cats", "plural": "0"}],
        ("The cat", (" is", " was", " has", " does"), (" are", " were", " have", " do"), "The cats", "probability_difference"),
    ),
    "names": (
        [{"clean": "Jo met Al, and Al paid", "corrupted": "Jo met Al, and Ed paid", "corrupted_hard": "Jo met Al, and Jo paid",
          "correct_idx": 5, "incorrect_idx": 6}],
        ("Jo met Al, and Al paid", " Jo", " Al", "Jo met Al, and Ed paid", "logit_difference"),
    ),
    "years": (
        [{"clean": "from 1697 to 16", "corrupted": "from 1601 to 16", "correct_idx": 97}],
        ("from 1697 to 16", ("98", "99"), tuple(f"{y:02}" for y in range(98)), "from 1601 to 16", "probability_difference"),
    ),
    "auto-circuit": (
        [{"clean": "Jo met Al", "corrupt": "Jo met Ed", "answers": [" Jo"], "wrong_answers": [" Al", " Ed"]}],
        ("Jo met Al", " Jo", (" Al", " Ed"), "Jo met Ed", "logit_difference"),
    ),
    "known facts": (
        [{"subject": "Nile", "attribute": "Africa", "prompt": "The Nile flows in"}],
        ("The Nile flows in", " Africa", None, None, "answer_log_probability"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_layouts_are_known_by_their_columns(layout):
    rows, (prompt, answer, distractor, corrupted, metric) = LAYOUTS[layout]
    task = reading_of(rows, Letters()).task
    assert task.prompts[0] == prompt
    assert task.answers[0] == answer
    assert (None if task.distractors is None else task.distractors[0]) == distractor
    assert (None if task.corrupted is None else task.corrupted[0]) == corrupted
    assert task.metric == metric


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"clean": "Jo met Al", "corrupted": "x", "correct_idx": 5, "incorrect_idx": 6},
            "numbers of tokens",
        ),
        (
            {"clean": "The pilot", "corrupted": "The king", "clean_answer_idx": 5},
            "numbers of tokens",
        ),
        ({"clean": "The cat", "plural": 2}, "neither 0 nor 1"),
        ({"clean": "16", "correct_idx": 99}, "no beginning of a span"),
        ({"question": "Wet?", "choices": ["a", "b"], "answer": 2}, "none of the 2 choices"),
        ({"prompt_templates": ["no place"], "subject": "a", "object": "b"}, "no place {}"),
        ({"prompt": "key", "answer": 2.5}, "no text"),
        ({"prompt": "key", "answer": []}, "empty list"),
    ],
)
def test_a_row_that_says_no_answer_is_told_why(row, reason):
    with pytest.raises(TaskError, match="none of 1 rows fit") as refused:
        reading_of([row], Letters())
    assert reason in str(refused.value)


def test_unknown_columns_are_refused_with_those_that_are_read():
    with pytest.raises(TaskError, match="have columns text, label; give prompt, answer") as refused:
        layout_of(records_of([{"text": "a", "label": "b"}])[1])
    assert "EAP-IG" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"prompt,answer\nkey, cow, boat\n", "row 1 has 3 cells for 2 columns"),
        ("a.csv", b"prompt,prompt\nkey,key\n", "column twice"),
        ("a.csv", b"prompt,answer\n", "has no rows"),
        ("a.csv", b"", "has no rows"),
        ("a.csv", b"prompt,answer\n\xff,\xfe\n", "not UTF-8"),
        ("a.jsonl", b'{"prompt": "key"}\n{"prompt": \n', "line 2: not JSON"),
        ("a.json", b'[\n{"prompt": "key",}\n]', "not JSON"),
        ("a.json", b"7", "not a list of rows"),
        ("a.json", b"[7]", "not {column: value}"),
        ("a.json", b'{"a": [1, 2], "b": [1]}', "columns of one length"),
        ("a.json", b"[" * 100_000, "cannot be read"),
        ("a.xlsx", b"PK", "choose .csv"),
    ],
)
def test_files_that_cannot_be_read_say_so(name, content, told, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(TaskError) as refused:
        records_of(path)
    assert told in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(TaskError):
            records_of(path)


class Chats(Letters):
    chat_template = "own"

    def apply_chat_template(
        self, messages, *, tokenize, add_generation_prompt=False, continue_final_message=False
    ):
        assert not tokenize
        if messages[0]["role"] == "tool":
            raise ValueError("roles must alternate")
        said = "".join(f"<{one['role']}>{one['content']}</>" for one in messages)
        return said[: -3 * continue_final_message or None] + "<reply>" * add_generation_prompt


def test_a_chat_template_goes_round_each_prompt_and_answers_begin_the_reply():
    rows = [{"prompt": "Where is Oslo?", "answer": " Norway", "distractor": "Peru"}]
    task = reading_of(rows, Chats(), chat=True).task
    assert task.prompts == ("<user>Where is Oslo?</><reply>",)
    assert (task.answers, task.distractors) == (("Norway",), ("Peru",))
    with pytest.raises(TaskError, match="no chat template"):
        reading_of(rows, Letters(), chat=True)


TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "Where is Oslo?"},
]


@pytest.mark.parametrize("column", ["prompt", "messages"])
@pytest.mark.parametrize("written", [list, tuple, json.dumps, str, np.array])
def test_a_chat_of_several_turns_is_read(column, written):
    """In memory, and as CSV files hold it."""
    rows = [{column: written(TURNS), "answer": " Norway", "corrupted": written(TURNS[1:])}]
    task = reading_of(rows, Chats(), chat=True).task
    end = "<user>Hello</><assistant>Hi.</><user>Where is Oslo?</><reply>"
    assert task.prompts == (f"<system>Be brief.</>{end}",)
    assert task.corrupted == (end,)
    assert task.answers == ("Norway",)


def test_answers_go_on_with_a_reply_that_has_begun():
    begun = [*TURNS, {"role": "assistant", "content": "In"}]
    task = reading_of([{"prompt": begun, "answer": " Norway"}], Chats(), chat=True).task
    assert task.prompts[0].endswith("<user>Where is Oslo?</><assistant>In")
    assert task.answers == (" Norway",)


@pytest.mark.parametrize(
    ("prompt", "chat", "reason"),
    [
        (TURNS, False, "read it with chat=True"),
        ([{"role": "user"}], True, "it has no content"),
        (["Hello"], True, "give a text, or turns of role and content"),
        ([{"role": "tool", "content": "7"}], True, "chat template refuses it .roles must"),
    ],
)
def test_a_chat_that_cannot_be_read_is_a_rows_reason(prompt, chat, reason):
    rows = [{"prompt": "Oslo", "answer": "x"}, {"prompt": prompt, "answer": "x"}]
    with pytest.raises(TaskError, match=f"1 of 2 rows fit .* row 1: .*{reason}"):
        reading_of(rows, Chats(), chat=chat)


def test_a_list_that_is_no_chat_is_a_text():
    text = '[{"name": "Oslo"}]'
    assert reading_of([{"prompt": text, "answer": "x"}], Letters()).task.prompts == (text,)


def test_prompts_beyond_the_models_positions_are_rows_reasons(gpt2, tiny):
    """GPT-2 here has 32 positions; `tiny` has a table of 64, whatever its positions are."""
    for model, n in ((gpt2, 32), (tiny, 64)):
        with_bos = len(model.tokenizer("key").input_ids) - 1
        fits = " ".join(["key"] * (n - with_bos))
        rows = [
            {"prompt": fits, "answer": " cow"},
            {"prompt": f"{fits} key", "answer": " cow"},
            {"prompt": fits, "answer": " cow key"},
            {"prompt": "key", "answer": " cow"},
        ]
        with pytest.warns(UserWarning, match="2 of 4 rows fit") as told:
            task = mx.read_prompts(rows, model, skip=True, prepend_bos=bool(with_bos))
        assert task.prompts == (fits, "key")
        said = str(told[0].message)
        assert f"row 1: it has {n + 1} tokens, and the model reads {n}" in said
        assert f"row 2: it has {n + 1} tokens with its answer, and the model reads {n}" in said
        # What the metric does not read is not forced after a prompt.
        kl = mx.read_prompts(rows[2:3], model, metric="kl_divergence", prepend_bos=bool(with_bos))
        assert len(kl) == 1
        mx.ComponentValues(model, task, "heads", "zero")


def test_a_model_that_computes_its_positions_reads_any_number(llama):
    rows = [{"prompt": " ".join(["key"] * 40), "answer": " cow"}]
    assert len(mx.read_prompts(rows, llama)) == 1
