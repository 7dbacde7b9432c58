"""The value function of training examples: what a model answers when trained on a part of them."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import nn

from mechspex.core.checks import SEED, Only, Several, Whole, number_in, told
from mechspex.core.doors import door
from mechspex.core.errors import MeasurementError, Refused
from mechspex.core.masks import check_masks, sample_masks
from mechspex.core.recipe import Recipe
from mechspex.core.units import UnitSet
from mechspex.core.value_function import ValueFunction, without_recipe
from mechspex.training.examples import Examples, examples
from mechspex.training.gradient_descent import GradientDescent
from mechspex.training.labelled_data import LabelledData, check_alike
from mechspex.training.learner import Learner, Problem
from mechspex.training.learners import as_learner
from mechspex.training.optimisers import Training
from mechspex.training.outcome import Outcome, check_outcome
from mechspex.training.own_training import OwnTraining

Columns = Literal["targets", "seeds"]

# Masks by which the noise of the seeds is known, and the fewest that say whether it drowns effects.
_PROBES, _FEWEST = 32, 16
# The share of noise that drowns what values say.
_MOST = 0.5


@dataclass(frozen=True)
class SeedNoise:
    """How much of what values differ by is the seed's doing.

    Attributes:
        between_seeds: the variance of one training's value over seeds, mean over masks and targets.
        between_masks: the variance of the values (means over seeds) over masks, mean over targets.
        n_seeds: how many seeds a value is the mean of.
    """

    between_seeds: float
    between_masks: float
    n_seeds: int

    @property
    def share(self) -> float:
        """The part of the values' variance over masks that is noise of the seeds."""
        if not self.between_masks:
            return 1.0 if self.between_seeds else 0.0
        return min(1.0, self.between_seeds / self.n_seeds / self.between_masks)

    @property
    def drowns(self) -> bool:
        """Whether most of what values differ by is noise."""
        return self.share > _MOST

    def __str__(self) -> str:
        said = (
            f"{self.share:.0%} of what values of masks differ by is noise of {self.n_seeds} seeds"
        )
        return f"{said}; give more seeds" if self.drowns else said


def _as_units(name: str, given: object) -> Examples:
    if not isinstance(given, Examples):
        raise Refused(f"{name} = {told(given)}: give mechspex.examples(dataset, groups=…)")
    return given


def _as_seeds(name: str, given: object) -> tuple[int, ...]:
    """Reads seeds, or how many."""
    if number_in(given) is not None:
        return tuple(range(Whole(1, 10**4, "seeds, or how many")(name, given)))
    seeds = tuple(Several(SEED, "seeds, or how many")(name, given))
    if not seeds or len(set(seeds)) < len(seeds):
        raise Refused(f"{name} = {told(given)}: give one seed or more, each once")
    return seeds


def _as_columns(name: str, given: object) -> Any:
    if not isinstance(given, str) or given not in get_args(Columns):
        raise Refused(f"{name} = {told(given)}: choose 'targets' or 'seeds'")
    return given


def _as_device(name: str, given: object) -> torch.device:
    wrong = Refused(f"{name} = {told(given)} is not at hand; give 'cpu' or 'cuda'")
    if not isinstance(given, str | torch.device):
        raise wrong
    try:
        device = torch.device(given)
        torch.empty(0, dtype=torch.float64, device=device)
    except (RuntimeError, AssertionError, TypeError):
        raise wrong from None
    return device


