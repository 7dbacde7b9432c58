"""Logistic regression on any part of the data, to convergence, many parts at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import one_hot

from mechspex.core.errors import Refused
from mechspex.training.batched_lbfgs import minimise
from mechspex.training.checks import check_positive
from mechspex.training.learner import Learner, Problem, Trained
from mechspex.training.softmax_curvature import curvature_at

# Distance to the minimum in the norm of the Hessian: no margin is further off than about this.
_TOLERANCE = 1e-6
# Numbers that the logits of a batch may take.
_ENTRIES = 2**21


@dataclass(frozen=True)
class LogisticRegression(Learner):
    """Multinomial logistic regression, Σ_i ℓ(θᵀx_i, y_i) + ½ `l2` ‖θ‖², at its minimum.

    The intercept is a feature that is always 1 and is penalised like the others, so that every
    part of the data has one minimum, also one without a class; all classes stay in the model. It is
    scikit-learn's ``LogisticRegression(C=1/l2, fit_intercept=False)`` with that feature.

    Attributes:
        l2: the penalty λ > 0.
        intercept: whether a feature that is always 1 is added.
    """

    l2: float = 1.0
    intercept: bool = True

    def __post_init__(self) -> None:
        check_positive("l2", self.l2)

    def prepare(self, problem: Problem) -> Trained:
        data = problem.data
        if data.is_regression or data.labels.ndim > 1:
            raise Refused("logistic regression learns one class a row; give labels [row]")
        if problem.n_classes < 2:
            raise Refused("all labels are class 0; logistic regression needs two classes or more")
        return LogisticFits(problem, self)


class LogisticFits(Trained):
    """Fits of logistic regression on parts of the data.

    Args:
        problem: the data, and what is asked.
        learner: the penalty.
    """

    def __init__(self, problem: Problem, learner: LogisticRegression) -> None:
        self.problem, self.l2 = problem, learner.l2
        intercept = learner.intercept
        self.inputs = problem.data.features(problem.device, intercept=intercept)
        self.asked = problem.targets.features(problem.device, intercept=intercept)
        self.labels = problem.data.labels.to(problem.device)
        self._goal = one_hot(self.labels, problem.n_classes).to(self.inputs)[..., None]
        self._right = self.labels[:, None, None]
        everything = torch.ones(1, len(self.inputs), dtype=torch.bool, device=problem.device)
        # Parts start where the whole ends, and there the whole's curvature is near theirs.
        self.whole = self.inputs.new_zeros(self.inputs.shape[1], problem.n_classes)
        for _ in range(2):
            self._curvature = curvature_at(self.inputs, self.whole)
            self.whole = self.parameters(everything)[0]

    def __call__(self, kept: Bool[Tensor, "mask row"], seed: int = 0) -> Tensor:
        return self.problem.outcomes(self.asked @ self.parameters(kept))

    def parameters(self, kept: Bool[Tensor, "mask row"]) -> Float[Tensor, "mask feature class"]:
        """θ at the minimum for each part; NaN where that was not reached."""
        kept = kept.to(self.inputs)
        size = max(1, _ENTRIES // self._goal.numel())
        return torch.cat([self._fit(few) for few in kept.split(size)] or [self.whole[None][:0]])

    def _fit(self, weights: Float[Tensor, "mask row"]) -> Float[Tensor, "mask feature class"]:
        # Masks lie along the last axis: all products are of two large matrices.
        weights = weights.T.contiguous()
        shape = (*self.whole.shape, -1)
        share = weights.mean(dim=0)

        def objective(theta: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
            here = weights[:, which]
            logits = (self.inputs @ theta.reshape(shape[0], -1)).reshape(-1, shape[1], len(which))
            log_p = logits.log_softmax(dim=1)
            right = log_p.gather(1, self._right.expand(-1, 1, len(which)))[:, 0]
            value = 0.5 * self.l2 * theta.square().sum(0) - (right * here).sum(0)
            residual = log_p.exp_().sub_(self._goal).mul_(here[:, None])
            slope = self.inputs.T @ residual.reshape(len(here), -1)
            return value, slope.reshape(theta.shape).add_(theta, alpha=self.l2)

        def precondition(slope: Tensor, which: Tensor) -> Tensor:
            return self._curvature.solve(slope, share[which], self.l2)

        start = self.whole.reshape(-1, 1).repeat(1, weights.shape[1])
        found = minimise(objective, start, precondition, tolerance=_TOLERANCE)
        return found.reshape(*shape[:2], -1).permute(2, 0, 1)
