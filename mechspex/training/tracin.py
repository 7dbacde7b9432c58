"""TracIn: what each example's gradient steps did to a target, along one training."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, vmap

from mechspex.core.checks import Only, Whole
from mechspex.core.doors import door
from mechspex.core.errors import Refused
from mechspex.training.batched_training import BatchedTraining, Parameters
from mechspex.training.gradient_descent import GradientDescent, Trainings
from mechspex.training.influence_values import InfluenceValues
from mechspex.training.labelled_data import LabelledData
from mechspex.training.learner import Problem
from mechspex.training.outcome import losses, outcomes
from mechspex.training.training_values import TrainingValues


@door(
    values=Only((TrainingValues,), "mechspex.TrainingValues(…)"),
    checkpoints=Whole(1),
)
def tracin(values: TrainingValues, *, checkpoints: int = 10) -> InfluenceValues:
    """What each example's gradient does to the targets, summed over checkpoints of one training on
    all of them.

    f_i = (η n_epochs / n n_checkpoints) Σ_c ∇ℓ_i(θ_c) · ∇f(θ_c), what leaving out the steps along
    −∇ℓ_i adds to f (Pruthi et al. 2020, TracInCP), mean over seeds. Of Adam it ignores the moments.

    Args:
        values: trainings by gradient descent.
        checkpoints: how many epochs are looked at, spread evenly; all if there are fewer.

    Raises:
        Refused: another way to train, which has no checkpoints; `influence` is for those.
    """
    learner = values.learner
    if not isinstance(learner, GradientDescent):
        raise Refused(
            f"{type(learner).__name__} is not trained by gradient descent; use mechspex.influence"
        )
    trainings = Trainings(learner, values.problem)
    n_epochs = learner.training.epochs
    looked_at = set(np.linspace(1, n_epochs, min(checkpoints, n_epochs)).round().astype(int))
    n_rows = len(values.problem.data)
    found = []
    for seed in values.seeds:
        batched, asked = trainings.of_seed(seed)
        summed = torch.zeros(n_rows, len(values.problem.targets), dtype=torch.float64)

        def look(epoch: int, parameters: Parameters, batched=batched, asked=asked, summed=summed):
            if epoch in looked_at:
                one = {name: tensor[0] for name, tensor in parameters.items()}
                summed.add_(_products(batched, one, asked, values.problem).double().cpu())

        batched.train(
            torch.ones(1, n_rows, dtype=torch.bool, device=asked.inputs.device), seed, look
        )
        found.append(summed.numpy() * learner.training.learning_rate * n_epochs)
    effects = np.stack(found) / (n_rows * len(looked_at))
    each = np.stack([effects[:, list(rows)].sum(axis=1) for rows in values.examples.rows], axis=1)
    by_seed = len(values.outputs) == len(values.seeds) and values.columns == "seeds"
    singles = each.mean(axis=2).T if by_seed else each.mean(axis=0)
    clean = values(np.ones((1, values.n_units), dtype=bool))[0]
    return InfluenceValues("TracIn", values.units, values.outputs, clean, singles)


def _products(
    batched: BatchedTraining, parameters: Parameters, asked: LabelledData, problem: Problem
) -> Float[Tensor, "row target"]:
    """∇ℓ_i · ∇f_t at some parameters."""

    def loss(own: Parameters, inputs: Tensor, labels: Tensor) -> Tensor:
        return losses(batched.answer(own, inputs[None]), labels[None])[0]

    def value(own: Parameters, inputs: Tensor, labels: Tensor) -> Tensor:
        return outcomes(batched.answer(own, inputs[None]), labels[None], problem.outcome)[0]

    def slopes(function, data: LabelledData) -> Tensor:  # type: ignore[no-untyped-def]
        each = vmap(grad(function), in_dims=(None, 0, 0))(parameters, data.inputs, data.labels)
        return torch.cat([tensor.flatten(1) for tensor in each.values()], dim=1)

    return slopes(loss, batched.data) @ slopes(value, asked).T
