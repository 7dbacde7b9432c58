"""Methods of a screen that follow other rules than the chain rule, on models with self-repair."""

import json

import numpy as np
import pytest

import mechspex as mx
from mechspex.core.masks import single_ablations


@pytest.fixture(scope="module")
def backup():
    """Two heads that find the earlier letter, two that read it there; their attention is sharp."""
    known = mx.truth.known_model("backup")
    return mx.ComponentValues(known.model, known.task, known.units, "mean")


@pytest.fixture(scope="module")
def exact(backup):
    values = backup(np.concatenate([np.ones((1, 8), dtype=bool), single_ablations(8)])).mean(1)
    return values[1:] - values[0]


def singles(values, method):
    return mx.screen(values, method, n_terms=8).single_scores


def test_saturated_attention_is_seen_at_a_temperature(backup, exact):
    finders, movers = [0, 3], [6, 7]
    plain = singles(backup, mx.FirstOrder(parts=0))
    cooled = singles(backup, mx.FirstOrder(parts=0, backward=mx.BackwardRules(temperature=2.0)))
    # Ablating any of the four costs about the same; the chain rule says the finders are half of it.
    assert (exact[finders] < exact[movers]).all()
    assert (plain[finders] > 0.5 * exact[finders]).all()
    assert (plain[finders] > plain[movers].max()).all()
    assert np.allclose(cooled[finders], exact[finders], rtol=0.15)
    assert (cooled[finders] < cooled[movers].min()).all()


@pytest.mark.parametrize("method", ["integrated", "iterated", "gim", "relp", "atp_star"])
def test_every_method_proposes_by_name_and_by_object(method, backup, tmp_path):
    found = mx.screen(backup, method, n_terms=8, run=tmp_path / "run")
    assert found.method == method
    classes = (mx.Integrated, mx.Iterated, mx.GIM, mx.RelP, mx.AtPStar)
    chosen = {one.name: one for one in classes}
    again = mx.screen(backup, chosen[method](), n_terms=8, run=tmp_path / "run")
    assert again.terms == found.terms
    assert again.cost.measured == 0
    # The four that do nothing are last.
    assert {term[0] for term in found.terms[:2]} <= {0, 3, 6, 7}


def test_a_run_keeps_gradients_of_different_rules_apart(backup, tmp_path):
    run = tmp_path / "run"
    one = mx.screen(backup, mx.FirstOrder(parts=0), n_terms=8, run=run)
    two = mx.screen(backup, "gim", n_terms=8, run=run)
    three = mx.screen(backup, mx.FirstOrder(parts=0), n_terms=8, run=run)
    assert np.array_equal(one.single_scores, three.single_scores)
    assert not np.allclose(one.single_scores, two.single_scores)
    assert two.configuration["backward"].startswith("temperature 2, queries 0.25")
    assert "backward" not in one.configuration


def test_pairs_follow_rules_as_well(backup):
    rules = mx.BackwardRules(temperature=2.0)
    plain = mx.screen(backup, mx.SecondOrder(), n_terms=28).function.to_mapping()
    cooled = mx.screen(backup, mx.SecondOrder(backward=rules), n_terms=28).function.to_mapping()
    ones = np.ones((1, 8), dtype=np.float32)
    by_rules = backup.with_backward(rules)
    alone = ones - np.eye(8, dtype=np.float32)
    _, (whole,) = by_rules.value_and_mean_gradient(ones)
    _, without = by_rules.value_and_mean_gradient(alone)
    # g_j(all) − g_j(all but i), the mean of both orders.
    pair = (whole[3] - without[0, 3] + whole[0] - without[3, 0]) / 2
    assert cooled[0, 3] == pytest.approx(pair, rel=1e-3)
    assert cooled[0, 3] != pytest.approx(plain[0, 3], rel=0.05)


def test_all_that_is_ablated_is_what_the_line_adds_up_to(backup):
    whole, none = (backup(np.full((1, 8), kept)).mean() for kept in (True, False))
    assert singles(backup, mx.Integrated(steps=64)).sum() == pytest.approx(none - whole, rel=0.01)


def test_other_prompts_keep_the_rules(backup):
    rules = mx.BackwardRules(temperature=2.0)
    some = backup.task[:3]
    other = backup.with_backward(rules).on(some)
    anew = mx.ComponentValues(backup.model, some, backup.units, "mean").with_backward(rules)
    ones = np.ones((1, 8), dtype=np.float32)
    expected = anew.value_and_gradient(ones)[1]
    assert np.array_equal(other.value_and_gradient(ones)[1], expected)
    assert other.configuration == anew.configuration


def test_a_model_of_one_block_has_nothing_to_drop():
    known = mx.truth.known_model("and2")
    values = mx.ComponentValues(known.model, known.task, known.units, "zero")
    assert np.array_equal(singles(values, "atp_star"), singles(values, mx.FirstOrder(parts=0)))


def test_workers_follow_the_rules():
    model = mx.load_model("tiny")
    task = mx.load_task("induction", model, n_prompts=3)
    rules = mx.BackwardRules(temperature=2.0, norms_frozen=True)
    values = mx.ComponentValues(model, task, "heads", "zero").with_backward(rules)
    ones = np.ones((1, values.n_units), dtype=np.float32)
    again = mx.Recipe(**json.loads(json.dumps(values.recipe.to_dict()))).make()
    assert again.configuration == values.configuration
    assert np.array_equal(again.value_and_gradient(ones)[1], values.value_and_gradient(ones)[1])
