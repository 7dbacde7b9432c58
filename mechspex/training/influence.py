"""Influence functions, of first and second order, exact for ridge and logistic regression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacrev, vmap
from torch.nn.functional import one_hot

from mechspex.core.checks import Only, Whole, check_memory
from mechspex.core.doors import door
from mechspex.core.errors import Refused
from mechspex.training.influence_values import InfluenceValues
from mechspex.training.learner import Problem
from mechspex.training.logistic_regression import LogisticFits, LogisticRegression
from mechspex.training.outcome import outcomes
from mechspex.training.ridge_regression import RidgeRegression
from mechspex.training.softmax_curvature import hessian
from mechspex.training.training_values import TrainingValues


@door(
    values=Only((TrainingValues,), "mechspex.TrainingValues(…)"),
    order=Whole(1, 2, "1 or 2"),
)
def influence(values: TrainingValues, *, order: int = 1) -> InfluenceValues:
    """What leaving out examples does, by derivatives at the model that is trained on all of them.

    With r_i = 1 where unit i is left out, L(θ, r) = Σ_i (1 − r_i) ℓ_i(θ) + penalty, H its Hessian
    and g_i = ∇ℓ_i, the trained θ(r) has ∂θ/∂r_i = H⁻¹g_i (Koh & Liang 2017), and ∂²θ/∂r_i∂r_j =
    H⁻¹(H_i ∂_jθ + H_j ∂_iθ − ∇³L[∂_iθ, ∂_jθ]). The value follows by the chain rule. The second
    order is what sums of single influences leave out for groups (Basu, You & Feizi 2020).

    Args:
        values: trainings by ridge or logistic regression, whose minimum is unique.
        order: 1 for Taylor's linear term, 2 for the quadratic one as well, a number for every pair.

    Raises:
        Refused: another way to train; `tracin` follows gradient descent.
    """
    learner = values.learner
    if isinstance(learner, LogisticRegression):
        fit = _of_logistic(values.problem, learner)
    elif isinstance(learner, RidgeRegression):
        fit = _of_ridge(values.problem, learner)
    else:
        raise Refused(
            f"influence functions are those of ridge and logistic regression, not of "
            f"{type(learner).__name__}; use mechspex.tracin, or mechspex.leave_one_out"
        )
    rows = values.examples.rows
    n_targets, n_units = len(values.outputs), len(rows)
    if order == 2:
        check_memory(8 * n_units**2 * n_targets, f"{n_units}² pairs on {n_targets} targets")
    member = fit.inputs.new_zeros(n_units, len(fit.inputs))
    for unit, own in enumerate(rows):
        member[unit, list(own)] = 1
    moved = _moved(fit, member)
    asked = torch.einsum("tf,ufc->utc", fit.asked, moved)
    slope, bend = _derivatives(fit, values.problem)
    singles = torch.einsum("utc,tc->ut", asked, slope)
    pairs = None
    if order == 2:
        pairs = _pairs(fit, member, moved, slope)
        pairs += torch.einsum("utc,tcd,vtd->tuv", asked, bend, asked)
    clean = values(np.ones((1, n_units), dtype=bool))[0]
    return InfluenceValues(
        f"influence of order {order}",
        values.units,
        values.outputs,
        clean,
        singles.cpu().numpy(),
        None if pairs is None else pairs.cpu().numpy(),
    )


@dataclass(frozen=True, eq=False)
class _Fit:
    """A model θ [feature, class] at its minimum.

    Attributes:
        inputs, asked: the features of training rows and of targets.
        theta: the parameters.
        residual: ∂ℓ_i/∂logits.
        inverse: H⁻¹ over the parameters, flattened.
        p: the probabilities of each row, where ∂²ℓ/∂logits² = diag(p) − ppᵀ; None where that is 2.
    """

    inputs: Float[Tensor, "row feature"]
    asked: Float[Tensor, "target feature"]
    theta: Float[Tensor, "feature class"]
    residual: Float[Tensor, "row class"]
    inverse: Float[Tensor, "parameter parameter"]
    p: Float[Tensor, "row class"] | None

    def curved(self, logits: Float[Tensor, "row class"]) -> Float[Tensor, "row class"]:
        """∂²ℓ_i/∂logits² times a change of each row's logits."""
        if self.p is None:
            return 2 * logits
        return self.p * (logits - (self.p * logits).sum(dim=1, keepdim=True))

    def solve(self, slopes: Float[Tensor, "some feature class"]) -> Tensor:
        """H⁻¹ times each of some gradients."""
        return (slopes.flatten(1) @ self.inverse).unflatten(1, self.theta.shape)


