"""The bench: its scores by hand, and what it must show on models whose circuits are known."""

import json

import numpy as np
import pytest

from mechspex.errors import Refused
from mechspex.experiments.bench import N_MASKS, RecoveryScore, bench, summary
from mechspex.truth import KNOWN_MODELS, known_model, truth
from mechspex.truth.gates import Gate, build_gates


def column(*values):
    """Coefficients of (), 0, 1, 01, …: one output."""
    return np.array(values, dtype=float)[:, None]


def test_scores_by_hand():
    true = column(9, 1, 0, 0, 2, 0, 0, -2)
    found = column(0, 1, 0, 0.5, 0, 0, 0, -2)
    score = RecoveryScore.of(found, true, threshold=0.1)
    # Terms {0}, {2} and {0, 1, 2}; found {0}, {0, 1} and {0, 1, 2}.
    assert (score.precision, score.recall, score.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert score.f1_by_order[:3] == pytest.approx((2 / 3, 0, 1))
    assert np.isnan(score.f1_by_order[3])
    assert score.error == pytest.approx(np.sqrt(0.5**2 + 2**2) / 3)


def test_nothing_found_where_nothing_is_scores_one():
    score = RecoveryScore.of(column(5, 0, 0, 0), column(5, 0, 0, 0), threshold=0.1)
    assert (score.precision, score.recall, score.f1, score.error) == (1, 1, 1, 0)
    spurious = RecoveryScore.of(column(5, 1, 0, 0), column(5, 0, 0, 0), threshold=0.1)
    assert (spurious.precision, spurious.recall, spurious.f1, spurious.error) == (0, 1, 0, 1)


def test_orders_above_four_are_not_scored():
    true = column(*[0] * 31, 1.0)
    assert RecoveryScore.of(0 * true, true, threshold=0.1).f1 == 1
    assert RecoveryScore.of(0 * true, true, threshold=0.1).error == 1


@pytest.mark.parametrize("ablation", ["zero", "resample"])
@pytest.mark.parametrize("name", [n for n in KNOWN_MODELS if n not in ("gates12", "gates12b")])
def test_automatic_by_itself_recovers_every_term(name, ablation):
    """All masks are no more than were asked for, so it measures all of them and says so."""
    frame = bench([name], ablations=[ablation], decoders=["automatic"], screens=[], n_masks=[1])
    whole = frame[frame["masks"] == 2 ** frame["units"]]
    assert list(whole["chose"]) == ["exhaustive"]
    assert list(whole["f1"]) == [1.0]
    assert whole["error"].max() < 1e-4


def test_automatic_recovers_gates_from_an_eighth_of_the_masks():
    gates = [Gate("and", (0, 4, 7), 2.0), Gate("or", (1, 2)), Gate("adder", (3, 7), -1.0)]
    known = build_gates("three", "three gates", gates, 10)
    frame = bench([known], ablations=["zero"], decoders=["automatic"], screens=[], n_masks=[128])
    below = frame[frame["masks"] == 128]
    assert list(below["f1"]) == [1.0]
    assert below["error"].max() < 1e-3
    assert list(below["terms"]) == ["4 1 1"]


def test_a_baseline_that_cannot_find_an_interaction_does_not():
    frame = bench(["and3"], ablations=["zero"], decoders=["additive"], screens=[])
    assert set(frame["f1_3"]) == {0.0}
    assert set(frame["recall"]) == {0.0}
    # And the control, which is additive, it finds whole.
    control = bench(["additive"], ablations=["zero"], decoders=["additive"], screens=[])
    assert control["recall"].min() == 1


def test_screens_are_held_against_the_ablated_singles_and_pairs():
    frame = bench(["and2", "adder"], ablations=["zero"], decoders=["exhaustive"], n_masks=[32])
    screens = frame[frame["method"].str.startswith("screen")].set_index(["model", "method"])
    for name, singles, pairs in (("and2", "2", "0 1"), ("adder", "4", "0")):
        assert screens.loc[(name, "screen first_order"), "terms"] == singles
        assert screens.loc[(name, "screen second_order"), "terms"] == pairs
    assert set(screens["f1"]) == {1.0}
    assert screens["error"].max() < 1e-4
    assert truth(known_model("and2").values("zero"), "ablated").max_order == 2


def test_where_no_unit_matters_alone_a_screen_of_single_units_proposes_none():
    frame = bench(["or2"], ablations=["zero"], decoders=["additive"]).set_index("method")
    first = frame.loc["screen first_order"]
    assert (first["terms"], first["masks"], first["f1"], first["error"]) == ("0", 7, 1.0, 0.0)
    # Its only pair is one that no gradient sees: each head alone saturates.
    second = frame.loc["screen second_order"]
    assert (second["terms"], second["f1"], second["error"]) == ("0 1", 0.0, 1.0)


def test_what_refuses_has_a_row_that_says_why():
    frame = bench(["hist"], ablations=["zero"], screens=[])
    refused = frame[frame["refused"] != ""].set_index("method")
    assert "needs at least 20" in refused.loc["pursuit", "refused"]
    assert "more than all 4" in refused.loc["spex", "refused"]
    assert refused["f1"].isna().all()
    assert set(frame["method"]) - set(refused.index) == {"automatic", "exhaustive"}


def test_the_summary_has_one_row_a_model_and_ablation():
    frame = bench(["and2", "hist"], decoders=["automatic", "pursuit"], screens=["first_order"])
    table = summary(frame)
    assert list(zip(table["model"], table["ablation"], strict=True)) == [
        ("and2", "zero"), ("and2", "resample"), ("hist", "zero"), ("hist", "resample"),
    ]  # fmt: skip
    assert list(table["masks"]) == [64, 64, 4, 4]
    assert list(table["f1"]) == [1.0] * 4
    assert list(table["automatic below"][:2]) == [1.0, 1.0]
    assert table["pursuit"][2:].isna().all()  # pyright: ignore[reportAttributeAccessIssue]
    assert N_MASKS[0] == 32


def test_the_same_seed_gives_the_same_table():
    decoders = ["pursuit", "kernel", "spex", "exhaustive"]
    one, two = (bench(["or3"], ablations=["resample"], decoders=decoders, seed=2) for _ in "12")
    assert one.equals(two)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"models": ["nand"]}, "nand"),
        ({"models": ["hist"], "decoders": ["oracle"]}, "oracle"),
        ({"models": ["hist"], "n_masks": [0]}, "n_masks"),
        ({"models": ["hist"], "ablations": ["half"]}, "half"),
    ],
)
def test_bad_arguments_are_refused(arguments, said):
    with pytest.raises(Refused, match=said):
        bench(**arguments)


def test_the_command_prints_a_table_or_json(run):
    code, out, _ = run("bench", "sort_unique", "--ablation", "zero", "--masks", "8")
    assert code == 0
    assert "sort_unique" in out
    assert "exhaustive" in out
    code, out, _ = run("bench", "hist", "--ablation", "zero", "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["rows"][0]["model"] == "hist"
    code, out, err = run("bench", "nand")
    assert code == 2
    assert "'nand'" in err
    assert "reverse" in err, "those that are known are named"