class TrainingValues(ValueFunction):
    """What a model answers on some targets when it is trained on a part of its examples.

    value[m, j] = mean over seeds of the outcome on target j of the model trained on the examples
    whose unit i has m_i = True. A training that does not end in finite numbers is a failed mask:
    its values are not numbers.

    Args:
        train: how it is trained: ``ridge``, ``kernel_ridge`` or ``logistic`` (in closed form or to
            convergence, see `RidgeRegression`, `KernelRidgeRegression`, `LogisticRegression`); a
            `torch.nn.Module`, whose parameters are where every training starts, or a function that
            makes one under each seed; a function of yours, rows → a value for each target (see
            `OwnTraining`); or one of these classes with options.
        dataset: the training set, ``(inputs, labels)`` or a data set of scikit-learn; labels are
            classes 0, 1, … or, as floating-point numbers, those of a regression. For a function of
            yours also how many rows there are.
        targets: what the trained model is asked, in the same form, a column of values each. For a
            function of yours also names, or how many values it returns.
        units: what the columns of a mask stand for; every example if not given, see
            `mechspex.examples`.
        outcome: ``margin`` (of classes, if not given: logit of the right class − logsumexp of the
            others), ``log_probability``, ``loss``, or ``score`` (the logit of the right class; of a
            regression, if not given, the prediction).
        training: how a module is trained; see `Training`.
        seeds: seeds of trainings that depend on one, or how many; a value is the mean over them.
        columns: ``targets``, or ``seeds`` for a column of values each (the mean over targets), so
            that intervals are over seeds.
        device: where it is trained.

    Raises:
        Refused: data, targets or options that do not go together.
        MeasurementError: trained on everything it has no finite value.
    """

    @door(
        train=as_learner,
        units=_as_units,
        outcome=Only((str,), "an outcome, or None"),
        training=Only((Training,), "mechspex.Training(…), or None"),
        seeds=_as_seeds,
        columns=_as_columns,
        device=_as_device,
    )
    def __init__(
        self,
        train: str | Learner | nn.Module | Callable[..., Any],
        dataset: object,
        targets: object,
        *,
        units: Examples | None = None,
        outcome: str | None = None,
        training: Training | None = None,
        seeds: int | Iterable[int] = (0,),
        columns: Columns = "targets",
        device: str | torch.device = "cpu",
    ) -> None:
        assert isinstance(train, Learner)
        self._learner = train if training is None else _with(train, training)
        own = isinstance(self._learner, OwnTraining)
        data = _data("dataset", dataset, may_be_a_number=own)
        asked, names = _targets(targets, own)
        self._examples = examples(len(data)) if units is None else units
        if self._examples.n_rows != len(data):
            raise Refused(
                f"units are of a data set of {self._examples.n_rows} examples, and this one has "
                f"{len(data)}; make them of this one"
            )
        self._columns: Columns = columns
        self._seeds = _as_seeds("seeds", seeds)
        if len(self._seeds) > 1 and not self._learner.stochastic:
            raise Refused(f"{self._learner} depends on no seed; leave out seeds")
        if own:
            chosen: Outcome = "score"
        else:
            check_alike(data, asked)
            chosen = check_outcome(outcome, regression=data.is_regression)
        self._names = names
        self._recipe: Recipe | None = None
        self._problem = Problem(data, asked, chosen, _as_device("device", device))
        self._train = self._learner.prepare(self._problem)
        self._told = self._configuration()
        clean = self(np.ones((1, self.n_units), dtype=bool))
        if not np.isfinite(clean).all():
            raise MeasurementError(
                "trained on every example it has no finite value; lower the learning rate, or mend "
                "the training function"
            )

    @property
    def units(self) -> UnitSet:
        return UnitSet(self._examples.units)

    @property
    def examples(self) -> Examples:
        """The units, with the rows each of them stands for."""
        return self._examples

    @property
    def learner(self) -> Learner:
        """How it is trained."""
        return self._learner

    @property
    def problem(self) -> Problem:
        """What is trained on and what is asked."""
        return self._problem

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds over which values are taken."""
        return self._seeds

    @property
    def columns(self) -> Columns:
        """What the columns of values are."""
        return self._columns

    @property
    def outputs(self) -> tuple[str, ...]:
        """The targets, or the seeds."""
        if self._columns == "seeds":
            return tuple(f"seed {seed}" for seed in self._seeds)
        return self._names

    @property
    def configuration(self) -> dict[str, str]:
        """Everything a value depends on but the mask."""
        return dict(self._told)

    @property
    def recipe(self) -> Recipe:
        """How another process makes the same trainings: of ready tasks, and where it was given.

        Raises:
            Refused: it is not known.
        """
        if self._recipe is None:
            raise without_recipe(self)
        return self._recipe

    def with_recipe(self, recipe: Recipe) -> TrainingValues:
        """The same, and how another process makes it, for `mechspex.executor`.

        Args:
            recipe: what makes this very value function.
        """
        self._recipe = recipe
        return self

    @property
    def first_batch(self) -> int:
        """One for a function of the user's, which may take long."""
        return 1 if isinstance(self._learner, OwnTraining) else 64

    def __call__(self, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, "mask output"]:
        """Values of masks.

        Raises:
            ShapeError: masks of another width or dtype.
        """
        each = self.of_seeds(masks)
        values = each.mean(axis=2 if self._columns == "seeds" else 0)
        if self._columns == "seeds":
            return np.ascontiguousarray(values.T)
        if len(self._seeds) > 1 and len(masks) >= _FEWEST:
            noise = _noise(each)
            if noise.drowns:
                warnings.warn(str(noise), stacklevel=2)
        return values

    def of_seeds(
        self, masks: Bool[np.ndarray, "mask unit"]
    ) -> Float[np.ndarray, "seed mask target"]:
        """Values of masks, those of each seed apart.

        Args:
            masks: True = kept.

        Raises:
            ShapeError: masks of another width or dtype.
        """
        kept = torch.as_tensor(self._examples.kept_rows(check_masks(masks, self.n_units)))
        if not len(kept):
            return np.empty((len(self._seeds), 0, len(self._names)))
        each = [self._train(kept, seed).detach().cpu().numpy() for seed in self._seeds]
        values = np.stack(each).astype(np.float64)
        # A target that is not finite says that the training is not to be trusted on any.
        values[~np.isfinite(values).all(axis=(2,))] = np.nan
        return values

    @property
    def seed_noise(self) -> SeedNoise | None:
        """How much the seed does, on random masks that keep half; None where there is one seed."""
        if len(self._seeds) < 2:
            return None
        return _noise(self.of_seeds(sample_masks(self.n_units, _PROBES, keep=0.5, seed=0)))

    def on(self, targets: object) -> TrainingValues:
        """The same trainings asked other targets.

        Args:
            targets: what to ask, in any form that a new one takes.

        Raises:
            Refused: targets that do not fit the data set.
        """
        return self._again(targets=targets)

    def with_seeds(self, seeds: int | Iterable[int]) -> TrainingValues:
        """The same question to trainings of other seeds.

        Args:
            seeds: which seeds, or how many.

        Raises:
            Refused: no seeds, or a training that depends on none.
        """
        return self._again(seeds=seeds)

    def _again(self, **changed: Any) -> TrainingValues:
        own = isinstance(self._learner, OwnTraining)
        asked = (self._problem.targets, self._names)
        same: dict[str, Any] = {
            "targets": asked,
            "units": self._examples,
            "outcome": None if own else self._problem.outcome,
            "seeds": self._seeds,
            "columns": self._columns,
            "device": self._problem.device,
        }
        return TrainingValues(self._learner, self._problem.data, **(same | changed))

    def _configuration(self) -> dict[str, str]:
        problem, rows = self._problem, self._examples
        digest = hashlib.sha256(repr((rows.names, rows.rows)).encode()).hexdigest()[:16]
        told = {
            "model": self._learner.described,
            "metric": problem.outcome,
            "units": f"{rows.description} {digest}",
            "training set": f"{len(problem.data)} examples {problem.data.digest}",
            "targets": f"{len(problem.targets)} targets {problem.targets.digest}",
        }
        if self._learner.stochastic:
            told["seeds"] = " ".join(map(str, self._seeds))
        if self._columns == "seeds":
            told["columns"] = "seeds"
        return told