def _of_logistic(problem: Problem, learner: LogisticRegression) -> _Fit:
    fits = LogisticFits(problem, learner)
    theta = fits.whole
    p = (fits.inputs @ theta).softmax(dim=-1)
    whole = hessian(fits.inputs, theta)
    whole += learner.l2 * torch.eye(len(whole)).to(whole)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(whole))
    residual = p - one_hot(fits.labels, problem.n_classes).to(p)
    return _Fit(fits.inputs, fits.asked, theta, residual, inverse, p)


def _of_ridge(problem: Problem, learner: RidgeRegression) -> _Fit:
    inputs = learner.features(problem.data, problem.device)
    labels = problem.data.labels.to(problem.device)
    goal = labels.double()[:, None]
    if not problem.data.is_regression:
        goal = one_hot(labels, problem.n_classes).double()
    gram = inputs.T @ inputs + learner.l2 * torch.eye(inputs.shape[1]).to(inputs)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    theta = inverse @ inputs.T @ goal
    each = torch.kron((inverse / 2).contiguous(), torch.eye(goal.shape[1]).to(inverse))
    asked = learner.features(problem.targets, problem.device)
    return _Fit(inputs, asked, theta, 2 * (inputs @ theta - goal), each, None)


def _moved(fit: _Fit, member: Float[Tensor, "unit row"]) -> Float[Tensor, "unit feature class"]:
    """∂θ/∂r of each unit: H⁻¹ times the summed gradients of its rows."""
    slopes = torch.einsum("ur,rf,rc->ufc", member, fit.inputs, fit.residual)
    return fit.solve(slopes)


def _derivatives(
    fit: _Fit, problem: Problem
) -> tuple[Float[Tensor, "target class"], Float[Tensor, "target class class"]]:
    """Of each target's value by its logits."""
    labels = problem.targets.labels.to(problem.device)

    def value(logits: Tensor, label: Tensor) -> Tensor:
        return outcomes(logits[None], label[None], problem.outcome)[0]

    logits = fit.asked @ fit.theta
    return vmap(jacrev(value))(logits, labels), vmap(jacrev(jacrev(value)))(logits, labels)


def _pairs(
    fit: _Fit,
    member: Float[Tensor, "unit row"],
    moved: Float[Tensor, "unit feature class"],
    slope: Float[Tensor, "target class"],
) -> Float[Tensor, "target unit unit"]:
    """∇f · ∂²θ/∂r_i∂r_j for each target."""
    back = fit.solve(torch.einsum("tf,tc->tfc", fit.asked, slope))
    changes = torch.einsum("rf,ufc->urc", fit.inputs, moved)
    centred = changes
    if fit.p is not None:
        centred = changes - (fit.p * changes).sum(dim=-1, keepdim=True)
    found = changes.new_empty(len(back), len(member), len(member))
    for target, direction in enumerate(back):
        weight = fit.curved(fit.inputs @ direction)
        crossed = member @ torch.einsum("rc,urc->ru", weight, changes)
        found[target] = crossed + crossed.T
        if fit.p is not None:
            # The third derivative of logsumexp is the third central moment.
            found[target] -= (centred * weight).flatten(1) @ centred.flatten(1).T
    return found
