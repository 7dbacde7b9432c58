"""The value function of training examples: laws, closed forms against direct retraining, slips."""

# Slips are what a type checker is there to find.
# pyright: reportArgumentType=false

import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression, Ridge
from value_function_laws import check_gradient_laws, check_laws

import mechspex as mx
from mechspex.errors import MeasurementError, Refused, ShapeError
from mechspex.training.logistic_regression import LogisticRegression as OurLogistic
from mechspex.training.own_training import OwnTraining
from mechspex.training.ridge_regression import KernelRidgeRegression, RidgeRegression

N, FEATURES, CLASSES, TARGETS = 30, 5, 3, 4


def made(seed=0, n=N):
    """Three noisy clusters."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % CLASSES)
    centres = rng.normal(size=(CLASSES, FEATURES)) * 1.5
    return centres[labels] + rng.normal(size=(n, FEATURES)), labels


DATA = made()
INPUTS, LABELS = DATA
ASKED = (INPUTS[:TARGETS] + 0.3, LABELS[:TARGETS])
MASKS = np.concatenate([mx.sample_masks(N, 4, keep=keep, seed=3) for keep in (0.2, 0.5, 0.9)])


def with_one(inputs):
    return np.hstack([inputs, np.ones((len(inputs), 1))])


def margins(scores, labels):
    """From the definition, in plain Python."""
    found = []
    for row, label in zip(scores, labels, strict=True):
        others = [score for place, score in enumerate(row) if place != label]
        found.append(row[label] - np.log(np.exp(others).sum()))
    return np.array(found)


@pytest.fixture(params=["ridge", "kernel_ridge", "logistic"])
def values(request, device):
    return mx.TrainingValues(request.param, DATA, ASKED, device=device)


def test_laws(values):
    check_laws(values, values(np.ones((1, N), dtype=bool))[0], tolerance=1e-5)
    check_gradient_laws(values)


def test_ridge_is_direct_retraining(device):
    # Some masks keep fewer rows than there are features, some leave out fewer, most neither.
    fewer = np.minimum(MASKS.sum(1), (~MASKS).sum(1))
    assert (fewer <= FEATURES + 1).any()
    assert (fewer > FEATURES + 1).any()
    ours = mx.TrainingValues(RidgeRegression(l2=0.7), DATA, ASKED, device=device)(MASKS)
    for mask, value in zip(MASKS, ours, strict=True):
        fitted = Ridge(alpha=0.7, fit_intercept=False)
        fitted.fit(with_one(INPUTS)[mask], np.eye(CLASSES)[LABELS][mask])
        assert np.allclose(value, margins(fitted.predict(with_one(ASKED[0])), ASKED[1]), atol=1e-9)


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_kernel_ridge_is_direct_retraining(kernel, device):
    learner = KernelRidgeRegression(l2=0.3, kernel=kernel)
    numbers = (INPUTS, INPUTS[:, 0] ** 2)
    asked = (ASKED[0], np.zeros(TARGETS))
    ours = mx.TrainingValues(learner, numbers, asked, device=device)(MASKS)
    for mask, value in zip(MASKS, ours, strict=True):
        fitted = KernelRidge(alpha=0.3, kernel=kernel).fit(INPUTS[mask], numbers[1][mask])
        assert np.allclose(value, fitted.predict(ASKED[0]), atol=1e-9)


def test_logistic_regression_is_that_of_scikit_learn(device):
    ours = mx.TrainingValues(OurLogistic(l2=0.5), DATA, ASKED, device=device)(MASKS)
    compared = 0
    for mask, value in zip(MASKS, ours, strict=True):
        if len(set(LABELS[mask])) < CLASSES:
            continue
        fitted = LogisticRegression(C=2.0, fit_intercept=False, tol=1e-10, max_iter=5000)
        fitted.fit(with_one(INPUTS)[mask], LABELS[mask])
        scores = fitted.decision_function(with_one(ASKED[0]))
        assert np.allclose(value, margins(scores, ASKED[1]), atol=1e-4)
        compared += 1
    assert compared > 6


def test_one_class_left_has_a_value_and_none_left_is_the_untrained_model(values):
    masks = np.stack([LABELS == 1, np.zeros(N, dtype=bool)])
    assert np.isfinite(values(masks)).all()
    untrained = np.full(TARGETS, -np.log(CLASSES - 1))
    assert np.allclose(values(masks)[1], untrained, atol=1e-5)


def test_outcomes_agree_with_each_other():
    of = {
        outcome: mx.TrainingValues("logistic", DATA, ASKED, outcome=outcome)(MASKS)
        for outcome in ("margin", "log_probability", "loss", "score")
    }
    assert np.allclose(of["loss"], -of["log_probability"])
    p = np.exp(of["log_probability"])
    assert np.allclose(of["margin"], np.log(p / (1 - p)), atol=1e-6)
    assert not np.allclose(of["score"], of["margin"])


def test_groups_are_retrained_without_all_their_rows():
    units = mx.examples(DATA, groups={"first": [0, 1, 2], "last": [N - 1]})
    grouped = mx.TrainingValues("ridge", DATA, ASKED, units=units)
    single = mx.TrainingValues("ridge", DATA, ASKED)
    without = np.ones((2, N), dtype=bool)
    without[0, :3] = without[1, -1] = False
    masks = np.array([[False, True], [True, False]])
    assert np.array_equal(grouped(masks), single(without))
    assert grouped.units.names == ("first", "last")


def test_groups_by_class_by_label_and_duplicates():
    twice = (np.concatenate([INPUTS, INPUTS[:2]]), np.concatenate([LABELS, LABELS[:2]]))
    assert mx.examples(twice, groups="duplicates").rows[:3] == ((0, N), (1, N + 1), (2,))
    classes = mx.examples(DATA, groups="classes")
    assert sorted(classes.names) == ["class 0", "class 1", "class 2"]
    assert all(set(LABELS[list(rows)]) == {int(name[-1])} for name, rows in zip(
        classes.names, classes.rows, strict=True
    ))  # fmt: skip


@pytest.mark.parametrize(
    "inputs",
    [
        pd.DataFrame({"text": ["".join(["or", "ange"]), "pear", "orange"], "n": [1, 2, 1]}),
        pd.Series(["".join(["or", "ange"]), "pear", "orange"]),
        [[1, 2], [1], [1, 2]],
        [np.arange(5000), np.arange(4), np.arange(5000)],
        torch.tensor([[1.0], [2.0], [1.0]], requires_grad=True),
        np.array([[0.0], [1.0], [-0.0]]),
    ],
)
@pytest.mark.parametrize("labels", [["u", "v", "u"], pd.Series(["u", "v", "u"]), [0, 1, 0]])
def test_duplicates_of_any_inputs_are_those_that_are_equal(inputs, labels):
    assert mx.examples((inputs, labels), groups="duplicates").rows == ((0, 2), (1,))
    assert mx.examples((inputs, [0, 1, 2]), groups="duplicates").rows == ((0,), (1,), (2,))


def test_data_are_read_however_they_lie_in_memory(recwarn):
    backwards = (INPUTS[::-1], LABELS[::-1])
    values = mx.TrainingValues("ridge", backwards, ASKED)
    same = mx.TrainingValues("ridge", tuple(map(np.array, backwards)), ASKED)
    swapped = mx.TrainingValues("ridge", (backwards[0].astype(">f8"), backwards[1]), ASKED)
    frame = mx.TrainingValues("ridge", (pd.DataFrame(backwards[0]), backwards[1]), ASKED)
    assert {v.configuration["training set"] for v in (values, swapped, frame)} == {
        same.configuration["training set"]
    }
    assert not recwarn.list


def test_explaining_and_resuming_train_nothing_twice(tmp_path):
    units = mx.examples(DATA, groups="classes")
    values = mx.TrainingValues("ridge", DATA, ASKED, units=units)
    explained = mx.explain(values, run=tmp_path / "run")
    assert explained.units == values.units
    again = mx.explain(values, run=tmp_path / "run")
    assert again.cost.measured == 0
    assert mx.Explanation.load(tmp_path / "run").r2 == explained.r2
    other = mx.TrainingValues(RidgeRegression(l2=2.0), DATA, ASKED, units=units)
    with pytest.raises(Refused, match="l2"):
        mx.sweep(other, run=tmp_path / "run")


def ridge_by_hand(rows):
    X, Y = with_one(INPUTS)[rows], np.eye(CLASSES)[LABELS][rows]
    theta = np.linalg.solve(X.T @ X + np.eye(FEATURES + 1), X.T @ Y)
    return margins(with_one(ASKED[0]) @ theta, ASKED[1])


def test_a_function_of_the_users_own():
    own = mx.TrainingValues(ridge_by_hand, N, TARGETS)
    assert np.allclose(own(MASKS), mx.TrainingValues("ridge", DATA, ASKED)(MASKS), atol=1e-9)
    assert own.first_batch == 1


def test_a_function_may_change_the_rows_it_is_given(recwarn):
    def reversing(rows):
        rows[:] = rows[::-1].copy()
        return [float((rows * np.arange(len(rows))).sum())]

    values = mx.TrainingValues(reversing, 5, 1)
    mask = np.array([[True, False, True, True, False]])
    assert values(mask).tolist() == values(mask).tolist() == [[3 * 0 + 2 * 1 + 0 * 2]]
    assert not recwarn.list


def test_a_function_of_the_users_own_in_processes():
    # Importable without any of the libraries above: a process takes a moment to start.
    own = mx.TrainingValues(OwnTraining(math.fsum, 2), 5, ["sum of rows"])
    masks = mx.sample_masks(5, 3, seed=1)
    assert own(masks)[:, 0].tolist() == [np.flatnonzero(mask).sum() for mask in masks]


def test_a_training_that_fails_is_a_failed_mask():
    def fails(rows):
        if 3 not in rows:
            raise ValueError("needs number three")
        return [1.0, np.inf if 4 not in rows else 2.0]

    values = mx.TrainingValues(fails, 6, ["one", "two"])
    masks = ~np.eye(6, dtype=bool)
    with pytest.warns(UserWarning, match="1 of 6 trainings failed.*number three"):
        found = values(masks)
    assert np.isnan(found[[3, 4]]).all()
    assert (found[[0, 1, 2, 5]] == [1, 2]).all()


def test_noise_of_seeds_is_measured_and_warned_of():
    def noisy(rows, seed):
        return np.random.default_rng((seed, *rows)).normal(size=2) + 0.01 * len(rows)

    values = mx.TrainingValues(noisy, 10, 2, seeds=4)
    noise = values.seed_noise
    assert noise.between_seeds == pytest.approx(1, rel=0.3)
    assert noise.share > 0.5
    with pytest.warns(UserWarning, match="is noise of 4 seeds"):
        values(mx.sample_masks(10, 32))
    each = mx.TrainingValues(noisy, 10, 2, seeds=4, columns="seeds")
    masks = mx.sample_masks(10, 5)
    assert each(masks).shape == (5, 4)
    assert np.allclose(each(masks).mean(axis=1), values(masks).mean(axis=1))


def test_a_function_that_is_not_deterministic_is_told():
    rng = np.random.default_rng(0)
    with pytest.warns(UserWarning, match=r"twice .* apart; give several seeds"):
        mx.TrainingValues(lambda rows: rng.normal(), 5, 1)


REFUSED = {
    "an empty data set": (lambda: mx.examples(([], [])), "empty"),
    "no examples": (lambda: mx.examples(0), "a data set"),
    "a group of everything": (
        lambda: mx.examples(3, groups={"all": [0, 1, 2]}),
        "nothing is left to train on",
    ),
    "groups that overlap": (lambda: mx.examples(3, groups={"a": [0, 1], "b": [1]}), "row 1 is in"),
    "an empty group": (lambda: mx.examples(3, groups={"a": []}), "is empty"),
    "a row beyond": (lambda: mx.examples(3, groups={"a": [7]}), "row 7"),
    "an unknown grouping": (lambda: mx.examples(3, groups="cluster"), "'cluster'"),
    "too few labels": (lambda: mx.examples(3, groups=["a", "b"]), "a label per example"),
    "units of another set": (
        lambda: mx.TrainingValues("ridge", DATA, ASKED, units=mx.examples(7)),
        "7 examples",
    ),
    "units of another kind": (
        lambda: mx.TrainingValues("ridge", DATA, ASKED, units=mx.parts(3)),
        r"mechspex.examples\(",
    ),
    "labels and inputs of two lengths": (
        lambda: mx.TrainingValues("ridge", (INPUTS, LABELS[:-1]), ASKED),
        "30 inputs and 29 labels",
    ),
    "a label out of range": (
        lambda: mx.TrainingValues("logistic", (INPUTS, LABELS - 1), ASKED),
        "label -1; give classes 0, 1",
    ),
    "texts for labels": (
        lambda: mx.TrainingValues("ridge", (INPUTS, list("ab" * (N // 2))), ASKED),
        r"\(labels\) are texts; give numbers",
    ),
    "an empty training set": (
        lambda: mx.TrainingValues("ridge", (INPUTS[:0], LABELS[:0]), ASKED),
        "dataset is empty",
    ),
    "no targets": (
        lambda: mx.TrainingValues("ridge", DATA, (INPUTS[:0], LABELS[:0])),
        "targets is empty",
    ),
    "numbers for classes": (
        lambda: mx.TrainingValues("ridge", DATA, (ASKED[0], [0.5] * TARGETS)),
        "classes, those of the targets numbers",
    ),
    "logistic regression of numbers": (
        lambda: mx.TrainingValues(
            "logistic", (INPUTS, INPUTS[:, 0]), (ASKED[0], ASKED[0][:, 0])
        ),
        "one class a row",
    ),
    "one class in all": (
        lambda: mx.TrainingValues("logistic", (INPUTS, 0 * LABELS), (ASKED[0], [0] * TARGETS)),
        "two classes",
    ),
    "targets of another width": (
        lambda: mx.TrainingValues("ridge", DATA, (ASKED[0][:, 1:], ASKED[1])),
        r"\[4\], those of the data set \[5\]",
    ),
    "inputs that are not finite": (
        lambda: mx.TrainingValues("ridge", (INPUTS * np.inf, LABELS), ASKED),
        "not finite",
    ),
    "an unknown learner": (lambda: mx.TrainingValues("svm", DATA, ASKED), "ridge, kernel_ridge"),
    "an unknown outcome": (
        lambda: mx.TrainingValues("ridge", DATA, ASKED, outcome="accuracy"),
        "margin, log_probability",
    ),
    "seeds of what has none": (
        lambda: mx.TrainingValues("ridge", DATA, ASKED, seeds=3),
        "depends on no seed",
    ),
    "a penalty of zero": (lambda: RidgeRegression(l2=0.0), "above 0"),
    "a device that is not there": (
        lambda: mx.TrainingValues("ridge", DATA, ASKED, device="cuda:77"),
        "not at hand",
    ),
    "a value function for a learner": (lambda: mx.TrainingValues(3, DATA, ASKED), "train = 3"),
}  # fmt: skip


@pytest.mark.parametrize("slip", REFUSED)
def test_slips_are_refused(slip):
    call, message = REFUSED[slip]
    with pytest.raises(Refused, match=message):
        call()


def test_a_function_that_returns_something_else_is_refused():
    with pytest.raises(ShapeError, match="a number for each target"):
        mx.TrainingValues(lambda rows: [1.0, 2.0, 3.0], 5, 2)
    with pytest.raises(MeasurementError, match="no finite value"):
        mx.TrainingValues(lambda rows: float("nan"), 5, 1)


def test_values_are_those_of_any_batch_of_masks(device):
    many = mx.sample_masks(N, 300, keep=0.6, seed=9)
    values = mx.TrainingValues("logistic", DATA, ASKED, device=device)
    assert np.abs(values(many)[:5] - values(many[:5])).max() < 1e-5
