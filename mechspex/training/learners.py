"""Ways to train by what users call them."""

from __future__ import annotations

from typing import Any

from mechspex.core.checks import told
from mechspex.core.errors import Refused
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


def as_learner(name: str, given: object) -> Any:
    """Reads a way to train: a name, a learner, or a training function of the user's.

    Raises:
        Refused: something else.
    """
    if isinstance(given, Learner):
        return given
    if isinstance(given, str):
        if given not in LEARNERS:
            raise Refused(f"{name} = {given!r}: choose {', '.join(LEARNERS)}, or give a model")
        return LEARNERS[given]
    if callable(given) and not isinstance(given, type) and takes(given) in (1, 2):
        return OwnTraining(given)
    raise Refused(
        f"{name} = {told(given)}: give {', '.join(LEARNERS)}, or a function of the rows that are "
        "kept, which returns a value for each target"
    )
