"""Every result keeps the laws of results."""

import importlib
import pkgutil
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from planted_answers import heads
from result_laws import check_equality, check_laws, check_refusals, through_json

import mechspex as mx
from mechspex.circuits.gains import gains
from mechspex.core.json_values import read_number
from mechspex.core.masks import all_masks, sample_masks
from mechspex.core.result import Result, same
from mechspex.core.statistics import Difference, Estimate
from mechspex.decoders import Additive, Automatic, Pursuit
from mechspex.errors import Refused
from mechspex.experiments.paper_figure import Claim, PaperFigure, Published
from mechspex.experiments.reproduction import Axes, Reproduction, points
from mechspex.report.collected import Collected, CollectedRow
from mechspex.screening import Stratum

NAMES = ["salt", "leek", "oil", "<script>alert(1)</script>", "rice", "bay"]


def soup(masks: np.ndarray) -> np.ndarray:
    """Singles, a pair and a triple, on three outputs."""
    both = 2.0 * (masks[:, 1] & masks[:, 3]) - masks[:, 2:5].all(axis=1)
    return np.stack([masks[:, 0] + both, 1.5 * masks[:, 0] + both, 0.5 + both], axis=1)


def function() -> mx.SetFunction:
    return mx.decode(all_masks(6), soup(all_masks(6)), decoder="exhaustive")


def recovery() -> mx.Recovery:
    masks = sample_masks(6, 80, keep=0.7, seed=1)
    noisy = soup(masks) + 0.1 * np.random.default_rng(0).normal(size=(80, 3))
    decoder = Automatic((Additive(), Pursuit()))
    return mx.recover(masks[:60], noisy[:60], masks[60:], noisy[60:], decoder=decoder, seed=2)


def evidence() -> mx.Evidence | None:
    return recovery().evidence


def values(scale: float = 1.0) -> mx.FunctionValues:
    return mx.FunctionValues(lambda masks: scale * soup(masks), mx.parts(NAMES))


def carried(scale: float) -> mx.FunctionValues:
    """Mostly what the last unit does, on every output."""
    return mx.FunctionValues(
        lambda masks: scale * (soup(masks) + 9.0 * masks[:, [5]]), mx.parts(NAMES)
    )


@cache
def discovery() -> mx.Discovery:
    goal = mx.CircuitGoal(target=0.7)
    return mx.find_circuit(carried(1.0), carried(1.2), n_masks=60, goal=goal, certified=True)


def candidates() -> mx.Candidates:
    return mx.screen(values(), "ablation", n_terms=5)


def validation() -> mx.Validation:
    return mx.validate(values(), [(0,), (1,), (3,), (1, 3)])


def model_difference() -> mx.ModelDifference:
    told = [{"model": name, "task": "soup", "metric": "value"} for name in ("<script>", "$b$")]
    before, after, changes = (
        mx.validate(values(scale), [(0,), (1,), (3,), (1, 3)]) for scale in (1.0, 1.2, 0.2)
    )
    clean = Difference(0.5, 0.25, 0.75, 0.01)
    return mx.ModelDifference(
        values().units, told[0], told[1], recovery(), before, after, changes, clean
    )


def missed() -> mx.Missed:
    rejected = (Stratum(5, 3, ((0, 1), (2, 4), (0, 5))),)
    return mx.missed(values(), replace(candidates(), rejected=rejected), validation())


def verdicts() -> mx.Verdicts:
    circuit = replace(discovery().circuit, method="<script>")
    found = gains(values(), (0, 1, 3), (2, 5), level=0.1)
    return mx.Verdicts(circuit, mx.faithfulness(values(), [0, 1, 3], n_random=2), found, 0.1)


def comparison() -> mx.Comparison:
    one, other = (mx.Circuit(mx.parts(NAMES), members) for members in ((0, 3), (1, 3)))
    return mx.compare_circuits(one, other)


def scores() -> mx.ReferenceScores:
    row = {"faithfulness": Estimate(0.9, 0.8, 1.0), "completeness": Estimate(0.1, 0.0, 0.2)}
    return mx.ReferenceScores({"mean": row}, {"zero": "<b>no</b> behaviour"}, 3)


