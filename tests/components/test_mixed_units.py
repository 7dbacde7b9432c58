"""Words and heads under one mask: sweeps, screens, tests and circuits take them as they are."""

import numpy as np
import pytest

import mechspex as mx
from mechspex.errors import ModelError, Refused

PROMPT, ANSWER, DISTRACTOR = "apple bird boat moon lake apple", " bird", " key"


def mixed(model, *, hidden=False):
    """One prompt of induction: what followed *apple* follows it again."""
    task = mx.Task([PROMPT], [ANSWER], [DISTRACTOR])
    units = mx.words(PROMPT, hidden=hidden) + mx.heads(model)
    return mx.ComponentValues(model, task, units, "zero")


@pytest.fixture(scope="module")
def prompts(tiny):
    """Prompts whose words have names, to search on and to test on."""
    task = mx.load_task("induction", tiny, n_prompts=24, spans=True)
    return task.split(8, 16)


@pytest.mark.parametrize("hidden", [False, True])
def test_a_sweep_pairs_words_with_heads(tiny, hidden):
    values = mixed(tiny, hidden=hidden)
    swept = mx.sweep(values, order=2).to_pandas().set_index("units")["effect"]
    head, word = values.units.column_of["L1H3"], values.units.column_of["bird"]
    masks = np.ones((4, 14), dtype=bool)
    masks[1, word] = masks[2, head] = masks[3, [word, head]] = False
    clean, without_word, without_head, neither = values(masks)[:, 0]
    assert swept["bird × L1H3"] == pytest.approx(neither - without_word - without_head + clean)
    # What the induction head looks for it finds at the word it copies, and nowhere else.
    assert swept["bird × L1H3"] > 3 * abs(swept[["boat × L1H3", "moon × L1H3"]]).max()


@pytest.mark.parametrize(("architecture", "hidden"), [("tiny", 0), ("llama", 0), ("llama", 1)])
def test_the_soft_gradient_is_the_slope(architecture, hidden, request):
    values = mixed(request.getfixturevalue(architecture), hidden=bool(hidden))
    n, step = values.n_units, 0.01
    inside = np.random.default_rng(0).uniform(0.3, 0.9, n)

    def at(points):
        return values.value_and_gradient(np.asarray(points, dtype=np.float32))

    def close(slope, gradient):
        assert np.abs(slope - gradient).max() < 0.02 * max(1, np.abs(gradient).max())

    ahead, back = (at(inside + sign * step * np.eye(n))[0][:, 0] for sign in (1, -1))
    close((ahead - back) / (2 * step), at([inside])[1][0, 0])
    # Nothing lies beyond the whole: its slope is taken from within, exact to second order.
    whole, gradient = at([np.ones(n)])
    once, twice = (at(1 - k * step * np.eye(n))[0][:, 0] for k in (1, 2))
    close((3 * whole[0, 0] - 4 * once + twice) / (2 * step), gradient[0, 0])


def test_screens_score_words_beside_heads(tiny):
    """The best pair of the gradients is measured to be one of the strongest there are."""
    values = mixed(tiny)
    found = mx.screen(values, n_terms=10)
    exact = mx.sweep(values, order=2).to_pandas().query("order == 2")
    order = np.argsort(-np.abs(exact["effect"].to_numpy()))
    strongest = exact["units"].to_numpy()[order].tolist()
    assert "bird × L1H3" in strongest[:10]
    assert found.to_pandas()["units"][0] in strongest[:15]
    (word, head), score = next((t, s) for t, s in found.ablated_effects().items() if t == (1, 13))
    soft = np.ones((3, 14), dtype=np.float32)
    soft[1, word] = soft[2, head] = 0
    whole, no_word, no_head = values.value_and_gradient(soft)[1][:, 0].astype(float)
    either = whole[head] - no_word[head], whole[word] - no_head[word]
    assert min(either) - 1e-3 <= score <= max(either) + 1e-3, "exact in one, a slope in the other"


def test_hidden_words_of_a_native_model_are_screened_without_gradients(tiny):
    values = mixed(tiny, hidden=True)
    assert not values.differentiable
    with pytest.raises(Refused, match="screen by 'ablation'"):
        mx.screen(values)
    with pytest.raises(ModelError, match="units of kind 'word'"):
        values.value_and_gradient(np.full((1, 14), 0.5))
    exact = mx.sweep(values).to_pandas().set_index("units")["effect"]
    found = mx.screen(values, "ablation")
    assert found.ablated_effects()[(1,)] == pytest.approx(exact["bird"], abs=1e-4)
    assert not mx.PromptValues(tiny, PROMPT, by="word", ablation="hide").differentiable


@pytest.mark.parametrize("hidden", [False, True])
def test_tests_on_fresh_prompts_confirm_what_is_read(tiny, prompts, hidden):
    first, fresh = prompts
    units = mx.spans(first, hidden=hidden) + mx.heads(tiny)
    values = mx.ComponentValues(tiny, fresh, units, "mean")
    tested = mx.validate(values, ["D × L1H3", "C1 × L1H3", "P × L1H3"])
    assert dict(zip(tested.terms, tested.confirmed.tolist(), strict=True)) == {
        term_of(units, "D", "L1H3"): True,
        term_of(units, "C1", "L1H3"): True,
        term_of(units, "P", "L1H3"): False,  # nobody looks at it
    }


def test_a_circuit_has_words_and_heads(tiny, prompts):
    """The word that is copied, and the head that copies it; without gradients."""
    first, fresh = prompts
    units = mx.spans(first, hidden=True) + mx.heads(tiny)
    values = mx.ComponentValues(tiny, first, units, "mean")
    held_out = values.on(fresh)
    goal = mx.CircuitGoal(target=0.7)
    found = mx.find_circuit(values, held_out, n_masks=80, goal=goal, decoder="pursuit")
    names = found.circuit.names
    assert {"D", "L1H3"} <= set(names)
    members = [units.column_of[name] for name in names]
    only = np.zeros((3, len(units)), dtype=bool)
    only[0], only[1, members] = True, True
    whole, circuit, nothing = held_out(only).mean(axis=1)
    score = mx.faithfulness(held_out, list(names), n_random=2).faithfulness.value
    assert score == pytest.approx((circuit - nothing) / (whole - nothing), abs=1e-5)


def term_of(units, *names):
    return tuple(sorted(units.column_of[name] for name in names))
