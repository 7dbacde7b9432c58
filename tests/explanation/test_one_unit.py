"""Of a single unit there is an exact answer; of none and of one twice there is a refusal."""

import numpy as np
import pytest

import mechspex as mx
from mechspex.errors import Refused


def function(masks):
    return np.outer(1 + 2.0 * masks[:, 0], [1.0, 1.5, 0.5])


ONE = mx.FunctionValues(function, mx.parts(["salt"]))


def test_one_unit_is_measured_exactly():
    found = mx.explain(ONE)
    assert (found.clean, found.ablated) == (3.0, 1.0)
    assert found.validation.terms == ((0,),)
    assert found.validation.effects.tolist() == pytest.approx([-2.0])
    assert found.recovery.r2 == 1.0
    assert mx.sweep(ONE).effects.tolist() == pytest.approx([-2.0])
    assert mx.faithfulness(ONE, ["salt"]).faithfulness.value == pytest.approx(1.0)
    assert mx.screen(ONE, "ablation").terms == ((0,),)


@pytest.mark.parametrize(
    ("ask", "complaint"),
    [
        (lambda: mx.parts(0), "labels = 0: give a list of labels"),
        (lambda: mx.explain(function, units=[]), "no units"),
        (lambda: mx.parts(["salt", "salt"]), "'salt' is listed twice; list every unit once"),
        (lambda: mx.sweep(ONE, order=2), "1 units?, a sweep of order 2 needs 2"),
        (lambda: mx.decode(np.zeros((3, 0), bool), np.zeros(3)), "have no units"),
        (lambda: mx.prune_heads(ONE, ONE, n_masks=20), "pruning chooses among at least two units"),
    ],
)
def test_none_one_twice_and_too_few_are_refused(ask, complaint):
    with pytest.raises(Refused, match=complaint):
        ask()
