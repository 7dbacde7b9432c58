"""What a change of structure must not change: public names, answers, values, kept runs.

    python tests/invariants.py record FOLDER [--model smollm2-135m]
    python tests/invariants.py compare FOLDER [--model smollm2-135m]

`record` asks a list of questions with the code that is installed and keeps the answers, the run
folders and the public names in FOLDER. `compare`, run with other code on the same machine, asks
them anew and out of the kept runs: every number has to be equal to the last bit but for seconds, a
kept run has to answer with no mask measured, and public names may only be added.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

import mechspex as mx
from mechspex.decoders import Spex

SHELL = {
    "tiny": {
        "explain": "explain induction --masks 60 --prompts 4 --keep 0.9 --run explain",
        "exact": "explain induction --masks 300 --prompts 4 --contexts 3 --run exact",
        "target": "explain induction --masks 200 --target-r2 0.5 --prompts 3 --keep 0.7 "
        "--decoder pursuit --run target",
        "adaptive": "explain induction --masks 120 --adaptive --design mixed --prompts 3 "
        "--decoder kernel --run adaptive",
        "screened": "explain induction --masks 60 --screen second_order --prompts 3 "
        "--keep 0.9 --run screened",
        "singles": "sweep induction --prompts 4 --run singles",
        "pairs": "sweep induction --order 2 --prompts 4 --ablation zero --run pairs",
        "first": "screen induction --units heads --method first_order --prompts 4 --run first",
        "second": "screen induction --units heads --prompts 4 --run second",
        "groups": "screen induction --units heads --method ablation --masks 80 --prompts 4 "
        "--run groups",
        "sets": "validate induction L0H1,L1H3 L1H0 --prompts 6 --run sets",
        "circuit": "circuit induction --masks 60 --prompts 4 --run circuit",
        "bench": "bench reverse --ablation zero --masks 60",
        "tasks": "tasks",
    },
    "smollm2-135m": {
        "explain": "explain ioi --masks 300 --prompts 3 --run explain",
        "singles": "sweep ioi --prompts 3 --run singles",
        "second": "screen ioi --units heads --terms 40 --prompts 3 --run second",
        "circuit": "circuit ioi --masks 60 --prompts 3 --size 4 --run circuit",
    },
}
# What a run costs differs from time to time.
_VARYING = ("seconds", "seconds_measuring")


def plain_soup(run: str | None) -> dict[str, Any]:
    """A plain function of five units: singles, a pair and a triple."""

    def soup(masks: np.ndarray) -> np.ndarray:
        return masks[:, 0] + 2 * (masks[:, 1] & masks[:, 2]) - masks[:, 2:5].all(axis=1)

    units = mx.parts(["salt", "leek", "oil", "bay", "rice"])
    return mx.explain(soup, units=units, n_masks=100, run=run).to_dict()


def planted(run: str | None) -> dict[str, Any]:
    """SPEX on a plain function of 40 units with two outputs."""

    def function(masks: np.ndarray) -> np.ndarray:
        both = masks[:, 3] & masks[:, 17] & masks[:, 30]
        return np.stack([both + 0.5 * masks[:, 8], 2.0 * both - (masks[:, 1] ^ masks[:, 2])], 1)

    units = mx.parts([f"unit {number}" for number in range(40)])
    return mx.explain(function, units=units, decoder=Spex(max_order=3), run=run).to_dict()


def pruning(run: str | None) -> dict[str, Any]:
    """Heads of ``tiny`` pruned, the choice measured on fresh prompts."""
    model = mx.load_model("tiny")
    task = mx.load_task("induction", model, n_prompts=8, seed=0)
    values, fresh = (
        mx.ComponentValues(model, part, mx.heads(model), "zero") for part in (task[:4], task[4:])
    )
    return mx.prune_heads(values, fresh, n_masks=60, run=run).to_dict()


def self_repair(run: str | None) -> dict[str, Any]:
    """Repairs among the heads of ``tiny``."""
    model = mx.load_model("tiny")
    task = mx.load_task("induction", model, n_prompts=8, seed=0)
    values, fresh = (
        mx.ComponentValues(model, part, mx.heads(model), "zero") for part in (task[:4], task[4:])
    )
    swept = mx.sweep(values, order=2)
    return mx.self_repair(swept, fresh, run=run).to_dict()


PYTHON: dict[str, dict[str, Callable[[str | None], dict[str, Any]]]] = {
    "tiny": {"soup": plain_soup, "spex": planted, "pruning": pruning, "repair": self_repair},
    "smollm2-135m": {},
}


def asked(question: str, model: str) -> Any:
    """What the shell prints as JSON."""
    from mechspex.cli import app

    words = [*question.split(), "--json"]
    if words[0] not in {"bench", "tasks"}:
        words[2:2] = ["--model", model]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.nullcontext():
        app(words, standalone_mode=False)
    return json.loads(printed.getvalue())


def answers(model: str, runs: Path) -> dict[str, Any]:
    """{question: its answer}, with all runs below `runs`."""
    os.environ["MECHSPEX_RUNS"] = str(runs)
    found = {}
    for name, question in SHELL[model].items():
        print(name, file=sys.stderr, flush=True)
        found[name] = asked(question, model)
    for name, ask in PYTHON[model].items():
        print(name, file=sys.stderr, flush=True)
        found[name] = json.loads(json.dumps(ask(name)))
    return found


def public_names() -> dict[str, Any]:
    """{public name: its signature, and the fields, methods and properties of a class}."""
    return {name: described(getattr(mx, name)) for name in mx.__all__}  # pyright: ignore[reportAttributeAccessIssue]


def described(thing: Any) -> dict[str, Any]:
    """Signature and, of a class, its fields and public members with their signatures."""
    told: dict[str, Any] = {}
    with contextlib.suppress(ValueError, TypeError):
        told["parameters"] = list(inspect.signature(thing).parameters)
        # Still taken, with a warning that says what is written now.
        told["parameters"] += getattr(thing, "old_keywords", {})
    if inspect.isclass(thing):
        members = [name for name in dir(thing) if not name.startswith("_")]
        told["members"] = members
        if is_dataclass(thing):
            told["fields"] = [field.name for field in fields(thing)]
    return told


def differences(before: Any, after: Any, place: str = "") -> list[str]:
    """Where two answers differ; seconds do not count."""
    if isinstance(before, dict) and isinstance(after, dict):
        # An answer may grow.
        keys = [key for key in before if key not in _VARYING]
        return [
            line
            for key in keys
            for line in differences(before.get(key), after.get(key), f"{place}.{key}")
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [line for k, (b, a) in pairs for line in differences(b, a, f"{place}[{k}]")]
    same = before == after or (before != before and after != after)
    return [] if same else [f"{place}: {str(before)[:80]} before, {str(after)[:80]} now"]


def lost(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Public names, parameters, fields and members that are no longer there."""
    gone = [name for name in before if name not in after]
    return gone + [
        f"{name}: {kind} {entry}"
        for name in before
        if name in after
        for kind in before[name]
        for entry in before[name][kind]
        if entry not in after[name].get(kind, ())
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["record", "compare"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="tiny", choices=list(SHELL))
    chosen = parser.parse_args()
    folder = chosen.folder / chosen.model
    kept, names = folder / "answers.json", chosen.folder / "public.json"
    if chosen.what == "record":
        folder.mkdir(parents=True)
        kept.write_text(json.dumps(answers(chosen.model, folder / "runs"), indent=1) + "\n")
        names.write_text(json.dumps(public_names(), indent=1) + "\n")
        return
    before = json.loads(kept.read_text())
    told = [f"gone: {entry}" for entry in lost(json.loads(names.read_text()), public_names())]
    with tempfile.TemporaryDirectory() as scratch:
        again = answers(chosen.model, Path(scratch) / "runs")
        told += differences(before, again, "anew")
        copied = shutil.copytree(folder / "runs", Path(scratch) / "kept")
        told += measured_again(before, answers(chosen.model, copied))
    print("\n".join(told) or "equal")
    raise SystemExit(bool(told))


def measured_again(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Where an answer out of a kept run differs, or had to measure a mask."""
    told = []
    for name, answer in after.items():
        expected = json.loads(json.dumps(before[name]))
        if isinstance(expected, dict) and "cost" in expected:
            expected["cost"]["measured"] = 0
        told += differences(expected, answer, f"kept.{name}")
    return told


if __name__ == "__main__":
    main()