def judged() -> dict[str, Any]:
    """Two methods that tests of scores compare."""
    return {"<script>": recovery(), "leave one out": mx.leave_one_out(values())}


def reproduction() -> Reproduction:
    row = {"panel": "<script>", "series": "$a$", "y": 0.5, "low": float("nan"), "high": 0.75}
    return Reproduction(
        PaperFigure("name", "Paper 2025", "Title", "Shows.", "Differs.", (1, 2), tasks=("ioi",)),
        points([row | {"x": 1.0}, row | {"x": 2.0}]),
        Axes("masks", "R²"),
        (Published("theirs", 0.25, "stated", "<script>", 1.0), Published("said", "high", "stated")),
        (Claim("it grows", None, "+0.0"),),
        {"seed": 0},
        1.5,
        left_out=("<b>what</b> needs a package",),
    )


def collected() -> Collected:
    single, pair = ({**_ROW, "run": run} for run in ("one", "two"))
    pair |= {"second_unit": "L1H0", "order": 2, "se": None, "position": 3, "unit": "L0H1@3"}
    return Collected((CollectedRow(**single), CollectedRow(**pair)), 2, ("three: damaged",))


_ROW: dict[str, Any] = {
    "run": "", "answer": "sweep", "task": "ioi", "model": "tiny", "ablation": "mean",
    "metric": None, "seed": 3, "density": 0.9, "prompts": 4, "clean": 1.5, "unit": "L0H1",
    "kind": "head", "layer": 0, "head": 1, "position": None, "span": None, "second_unit": None,
    "order": 1, "output": None, "effect": -0.5, "value": 1.0, "se": 0.25,
}  # fmt: skip

RESULTS = {
    "Agreement": lambda: mx.agreement(candidates(), values(1.2)),
    "Attribution": lambda: mx.leave_one_out(values()),
    "AttentionPatterns": lambda: mx.AttentionPatterns(
        "tiny", heads(1, 2), ("<b>a</b>", "$b$", "c"), np.tril(np.full((2, 3, 3), 0.5))
    ),
    "Candidates": candidates,
    "Certificate": lambda: mx.certify(carried(1.2), [5]),
    "Circuit": lambda: discovery().circuit,
    "Collected": collected,
    "Comparison": comparison,
    "Curve": lambda: discovery().best_curve,
    "DeletionCurve": lambda: mx.deletion_curve(judged(), values()),
    "Discovery": discovery,
    "Evidence": evidence,
    "Explanation": lambda: mx.explain(soup, units=mx.parts(NAMES), n_masks=70),
    "Faithfulness": lambda: mx.faithfulness(values(), [1, 3], n_random=3),
    "Front": lambda: mx.front(function(), [1, 2, 3]),
    "InsertionCurve": lambda: mx.insertion_curve(judged(), values()),
    "LDS": lambda: mx.lds(judged(), values(), n_masks=20),
    "LearningCurves": lambda: mx.learning_curves(all_masks(6), soup(all_masks(6)), sizes=[20, 50]),
    "Link": lambda: mx.monotone_link(sample_masks(6, 80, keep=0.5), np.arange(80.0)),
    "Missed": missed,
    "ModelDifference": model_difference,
    "Pruning": lambda: mx.prune_heads(
        values(), values(1.2), shares=[0.5], n_masks=60, decoder="pursuit", n_random=2
    ),
    "Recovery": recovery,
    "ReferenceScores": scores,
    "RemovalCurve": lambda: mx.removal_curve(judged(), values(), [1, 2]),
    "Reproduction": reproduction,
    "SelfRepair": lambda: mx.self_repair(mx.sweep(values(), order=2), values(1.2)),
    "SetFunction": function,
    "SmallestSet": lambda: mx.flipping_set(values(), recovery(), threshold=1.0),
    "Structure": lambda: mx.structure_of(function(), [0, 0, 1, 1, 2, 2]),
    "Subset": lambda: mx.best_subset(function(), 2),
    "Sweep": lambda: mx.sweep(values(), order=2, among=[0, 1, 3]),
    "TopKDrop": lambda: mx.top_k_drop(judged(), values(), k=[1, 2]),
    "Validation": validation,
    "Verdicts": verdicts,
}


