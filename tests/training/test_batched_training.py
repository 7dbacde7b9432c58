"""Thousands of trainings at once: equal to a plain loop over torch, whatever the batch of masks."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn
from value_function_laws import check_laws

import mechspex as mx
from mechspex.errors import MeasurementError, ModelError, Refused, ShapeError
from mechspex.training.labelled_data import IGNORED
from mechspex.training.linear_stack import LinearStack
from mechspex.training.outcome import loss_slopes, losses

N, FEATURES, CLASSES, TARGETS = 20, 4, 3, 3
RNG = np.random.default_rng(0)
LABELS = np.arange(N) % CLASSES
INPUTS = (RNG.normal(size=(CLASSES, FEATURES))[LABELS] * 2 + RNG.normal(size=(N, FEATURES))).astype(
    np.float32
)
DATA, ASKED = (INPUTS, LABELS), (INPUTS[:TARGETS] + 0.5, LABELS[:TARGETS])
MASKS = np.concatenate([mx.sample_masks(N, 3, keep=keep, seed=1) for keep in (0.1, 0.5, 0.9)])


def mlp(dtype=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, CLASSES)).to(dtype)


OPTIONS = {
    "adam": mx.Training("adam", 0.02, 5, 6),
    "adam, decay, all at once": mx.Training("adam", 0.02, 6, weight_decay=0.1),
    "sgd": mx.Training("sgd", 0.1, 5, 4),
    "momentum": mx.Training("sgd", 0.05, 5, 6, momentum=0.9, weight_decay=0.01),
}


def plain_loop(module, training, mask, seed, loss=nn.functional.cross_entropy):
    """The parts' own training, written as anyone would."""
    module = deepcopy(module)
    kinds = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    options = {"momentum": training.momentum} if training.optimiser == "sgd" else {}
    optimiser = kinds[training.optimiser](
        module.parameters(), training.learning_rate, weight_decay=training.weight_decay, **options
    )
    rng = np.random.default_rng(seed)
    dtype = next(module.parameters()).dtype
    inputs, labels = torch.as_tensor(INPUTS).to(dtype), torch.as_tensor(LABELS)
    for _ in range(training.epochs):
        order = rng.permutation(N) if training.batch_size else np.arange(N)
        for start in range(0, N, training.batch_size or N):
            rows = order[start : start + (training.batch_size or N)]
            rows = rows[mask[rows]]
            if len(rows):
                optimiser.zero_grad()
                loss(module(inputs[rows]), labels[rows]).backward()
                optimiser.step()
    return module


def margins(module):
    with torch.no_grad():
        logits = module(torch.as_tensor(ASKED[0]).to(next(module.parameters()).dtype))
    found = [
        row[label] - torch.cat([row[:label], row[label + 1 :]]).logsumexp(0)
        for row, label in zip(logits, ASKED[1], strict=True)
    ]
    return torch.stack(found).numpy()


@pytest.mark.parametrize("name", OPTIONS)
def test_every_training_is_that_of_a_plain_loop(name, device):
    training, module = OPTIONS[name], mlp(torch.float64)
    seeds = 2 if training.batch_size else 1
    values = mx.TrainingValues(module, DATA, ASKED, training=training, seeds=seeds, device=device)
    before = deepcopy(module.state_dict())
    each = values.of_seeds(MASKS)
    for seed in range(seeds):
        for mask, found in zip(MASKS, each[seed], strict=True):
            assert np.allclose(found, margins(plain_loop(module, training, mask, seed)), atol=1e-9)
    assert all(torch.equal(module.state_dict()[name], before[name]) for name in before)
    assert seeds == 1 or not np.allclose(each[0], each[1])


ACTIVATIONS = (nn.ReLU(), nn.GELU(), nn.Sigmoid(), nn.SiLU(), nn.ELU())


def test_a_stack_of_linear_layers_is_trained_as_any_other_model(device):
    """The same layers inside a model of its own go by `torch.func.vmap`."""
    hidden = [(nn.Linear(6, 6, bias=place % 2 == 0), one) for place, one in enumerate(ACTIVATIONS)]
    layers = [nn.Linear(FEATURES, 6), *(layer for pair in hidden for layer in pair)]
    stack = nn.Sequential(*layers, nn.Linear(6, CLASSES)).double()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.stack = deepcopy(stack)

        def forward(self, inputs):
            return self.stack(inputs)

    training = mx.Training("adam", 0.02, 4, 7)
    of_stack, of_model = (
        mx.TrainingValues(module, DATA, ASKED, training=training, device=device)
        for module in (stack, Model())
    )
    assert LinearStack.of(stack) is not None
    assert LinearStack.of(Model()) is None
    assert np.allclose(of_stack(MASKS), of_model(MASKS), atol=1e-10)
    assert np.ptp(of_stack(MASKS), axis=0).max() > 0.1


