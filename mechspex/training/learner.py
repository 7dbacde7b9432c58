"""Ways to train: what each of them is told, and what it gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechspex.training.labelled_data import LabelledData
from mechspex.training.outcome import Outcome, outcomes


@dataclass(frozen=True, eq=False)
class Problem:
    """What is trained on and what is asked.

    Attributes:
        data: the whole training set.
        targets: what the trained model is asked.
        outcome: what is made of its answers.
        device: where it is trained.
    """

    data: LabelledData
    targets: LabelledData
    outcome: Outcome
    device: torch.device

    @property
    def n_classes(self) -> int:
        """One more than the largest class there is; 1 of a regression."""
        if self.data.is_regression:
            return 1
        return max(self.data.n_classes, self.targets.n_classes)

    def outcomes(self, logits: Float[Tensor, "mask target ..."]) -> Float[Tensor, "mask target"]:
        """The outcome on each target, from the answers of models trained under each mask."""
        labels = self.targets.labels.to(logits.device)
        repeated = labels.repeat(len(logits), *[1] * (labels.ndim - 1))
        return outcomes(logits.flatten(0, 1), repeated, self.outcome).reshape(logits.shape[:2])


class Trained(ABC):
    """A problem that is ready to be trained on any part of its data."""

    @abstractmethod
    def __call__(self, kept: Bool[Tensor, "mask row"], seed: int) -> Float[Tensor, "mask target"]:
        """The outcome on each target, trained on the rows that each mask keeps."""


class Learner(ABC):
    """A way to train; its options are its fields, and its ``repr`` says all that values depend on.

    Attributes:
        stochastic: whether what is learned depends on a seed.
    """

    stochastic: bool = False

    @abstractmethod
    def prepare(self, problem: Problem) -> Trained:
        """What trains on parts of the data.

        Args:
            problem: the data, and what is asked.

        Raises:
            Refused: data that this cannot learn.
        """

    @property
    def described(self) -> str:
        """Everything that values depend on but the data, the outcome and the seed."""
        return repr(self)
