"""A training function of the user's own, one part of the data at a time, in processes."""

from __future__ import annotations

import inspect
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechspex.core.checks import Whole, told
from mechspex.core.errors import Refused, ShapeError
from mechspex.core.identity import Identity
from mechspex.training.learner import Learner, Problem, Trained
from mechspex.training.one_training import TrainingFunction, train_or_fail


@dataclass(frozen=True)
class OwnTraining(Learner):
    """A function of yours that trains on some rows and says what the model answers.

    A part on which it raises an error has failed: its value is not a number, and a warning says
    why. An error on the whole data set is raised.

    Attributes:
        function: rows of the data set, ``int64[row]``, → a value for each target; called with a
            seed as second argument if it takes one.
        processes: how many parts are trained at once; with more than one the function has to lie
            in a file that can be imported.
    """

    function: TrainingFunction
    processes: int = 1

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise Refused(f"function = {told(self.function)}: give a function of rows")
        Whole(1, 1024, "how many processes")("processes", self.processes)

    @property
    def stochastic(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return True

    @property
    def described(self) -> str:
        return str(Identity.of(self.function))

    def prepare(self, problem: Problem) -> Trained:
        return _OwnFits(self, len(problem.data), len(problem.targets))


class _OwnFits(Trained):
    """Calls the function, and checks what it returns."""

    def __init__(self, learner: OwnTraining, n_rows: int, n_targets: int) -> None:
        self._learner, self._n_targets = learner, n_targets
        self._takes_seed = takes(learner.function) == 2
        # Rows of its own each time: a function may shuffle those that it is given.
        first, second = (self._checked(self._trained(np.arange(n_rows), 0)) for _ in range(2))
        if not np.array_equal(first, second, equal_nan=True):
            apart = float(np.abs(first - second).max())
            warnings.warn(
                f"training twice on the same examples gave values {apart:.3g} apart; give several "
                "seeds, so that their mean is less noisy and the noise is known",
                stacklevel=6,
            )

    def __call__(self, kept: Bool[Tensor, "mask row"], seed: int) -> Float[Tensor, "mask target"]:
        parts = [np.flatnonzero(mask) for mask in kept.cpu().numpy()]
        train = partial(train_or_fail, self._learner.function, self._arguments(seed))
        if self._learner.processes == 1 or len(parts) < 2:
            found = [train(part) for part in parts]
        else:
            # A fresh process: one that is forked may hang in a library with threads.
            context = get_context("spawn")
            with ProcessPoolExecutor(self._learner.processes, mp_context=context) as pool:
                found = list(pool.map(train, parts))
        failed = [error for _, error in found if error is not None]
        if failed:
            warnings.warn(
                f"{len(failed)} of {len(parts)} trainings failed, the first with {failed[0]}; "
                "their masks have no value",
                stacklevel=4,
            )
        nothing = np.full(self._n_targets, np.nan)
        values = [nothing if error is not None else self._checked(value) for value, error in found]
        return torch.as_tensor(np.array(values).reshape(len(parts), self._n_targets))

    def _arguments(self, seed: int) -> tuple[int, ...]:
        return (seed,) if self._takes_seed else ()

    def _trained(self, rows: Int[np.ndarray, " row"], seed: int) -> Any:
        return self._learner.function(rows, *self._arguments(seed))

    def _checked(self, returned: Any) -> Float[np.ndarray, " target"]:
        if isinstance(returned, Tensor):
            returned = returned.detach().cpu().numpy()
        try:
            values = np.atleast_1d(np.asarray(returned, dtype=np.float64))
        except (TypeError, ValueError):
            raise ShapeError(
                f"the training function returned {told(returned)}; return a number for each target"
            ) from None
        if values.shape != (self._n_targets,):
            raise ShapeError(
                f"the training function returned shape {list(values.shape)} for "
                f"{self._n_targets} targets; return a number for each target"
            )
        return values


def takes(function: object) -> int:
    """How many arguments a callable has to be given by position.

    Args:
        function: the callable.
    """
    try:
        parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return 0
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(one.default is one.empty and one.kind in by_position for one in parameters)
