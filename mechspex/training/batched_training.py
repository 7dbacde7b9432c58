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
from mechspex.training.linear_stack import LinearStack
from mechspex.training.optimisers import Optimiser, Training
from mechspex.training.outcome import loss_slopes

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
        self._stack = LinearStack.of(module) if data.inputs.ndim == 2 else None
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
        if self._stack is not None:
            return self._stack(parameters, inputs)
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
        for epoch, order in enumerate(self._orders(seed), start=1):
            for rows in self._batches(weights, order):
                optimiser.step(*self._gradients(parameters, *rows))
            if after_epoch is not None:
                after_epoch(epoch, {name: p.detach() for name, p in parameters.items()})
        return {name: p.detach() for name, p in parameters.items()}

    def _gradients(
        self,
        parameters: Parameters,
        inputs: Tensor,
        labels: Tensor,
        weights: Float[Tensor, "mask row"],
    ) -> tuple[tuple[Tensor | None, ...], Bool[Tensor, " mask"]]:
        """Of the mean loss over the kept rows of a batch, and which masks keep any."""
        logits, total = self.logits(parameters, inputs), weights.sum(dim=1, keepdim=True)
        with torch.no_grad():
            slopes = loss_slopes(logits, labels, weights / total.clamp(min=1))
        moved = list(parameters.values())
        # Of all masks at once: no parameter is in the logits of two of them.
        gradients = torch.autograd.grad(logits, moved, slopes, allow_unused=True)
        return gradients, total[:, 0] > 0

    def _orders(self, seed: int) -> Iterator[Tensor | None]:
        """The order of the rows in each epoch; None where the whole is a batch."""
        size, device = self._training.batch_size, self.data.inputs.device
        n_rows, rng = len(self.data), np.random.default_rng(seed)
        for _ in range(self._training.epochs):
            whole = size is None or size >= n_rows
            yield None if whole else torch.as_tensor(rng.permutation(n_rows), device=device)

    def _batches(
        self, weights: Float[Tensor, "mask row"], order: Tensor | None
    ) -> Iterator[tuple[Tensor, ...]]:
        """Inputs, labels and weights of each batch."""
        whole = (self.data.inputs, self.data.labels, weights)
        if order is None:
            return iter([whole])
        size = self._training.batch_size or len(order)
        inputs, labels = (tensor[order].split(size) for tensor in whole[:2])
        return zip(inputs, labels, weights[:, order].split(size, dim=1), strict=True)