def _noise(each: Float[np.ndarray, "seed mask target"]) -> SeedNoise:
    finite = each[:, np.isfinite(each).all(axis=(0, 2))]
    if finite.shape[1] < 2:
        return SeedNoise(0.0, 0.0, len(each))
    return SeedNoise(
        between_seeds=float(finite.var(axis=0, ddof=1).mean()),
        between_masks=float(finite.mean(axis=0).var(axis=0, ddof=1).mean()),
        n_seeds=len(each),
    )


def _with(learner: Learner, training: Training) -> Learner:
    if not isinstance(learner, GradientDescent):
        raise Refused(f"{learner} is not trained by gradient descent; leave out training")
    return replace(learner, training=training)


def _data(name: str, given: object, *, may_be_a_number: bool) -> LabelledData:
    """The data; of a function of the user's, which has its own, so many rows of nothing."""
    if may_be_a_number and number_in(given) is not None:
        n_rows = Whole(1, 10**7, "a data set, or how many examples it has")(name, given)
        return LabelledData(torch.zeros(n_rows), torch.zeros(n_rows))
    return LabelledData.read(name, given)


def _targets(given: object, own: bool) -> tuple[LabelledData, tuple[str, ...]]:
    """The targets and their names."""
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], LabelledData):
        return given[0], given[1]
    if own and number_in(given) is None and _are_names(given):
        names = tuple(given)  # type: ignore[arg-type]
        return LabelledData(torch.zeros(len(names)), torch.zeros(len(names))), names
    targets = _data("targets", given, may_be_a_number=own)
    return targets, tuple(f"target {number}" for number in range(len(targets)))


def _are_names(given: object) -> bool:
    return (
        isinstance(given, list | tuple)
        and len(given) > 0
        and all(isinstance(name, str) for name in given)
    )
