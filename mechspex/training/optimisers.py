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
        self._spare: dict[torch.Size, Tensor] = {}
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
        corrections = self._corrections(self._steps[rows])
        for place, (parameter, gradient) in enumerate(
            zip(self._parameters, gradients, strict=True)
        ):
            if gradient is None:
                continue
            moments = [moment[place] for moment in self._moments]
            if isinstance(rows, slice):
                self._move(parameter, gradient, moments, corrections)
                continue
            # Those that stand still keep parameters and moments.
            some = [moment[rows] for moment in moments]
            moved = parameter[rows]
            self._move(moved, gradient[rows], some, corrections)
            parameter[rows] = moved
            for moment, new in zip(moments, some, strict=True):
                moment[rows] = new

    def _corrections(self, steps: Float[Tensor, " mask"]) -> tuple[Tensor, Tensor]:
        """What Adam does about moments that began at zero, t steps ago.

        η m̂ / (√v̂ + ε) = η m / (c √v + d) with c = (1 − β₁ᵗ) / √(1 − β₂ᵗ) and d = (1 − β₁ᵗ) ε.
        """
        first, steps = self._parameters[0], steps.double()
        of_first = 1 - _BETAS[0] ** steps
        return (of_first / (1 - _BETAS[1] ** steps).sqrt()).to(first), (of_first * _EPSILON).to(
            first
        )

    def _move(
        self,
        parameter: Tensor,
        gradient: Tensor,
        moments: list[Tensor],
        corrections: tuple[Tensor, Tensor],
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
        factor, epsilon = (one.reshape(-1, *[1] * (parameter.ndim - 1)) for one in corrections)
        # The root of MKL is ten times as slow where there are zeros; that of 1 / v is not.
        root = torch.rsqrt(second, out=self._spare_like(second)).reciprocal_()
        parameter.addcdiv_(first, root.mul_(factor).add_(epsilon), value=-told.learning_rate)

    def _spare_like(self, tensor: Tensor) -> Tensor:
        """Memory that is kept from step to step: fresh pages cost as much as what fills them."""
        if tensor.shape not in self._spare:
            self._spare[tensor.shape] = torch.empty_like(tensor)
        return self._spare[tensor.shape]
