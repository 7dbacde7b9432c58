"""Steps of many trainings at once, each with a state of its own; those of ``torch.optim``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechspex.core.checks import Whole
from mechspex.core.errors import Refused
from mechspex.training.checks import check_positive

OptimiserName = Literal["adam", "sgd"]

_BETAS, _EPSILON = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class Training:
    """How a model is trained by gradient descent.

    In every epoch the rows are put into a new order, the same for all masks, and cut into batches.
    An example that a mask leaves out is left out of its batch: the loss of a batch is the mean over
    those that are kept, and a batch of which nothing is kept is passed over. So on full batches the
    training is exactly that of the part alone; on smaller ones it is that of a plain loop over the
    same batches without the examples left out.

    Attributes:
        optimiser: ``adam`` or ``sgd``.
        learning_rate: the size η of a step.
        epochs: how often every example is met.
        batch_size: examples of a batch before any is left out; all of them if not given.
        momentum: the momentum of ``sgd``.
        weight_decay: λ, by which λθ is added to the gradient.
    """

    optimiser: OptimiserName = "adam"
    learning_rate: float = 0.01
    epochs: int = 100
    batch_size: int | None = None
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.optimiser not in get_args(OptimiserName):
            raise Refused(f"optimiser = {self.optimiser!r}: choose adam or sgd")
        check_positive("learning_rate", self.learning_rate)
        Whole(1)("epochs", self.epochs)
        if self.batch_size is not None:
            Whole(1)("batch_size", self.batch_size)
        check_positive("momentum", self.momentum, zero=True)
        check_positive("weight_decay", self.weight_decay, zero=True)
        if self.momentum and self.optimiser != "sgd":
            raise Refused(f"momentum = {self.momentum} is of sgd; adam has its own")


class Optimiser:
    """Parameters of many trainings, moved step by step.

    Args:
        parameters: each model's, a model a row.
        training: how they are moved.
    """

    def __init__(self, parameters: list[Float[Tensor, "mask ..."]], training: Training) -> None:
        self._parameters, self._training = parameters, training
        n_moments = {"adam": 2, "sgd": 1 if training.momentum else 0}[training.optimiser]
        self._moments = [[torch.zeros_like(p) for p in parameters] for _ in range(n_moments)]
        # Steps of each training, which are fewer where a batch kept nothing.
        self._steps = torch.zeros(len(parameters[0]), device=parameters[0].device)

    @torch.no_grad()
    def step(self, gradients: tuple[Tensor | None, ...], moving: Bool[Tensor, " mask"]) -> None:
        """One step of the trainings that move.

        Args:
            gradients: one for each of the parameters, in their order; None of one that the loss
                does not read, which stays as it is.
            moving: the trainings to which this happens.
        """
        rows = slice(None) if bool(moving.all()) else moving.nonzero()[:, 0]
        self._steps[rows] += 1
        for place, (parameter, gradient) in enumerate(
            zip(self._parameters, gradients, strict=True)
        ):
            if gradient is None:
                continue
            moments = [moment[place] for moment in self._moments]
            if isinstance(rows, slice):
                self._move(parameter, gradient, moments, self._steps)
                continue
            # Those that stand still keep parameters and moments.
            some = [moment[rows] for moment in moments]
            moved = parameter[rows]
            self._move(moved, gradient[rows], some, self._steps[rows])
            parameter[rows] = moved
            for moment, new in zip(moments, some, strict=True):
                moment[rows] = new

    def _move(
        self, parameter: Tensor, gradient: Tensor, moments: list[Tensor], steps: Tensor
    ) -> None:
        """Move parameters in place."""
        told = self._training
        if told.weight_decay:
            gradient = gradient.add(parameter, alpha=told.weight_decay)
        if told.optimiser == "sgd":
            if moments:
                gradient = moments[0].mul_(told.momentum).add_(gradient)
            parameter.sub_(gradient, alpha=told.learning_rate)
            return
        first, second = moments
        first.lerp_(gradient, 1 - _BETAS[0])
        second.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
        shape = (-1, *[1] * (parameter.ndim - 1))
        unbias = (1 - _BETAS[1] ** steps.double()).sqrt().reshape(shape)
        size = told.learning_rate / (1 - _BETAS[0] ** steps.double()).reshape(shape)
        # η·m̂ / (√v̂ + ε), the corrections of both moments drawn out of the division.
        spread = second.sqrt().add_((_EPSILON * unbias).to(second))
        parameter.addcdiv_(first * (size * unbias).to(first), spread, value=-1)
