"""The tasks that ship with the package, on the model whose scores they carry."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import mechspex as mx
from mechspex.errors import TaskError
from mechspex.tasks.metrics import bind_metric
from mechspex.tasks.task_file import read_task_file, task_files
from mechspex.tasks.tokens import tokenize

NAMES = list(task_files())
PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()


@pytest.fixture(scope="module")
def model():
    return mx.load_model("smollm2-135m")


def test_there_are_the_ten_behaviours_of_the_field():
    assert set(NAMES) == {
        "agreement", "capital", "colour", "docstring", "greater_than", "hypernymy", "induction",
        "ioi", "ioi_varied", "pronoun", "two_step",
    }  # fmt: skip


def test_benchmarks_rest_on_these_very_prompts(model):
    task = mx.load_task("ioi", model, n_prompts=8, seed=0)
    assert task.prompts[:2] == (
        "When Simon and Alice went to the store, Alice gave a drink to",
        "When Jane and Mary went to the market, Jane gave a camera to",
    )
    assert task.corrupted[0] == "When Simon and Alice went to the store, Henry gave a drink to"


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_task_is_whole(name, model):
    recipe = read_task_file(name)
    assert recipe.citation
    assert len(recipe.templates) >= 2
    assert {"prompts", "clean", "accuracy"} <= set(recipe.scores["smollm2-135m"])
    task = mx.load_task(name, model, n_prompts=24, seed=5)
    assert mx.load_task(name, model, n_prompts=24, seed=5) == task
    assert mx.load_task(name, model, n_prompts=24, seed=6) != task
    assert len(set(task.prompts)) == 24
    assert task.corrupted
    assert all(map(str.__ne__, task.prompts, task.corrupted))
    tokens = tokenize(task, model.tokenizer)
    assert tokens.distractors is not None
    assert len({len(row) for row in (*tokens.prompts, *tokens.corrupted)}) == 1
    for answer, distractor in zip(tokens.answers, tokens.distractors, strict=True):
        right, wrong = ({ids[0] for ids in several} for several in (answer, distractor))
        assert tokens.of_one_token
        assert right
        assert wrong
        assert not right & wrong


@pytest.mark.parametrize("name", NAMES)
def test_every_template_is_drawn_by_this_model(name, model):
    recipe = read_task_file(name)
    drawn = mx.load_task(name, model, n_prompts=len(recipe.templates), seed=0)
    fixed = [min(t["prompt"].replace("{", "}").split("}")[::2], key=len) for t in recipe.templates]
    assert all(text in prompt for text, prompt in zip(fixed, drawn.prompts, strict=True))


def test_facts_are_single_valued():
    """One capital a country and a city, one kind a thing: no distractor is right as well."""
    for name, key, value in [
        ("capital", "country", "capital"), ("two_step", "city", "capital"),
        ("two_step", "country", "capital"), ("hypernymy", "things", "kind"),
        ("agreement", "one", "many"), ("two_step", "city", "country"),
    ]:  # fmt: skip
        (rows,) = read_task_file(name).words.values()
        known = {}
        for row in rows:
            assert known.setdefault(row[key], row[value]) == row[value], row
    countries = {row["city"]: row["country"] for row in read_task_file("two_step").words["place"]}
    for row in read_task_file("two_step").words["place"]:
        assert countries[row["other"]] == row["country"]
        assert row["other"] not in (row["city"], row["capital"])


def test_names_are_of_one_gender():
    words = read_task_file("pronoun").words
    assert not {row[""] for row in words["man"]} & {row[""] for row in words["woman"]}


def test_what_greater_than_asks_is_true(model):
    task = mx.load_task("greater_than", model, n_prompts=12, seed=1)
    assert task.distractors
    for prompt, answers, distractors in zip(
        task.prompts, task.answers, task.distractors, strict=True
    ):
        year = int(prompt.split(" to ")[0][-2:])
        assert all(10 * int(digit) > year for digit in answers)
        assert all(10 * int(digit) + 9 <= year or int(digit) == 0 for digit in distractors)


def test_circuits_are_published_heads_of_their_models():
    known = {"gpt2": (12, 12), "attn-only-4l": (4, 8)}
    found = {name: read_task_file(name).circuits for name in NAMES}
    assert {name for name in NAMES if found[name]} == {
        "docstring", "greater_than", "ioi", "ioi_varied",
    }  # fmt: skip
    for circuits in found.values():
        for name, roles in circuits.items():
            names = [*itertools.chain.from_iterable(roles.values())]
            assert len(set(names)) == len(names)
            n_layers, n_heads = known[name]
            for unit in names:
                layer, _, head = unit[1:].partition("H")
                assert int(layer.removesuffix("MLP")) < n_layers
                assert not head or int(head) < n_heads
    assert found["ioi"] == found["ioi_varied"]


@pytest.mark.parametrize("name", ["agreement", "capital", "colour", "greater_than", "pronoun"])
def test_scores_in_the_files_are_what_the_model_does(name, model):
    """On fresh prompts: the means agree within their errors, the accuracies within .2."""
    score = read_task_file(name).scores["smollm2-135m"]
    task = mx.load_task(name, model, n_prompts=24, seed=7)
    tokens = tokenize(task, model.tokenizer)
    with torch.inference_mode():
        logits = model(torch.stack(tokens.prompts))[:, -1]
        metric = bind_metric(task.metric, tokens=tokens, clean=logits)
        values = metric(logits, torch.arange(24)).numpy()
    low, high = score["interval"]
    assert low < score["clean"] < high
    error = np.hypot((high - low) / 4, values.std() / np.sqrt(24))
    assert abs(values.mean() - score["clean"]) < 4 * error
    assert abs((values > 0).mean() - score["accuracy"]) < 0.2
    assert score["can"] == (score["accuracy"] >= 0.75 and low > 0)


def test_what_the_model_cannot_do_is_said():
    scores = {name: read_task_file(name).scores["smollm2-135m"] for name in NAMES}
    assert [name for name in NAMES if not scores[name]["can"]] == ["colour"]


def test_the_readme_says_what_the_files_say():
    for name in NAMES:
        score = read_task_file(name).scores["smollm2-135m"]
        low, high = score["interval"]
        told = f"{score['clean']:.2f} [{low:.2f}, {high:.2f}] | {score['corrupted']:.2f} | "
        told += f"{score['accuracy']:.2f} | {'can' if score['can'] else 'cannot'} |"
        (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{name}` "))
        assert told in row


def test_the_pages_example_is_a_task(model, tmp_path, monkeypatch):
    young, broken = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "young.toml").write_text(young)
    (tmp_path / "broken.toml").write_text(broken)
    monkeypatch.setenv("MECHSPEX_TASKS", str(tmp_path))
    task = mx.load_task("young", model, n_prompts=4)
    assert len(task) == 4
    (told,) = re.findall(r"mechspex: broken.toml, (line.*)", PAGE)
    with pytest.raises(TaskError, match=re.escape(told)):
        read_task_file("broken")