def test_a_stack_with_hooks_or_frozen_layers_is_run_by_the_module_itself():
    hooked, frozen = mlp(), mlp()
    hooked[0].register_forward_hook(lambda *told: told[-1])
    frozen[0].requires_grad_(False)
    assert LinearStack.of(mlp()) is not None
    assert LinearStack.of(hooked) is None
    assert LinearStack.of(frozen) is None


def test_slopes_of_the_loss_are_those_of_autograd():
    weights = torch.rand(2, 5, dtype=torch.float64)
    labels = {
        "classes": (torch.randint(0, 3, (5,)), (2, 5, 3)),
        "sequences": (
            torch.tensor([[0, IGNORED], [1, 2], [2, 0], [IGNORED, 1], [1, 1]]),
            (2, 5, 2, 3),
        ),
        "numbers": (torch.rand(5, dtype=torch.float64), (2, 5)),
        "numbers in a column": (torch.rand(5, dtype=torch.float64), (2, 5, 1)),
    }
    for right, shape in labels.values():
        logits = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        each = torch.stack([losses(one, right) for one in logits])
        (expected,) = torch.autograd.grad((each * weights).sum(), logits)
        found = loss_slopes(logits.detach(), right, weights)
        assert torch.allclose(found, expected, atol=1e-12)


def test_laws(device):
    training = mx.Training("adam", 0.01, 5, 7)
    values = mx.TrainingValues(mlp(), DATA, ASKED, training=training, device=device)
    whole = margins(plain_loop(mlp(), training, np.ones(N, dtype=bool), 0))
    check_laws(values, whole, tolerance=1e-5)


def test_a_function_that_makes_a_model_is_called_under_each_seed():
    def fresh():
        return nn.Linear(FEATURES, CLASSES)

    state = torch.random.get_rng_state()
    values = mx.TrainingValues(fresh, DATA, ASKED, training=OPTIONS["sgd"], seeds=[3, 5])
    each = values.of_seeds(MASKS)
    assert torch.equal(torch.random.get_rng_state(), state)
    for place, seed in enumerate((3, 5)):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            module = fresh()
        expected = margins(plain_loop(module, OPTIONS["sgd"], MASKS[4], seed))
        assert np.allclose(each[place, 4], expected, atol=1e-5)
    assert values.seed_noise.between_seeds > 0
    assert np.allclose(values(MASKS), each.mean(0))
    other = values.with_seeds([5])
    assert np.array_equal(other(MASKS), each[1])
    assert other.configuration != values.configuration


def test_nothing_kept_is_the_model_before_training():
    values = mx.TrainingValues(mlp(), DATA, ASKED, training=OPTIONS["momentum"])
    assert np.allclose(values(np.zeros((1, N), dtype=bool))[0], margins(mlp()), atol=1e-6)


def test_a_training_that_diverges_is_a_failed_mask_and_leaves_the_others_alone():
    # In the mean over all rows the step is small enough; on the long row alone it is not.
    rows = np.ones((N, 1), dtype=np.float32)
    rows[7] = 10
    numbers, asked = (rows, rows[:, 0]), (rows[:2], rows[:2, 0])
    module, training = nn.Linear(1, 1), mx.Training("sgd", 0.05, 100)
    values = mx.TrainingValues(module, numbers, asked, training=training)
    masks = np.stack([np.arange(N) == 7, np.arange(N) != 7, np.ones(N, dtype=bool)])
    found = values(masks)
    assert np.isnan(found[0]).all()
    assert np.array_equal(found[1:], values(masks[1:]))
    assert np.allclose(found[1:], 1, atol=0.5)
    steps = mx.Training("sgd", 1.0, 100)
    with pytest.raises(MeasurementError, match="lower the learning rate"):
        mx.TrainingValues(module, numbers, asked, training=steps)


