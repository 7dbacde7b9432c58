"""RASP programs compiled to transformer weights by tracr; `compile.py` made them."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mechspex.core.units import UnitSet
from mechspex.models.load_model import native_model
from mechspex.models.units import heads, mlps
from mechspex.tasks.task import Task
from mechspex.truth.known_model import (
    KnownModel,
    LogitOf,
    Margin,
    RightNumber,
    RightWord,
    word_tokenizer,
)

_FOLDER = Path(__file__).parent / "programs"
# The word by whose logit numerical programs answer.
_NUMBER = "="
# The first token of every sequence, which tracr's attention falls back on.
_BOS = "<bos>"
# With more units than this, all 2^n masks are no longer quick.
_MOST_UNITS = 12

PROGRAMS = {
    "reverse": "the sequence backwards",
    "hist": "how often each token occurs",
    "sort_unique": "the sequence sorted, of different tokens",
    "xproportion": "the share of x among the tokens so far, a number",
    "pair_balance": "the share of ( less that of ) among the tokens so far, a number",
    "dyck1": "whether the brackets balance",
}


def load_program(name: str) -> KnownModel:
    """A compiled program (tracr, Lindner et al. 2023), read at the last token of sequences of four.

    The value is the `Margin` of the right word; for a numerical program it is the number that the
    program writes. The units are all heads and MLPs of the compiled model, those that the compiler
    padded with zeros too. If they are more than twelve, only those that hold weights are units.

    Counting right answers (``values(matches=True)``) can hide a program: 14 of the 16 sequences of
    dyck1 do not balance, so a model that always says so is right 14 times.

    Args:
        name: a name of `PROGRAMS`.
    """
    described = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    vocabulary: list[str] = described["vocabulary"]
    tokenizer = word_tokenizer(vocabulary)
    weights = _unpack(load_file(_FOLDER / f"{name}.safetensors"), described["shapes"])
    model = native_model(name, described["config"], tokenizer, weights)
    examples: dict[str, Any] = described["examples"]
    if _NUMBER in vocabulary:
        word = vocabulary.index(_NUMBER)
        answers = [_NUMBER] * len(examples)
        metric, matches = LogitOf(word), RightNumber(word, torch.tensor([*examples.values()]))
    else:
        answers = [*examples.values()]
        ids = torch.tensor([vocabulary.index(answer) for answer in answers])
        metric, matches = Margin(ids), RightWord(ids)
    task = Task(
        prompts=[f"{_BOS} {sequence}" for sequence in examples],
        answers=[f" {answer}" for answer in answers],
        metric=metric,
        prepend_bos=False,
        name=name,
    )
    every = heads(model) + mlps(model)
    holding = [unit for unit in every if _holds_weights(unit, weights, model.cfg.d_head)]
    units = every if len(every) <= _MOST_UNITS else UnitSet(tuple(holding))
    built_of = frozenset(column for column, unit in enumerate(units) if unit in holding)
    return KnownModel(name, PROGRAMS[name], model, task, units, matches, built_of)


def _unpack(stored: dict[str, Tensor], shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """All weights, from those that are not zero and their places in one long row."""
    flat = torch.zeros(sum(map(prod, shapes.values())))
    flat[stored["index"].long()] = stored["value"]
    rows = flat.split([prod(shape) for shape in shapes.values()])
    return {name: row.view(shape) for (name, shape), row in zip(shapes.items(), rows, strict=True)}


def _holds_weights(unit: Any, weights: dict[str, Tensor], d_head: int) -> bool:
    """Whether a head or MLP writes anything at all."""
    if unit.kind == "mlp":
        return bool(weights[f"blocks.{unit.layer}.mlp.out.weight"].any())
    written = weights[f"blocks.{unit.layer}.attn.o.weight"]
    return bool(written[:, unit.number * d_head : (unit.number + 1) * d_head].any())
