import numpy as np
import pytest
from scipy.stats import spearmanr

import mechspex as mx
from mechspex.core.masks import Stream, sample_masks
from mechspex.core.statistics import rank_correlation_estimate
from mechspex.errors import FailedMasksError, Refused, ShapeError

N = 8
TERMS = {(0,): 2.0, (3,): -1.0, (1, 2): 3.0, (4, 5, 6): -2.0}
TRUTH = mx.SetFunction.from_mapping(N, TERMS, basis="kept")


def planted(n_outputs=5):
    """The planted function, with other weights on each output."""
    scales = 1 + 0.1 * np.arange(n_outputs)
    return mx.FunctionValues(lambda m: np.outer(TRUTH.predict(m), scales), N)


def test_the_truth_orders_all_masks():
    found = mx.lds(TRUTH, planted(), keep=[0.1, 0.5, 0.9])
    assert found.at == (0.1, 0.5, 0.9)
    assert found.scores == pytest.approx(1.0)
    assert found.estimate("setfunction", 0.9).low == pytest.approx(1.0)


def test_a_score_is_spearmans_on_masks_of_its_own_stream():
    scores = np.arange(1.0, N + 1)
    found = mx.lds(scores, planted(), n_masks=40, seed=3)
    masks = sample_masks(N, 40, seed=(3, Stream.FRESH))
    expected = spearmanr(masks @ scores, TRUTH.predict(masks)).statistic  # pyright: ignore[reportAttributeAccessIssue]
    assert found.scores == pytest.approx(expected)


def test_random_scores_are_right_by_chance():
    """Mean over 60 sets of random scores: ±4 standard errors about zero."""
    methods = {str(seed): mx.random_scores(N, seed=seed) for seed in range(60)}
    found = mx.lds(methods, planted(1), n_masks=100).scores[:, 0, 0]
    assert abs(found.mean()) < 4 * found.std() / np.sqrt(len(found))
    assert found.std() > 0.1


def test_interactions_do_better_than_the_best_singles():
    masks = sample_masks(N, 256)
    methods = {
        "interactions": mx.decode(masks, TRUTH.predict(masks), decoder="pursuit"),
        "additive": mx.decode(masks, TRUTH.predict(masks), decoder="additive"),
    }
    found = mx.lds(methods, planted())
    assert found.estimate("interactions", 0.5).value > 0.99
    assert found.estimate("additive", 0.5).value < 0.95
    assert found.difference("interactions", "additive", 0.5).low > 0.05


def test_each_output_may_have_a_prediction_of_its_own():
    """Outputs are two units; scores a unit and output order both, one score for both cannot."""
    values = mx.FunctionValues(lambda m: m[:, :2].astype(float), N)
    own = np.zeros((N, 2))
    own[0, 0] = own[1, 1] = 1
    found = mx.lds({"own": own, "shared": own[:, 0]}, values)
    assert found.scores[0, 0] == pytest.approx([1, 1])
    assert abs(found.scores[1, 0, 1]) < 0.4
    assert mx.lds({"plain": lambda m: m[:, :2]}, values).scores == pytest.approx(1)


def test_what_does_not_vary_says_nothing():
    constant = mx.FunctionValues(lambda m: np.stack([m[:, 0], 0 * m[:, 0] + 0.1], axis=1), N)
    found = mx.lds({"nothing": np.zeros(N), "right": np.eye(N)[0]}, constant)
    assert found.scores[0, 0, 0] == 0, "a prediction that never varies orders nothing"
    assert np.isnan(found.scores[:, 0, 1]).all()
    assert found.estimate("right", 0.5).value == 1, "an output that never varies is left out"


def test_failed_masks_are_left_out_and_counted():
    def broken(masks):
        return np.where(masks[:, 0], TRUTH.predict(masks), np.nan)

    found = mx.lds(TRUTH, mx.FunctionValues(broken, N))
    assert found.scores == pytest.approx(1.0)
    assert 30 < found.n_failed < 70
    # The interval over masks is that of the masks that are scored, at each density.
    rough = np.arange(N) * 1.0
    several = mx.lds(rough, mx.FunctionValues(broken, N), keep=[0.3, 0.6])
    assert sum(several.n_scored) == 200 - several.n_failed
    for place, density in enumerate(several.at):
        score, n_masks = several.scores[0, place, 0], several.n_scored[place]
        assert several.estimate("scores", density) == rank_correlation_estimate(score, n_masks)
    assert mx.LDS.from_dict(several.to_record()) == several
    with pytest.raises(FailedMasksError, match="0 of 100 masks at keep = 0.5"):
        mx.lds(TRUTH, mx.FunctionValues(lambda m: np.full(len(m), np.nan), N))


def test_the_interval_over_masks_covers():
    """95% intervals of one output, 200 draws of 30 pairs of a bivariate normal with r = 0.6."""
    rng = np.random.default_rng(0)
    cases = 300
    truth = 6 / np.pi * np.arcsin(0.6 / 2)  # Spearman's of the bivariate normal (Pearson 1907)
    held = 0
    for _ in range(cases):
        x = rng.normal(size=30)
        y = 0.6 * x + 0.8 * rng.normal(size=30)
        r = spearmanr(x, y).statistic  # pyright: ignore[reportAttributeAccessIssue]
        estimate = rank_correlation_estimate(float(r), 30)
        held += estimate.low <= truth <= estimate.high
    assert 0.91 < held / cases < 0.985


def test_slips_are_named():
    values = planted()
    with pytest.raises(Refused, match="give a SetFunction, an explanation"):
        mx.lds(None, values)
    with pytest.raises(Refused, match="is empty"):
        mx.lds({}, values)
    with pytest.raises(ShapeError, match="a function of 3 units, the values of 8"):
        mx.lds(np.ones(3), values)
    with pytest.raises(ShapeError, match="predicts 2 outputs; the values have 5"):
        mx.lds(np.ones((N, 2)), values)
    with pytest.raises(Refused, match="probability strictly between 0 and 1"):
        mx.lds(TRUTH, values, keep=[0.5, 1.0])
    found = mx.lds(TRUTH, planted(1))
    with pytest.raises(Refused, match="no scores of 'x' at 0.5; there are setfunction at 0.5"):
        found.estimate("x", 0.5)
    with pytest.raises(Refused, match="needs two or more"):
        found.difference("setfunction", "setfunction", 0.5)
