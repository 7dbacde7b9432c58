"""Slips at the doors: what can be understood is taken, the rest ends in an error of mechspex's own.

`TAKEN` and `REFUSED` list doors and slips. An error names what was wrong and the next step; nothing
else than an error of `mechspex.errors` may leave a door.
"""

# Slips are what a type checker is there to find.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalOperand=false

import contextlib
import inspect
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import mechspex as mx
from mechspex.errors import MechspexError

NAN = float("nan")


def soup(kept):
    return 3.0 * (kept[:, 0] & kept[:, 1]) + 1.0 * kept[:, -1]


def with_metric(task, metric):
    return mx.Task(task.prompts, task.answers, task.distractors, metric=metric)


def whole(model, task):
    return mx.ComponentValues(model, task, "heads")(np.ones((1, 8), dtype=bool))


@pytest.fixture
def given(tiny, tiny_task, tmp_path, monkeypatch):
    """What the lists below speak of: a model, its task and heads, and functions of masks."""
    monkeypatch.setenv("MECHSPEX_RUNS", str(tmp_path))
    units = mx.parts(["a", "b", "c"])
    eight = mx.FunctionValues(soup, mx.heads("tiny"))
    values = mx.FunctionValues(soup, units)
    return SimpleNamespace(
        model=tiny, task=tiny_task, heads=mx.heads(tiny), values=values, eight=eight, runs=tmp_path
    )


# {what is written: (the door, what it is to be equal to)}
TAKEN = {
    "units as a list": (
        lambda g: mx.explain(soup, units=["a", "b", "c"]).units,
        lambda g: mx.parts(["a", "b", "c"]),
    ),
    "units as text": (
        lambda g: mx.explain(soup, units="a, b, c").units,
        lambda g: mx.parts(["a", "b", "c"]),
    ),
    "units as a number": (
        lambda g: mx.explain(soup, units=2).units,
        lambda g: mx.parts(["0", "1"]),
    ),
    "kinds": (lambda g: mx.ComponentValues(g.model, g.task, "heads").units, lambda g: g.heads),
    "names": (
        lambda g: mx.ComponentValues(g.model, g.task, ["L0H1"]).units,
        lambda g: g.heads["L0H1"],
    ),
    "a list of units": (
        lambda g: mx.ComponentValues(g.model, g.task, list(g.heads[:2])).units,
        lambda g: g.heads[:2],
    ),
    "a unit": (
        lambda g: mx.ComponentValues(g.model, g.task, g.heads[3]).units,
        lambda g: g.heads[3:4],
    ),
    "a model and a task by name": (
        lambda g: mx.ComponentValues("tiny", "induction", "heads").task,
        lambda g: mx.load_task("induction", g.model),
    ),
    "a model by name": (lambda g: mx.heads("tiny"), lambda g: g.heads),
    "a question as a list": (
        lambda g: mx.PromptValues(g.model, "cow bird", [" key"], by="word", response=[" cow"]).read,
        lambda g: mx.PromptValues(g.model, "cow bird", " key", by="word", response=" cow").read,
    ),
    "units of a text as a context": (
        lambda g: mx.PromptValues(g.model, mx.words("cow bird"), " key", response=" cow").units,
        lambda g: mx.words("cow bird"),
    ),
    "one layer": (lambda g: mx.heads(g.model, layers=1), lambda g: g.heads[4:]),
    "one position": (
        lambda g: mx.heads(g.model, positions=-1).names[0],
        lambda g: "L0H0@-1",
    ),
    "one text": (lambda g: mx.validate(g.eight, "L0H3").terms, lambda g: ((3,),)),
    "one column": (lambda g: mx.validate(g.eight, [3]).terms, lambda g: ((3,),)),
    "units as terms": (
        lambda g: mx.validate(g.eight, [g.heads[3], (g.heads[1], "L1H3")]).terms,
        lambda g: ((3,), (1, 7)),
    ),
    "columns of numpy": (
        lambda g: mx.validate(g.eight, np.array([[1, 7], [0, 2]])).terms,
        lambda g: ((1, 7), (0, 2)),
    ),
    "a circuit as text": (
        lambda g: mx.faithfulness(g.values, "a × b").members,
        lambda g: (0, 1),
    ),
    "among as text": (
        lambda g: mx.sweep(g.values, among="b").to_pandas().units.tolist(),
        lambda g: ["b"],
    ),
    "a run by name": (
        lambda g: (mx.explain(g.values, run="landmarks"), mx.Explanation.load("landmarks"))[1].r2,
        lambda g: mx.explain(g.values).r2,
    ),
    "a run by file": (
        lambda g: mx.Explanation.load(
            str(mx.explain(g.values, run="again").folder / "explanation.json")
        ).r2,
        lambda g: mx.explain(g.values).r2,
    ),
    "a budget as text": (
        lambda g: mx.explain(g.values, n_masks="150").settings["budget"],
        lambda g: 150,
    ),
    "a budget of numpy": (
        lambda g: mx.explain(g.values, n_masks=np.float64(1.5e2)).settings["budget"],
        lambda g: 150,
    ),
    "a seed of torch": (
        lambda g: mx.explain(g.values, seed=torch.tensor(3)).settings["seed"],
        lambda g: 3,
    ),
    "an order as float": (lambda g: mx.sweep(g.values, order=1.0).order, lambda g: 1),
    "a level as text": (lambda g: mx.validate(g.values, "a", level="0.1").level, lambda g: 0.1),
    "the class of a decoder": (
        lambda g: mx.explain(g.values, decoder=mx.decoders.Exhaustive).settings["decoder"],
        lambda g: mx.explain(g.values, decoder=mx.decoders.Exhaustive()).settings["decoder"],
    ),
    "a metric of numpy": (
        lambda g: whole(g.model, with_metric(g.task, lambda x, _: x[:, 0].cpu().numpy())).tolist(),
        lambda g: whole(g.model, with_metric(g.task, lambda logits, p: logits[:, 0])).tolist(),
    ),
    "how many examples, as text": (lambda g: mx.examples("4"), lambda g: mx.examples(4)),
    "a data set with names": (
        lambda g: mx.examples(SimpleNamespace(data=np.ones((3, 2)), target=[0, 1, 0])),
        lambda g: mx.examples(3),
    ),
    "how many seeds": (
        lambda g: mx.TrainingValues(lambda rows, seed: float(len(rows)), "3", 1, seeds="2").seeds,
        lambda g: (0, 1),
    ),
    "a dtype by name": (
        lambda g: mx.load_model("tiny", dtype="bfloat16").cfg.dtype,
        lambda g: torch.bfloat16,
    ),
}  # fmt: skip

