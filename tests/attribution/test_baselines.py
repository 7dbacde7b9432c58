import numpy as np
import pytest
from sklearn.linear_model import Lasso
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mechspex as mx
from mechspex.attribution.context_cite import logit_of
from mechspex.core.value_function import ValueFunction
from mechspex.errors import FailedMasksError, Refused, ShapeError


def pair(masks):
    return 2.0 * masks[:, 0] - masks[:, 3] + 1.5 * masks[:, 1] * masks[:, 2]


class Smooth(ValueFunction):
    """`pair` with its gradient."""

    @property
    def units(self):
        return mx.parts(5)

    @property
    def outputs(self):
        return ("a", "b")

    def __call__(self, masks):
        return np.stack([pair(masks), 3 * pair(masks)], axis=1)

    def value_and_gradient(self, masks):
        slope = np.zeros((len(masks), 5))
        slope[:, 0], slope[:, 3] = 2, -1
        slope[:, 1], slope[:, 2] = 1.5 * masks[:, 2], 1.5 * masks[:, 1]
        return self(masks), np.stack([slope, 3 * slope], axis=1)


@pytest.mark.parametrize("n_tokens", [1, 7])
@pytest.mark.parametrize("penalty", [0.01, 0.3])
def test_contextcite_is_the_pipeline_of_its_code(n_tokens, penalty):
    """Scaler and LASSO of scikit-learn, from the formulas of the published solver."""
    rng = np.random.default_rng(0)
    masks = mx.sample_masks(9, 64, seed=2)
    logits = pair(masks) + 0.3 * rng.normal(size=64)
    found = mx.context_cite(masks, logits, n_tokens=n_tokens, penalty=penalty)
    scaler, lasso = StandardScaler(), Lasso(alpha=penalty)
    pipeline = make_pipeline(scaler, lasso).fit(masks.astype(float), logits / n_tokens)
    expected = n_tokens * pipeline.predict(masks.astype(float))
    assert found.function.predict_outputs(masks)[:, 0] == pytest.approx(expected, abs=1e-6)
    weights = n_tokens * lasso.coef_ / scaler.scale_
    assert found.scores == pytest.approx(weights, abs=1e-6)


def test_longer_responses_are_penalised_more():
    masks = mx.sample_masks(9, 64)
    one = mx.context_cite(masks, 0.5 * pair(masks), n_tokens=1).scores
    many = mx.context_cite(masks, 0.5 * pair(masks), n_tokens=40).scores
    assert np.count_nonzero(many) < np.count_nonzero(one)


def test_contextcite_takes_outputs_constants_and_failures():
    masks = mx.sample_masks(4, 40)
    masks[:, 3] = True
    logits = np.stack([pair(masks), -pair(masks)], axis=1)
    found = mx.context_cite(masks, logits, units=["a", "b", "c", "d"])
    assert found.output_scores[:, 1] == pytest.approx(-found.output_scores[:, 0])
    assert found.output_scores[3] == pytest.approx(0)
    assert found.units.names == ("a", "b", "c", "d")
    logits[5] = np.nan
    assert mx.context_cite(masks, logits).n_masks == 39
    with pytest.raises(FailedMasksError):
        mx.context_cite(masks, np.full(40, np.nan))
    with pytest.raises(ShapeError, match="2 units and masks of 4"):
        mx.context_cite(masks, logits, units=["a", "b"])
    with pytest.raises(Refused, match="give a penalty from 0 up"):
        mx.context_cite(masks, logits, penalty=-1)


def test_logits_of_log_probabilities():
    p = np.array([1e-12, 0.25, 0.5, 0.999])
    assert logit_of(np.log(p)) == pytest.approx(np.log(p / (1 - p)))
    assert np.isfinite(logit_of(np.array([0.0, 1e-9])))[0], "of a probability of 1 to rounding"
    assert logit_of(np.array([-800.0])) == pytest.approx([-800.0])
    with pytest.raises(Refused, match="it is at most 0"):
        logit_of(np.array([0.3]))


def test_leave_one_out_and_gradients_agree_with_the_truth():
    loo, gradient = mx.leave_one_out(Smooth()), mx.gradient_times_input(Smooth())
    for found in (loo, gradient):
        assert found.output_scores[:, 0] == pytest.approx([2, 1.5, 1.5, -1, 0])
        assert found.output_scores[:, 1] == pytest.approx([6, 4.5, 4.5, -3, 0])
        whole = np.ones((1, 5), dtype=bool)
        assert found.function.predict_outputs(whole)[0] == pytest.approx(Smooth()(whole)[0])
        assert found.ranking == (0, 1, 2, 4, 3)
    assert loo.n_masks == 6
    assert gradient.n_masks == 1
    with pytest.raises(Refused, match="no value_and_gradient"):
        mx.gradient_times_input(mx.FunctionValues(pair, 5))


def test_gradients_of_a_model(tiny):
    """Gradient × input of heads is the slope that finite differences see."""
    task = mx.load_task("induction", tiny, n_prompts=2)
    values = mx.ComponentValues(tiny, task, mx.heads(tiny), ablation="zero")
    found = mx.gradient_times_input(values)
    assert found.output_scores.shape == (8, 2)
    soft = np.ones((2, 8), dtype=np.float32)
    soft[1, 1] -= 0.01
    measured, _ = values.value_and_gradient(soft)
    assert found.output_scores[1] == pytest.approx((measured[0] - measured[1]) / 0.01, rel=0.05)


def test_random_scores_depend_on_the_seed_alone():
    assert mx.random_scores(5, seed=1) == mx.random_scores(5, seed=1)
    assert mx.random_scores(5, seed=1) != mx.random_scores(5, seed=2)


def test_an_attribution_needs_a_score_a_unit():
    with pytest.raises(ShapeError, match="one score a unit and output"):
        mx.Attribution("mine", mx.parts(3), ("a",), np.ones((2, 1)), np.zeros(1), 0)