def test_tokens_and_sequences(device):
    """Next tokens, with positions that are not asked about."""

    class Next(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(7, 5)
            self.out = nn.Linear(5, 7)

        def forward(self, tokens):
            return self.out(torch.tanh(self.embed(tokens)))

    tokens = RNG.integers(0, 7, (10, 4))
    labels = np.roll(tokens, -1, axis=1)
    labels[:, -1] = IGNORED
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Next().double()
    training = mx.Training("adam", 0.05, 4)
    options = {"training": training, "device": device}
    values = {
        outcome: mx.TrainingValues(
            module, (tokens, labels), (tokens[:2], labels[:2]), outcome=outcome, **options
        )
        for outcome in ("loss", "log_probability", "margin")
    }
    mask = np.arange(10) < 6
    trained = deepcopy(module)
    optimiser = torch.optim.Adam(trained.parameters(), 0.05)
    rows, right = torch.as_tensor(tokens[:6]), torch.as_tensor(labels[:6])
    for _ in range(4):
        optimiser.zero_grad()
        trained(rows)[:, :-1].log_softmax(-1).gather(
            -1, right[:, :-1, None]
        ).mean().neg().backward()
        optimiser.step()
    log_p = trained(torch.as_tensor(tokens[:2])).log_softmax(-1)[:, :-1]
    log_p = log_p.gather(-1, torch.as_tensor(labels[:2, :-1, None]))[..., 0].sum(1).detach().numpy()
    assert np.allclose(values["log_probability"](mask[None])[0], log_p, atol=1e-9)
    assert np.allclose(values["loss"](mask[None])[0], -log_p / 3, atol=1e-9)
    expected = log_p - np.log1p(-np.exp(log_p))
    assert np.allclose(values["margin"](mask[None])[0], expected, atol=1e-9)


def test_batch_normalisation_and_dropout_are_refused_in_training_and_kept_in_use():
    norm = nn.Sequential(nn.Linear(FEATURES, 6), nn.BatchNorm1d(6), nn.Linear(6, CLASSES))
    drop = nn.Sequential(nn.Linear(FEATURES, 6), nn.Dropout(0.5), nn.Linear(6, CLASSES))
    for module, message in ((norm, "normalisation, through which"), (drop, "has dropout")):
        with pytest.raises(ModelError, match=message):
            mx.TrainingValues(module, DATA, ASKED)
        module.eval()
        training = mx.Training(epochs=2)
        values = mx.TrainingValues(module, DATA, ASKED, training=training)
        assert np.allclose(
            values(MASKS[:1])[0], margins(plain_loop(module, training, MASKS[0], 0)), atol=1e-5
        )


def test_a_parameter_that_the_loss_does_not_read_stays_as_it_is():
    class Idle(nn.Linear):
        def __init__(self):
            super().__init__(FEATURES, CLASSES)
            self.idle = nn.Parameter(torch.ones(2))

    training = mx.Training("sgd", 0.1, 3, weight_decay=0.5)
    module = Idle()
    values = mx.TrainingValues(module, DATA, ASKED, training=training)
    expected = margins(plain_loop(module, training, MASKS[4], 0))
    assert np.allclose(values(MASKS[4:5])[0], expected, atol=1e-5)


class Branches(nn.Linear):
    def forward(self, input):
        return super().forward(input) if self.weight.sum() > 0 else -super().forward(input)


REFUSED = {
    "a model with branches": (lambda: Branches(FEATURES, CLASSES), {}, ModelError, "branches"),
    "too few classes": (lambda: nn.Linear(FEATURES, 2), {}, ShapeError, r"\[3, 2\].* 3 classes"),
    "inputs of another width": (
        lambda: nn.Linear(FEATURES + 1, CLASSES),
        {},
        ModelError,
        r"Linear cannot read inputs of shape \[3, 4\] .*; give a model of these inputs",
    ),
    "a stack for inputs of another width": (
        lambda: nn.Sequential(nn.Linear(FEATURES + 1, CLASSES)),
        {},
        ModelError,
        "Sequential cannot read inputs",
    ),
    "nothing to train": (
        lambda: nn.Linear(FEATURES, CLASSES).requires_grad_(False),
        {},
        ModelError,
        "no parameters to train",
    ),
    "a function that makes no model": (lambda: lambda: 3, {}, ModelError, "the model is 3"),
    "options of something else": (
        lambda: "ridge",
        {"training": mx.Training()},
        Refused,
        "leave out training",
    ),
    "seeds of what has none": (mlp, {"seeds": 2}, Refused, "depends on no seed"),
}  # fmt: skip


@pytest.mark.parametrize("slip", REFUSED)
def test_slips_are_refused(slip):
    make, options, error, message = REFUSED[slip]
    with pytest.raises(error, match=message):
        mx.TrainingValues(make(), DATA, ASKED, **options)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"learning_rate": 0.0}, "above 0"),
        ({"epochs": 0}, "from 1 up"),
        ({"batch_size": 0}, "from 1 up"),
        ({"momentum": 0.9}, "momentum = 0.9 is of sgd"),
        ({"weight_decay": -1.0}, "at least 0"),
    ],
)
def test_options_out_of_range_are_refused(option, message):
    with pytest.raises(Refused, match=message):
        mx.Training(**option)
