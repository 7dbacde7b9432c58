"""Membership of units where the prompts of a search are drawn again, against choosing by hand."""

import json

import numpy as np
import pytest

import mechspex as mx
from mechspex.circuits import membership as file
from mechspex.circuits.membership import Membership, membership
from mechspex.core.masks import Stream, all_masks
from mechspex.subsets.gradient_climb import good

N_UNITS, N_OUTPUTS = 5, 7
UNITS = mx.parts(f"u{i}" for i in range(N_UNITS))


def measured(spread, seed=0):
    """All masks of five units; each prompt has weights of its own."""
    rng = np.random.default_rng(seed)
    weights = np.array([3.0, 1.5, 1.4, 0.2, -1.0])[:, None]
    weights = weights + spread * rng.standard_normal((N_UNITS, N_OUTPUTS))
    masks = all_masks(N_UNITS)[rng.permutation(32)]
    return masks, masks @ weights + spread * rng.standard_normal((32, N_OUTPUTS)) + 0.5


def by_hand(masks, values, sizes, goal, seed):
    """Every draw as prompts of its own, one after another."""
    rng = np.random.default_rng((seed, Stream.OUTPUTS))
    draws = rng.multinomial(N_OUTPUTS, np.full(N_OUTPUTS, 1 / N_OUTPUTS), size=1_000)
    kept = masks.sum(axis=1)
    often, none = np.zeros(N_UNITS), 0
    for counts in draws:
        drawn = np.repeat(values, counts, axis=1)
        clean, empty = drawn[kept == N_UNITS][0], drawn[kept == 0][0]
        goodness = good(drawn, None if goal.objective == "best" else clean)
        for size in sizes if goal.size is None else [goal.size]:
            rows = np.flatnonzero(kept == size)
            row = rows[goodness[rows].argmax()]
            share = (drawn[row] - empty).mean() / (clean - empty).mean()
            if goal.size is not None or goal.reached(np.array([share]))[0]:
                often += masks[row]
                break
        else:
            none += 1
    return often / 1_000, none / 1_000


@pytest.mark.parametrize("at_once", [3, 512])
@pytest.mark.parametrize("spread", [0.1, 1.0])
@pytest.mark.parametrize(
    "goal",
    [
        mx.CircuitGoal(),
        mx.CircuitGoal(target=0.99),
        mx.CircuitGoal(objective="best", target=1.1),
        mx.CircuitGoal(size=2),
        mx.CircuitGoal(size=3, objective="best"),
    ],
    ids=str,
)
def test_against_every_draw_chosen_by_hand(goal, spread, at_once, monkeypatch):
    monkeypatch.setattr(file, "_AT_ONCE", at_once)
    masks, values = measured(spread)
    sizes = [1, 2, 3, 4]
    found = membership((UNITS, (0, 1)), masks, values, sizes, goal, seed=3)
    often, none = by_hand(masks, values, sizes, goal, seed=3)
    assert found.probability == pytest.approx(often)
    assert found.unreached == pytest.approx(none)


def planted(first, second):
    """u0 carries most; u1 the rest on some prompts, u2 on others."""
    first, second = np.array(first), np.array(second)

    def value(kept):
        return 10.0 * kept[:, [0]] + kept[:, [1]] * first + kept[:, [2]] * second

    return mx.FunctionValues(value, mx.parts(f"u{i}" for i in range(6)))


def test_units_that_serve_different_prompts_share_the_draws():
    values = planted([3.0] * 6 + [0.0] * 6, [0.0] * 6 + [3.0] * 6)
    found = mx.find_circuit(values, values, goal=mx.CircuitGoal(size=2), n_masks=300)
    assert found.membership.probability[0] == 1
    one, other = found.membership.probability[[1, 2]]
    assert one + other == pytest.approx(1)
    assert 0.3 < one < 0.7
    table = found.membership.to_pandas()
    assert table["unit"].tolist()[0] == "u0"
    assert table["member"].tolist() == [True, True, False]


def test_prompts_that_agree_choose_the_circuit_in_every_draw():
    values = planted([3.0] * 12, [0.0] * 12)
    found = mx.find_circuit(values, values, n_masks=60)
    assert found.circuit.members == (0, 1)
    assert found.membership.probability.tolist() == [1, 1, 0, 0, 0, 0]
    assert found.membership.unreached == 0
    said = "chosen where the prompts of the search are drawn again: u0 1.00 · u1 1.00"
    assert said in str(found).splitlines()


def test_it_is_kept_and_read_again():
    values = planted([3.0] * 6 + [0.0] * 6, [0.0] * 6 + [3.0] * 6)
    found = mx.find_circuit(values, values, goal=mx.CircuitGoal(size=2), n_masks=300)
    record = json.loads(json.dumps(found.to_record()))
    again = mx.Discovery.from_dict(record)
    assert again == found
    assert again.membership.to_dict() == found.membership.to_dict()
    assert record["membership"]["probability"]["u0"] == 1
    # Answers of before have none.
    del record["membership"]
    assert mx.Discovery.from_dict(record).membership is None


def test_prompts_that_are_all_there_are_or_one_are_not_drawn():
    values = planted([3.0] * 12, [0.0] * 12)
    assert mx.find_circuit(values, values, n_masks=60, certified="census").membership is None
    one = planted([3.0], [0.0])
    assert mx.find_circuit(one, values, n_masks=60).membership is None


def test_draws_without_a_faithful_subset_are_counted():
    masks, values = measured(0.3)
    goal = mx.CircuitGoal(target=0.9999)
    found = membership((UNITS, (0,)), masks, values, [1], goal, seed=0)
    assert found.unreached > 0.9
    assert found.probability.sum() == pytest.approx(1 - found.unreached)
    assert "none is faithful in" in str(found)


def test_a_line_names_the_first_twelve():
    units = mx.parts(f"u{i}" for i in range(40))
    found = Membership(units, tuple(range(20)), np.linspace(1, 0.1, 40), 0.0)
    assert str(found).count("and 8 more") == 2


def test_a_line_leaves_out_what_would_read_as_never():
    found = Membership(mx.parts(["salt", "oil", "leek"]), (0,), np.array([0.6, 0.4, 0.004]), 0.0)
    assert str(found).endswith("again: salt 0.60; others oil 0.40")
    assert len(found.to_pandas()) == 3