for written in ("L0H1 × L1H3", "L0H1+L1H3", "L0H1,L1H3", "l0h1 x l1h3", "L0H1 * L1H3"):
    TAKEN[f"the term {written}"] = (
        lambda g, written=written: mx.validate(g.eight, [written]).terms,
        lambda g: ((1, 7),),
    )

# {what is written: (the door, what the error says)}
REFUSED = {
    "a model for a data set": (lambda g: mx.examples(g.model), r"dataset = .*: give \(inputs, lab"),
    "values for a data set": (
        lambda g: mx.TrainingValues("ridge", g.values, ([[1.0]], [0])),
        r"dataset = .*: give \(inputs, labels",
    ),
    "a value function without examples": (
        lambda g: mx.influence(g.values),
        r"values = .*: give mechspex.TrainingValues",
    ),
    "a model for values": (lambda g: mx.explain(g.model, g.task), r"ComponentValues\(model, task"),
    "a task for values": (lambda g: mx.explain(g.task), "Task.* is no value function"),
    "a budget by position": (lambda g: mx.explain(g.values, 100), "name the others: units=…"),
    "a keyword misspelt": (lambda g: mx.explain(g.values, n_mask=5), "did you mean 'n_masks'"),
    "no fresh prompts": (lambda g: mx.find_circuit(g.values), "needs held_out as well: the same"),
    "nothing to prune on": (lambda g: mx.prune_heads(g.values), "needs held_out as well"),
    "one letter of units": (lambda g: mx.explain(soup, units="abc"), "'abc' is one text; give"),
    "units of None": (lambda g: mx.parts(None), "labels = None: give a list of labels"),
    "units before the function": (
        lambda g: mx.FunctionValues(mx.parts("ab"), soup),
        "function = UnitSet of 2: give a function",
    ),
    "task before model": (
        lambda g: mx.ComponentValues(g.task, g.model, g.heads),
        "model = Task.*: a model is given by.*; the order is model, task, units",
    ),
    "model before task": (lambda g: mx.load_task(g.model, "ioi"), "then the model"),
    "a path for a text": (lambda g: mx.words(Path("notes.txt")), "give its text: path.read_text"),
    "a context for a model": (
        lambda g: mx.PromptValues(5, "cow bird"), "model = 5: a model is given by its name",
    ),
    "a response of no text": (
        lambda g: mx.PromptValues(g.model, "cow bird", by="word", response=1.5), "how many tokens",
    ),
    "an ablation of heads for a text": (
        lambda g: mx.PromptValues(g.model, "cow bird", ablation="resample"), "choose delete, repl",
    ),
    "a number for units": (lambda g: mx.ComponentValues(g.model, g.task, 5), "units = 5: give"),
    "no model": (lambda g: mx.load_model(None), "name = None: a model is given by its name"),
    "no dtype": (lambda g: mx.load_model("tiny", dtype="foo"), "dtype 'foo': choose"),
    "heads of a task": (lambda g: mx.heads(g.task), "model = Task.*: give a model"),
    "a layer that is not": (lambda g: mx.heads(g.model, layers=23), "no layer 23 in tiny"),
    "half a layer": (lambda g: mx.heads(g.model, layers=1.5), "layers = 1.5: give a whole number"),
    "a position in words": (lambda g: mx.heads(g.model, positions="last"), "positions = 'last'"),
    "no terms": (lambda g: mx.validate(g.values, None), "terms = None: give a list of sets"),
    "a term of None": (lambda g: mx.validate(g.values, [(None,)]), "terms holds None"),
    "half a column": (lambda g: mx.validate(g.values, [(1.5,)]), "terms holds 1.5"),
    "among None": (lambda g: mx.sweep(g.values, among=[None]), "among holds None"),
    "a circuit of None": (lambda g: mx.faithfulness(g.values, None), "circuit = None: give names"),
    "contexts without end": (
        lambda g: mx.validate(g.values, "a", contexts=10**9),
        "contexts = 1000000000: give at most 1,000,000",
    ),
    "half a mask": (lambda g: mx.explain(g.values, n_masks=150.5), "n_masks = 150.5: give a whole"),
    "a budget of NaN": (lambda g: mx.explain(g.values, n_masks=NAN), "n_masks = nan"),
    "a budget without end": (lambda g: mx.explain(g.values, n_masks=10**12), "give at most"),
    "more than memory holds": (
        lambda g: mx.explain(soup, units=10**6, n_masks=10**9),
        "1,000,000,000 masks of 1,000,000 units take .* GiB",
    ),
    "a budget that is true": (lambda g: mx.explain(g.values, n_masks=True), "n_masks = True"),
    "half a seed": (lambda g: mx.explain(g.values, seed=1.5), "seed = 1.5: give a whole number"),
    "no seed": (lambda g: mx.explain(g.values, seed=None), "seed = None: give a whole number"),
    "tests as a number": (lambda g: mx.explain(g.values, tests=5), r"ExactTests\(level=…"),
    "a run as a number": (lambda g: mx.explain(g.values, run=5), "run = 5: give the name of a run"),
    "a decoder as a number": (lambda g: mx.explain(g.values, decoder=5), "decoder = 5: give add"),
    "a design as a number": (lambda g: mx.explain(g.values, design=5), "design = 5: give random"),
    "a screen as a number": (lambda g: mx.explain(g.values, screen=5), "screen = 5: int is no"),
    "prompts without end": (
        lambda g: mx.load_task("induction", g.model, n_prompts=10**12),
        "n_prompts = 1000000000000: give at most",
    ),
    "a run without a name": (lambda g: mx.Explanation.load(None), "path = None: give the name"),
    "an answer by number": (lambda g: mx.load(5), "run = 5: give the name of a run, a folder"),
    "a metric of one argument": (
        lambda g: with_metric(g.task, lambda logits: logits[:, 0]),
        r"metric\(logits \[row, vocabulary\], prompt number \[row\]\)",
    ),
    "a metric of nothing": (
        lambda g: whole(g.model, with_metric(g.task, lambda logits, p: None)),
        "the metric returned None",
    ),
    "a metric of one number": (
        lambda g: whole(g.model, with_metric(g.task, lambda logits, p: logits.mean())),
        r"the metric returned shape \[\] for",
    ),
    "gradients through numpy": (
        lambda g: mx.ComponentValues(
            g.model, with_metric(g.task, lambda x, _: x[:, 0].detach().cpu().numpy()), "heads"
        ).value_and_gradient(np.ones((1, 8), dtype=np.float32)),
        "no gradient, as they left torch",
    ),
    "a function of words": (
        lambda g: mx.FunctionValues(lambda masks: ["good"] * len(masks), 2),
        "return real numbers",
    ),
}  # fmt: skip


