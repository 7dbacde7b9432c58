"""Ridge and kernel ridge regression on any part of the data, in closed form."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import one_hot

from mechspex.core.errors import Refused
from mechspex.training.checks import check_positive
from mechspex.training.labelled_data import LabelledData
from mechspex.training.learner import Learner, Problem, Trained

KernelName = Literal["rbf", "linear"]

# Entries of the matrices that are solved at once.
_ENTRIES = 2**22


class _Smoother(Learner):
    """Predictions that are linear in the labels: k_S(t)ᵀ (K_SS + λI)⁻¹ y_S for the part S."""

    l2: float

    @property
    @abstractmethod
    def is_linear(self) -> bool:
        """Whether the kernel is xᵀx′."""

    @abstractmethod
    def features(self, data: LabelledData, device: torch.device) -> Float[Tensor, "row feature"]:
        """What the kernel is a function of."""

    @abstractmethod
    def products(self, one: Tensor, other: Tensor) -> Float[Tensor, "row row"]:
        """The kernel of all rows of one with all rows of the other."""

    def prepare(self, problem: Problem) -> Trained:
        rows = self.features(problem.data, problem.device)
        asked = self.features(problem.targets, problem.device)
        labels = problem.data.labels.to(problem.device)
        goal = labels.double()[:, None]
        if not problem.data.is_regression:
            if labels.ndim > 1:
                raise Refused(f"{type(self).__name__} learns one label a row; give labels [row]")
            goal = one_hot(labels, problem.n_classes).double()
        kernel, across = self.products(rows, rows), self.products(asked, rows)
        features = (rows, asked) if self.is_linear else None
        return _Fits(problem, kernel, across, goal, self.l2, features)


@dataclass(frozen=True)
class RidgeRegression(_Smoother):
    """Linear least squares, Σ_i ‖y_i − θᵀx_i‖² + `l2` ‖θ‖², with classes as columns of 0 and 1.

    The intercept is a feature that is always 1 and is penalised like the others, so that every
    part of the data, the empty one too, has one minimum.

    Attributes:
        l2: the penalty λ > 0, ``alpha`` of scikit-learn's ``Ridge``.
        intercept: whether a feature that is always 1 is added.
    """

    l2: float = 1.0
    intercept: bool = True

    def __post_init__(self) -> None:
        check_positive("l2", self.l2)

    @property
    def is_linear(self) -> bool:
        return True

    def features(self, data: LabelledData, device: torch.device) -> Tensor:
        return data.features(device, intercept=self.intercept)

    def products(self, one: Tensor, other: Tensor) -> Tensor:
        return one @ other.T


@dataclass(frozen=True)
class KernelRidgeRegression(_Smoother):
    """Least squares in the space of a kernel, with classes as columns of 0 and 1.

    Attributes:
        l2: the penalty λ > 0, ``alpha`` of scikit-learn's ``KernelRidge``.
        kernel: ``rbf``, exp(−γ ‖x − x′‖²), or ``linear``, xᵀx′.
        gamma: the γ of ``rbf``; 1 / (number of features) if not given.
    """

    l2: float = 1.0
    kernel: KernelName = "rbf"
    gamma: float | None = None

    def __post_init__(self) -> None:
        check_positive("l2", self.l2)
        if self.gamma is not None:
            check_positive("gamma", self.gamma)
        if self.kernel not in get_args(KernelName):
            raise Refused(f"kernel = {self.kernel!r}: choose {', '.join(get_args(KernelName))}")

    @property
    def is_linear(self) -> bool:
        return self.kernel == "linear"

    def features(self, data: LabelledData, device: torch.device) -> Tensor:
        return data.features(device, intercept=False)

    def products(self, one: Tensor, other: Tensor) -> Tensor:
        if self.kernel == "linear":
            return one @ other.T
        gamma = 1 / one.shape[1] if self.gamma is None else self.gamma
        return torch.exp(-gamma * torch.cdist(one, other).square())


class _Fits(Trained):
    """Closed-form fits on parts of the data.

    With G = (K + λI)⁻¹ and α = G y of the whole, leaving out the rows R gives
    f(t) = k(t)ᵀα − (k(t)ᵀG)_R (G_RR)⁻¹ α_R, by the inverse of a block (Woodbury). So a part costs a
    system as large as the rows it keeps or those it leaves out, whichever are fewer; of a linear
    kernel with fewer features than that, one as large as they are many.
    """

    def __init__(
        self,
        problem: Problem,
        kernel: Tensor,
        across: Tensor,
        goal: Tensor,
        l2: float,
        features: tuple[Tensor, Tensor] | None,
    ) -> None:
        self._problem, self._goal, self._across = problem, goal, across
        self._l2, self._features = l2, features
        self._system = kernel + l2 * torch.eye(
            len(kernel), dtype=kernel.dtype, device=kernel.device
        )
        self._inverse = torch.cholesky_inverse(torch.linalg.cholesky(self._system))
        self._whole = self._inverse @ goal
        self._leverage = across @ self._inverse

    def __call__(self, kept: Bool[Tensor, "mask row"], seed: int = 0) -> Tensor:
        logits = self.predictions(kept)
        if self._problem.data.is_regression:
            logits = logits[..., 0]
        return self._problem.outcomes(logits)

    def predictions(self, kept: Bool[Tensor, "mask row"]) -> Float[Tensor, "mask target output"]:
        """Σ over rows, of which each part keeps some."""
        kept = kept.to(self._goal.device)
        n_rows, n_targets, n_outputs = len(self._goal), len(self._across), self._goal.shape[1]
        found = self._goal.new_empty(len(kept), n_targets, n_outputs)
        n_kept = kept.sum(dim=1)
        few_kept = n_kept <= n_rows // 2
        if self._features is not None:
            many = torch.minimum(n_kept, n_rows - n_kept) > self._features[0].shape[1]
            found[many] = self._by_features(kept[many])
            few_kept, many_kept = few_kept & ~many, ~few_kept & ~many
        else:
            many_kept = ~few_kept
        sides = (
            (few_kept, kept, self._system, self._goal, self._across, 0 * self._across @ self._goal),
            (many_kept, ~kept, self._inverse, self._whole, -self._leverage,
             self._across @ self._whole),
        )  # fmt: skip
        for here, chosen, system, goal, across, start in sides:
            rows = here.nonzero()[:, 0]
            # Parts of like size side by side, as the systems of a batch are of one size.
            rows = rows[chosen[rows].sum(dim=1).argsort()]
            for few in _batches(rows, chosen):
                solved = _solve(chosen[few], system, goal)
                found[few] = start + across @ solved
        return found

    def _by_features(self, kept: Bool[Tensor, "mask row"]) -> Tensor:
        """θ = (Σ_i x_i x_iᵀ + λI)⁻¹ Σ_i x_i y_iᵀ over the kept rows, and what it predicts."""
        assert self._features is not None
        inputs, asked = self._features
        ridge = self._l2 * torch.eye(inputs.shape[1]).to(inputs)
        found = []
        for few in kept.to(inputs).split(max(1, _ENTRIES // inputs.numel())):
            weighted = inputs.T * few[:, None]
            gram = weighted @ inputs + ridge
            theta = torch.cholesky_solve(weighted @ self._goal, torch.linalg.cholesky(gram))
            found.append(asked @ theta)
        return torch.cat(found) if found else inputs.new_empty(0, len(asked), self._goal.shape[1])


def _batches(rows: Tensor, chosen: Bool[Tensor, "mask row"]) -> list[Tensor]:
    """The rows in runs whose systems fit together into the memory that is meant for them."""
    sizes, runs, start = chosen[rows].sum(dim=1).tolist(), [], 0
    for end in range(1, len(sizes) + 1):
        largest = max(1, sizes[min(end, len(sizes) - 1)])
        if end == len(sizes) or (end + 1 - start) * largest**2 > _ENTRIES:
            runs.append(rows[start:end])
            start = end
    return runs


def _solve(
    chosen: Bool[Tensor, "mask row"], system: Float[Tensor, "row row"], goal: Tensor
) -> Float[Tensor, "mask row output"]:
    """The solution of the chosen rows and columns of a system, zero at the other rows."""
    size = int(chosen.sum(dim=1).max())
    # Chosen rows first; a batch's smaller systems are filled up with rows of the unit matrix.
    order = chosen.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :size]
    real = chosen.gather(1, order)
    blocks = system[order[:, :, None], order[:, None, :]]
    blocks = torch.where(real[:, :, None] & real[:, None, :], blocks, 0)
    blocks = blocks + torch.diag_embed((~real).to(blocks.dtype))
    factor = torch.linalg.cholesky_ex(blocks).L
    solved = torch.cholesky_solve(torch.where(real[..., None], goal[order], 0), factor)
    spread = solved.new_zeros(len(chosen), chosen.shape[1], goal.shape[1])
    return spread.scatter_(1, order[..., None].expand_as(solved), solved)
