"""The Hessian of logistic regression, and its inverse at any share of the data."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

# Parameters up to which the Hessian itself is taken apart: eigenvectors of 2,000 take seconds.
_DENSE = 1_500


def hessian(
    inputs: Float[Tensor, "row feature"], theta: Float[Tensor, "feature class"]
) -> Float[Tensor, "parameter parameter"]:
    """Σ_i x_i x_iᵀ ⊗ (diag(p_i) − p_i p_iᵀ), of the loss without its penalty.

    Args:
        inputs: the rows that are summed over.
        theta: the parameters at which it is taken; flattened they are the axes of the matrix.
    """
    p = (inputs @ theta).softmax(dim=-1)
    n_features, n_classes = theta.shape
    found = theta.new_empty(n_features, n_classes, n_features, n_classes)
    for one in range(n_classes):
        for other in range(one, n_classes):
            weight = p[:, one] * (float(one == other) - p[:, other])
            block = inputs.T @ (weight[:, None] * inputs)
            found[:, one, :, other] = block
            found[:, other, :, one] = block
    return found.flatten(2).flatten(0, 1)


class Curvature(ABC):
    """The Hessian at one place, taken apart so that (s · Hessian + λI)⁻¹ is cheap for any s."""

    @abstractmethod
    def solve(
        self, slope: Float[Tensor, "parameter some"], share: Float[Tensor, " some"], l2: float
    ) -> Float[Tensor, "parameter some"]:
        """(s · Hessian + λI)⁻¹ times each slope, with an s of its own."""


def curvature_at(
    inputs: Float[Tensor, "row feature"], theta: Float[Tensor, "feature class"]
) -> Curvature:
    """The curvature of the summed loss at `theta`; of many parameters a Kronecker product near it.

    Args:
        inputs: the rows that are summed over.
        theta: the parameters.
    """
    if theta.numel() <= _DENSE:
        return _Dense(hessian(inputs, theta))
    return _Kronecker(inputs, theta)


class _Dense(Curvature):
    """The Hessian itself; in single precision, as it only steers a search."""

    def __init__(self, whole: Float[Tensor, "parameter parameter"]) -> None:
        values, vectors = torch.linalg.eigh(whole)
        self._values, self._vectors = values.clamp(min=0).float(), vectors.float()

    def solve(self, slope: Tensor, share: Tensor, l2: float) -> Tensor:
        turned = self._vectors.T @ slope.float()
        turned /= self._values[:, None] * share.float() + l2
        return (self._vectors @ turned).to(slope)


class _Kronecker(Curvature):
    """(Σ_i x_i x_iᵀ) ⊗ (mean over i of diag(p_i) − p_i p_iᵀ) (Martens & Grosse 2015)."""

    def __init__(
        self, inputs: Float[Tensor, "row feature"], theta: Float[Tensor, "feature class"]
    ) -> None:
        p = (inputs @ theta).softmax(dim=-1)
        values, vectors = torch.linalg.eigh(inputs.T @ inputs)
        self._over_features = vectors.float()
        of_classes, vectors = torch.linalg.eigh(torch.diag(p.mean(dim=0)) - p.T @ p / len(p))
        self._over_classes = vectors.float()
        product = values.clamp(min=0)[:, None] * of_classes.clamp(min=0)
        self._values = product.float()[..., None]

    def solve(self, slope: Tensor, share: Tensor, l2: float) -> Tensor:
        shape = (*self._values.shape[:2], slope.shape[1])
        turned = (self._over_features.T @ slope.float().reshape(shape[0], -1)).reshape(shape)
        turned = self._over_classes.T @ turned
        turned = self._over_classes @ turned.div_(self._values * share.float() + l2)
        return (self._over_features @ turned.reshape(shape[0], -1)).reshape(slope.shape).to(slope)
