"""Exceptions at any operation of a model, and what they leave behind."""

import random
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import mechspex as mx


class Injected(ArithmeticError):
    """What goes wrong in the middle of a forward."""


class RaisingAt(TorchDispatchMode):
    """Counts the operations of torch, and raises at one of them."""

    def __init__(self, at: int = 0, error: type[BaseException] = Injected):
        super().__init__()
        self.at, self.error, self.count = at, error, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        if self.count == self.at:
            raise self.error("injected")
        return func(*args, **(kwargs or {}))


@dataclass
class Left:
    """What injected exceptions left.

    Attributes:
        injected: how many were raised.
        hooks: hooks that were there afterwards and not before.
        changed: how often the model answered otherwise afterwards, or was in train mode.
        gradients: parameters with a gradient afterwards.
    """

    injected: int = 0
    hooks: int = 0
    changed: int = 0
    gradients: int = 0


def work(model, task):
    """What uses a model: proving an ablation, values of masks, their gradients, a screen's pass."""
    values = mx.ComponentValues(model, task, mx.heads(model))
    masks = np.ones((2, values.n_units), dtype=bool)
    masks[1, 0] = False
    values(masks)
    values.value_and_gradient(masks.astype(np.float32))
    mx.attention_patterns(model, task.prompts[0])


def inject(model, task, number, seed=0):
    """Raise so many exceptions, each at a random operation of the same work."""
    # Once before: the first of a process also times what its machine can do.
    work(model, task)
    with RaisingAt() as counting:
        work(model, task)
    rng, left = random.Random(seed), Left()
    before, hooks = answer(model, task), n_hooks(model)
    for _ in range(number):
        error = rng.choice([Injected, KeyboardInterrupt])
        raising = RaisingAt(rng.randrange(1, counting.count + 1), error)
        # Some are taken for a model that cannot be measured in one way, and another is found.
        with suppress(Injected, KeyboardInterrupt, mx.errors.MechspexError), raising:
            work(model, task)
        left.injected += raising.count >= raising.at
        left.hooks += n_hooks(model) - hooks
        left.changed += not torch.equal(answer(model, task), before) or model.training
        left.gradients += sum(p.grad is not None for p in model.original_model.parameters())
    return left


def n_hooks(model):
    """Hooks of every kind on every module, those of the bridge among them."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    modules = [*model.modules(), *model.original_model.modules()]
    own = sum(len(point.fwd_hooks) + len(point.bwd_hooks) for point in model.hook_dict.values())
    return own + sum(len(getattr(module, kind)) for module in modules for kind in kinds)


def answer(model, task):
    with torch.no_grad():
        return model(task.prompts[0], return_type="logits")[0, -1].clone()
