"""Boosted trees of several folds, and their settings by cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from mechspex.decoders.boosting import STEP, Boosting, BoostTrees, cross_validated_errors
from mechspex.decoders.cross_validation import Split
from mechspex.decoders.decoder import Samples
from mechspex.decoders.trees import Forest

# With several outputs trees are fitted to the mean and to so many principal components of the rest,
# or to fewer if those already hold this share of the variance.
_MOST_COMPONENTS = 3
_VARIANCE = 0.9
# A direction of the outputs is rounding if its standard deviation is below this share of the
# largest one.
_ROUNDING_OF_SPREAD = 1e-9


@dataclass(frozen=True)
class TreeTargets:
    """What trees are fitted to: the outputs, turned into directions of their own.

    LightGBM works in single precision: without their mean, and at unit scale, the values keep more
    digits.

    Attributes:
        samples: the masks, and the values of each direction.
        n_forests: how many of the directions, from the first, get trees.
        main: the direction among these that varies most.
        back: the outputs of each direction at unit scale.
        mean: the mean of each output.
    """

    samples: Samples
    n_forests: int
    main: int
    back: Float[np.ndarray, "direction output"]
    mean: Float[np.ndarray, " output"]

    @classmethod
    def of(cls, samples: Samples) -> TreeTargets:
        """The targets of some masks.

        Args:
            samples: the masks and the values of each output.
        """
        mean = samples.values.mean(axis=0)
        directions, n_forests = _directions(samples.values - mean)
        turned = (samples.values - mean) @ directions.T
        spread = turned.std(axis=0)
        main = int(np.argmax(spread[:n_forests]))
        samples = replace(samples, values=turned / spread)
        return cls(samples, n_forests, main, spread[:, None] * directions, mean)


@dataclass(frozen=True)
class TreeSetting:
    """How the trees of one target are grown.

    Attributes:
        target: the direction that they are fitted to.
        depth: the depth of every tree.
        rate: the learning rate.
        n_trees: how many trees.
    """

    target: int
    depth: int
    rate: float
    n_trees: int


@dataclass(frozen=True)
class SettledTrees:
    """What cross-validation settled, so that other parts of the same masks need not settle it anew.

    Attributes:
        settings: the setting of each target.
        refit: whether the largest coefficients are refitted.
    """

    settings: tuple[TreeSetting, ...]
    refit: bool


@dataclass(frozen=True)
class _Grown:
    depth: int
    rate: float
    boostings: Sequence[Boosting]
    errors: Float[np.ndarray, "step fold"]
    most_trees: int

    def error(self, folds: Sequence[int]) -> float:
        return float(self.errors[:, folds].sum(axis=1).min())

    def n_trees(self, folds: Sequence[int]) -> int:
        best = int(np.argmin(self.errors[:, folds].sum(axis=1)))
        return min(STEP * (best + 1), self.most_trees)


class FoldTrees:
    """Trees grown on the training masks of every fold, at every setting that is tried.

    Args:
        boost: the function that boosts trees.
        targets: what they are fitted to.
        splits: (training rows, test rows) of each fold.
        n_trees: the most trees.
    """

    def __init__(
        self, boost: BoostTrees, targets: TreeTargets, splits: Sequence[Split], n_trees: int
    ) -> None:
        self._boost, self._targets, self._splits = boost, targets, splits
        self._n_trees = n_trees
        self._grown: dict[tuple[int, int, float], _Grown] = {}
        # Those of the main target, in the order in which they were tried.
        self._tried: list[_Grown] = []

    def try_settings(self, depths: Sequence[int], rates: Sequence[float]) -> None:
        """Grow the main target's trees: each depth at the first rate, the best at the other rates.

        Args:
            depths: the depths.
            rates: the learning rates.
        """
        for depth in depths:
            self._try(depth, rates[0])
        best = self._best(range(len(self._splits)))
        for rate in rates[1:]:
            self._try(best.depth, rate)

    def choose(self, folds: Sequence[int]) -> list[TreeSetting]:
        """The settings, target by target, with the least error on the held-out masks of some folds.

        Args:
            folds: the numbers of the folds.
        """
        best = self._best(folds)
        return [
            TreeSetting(
                target,
                best.depth,
                best.rate,
                self._grow(target, best.depth, best.rate).n_trees(folds),
            )
            for target in range(self._targets.n_forests)
        ]

    def forests(self, fold: int, settings: Sequence[TreeSetting]) -> list[Forest]:
        """The trees that one fold's training masks give, a forest a target.

        Args:
            fold: the number of the fold.
            settings: the settings of each target.
        """
        return [
            self._grow(setting.target, setting.depth, setting.rate)
            .boostings[fold]
            .forest(setting.n_trees)
            for setting in settings
        ]

    def _best(self, folds: Sequence[int]) -> _Grown:
        return min(self._tried, key=lambda grown: grown.error(folds))

    def _try(self, depth: int, rate: float) -> None:
        every = range(len(self._splits))
        to_beat = min((grown.error(every) for grown in self._tried), default=np.inf)
        self._tried.append(self._grow(self._targets.main, depth, rate, to_beat))

    def _grow(self, target: int, depth: int, rate: float, to_beat: float = np.inf) -> _Grown:
        key = (target, depth, rate)
        if key not in self._grown:
            boostings = [
                _start(self._boost, self._targets, split, target, depth, rate)
                for split in self._splits
            ]
            errors = cross_validated_errors(boostings, self._n_trees, rate, to_beat)
            self._grown[key] = _Grown(depth, rate, boostings, errors, self._n_trees)
        return self._grown[key]


def grow(boost: BoostTrees, targets: TreeTargets, setting: TreeSetting) -> Forest:
    """The trees that all masks give.

    Args:
        boost: the function that boosts trees.
        targets: what they are fitted to.
        setting: which of the targets, and its setting.
    """
    every = np.arange(targets.samples.n_masks)
    split = every, every[:0]
    boosting = _start(boost, targets, split, setting.target, setting.depth, setting.rate)
    boosting.grow(setting.n_trees)
    return boosting.forest(setting.n_trees)


def _start(
    boost: BoostTrees, targets: TreeTargets, split: Split, target: int, depth: int, rate: float
) -> Boosting:
    samples = targets.samples
    train, held_out = ((samples.masks[rows], samples.values[rows, target]) for rows in split)
    return boost(train, held_out, depth=depth, rate=rate, seed=samples.seed)


def _directions(
    centred: Float[np.ndarray, "mask output"],
) -> tuple[Float[np.ndarray, "direction output"], int]:
    """Orthonormal directions of the outputs, and how many of them get trees.

    The first is their mean, which so is decoded as if it were alone; then come the principal
    components of the rest, in which what cancels in the mean shows.
    """
    n_outputs = centred.shape[1]
    mean = np.full((1, n_outputs), n_outputs**-0.5)
    rest = centred - centred @ mean.T @ mean
    # Below zero the mean comes first, and all others are orthogonal to it.
    _, components = np.linalg.eigh(rest.T @ rest - (centred**2).sum() * mean.T @ mean)
    directions = np.vstack([mean, components.T[:0:-1]])
    variances = ((centred @ directions.T) ** 2).sum(axis=0)
    real = variances > _ROUNDING_OF_SPREAD**2 * variances.max()
    directions, variances = directions[real], variances[real]
    enough = np.cumsum(variances) >= _VARIANCE * variances.sum()
    return directions, min(1 + _MOST_COMPONENTS, int(np.argmax(enough)) + 1)