def kinds(kind: type[Result]) -> set[type[Result]]:
    below = set(kind.__subclasses__())
    return below.union(*map(kinds, below))


def test_every_result_is_tested():
    for module in pkgutil.walk_packages(mx.__path__, "mechspex."):
        if "tiny" not in module.name and "compile" not in module.name:
            importlib.import_module(module.name)
    ours = {kind for kind in kinds(Result) if kind.__module__.startswith("mechspex.")}
    whole = {kind.__name__ for kind in ours if not kind.__abstractmethods__}
    assert whole == set(RESULTS)


@pytest.mark.parametrize("name", RESULTS)
def test_results_keep_the_laws(name, tmp_path):
    result = RESULTS[name]()
    assert type(result).__name__ == name
    check_laws(result, tmp_path)
    assert "<script>" not in result._repr_html_()


def test_a_notebook_marks_what_is_confirmed():
    found = validation()
    page = found._repr_html_()
    assert page.count("<td>✓</td>") == found.confirmed.sum() > 0
    assert page.count("<td>–</td>") == (~found.confirmed).sum()


@dataclass(frozen=True, eq=False, repr=False)
class Weight(Result):
    """The smallest result there is."""

    schema: ClassVar[str] = "mechspex.weight/1"
    called: ClassVar[str] = "weight"

    of: str
    kilograms: float

    def to_pandas(self) -> pd.DataFrame:
        return pd.DataFrame([vars(self)])

    def to_dict(self) -> dict[str, Any]:
        return vars(self)

    @property
    def in_short(self) -> str:
        return f"{self.of}: {self.kilograms} kg"

    def __str__(self) -> str:
        return self.in_short

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> "Weight":
        return cls(record["of"], read_number(record["kilograms"]))


def test_html_says_what_it_is_of_and_escapes_it(tmp_path):
    weight = Weight("<script>salt</script>", np.nan)
    check_laws(Weight("salt", 0.1), tmp_path)
    assert "&lt;script&gt;salt" in weight._repr_html_()
    assert "<script>" not in weight._repr_html_()
    assert weight == Weight.from_dict(through_json(weight)), "NaN equals NaN"


def test_the_laws_catch_who_breaks_them(tmp_path):
    class Forgetful(Weight):
        @classmethod
        def _from_record(cls, record):
            return cls(record["of"], 1.0)

    class Blind(Weight):
        def __eq__(self, other):
            return isinstance(other, Weight)

    class Raising(Weight):
        @classmethod
        def _from_record(cls, record):
            raise ZeroDivisionError

    with pytest.raises(AssertionError, match="record is equal"):
        check_laws(Forgetful("salt", 0.5), tmp_path)
    with pytest.raises(AssertionError):
        check_equality(Blind("salt", 0.5))
    with pytest.raises(ZeroDivisionError):
        check_refusals(Raising, through_json(Raising("salt", 0.5)))


def test_what_is_no_record_is_refused(tmp_path):
    record = through_json(Weight("salt", 0.1))
    with pytest.raises(Refused, match=r"no weight: schema 'mechspex.weight/2'"):
        Weight.from_dict(record | {"schema": "mechspex.weight/2"})
    with pytest.raises(Refused, match=r"incomplete or malformed \(TypeError"):
        Weight.from_dict(record | {"kilograms": "heavy"})
    with pytest.raises(Refused, match="cannot be read"):
        Weight.load(tmp_path / "none.json")


def test_equal_values():
    nan, array = float("nan"), np.array([1.0, np.nan])
    table = pd.DataFrame({"a": [1.0, nan], "b": ["x", "y"]})
    for value in (nan, array, table, {"a": [nan, (1, 2)]}, (array, "x"), None, True):
        assert same(value, value)
    assert same([1, 2], (1, 2)), "JSON knows no tuples"
    assert same(np.array([1, 2]), np.array([1, 2]))
    assert not same(array, np.array([1.0, 2.0]))
    assert not same(array, array[:1])
    assert not same(table, table.assign(a=[1.0, 2.0]))
    assert not same(np.array(["a"]), np.array([1.0]))
    assert not same({"a": 1}, {"b": 1})
    assert not same(array, 1.0)
