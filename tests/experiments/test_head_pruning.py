"""Head pruning: early, middle and late heads, what a claim says, and the paper's questions."""

import numpy as np
import pytest

import mechspex as mx
from mechspex.core.result import same
from mechspex.experiments.head_pruning import _PUBLISHED, MORE, RIGHT, VALUE, _Case, _claims
from mechspex.experiments.layer_groups import layer_groups
from tests.small_models import save_gpt2

RNG = np.random.default_rng(0)
WHOLE = RNG.normal(4, 0.5, size=30)


def case(kept=50, **ahead):
    """Held-out values of every method: those of the rivals, and what recovered has more."""
    theirs = {"additive, same search": 0.0, "additive": 0.0, "best sampled": 0.0, "random": 0.0}
    rows = [("recovered", WHOLE[None])]
    rows += [
        (rival, WHOLE[None] - ahead.get(rival.split(",")[0].split()[0], 0.0) * 4.0)
        for rival in theirs
    ]
    return _Case(
        [
            {"group": "layers 0–5", "method": method, "kept": kept, "values": values.tolist(),
             "whole": WHOLE.tolist()}
            for method, values in rows
        ]
    )  # fmt: skip


def test_layers_at_the_beginning_in_the_middle_and_at_the_end(tmp_path):
    ten = mx.load_model(save_gpt2(tmp_path, 10))
    groups = layer_groups(ten)
    assert list(groups) == ["layers 0–1", "layers 4–5", "layers 8–9"]
    assert groups["layers 4–5"].names == ("L4H0", "L4H1", "L4H2", "L5H0", "L5H1", "L5H2")
    assert list(layer_groups(ten, first=False)) == ["layers 4–5", "layers 8–9"]
    assert list(layer_groups(mx.load_model("tiny"))) == ["layer 0", "layer 1"]


def test_values_are_shares_of_the_unpruned_model():
    rows = {(row["panel"], row["series"]): row for row in case(additive=0.5, random=2.0).rows()}
    of = "layers 0–5"
    assert rows[f"{VALUE}, {of}", "recovered"]["y"] == pytest.approx(1)
    assert rows[f"{VALUE}, {of}", "additive"]["y"] == pytest.approx(1 - 2 / WHOLE.mean())
    assert rows[f"{MORE}, {of}", "additive"]["y"] == pytest.approx(2 / WHOLE.mean())
    assert rows[f"{MORE}, {of}", "best sampled"]["y"] == 0
    assert rows[f"{RIGHT}, {of}", "recovered"]["y"] == 1
    assert rows[f"{RIGHT}, {of}", "random"]["y"] == 0


def test_a_claim_holds_where_the_paired_interval_says_so():
    """Ahead in one case, behind in the other: the mean decides; equal is not decided."""
    held = _claims([case(additive=0.5), case(67, additive=-0.1)])
    more_value = next(claim for claim in held if "more value than the heads" in claim.says)
    assert more_value.holds is True
    assert "of 2 cases ahead in 1, behind in 1" in more_value.measured
    assert _claims([case(additive=-0.5)])[2].holds is False
    assert {claim.holds for claim in _claims([case()])} == {None}


def test_on_a_model_only_held_out_prompts_score(tmp_path, monkeypatch):
    monkeypatch.setenv("MECHSPEX_RUNS", str(tmp_path))
    found = mx.experiments.head_pruning(model=mx.load_model("tiny"), task="induction", run="a")
    assert {row["panel"] for row in found.rows} == {
        f"{quantity}, layer 1" for quantity in (VALUE, MORE, RIGHT)
    }
    recovered = [r for r in found.rows if r["series"] == "recovered" and VALUE in r["panel"]]
    at_random = [r for r in found.rows if r["series"] == "random" and VALUE in r["panel"]]
    assert all(a["y"] > b["y"] for a, b in zip(recovered, at_random, strict=True))
    again = mx.experiments.head_pruning(model=mx.load_model("tiny"), task="induction", run="a")
    assert same(again.rows, found.rows)


def test_the_papers_bars_are_on_the_questions_that_chose():
    """All multiples of 1/120, the best of the sampled of 1/80; none of 1/111, the test split."""
    bars = [(one.what, float(one.value)) for one in _PUBLISHED if one.x is not None]
    assert len(bars) == 36
    for what, value in bars:
        right = value * (80 if what == "best sampled" else 120)
        assert right == pytest.approx(round(right), abs=0.01)
    assert max(abs(value * 111 - round(value * 111)) for _, value in bars) > 0.2
