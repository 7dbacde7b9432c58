"""Ways to train by what users call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from torch import nn

from mechspex.core.checks import told
from mechspex.core.errors import Refused
from mechspex.training.gradient_descent import GradientDescent
from mechspex.training.learner import Learner
from mechspex.training.logistic_regression import LogisticRegression
from mechspex.training.own_training import OwnTraining, takes
from mechspex.training.ridge_regression import KernelRidgeRegression, RidgeRegression

LEARNERS: dict[str, Learner] = {
    "ridge": RidgeRegression(),
    "kernel_ridge": KernelRidgeRegression(),
    "logistic": LogisticRegression(),
}
"""{name: the learner with its usual options}."""


def as_learner(name: str, given: Any) -> Any:
    """Reads a way to train: a name, a learner, a module or what makes one, or a training function
    of the user's.

    Raises:
        Refused: something else.
    """
    if isinstance(given, Learner):
        return given
    if isinstance(given, str):
        if given not in LEARNERS:
            raise Refused(f"{name} = {given!r}: choose {', '.join(LEARNERS)}, or give a model")
        return LEARNERS[given]
    if isinstance(given, nn.Module):
        return GradientDescent(given)
    if callable(given):
        n_taken = takes(given)
        if n_taken == 0:
            return GradientDescent(cast(Callable[[], nn.Module], given))
        if n_taken in (1, 2):
            return OwnTraining(given)
    raise Refused(
        f"{name} = {told(given)}: give {', '.join(LEARNERS)}, a torch.nn.Module, a function that "
        "makes one, or a function of the rows that are kept, which returns a value for each target"
    )
