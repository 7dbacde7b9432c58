"""Models of the user's own, trained by gradient descent for many masks at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from mechspex.core.checks import told
from mechspex.core.errors import ModelError, ShapeError
from mechspex.core.identity import Identity
from mechspex.training.batched_training import BatchedTraining
from mechspex.training.labelled_data import LabelledData
from mechspex.training.learner import Learner, Problem, Trained
from mechspex.training.optimisers import Training

# Bytes of parameters, moments and activations that are trained at once, which a processor's cache
# holds and its other threads leave; and the most masks.
_BYTES, _BYTES_OF_DEVICE, _MOST = 2**24, 2**28, 1024
# Parameters, their gradients, two moments and something in between.
_COPIES = 6


@dataclass(frozen=True)
class GradientDescent(Learner):
    """A `torch.nn.Module` trained on each part of the data, thousands of times at once.

    Attributes:
        model: a module, whose parameters are where every training starts; or a function without
            arguments that makes one, called under each seed.
        training: how it is trained.
    """

    model: nn.Module | Callable[[], nn.Module]
    training: Training = field(default_factory=Training)

    @property
    def stochastic(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the order of the data or the initial parameters go by the seed."""
        return self.training.batch_size is not None or not isinstance(self.model, nn.Module)

    @cached_property
    def described(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        module = self.initial(0)
        content = hashlib.sha256(str(module).encode())
        kinds = {str(Identity.of(type(part))) for part in module.modules()}
        content.update(" ".join(sorted(kinds)).encode())
        for name, tensor in module.state_dict().items():
            content.update(f"{name} {tensor.dtype};".encode())
            content.update(tensor.detach().cpu().float().numpy().tobytes())
        return f"{type(module).__name__}, {self.training} {content.hexdigest()[:16]}"

    def initial(self, seed: int) -> nn.Module:
        """The model before training.

        Args:
            seed: the seed of its parameters, where they are made anew.

        Raises:
            ModelError: no module, or one that behaves otherwise in training than in use.
        """
        if isinstance(self.model, nn.Module):
            return _checked(deepcopy(self.model))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _checked(self.model())

    def prepare(self, problem: Problem) -> Trained:
        return Trainings(self, problem)


class Trainings(Trained):
    """Trains as many masks at once as memory is meant for them.

    Args:
        learner: the model, and how it is trained.
        problem: the data, and what is asked.
    """

    def __init__(self, learner: GradientDescent, problem: Problem) -> None:
        self._learner, self._problem = learner, problem
        self._made: dict[int, tuple[BatchedTraining, LabelledData]] = {}
        batched, asked = self.of_seed(0)
        try:
            shape = batched.logits(batched.initial(1), asked.inputs).shape[1:]
        except RuntimeError as error:
            inputs, reason = asked.inputs, str(error).splitlines()[0]
            raise ModelError(
                f"{type(learner.initial(0)).__name__} cannot read inputs of shape "
                f"{list(inputs.shape)} and {inputs.dtype} ({reason}); give a model of these inputs"
            ) from None
        _check_output(list(shape), problem)
        self._at_once = _masks_at_once(learner, problem)

    def __call__(self, kept: Bool[Tensor, "mask row"], seed: int) -> Float[Tensor, "mask target"]:
        batched, asked = self.of_seed(seed)
        found = []
        for few in kept.to(self._problem.device).split(self._at_once):
            parameters = batched.train(few, seed)
            with torch.no_grad():
                found.append(self._problem.outcomes(batched.logits(parameters, asked.inputs)))
        return torch.cat(found)

    def of_seed(self, seed: int) -> tuple[BatchedTraining, LabelledData]:
        """The trainings of one seed, and the targets in the model's dtype.

        Args:
            seed: the seed of the initial parameters.
        """
        made_anew = not isinstance(self._learner.model, nn.Module)
        key = seed if made_anew else 0
        if key not in self._made:
            module = self._learner.initial(seed).to(self._problem.device)
            data = _as_of(self._problem.data, module, self._problem.device)
            asked = _as_of(self._problem.targets, module, self._problem.device)
            self._made[key] = BatchedTraining(module, data, self._learner.training), asked
        return self._made[key]


def _as_of(data: LabelledData, module: nn.Module, device: torch.device) -> LabelledData:
    """The data where the module lies and in its dtype; tokens stay whole numbers."""
    dtype = next(module.parameters()).dtype

    def moved(tensor: Tensor) -> Tensor:
        return tensor.to(device, dtype if tensor.is_floating_point() else torch.long)

    return replace(data, inputs=moved(data.inputs), labels=moved(data.labels))


def _checked(module: object) -> nn.Module:
    """The module, if it does the same in training as in use and has something to train."""
    if not isinstance(module, nn.Module):
        raise ModelError(f"the model is {told(module)}; give a torch.nn.Module, or what makes one")
    for name, part in module.named_modules():
        random = getattr(part, "p" if isinstance(part, _DropoutNd) else "dropout", 0.0)
        if part.training and isinstance(random, float) and random > 0:
            raise ModelError(
                f"{name or 'the model'} has dropout, whose noise no two masks would share; call "
                "eval() on the model, which turns it off, or set it to 0"
            )
        if part.training and isinstance(part, _BatchNorm):
            raise ModelError(
                f"{name or 'the model'} is batch normalisation, through which examples that a mask "
                "leaves out would still act; use layer or group normalisation, or call eval() on "
                "the model, which keeps its stored statistics"
            )
    if not any(p.requires_grad for p in module.parameters()):
        raise ModelError(f"{type(module).__name__} has no parameters to train")
    return module


def _check_output(shape: list[int], problem: Problem) -> None:
    labels = problem.targets.labels
    if problem.data.is_regression:
        if shape[1:] not in ([], [1]):
            raise ShapeError(f"the model answers shape {shape}; of numbers it has to be [row, 1]")
        return
    wanted = list(labels.shape)
    if shape[:-1] != wanted or shape[-1] < problem.n_classes:
        raise ShapeError(
            f"the model answers shape {shape} for labels {wanted} of {problem.n_classes} classes; "
            f"it has to be {[*wanted, problem.n_classes]} or have more classes"
        )


def _masks_at_once(learner: GradientDescent, problem: Problem) -> int:
    """How many masks fit into the memory that is meant for them, with what a forward keeps."""
    module, kept = learner.initial(0), 0

    def count(part: nn.Module, inputs: object, output: object) -> None:
        nonlocal kept
        kept += output.numel() if isinstance(output, Tensor) else 0

    hooks = [part.register_forward_hook(count) for part in module.modules()]
    data = _as_of(problem.data, module, torch.device("cpu"))
    with torch.no_grad():
        module(data.inputs[:1])
    for hook in hooks:
        hook.remove()
    size = min(len(problem.data), learner.training.batch_size or len(problem.data))
    size = max(size, len(problem.targets))
    numbers = _COPIES * sum(p.numel() for p in module.parameters()) + 2 * kept * size
    n_bytes = _BYTES if problem.device.type == "cpu" else _BYTES_OF_DEVICE
    return max(1, min(_MOST, n_bytes // (4 * numbers)))
