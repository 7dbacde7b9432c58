"""Many smooth convex functions minimised at once, each to convergence (L-BFGS, Nocedal 1980)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(parameters ``[parameter, some]``, which functions) → values ``[some]`` and gradients."""

# Pairs of steps that are remembered, and halvings of one step.
_MEMORY, _HALVINGS = 8, 30
# Share of the first-order decrease that a step has to reach (Armijo).
_DECREASE = 1e-4
# What is done is dropped once it is so large a share.
_DROPPED = 0.2


@dataclass
class _State:
    """Where the functions stand that are not dropped yet; functions lie along the last axis."""

    which: Int[Tensor, " some"]
    at: Float[Tensor, "parameter some"]
    value: Float[Tensor, " some"]
    slope: Float[Tensor, "parameter some"]
    steps: list[Tensor]
    turns: list[Tensor]

    def only(self, left: Bool[Tensor, " some"]) -> _State:
        return _State(
            self.which[left],
            self.at[:, left],
            self.value[left],
            self.slope[:, left],
            [step[:, left] for step in self.steps],
            [turn[:, left] for turn in self.turns],
        )


def minimise(
    objective: Objective,
    start: Float[Tensor, "parameter function"],
    precondition: Callable[[Tensor, Tensor], Tensor],
    *,
    tolerance: float,
    most_steps: int = 500,
) -> Float[Tensor, "parameter function"]:
    """The minimum of each function; NaN where none was reached.

    A function is done when its gradient g and its direction −Bg have √(gᵀBg) ≤ `tolerance`: for B
    the inverse Hessian that is the distance to the minimum in the norm of the Hessian. What one
    function does depends on no other.

    Args:
        objective: values and gradients of some of the functions.
        start: where each begins.
        precondition: (gradients, which functions) → H times the gradients, H symmetric, positive
            definite and near the inverse Hessian.
        tolerance: when a function is done.
        most_steps: steps after which a function has failed.
    """
    found = torch.full_like(start, float("nan"))
    which = torch.arange(start.shape[1], device=start.device)
    state = _State(which, start, *objective(start, which), [], [])
    for _ in range(most_steps):
        direction = _direction(state, precondition)
        decrement = -(state.slope * direction).sum(0)
        # What is not a number goes on being none, and is dropped with those that are done.
        left = decrement > tolerance**2
        first = (decrement <= tolerance**2) & found[0, state.which].isnan()
        found[:, state.which[first]] = state.at[:, first]
        if not left.any():
            break
        if (~left).sum() > _DROPPED * len(left):
            state, direction = state.only(left), direction[:, left]
        state = _step(objective, state, direction)
    return found


def _direction(state: _State, precondition: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """−H g, H the preconditioner corrected by the steps remembered (two loops)."""
    turned, weights = state.slope.clone(), []
    pairs = list(zip(state.steps, state.turns, strict=True))
    scales = [_inverse((step * turn).sum(0)) for step, turn in pairs]
    for (step, turn), scale in zip(reversed(pairs), reversed(scales), strict=True):
        weight = scale * (step * turned).sum(0)
        turned.addcmul_(turn, weight, value=-1)
        weights.append(weight)
    turned = precondition(turned, state.which)
    for (step, turn), scale, weight in zip(pairs, scales, reversed(weights), strict=True):
        turned.addcmul_(step, weight - scale * (turn * turned).sum(0))
    return -turned


def _inverse(curvature: Float[Tensor, " some"]) -> Float[Tensor, " some"]:
    """1 / sᵀy; 0 for a step that tells nothing, which is then as good as forgotten."""
    return torch.where(curvature > 0, 1 / curvature.clamp(min=1e-300), 0)


def _step(objective: Objective, state: _State, direction: Tensor) -> _State:
    """One step of each function, halved until it goes down."""
    descent = (state.slope * direction).sum(0)
    length = torch.ones_like(descent)
    at = state.at + direction
    value, slope = objective(at, state.which)
    rounding = 8 * torch.finfo(value.dtype).eps * state.value.abs()
    for _ in range(_HALVINGS):
        short = ~(value <= state.value + _DECREASE * length * descent + rounding)
        if not short.any():
            break
        length[short] *= 0.5
        at[:, short] = state.at[:, short] + length[short] * direction[:, short]
        value[short], slope[:, short] = objective(at[:, short], state.which[short])
    steps = [*state.steps, at - state.at][-_MEMORY:]
    turns = [*state.turns, slope - state.slope][-_MEMORY:]
    return _State(state.which, at, value, slope, steps, turns)