@pytest.mark.parametrize("slip", TAKEN)
def test_what_can_be_understood_is_taken(slip, given):
    door, expected = TAKEN[slip]
    assert door(given) == expected(given)


@pytest.mark.parametrize("slip", REFUSED)
def test_the_rest_is_refused_with_the_next_step(slip, given):
    door, says = REFUSED[slip]
    with pytest.raises(MechspexError, match=says):
        door(given)


# Numbers that are none, at every door that reads one.
STRANGE = [None, NAN, float("inf"), -(10**30), 10**30, "x", "", True, [], (1, 2), b"1", object(),
           1j, np.ones(3), 10**5000]  # fmt: skip


def readers_of(door):
    return getattr(door.__init__ if isinstance(door, type) else door, "readers", {})


DOORS = [name for name in mx.__all__ if readers_of(getattr(mx, name))]  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("name", DOORS)
def test_a_reader_takes_a_value_or_raises_an_error_of_ours(name):
    for parameter, reader in readers_of(getattr(mx, name)).items():
        for strange in STRANGE:
            if isinstance(strange, str) and parameter in ("model", "name"):
                continue  # a name, which is looked for
            with contextlib.suppress(MechspexError):
                reader(parameter, strange)


def test_functions_with_a_seed_or_a_run_are_doors():
    functions = {n: getattr(mx, n) for n in mx.__all__}  # pyright: ignore[reportAttributeAccessIssue]
    for name, function in functions.items():
        if inspect.isfunction(function):
            numbers = {"seed", "run"} & set(inspect.signature(function).parameters)
            assert numbers <= set(readers_of(function)), name
