"""Influence functions and TracIn against finite retraining."""

import numpy as np
import pytest
import torch
from torch import nn

import mechspex as mx
from mechspex.errors import Refused

N, FEATURES, CLASSES, TARGETS = 24, 3, 3, 4
RNG = np.random.default_rng(1)
LABELS = np.arange(N) % CLASSES
INPUTS = RNG.normal(size=(CLASSES, FEATURES))[LABELS] + RNG.normal(size=(N, FEATURES))
DATA, ASKED = (INPUTS, LABELS), (INPUTS[:TARGETS] + 0.3, LABELS[:TARGETS])
OUTCOMES = ("margin", "log_probability", "loss", "score")


def retrained(name, weights, outcome):
    """The value with weights of the examples, by plain Newton steps of autograd."""
    X = torch.as_tensor(np.hstack([INPUTS, np.ones((N, 1))]))
    asked = torch.as_tensor(np.hstack([ASKED[0], np.ones((TARGETS, 1))]))
    y, right = torch.as_tensor(LABELS), torch.as_tensor(ASKED[1])
    weights, goal = torch.as_tensor(weights), nn.functional.one_hot(y, CLASSES).double()

    def objective(flat):
        theta = flat.reshape(-1, CLASSES)
        if name == "ridge":
            return weights @ (X @ theta - goal).square().sum(1) + theta.square().sum()
        each = nn.functional.cross_entropy(X @ theta, y, reduction="none")
        return weights @ each + 0.5 * theta.square().sum()

    flat = torch.zeros((FEATURES + 1) * CLASSES, dtype=torch.float64)
    for _ in range(30):
        slope = torch.func.grad(objective)(flat)
        flat = flat - torch.linalg.solve(torch.func.jacrev(torch.func.grad(objective))(flat), slope)
    logits = asked @ flat.reshape(-1, CLASSES)
    log_p = logits.log_softmax(-1).gather(-1, right[:, None])[:, 0]
    found = {
        "score": logits.gather(-1, right[:, None])[:, 0],
        "log_probability": log_p,
        "loss": -log_p,
        "margin": log_p - torch.log1p(-log_p.exp()),
    }
    return found[outcome].numpy()


@pytest.mark.parametrize("name", ["ridge", "logistic"])
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_derivatives_are_those_of_retraining_with_weights(name, outcome, device):
    groups = {"two": [0, 5], "one": [3], "another": [7]}
    units = mx.examples(DATA, groups=groups)
    options = {"units": units, "outcome": outcome, "device": device}
    found = mx.influence(mx.TrainingValues(name, DATA, ASKED, **options), order=2)

    def value(*left_out):
        weights = np.ones(N)
        for rows, share in zip(groups.values(), left_out, strict=True):
            weights[rows] -= share
        return retrained(name, weights, outcome)

    step = 1e-3
    at = np.eye(3) * step
    for unit in range(3):
        slope = (value(*at[unit]) - value(*-at[unit])) / (2 * step)
        assert np.allclose(found.singles[unit], slope, rtol=1e-4, atol=1e-6)
        for other in range(unit, 3):
            ends = [
                value(*(one * at[unit] + two * at[other]))
                for one, two in ((1, 1), (1, -1), (-1, 1), (-1, -1))
            ]
            bend = (ends[0] - ends[1] - ends[2] + ends[3]) / (4 * step**2)
            assert np.allclose(found.pairs[:, unit, other], bend, rtol=1e-3, atol=1e-4)
    assert np.allclose(found.clean, value(0, 0, 0), atol=1e-5)


@pytest.mark.parametrize("name", ["ridge", "logistic"])
def test_the_second_order_is_nearer_to_retraining_than_the_first(name):
    values = mx.TrainingValues(name, DATA, ASKED)
    masks = mx.sample_masks(N, 40, keep=0.9, seed=2)
    exact = values(masks)
    errors = [np.abs(mx.influence(values, order=order)(masks) - exact).mean() for order in (1, 2)]
    assert errors[1] < 0.6 * errors[0]
    assert errors[0] < np.abs(exact - exact.mean(0)).mean()


def test_influence_is_a_value_function_that_can_be_scored_and_explained():
    values = mx.TrainingValues("ridge", DATA, ASKED)
    methods = {
        "influence": mx.influence(values),
        "random": mx.random_scores(values.units),
        "leave one out": mx.leave_one_out(values),
    }
    scores = mx.lds(methods, values, keep=0.9, n_masks=60).to_pandas().set_index("method")["LDS"]
    assert scores["influence"] > 0.8
    assert abs(scores["random"]) < 0.4
    first = mx.influence(values)
    assert np.allclose(mx.leave_one_out(first).output_scores, -first.singles)


def test_tracin_is_the_first_step_of_gradient_descent():
    """After one step of SGD on all, f moved by −η ∇f · mean ∇ℓ: what TracIn splits over rows."""
    module = nn.Linear(FEATURES, CLASSES).double()
    training = mx.Training("sgd", 1e-6, 1)
    values = mx.TrainingValues(module, DATA, ASKED, training=training)
    ends = values(np.stack([np.zeros(N, dtype=bool), np.ones(N, dtype=bool)]))
    found = mx.tracin(values)
    assert np.allclose(-found.singles.sum(axis=0), ends[1] - ends[0], rtol=1e-3)


def test_tracin_orders_masks_as_retraining_does():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Linear(FEATURES, CLASSES)
    training = mx.Training("sgd", 0.1, 20, 8)
    values = mx.TrainingValues(module, DATA, ASKED, training=training, seeds=2)
    found = mx.lds(mx.tracin(values, checkpoints=5), values, keep=0.9, n_masks=40)
    assert found.to_pandas()["LDS"][0] > 0.4
    by_seed = mx.TrainingValues(module, DATA, ASKED, training=training, seeds=2, columns="seeds")
    assert mx.tracin(by_seed).singles.shape == (N, 2)


def test_what_has_no_influence_is_refused_with_what_has():
    kernel = mx.TrainingValues("kernel_ridge", DATA, ASKED)
    with pytest.raises(Refused, match=r"use mechspex\.tracin"):
        mx.influence(kernel)
    with pytest.raises(Refused, match=r"use mechspex\.influence"):
        mx.tracin(kernel)
    with pytest.raises(Refused, match="order = 3: give at most 2"):
        mx.influence(kernel, order=3)
