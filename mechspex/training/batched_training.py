"""Many trainings of one model at once, each on a part of the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap

from mechspex.core.errors import ModelError
from mechspex.training.labelled_data import LabelledData
from mechspex.training.linear_as_product import LinearAsProduct
from mechspex.training.optimisers import Optimiser, Training
from mechspex.training.outcome import losses

Parameters = dict[str, Tensor]
"""{name: of each training, ``[mask, …]``}."""


class BatchedTraining:
    """One model, trained many times: parameters, state of the optimiser and losses have an axis of
    masks (`torch.func`), and one order of the data serves all of them.

    Args:
        module: the model; its own parameters are left as they are.
        data: what it is trained on, on its device.
        training: how.

    Attributes:
        data: what it is trained on.
    """

    def __init__(self, module: nn.Module, data: LabelledData, training: Training) -> None:
        self.data = data
        self._module, self._training = module, training
        self._trained = [name for name, p in module.named_parameters() if p.requires_grad]
        fixed = {name: p.detach() for name, p in module.named_parameters() if not p.requires_grad}
        self._fixed = fixed | dict(module.named_buffers())
        self._forward = vmap(self.answer, in_dims=(0, None))

    def initial(self, n_masks: int) -> Parameters:
        """The parameters of so many models before their training.

        Args:
            n_masks: how many.
        """
        own = dict(self._module.named_parameters())
        return {
            name: own[name].detach().repeat(n_masks, *[1] * own[name].ndim)
            for name in self._trained
        }

    def answer(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """What one model answers.

        Args:
            parameters: its own, without an axis of masks.
            inputs: the rows.
        """
        return functional_call(self._module, parameters | self._fixed, (inputs,))

    def logits(
        self, parameters: Parameters, inputs: Float[Tensor, "row ..."] | Int[Tensor, "row ..."]
    ) -> Float[Tensor, "mask row ..."]:
        """What each model answers on the same inputs.

        Args:
            parameters: each model's.
            inputs: the rows.

        Raises:
            ModelError: a model that cannot be run many times at once.
        """
        try:
            with LinearAsProduct():
                return self._forward(parameters, inputs)
        except RuntimeError as error:
            if "vmap" not in str(error):
                raise
            reason = str(error).splitlines()[0]
            raise ModelError(
                f"{type(self._module).__name__} cannot be run for many masks at once ({reason}); "
                "write it without changes in place and without branches on values, or give a "
                "training function of your own"
            ) from None

    def train(
        self,
        kept: Bool[Tensor, "mask row"],
        seed: int,
        after_epoch: Callable[[int, Parameters], None] | None = None,
    ) -> Parameters:
        """The parameters after training on the rows that each mask keeps.

        Args:
            kept: the masks, over rows.
            seed: the seed of the order of the data.
            after_epoch: told the number of epochs done and the parameters, after each epoch.
        """
        parameters = {name: p.requires_grad_() for name, p in self.initial(len(kept)).items()}
        optimiser = Optimiser(list(parameters.values()), self._training)
        weights = kept.to(next(iter(parameters.values())))
        for epoch, batches in enumerate(self._epochs(seed), start=1):
            for rows in batches:
                gradients, moving = self._gradients(parameters, weights, rows)
                optimiser.step(gradients, moving)
            if after_epoch is not None:
                after_epoch(epoch, {name: p.detach() for name, p in parameters.items()})
        return {name: p.detach() for name, p in parameters.items()}

    def _gradients(
        self, parameters: Parameters, weights: Float[Tensor, "mask row"], rows: Tensor | None
    ) -> tuple[tuple[Tensor | None, ...], Bool[Tensor, " mask"]]:
        """Of the mean loss over the kept rows of a batch, and which masks keep any."""
        inputs, labels = self.data.inputs, self.data.labels
        if rows is not None:
            inputs, labels, weights = inputs[rows], labels[rows], weights[:, rows]
        logits = self.logits(parameters, inputs)
        repeated = labels.repeat(len(weights), *[1] * (labels.ndim - 1))
        each = losses(logits.flatten(0, 1), repeated).reshape(weights.shape)
        total = weights.sum(dim=1)
        # The sum over masks: no parameter is in the loss of two of them.
        loss = ((each * weights).sum(dim=1) / total.clamp(min=1)).sum()
        moved = list(parameters.values())
        return torch.autograd.grad(loss, moved, allow_unused=True), total > 0

    def _epochs(self, seed: int) -> Iterator[list[Tensor | None]]:
        """The batches of each epoch; None is the whole."""
        size, device = self._training.batch_size, self.data.inputs.device
        n_rows, rng = len(self.data), np.random.default_rng(seed)
        for _ in range(self._training.epochs):
            if size is None or size >= n_rows:
                yield [None]
            else:
                order = torch.as_tensor(rng.permutation(n_rows), device=device)
                yield list(order.split(size))
