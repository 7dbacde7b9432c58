"""Boosting of regression trees, tree by tree: by LightGBM, or by scikit-learn in its place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.errors import MechspexError
from mechspex.decoders.trees import Forest, join

_SMALLEST_LEAF = 5
# scikit-learn boosts trees in blocks of this many.
_BLOCK = 50
# Boosting ends when the squared error on held-out masks has not lost this share in so many trees,
# times 1 / rate. Where rare masks matter it can stand still for a hundred trees and fall again.
_GAIN = 0.01
_PATIENCE = 10
# Trees between two looks at held-out masks; a look takes as long as a tree.
STEP = 5
# Trees that LightGBM writes at once: what takes more than 1 MB it writes twice.
_TREES_A_TEXT = 100

# Masks and the value of each: those that trees are fitted to, and those that they are judged by.
Training = tuple[Bool[np.ndarray, "mask unit"], Float[np.ndarray, " mask"]]
HeldOut = tuple[Bool[np.ndarray, "held_out unit"], Float[np.ndarray, " held_out"]]


class TreesUnavailable(MechspexError):
    """LightGBM is not installed or failed; the message says which."""


class Boosting(ABC):
    """Trees that are boosted one after the other; where no split is left they stay as they are."""

    @abstractmethod
    def grow(self, n_trees: int) -> float:
        """Boost some more trees.

        Args:
            n_trees: how many.

        Returns:
            The squared error Σ(f − f̂)² of all trees on the held-out masks, 0 where there are none.
        """

    @abstractmethod
    def forest(self, n_trees: int) -> Forest:
        """The first trees.

        Args:
            n_trees: how many of those that were boosted.
        """


@runtime_checkable
class BoostTrees(Protocol):
    """A function that starts to boost trees on some masks, and follows others held out."""

    def __call__(
        self, train: Training, held_out: HeldOut, *, depth: int, rate: float, seed: int
    ) -> Boosting: ...


def cross_validated_errors(
    boostings: Sequence[Boosting], n_trees: int, rate: float, to_beat: float = np.inf
) -> Float[np.ndarray, "step fold"]:
    """Grow the trees of all folds together for as long as they help with held-out masks.

    Growth ends where the error falls too slowly to matter, or to come below `to_beat` in the trees
    that are left. Its logarithm falls ever more slowly, so its latest slope is a bound.

    Args:
        boostings: one a fold.
        n_trees: the most trees.
        rate: the learning rate: slower trees are given more time.
        to_beat: the error of what was tried before.

    Returns:
        The squared error on the masks that each fold holds out, after every `STEP` trees and after
        the last.
    """
    patience = round(_PATIENCE / rate / STEP)
    errors: list[list[float]] = []
    least: list[float] = []
    for start in range(0, n_trees, STEP):
        step = min(STEP, n_trees - start)
        errors.append([boosting.grow(step) for boosting in boostings])
        least.append(min(sum(errors[-1]), least[-1] if least else np.inf))
        if len(least) <= patience:
            continue
        fall = least[-1] / least[-1 - patience]
        within_reach = least[-1] * fall ** ((n_trees - start - step) / STEP / patience)
        if fall > 1 - _GAIN or within_reach > to_beat:
            break
    return np.array(errors)


def boost_lightgbm(
    train: Training, held_out: HeldOut, *, depth: int, rate: float, seed: int
) -> Boosting:
    """Trees by LightGBM with one thread.

    Args:
        train: masks, True = kept, and the values to predict.
        held_out: the masks and values that errors are measured on; there may be none.
        depth: the depth of every tree.
        rate: the learning rate.
        seed: the only source of randomness.

    Raises:
        TreesUnavailable: LightGBM cannot be imported, or fails.
    """
    parameters = {
        "objective": "regression",
        "metric": "None",
        "learning_rate": rate,
        "max_depth": depth,
        "num_leaves": 2**depth,
        "min_data_in_leaf": _SMALLEST_LEAF,
        "min_data_in_bin": 1,
        "max_bin": 3,
        "feature_pre_filter": False,
        "enable_bundle": False,
        "num_threads": 1,
        "deterministic": True,
        # Row by row only the rarer state of a unit is counted: ten times as fast at p = 0.9.
        "force_row_wise": True,
        "seed": seed,
        "verbosity": -1,
    }
    return _LightGBM(train, held_out, parameters)


class _LightGBM(Boosting):
    def __init__(self, train: Training, held_out: HeldOut, parameters: dict[str, Any]) -> None:
        try:
            import lightgbm
        except (ImportError, OSError) as error:
            raise TreesUnavailable(f"LightGBM could not be imported ({error})") from error
        self._failure = lightgbm.basic.LightGBMError
        self._values, self._error, self._can_split = held_out[1], 0.0, True
        with self._failing():
            data = lightgbm.Dataset(train[0].astype(np.float32), train[1], params=parameters)
            self._booster = lightgbm.Booster(parameters, data)
            if len(self._values):
                masks = held_out[0].astype(np.float32)
                followed = data.create_valid(masks, self._values, params=parameters)
                self._booster.add_valid(followed, "held out")

    def grow(self, n_trees: int) -> float:
        with self._failing():
            for _ in range(n_trees if self._can_split else 0):
                self._can_split = self._can_split and not self._booster.update()
            if len(self._values):
                self._error = self._booster.eval_valid(self._squared_error)[0][2]
        return self._error

    def forest(self, n_trees: int) -> Forest:
        texts = (
            self._booster.model_to_string(min(_TREES_A_TEXT, n_trees - start), start)
            for start in range(0, n_trees, _TREES_A_TEXT)
        )
        return _from_lightgbm("\n".join(texts))

    def _squared_error(self, predicted: np.ndarray, _: Any) -> tuple[str, float, bool]:
        return "squared error", float(((self._values - predicted) ** 2).sum()), False

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except self._failure as error:
            raise TreesUnavailable(f"LightGBM failed ({error})") from error


def _from_lightgbm(model: str) -> Forest:
    """LightGBM's text format: every tree has its splits and its leaves, each numbered from 0.

    A child below 0 is the leaf −1 − child.
    """

    lines: dict[str, list[str]] = defaultdict(list)
    for line in model.split("\n"):
        name, _, numbers = line.partition("=")
        lines[name].append(numbers)

    def column(name: str, dtype: type) -> np.ndarray:
        return np.fromstring(" ".join(lines[name]), dtype, sep=" ")

    n_leaves = column("num_leaves", int)
    n_splits = n_leaves - 1
    # The nodes of a tree: its splits, then its leaves.
    roots = np.cumsum(n_splits + n_leaves) - n_splits - n_leaves
    is_leaf = np.repeat(
        np.arange(2 * len(roots)) % 2 == 1, np.column_stack([n_splits, n_leaves]).ravel()
    )
    unit = np.full(len(is_leaf), -1)
    unit[~is_leaf] = column("split_feature", int)
    value = np.zeros(len(is_leaf))
    value[is_leaf] = column("leaf_value", float)
    first, first_leaf = np.repeat(roots, n_splits), np.repeat(roots + n_splits, n_splits)

    def way(name: str) -> np.ndarray:
        child, following = column(name, int), np.arange(len(is_leaf))
        following[~is_leaf] = np.where(child >= 0, first + child, first_leaf - 1 - child)
        return following

    return Forest(roots, unit, way("left_child"), way("right_child"), value)


def boost_scikit_learn(
    train: Training, held_out: HeldOut, *, depth: int, rate: float, seed: int
) -> Boosting:
    """The fallback: gradient-boosted trees of scikit-learn, which are slower.

    Each split looks at a random quarter of the units (but at least eight).

    Args:
        train: masks, True = kept, and the values to predict.
        held_out: the masks and values that errors are measured on; there may be none.
        depth: the depth of every tree.
        rate: the learning rate.
        seed: the only source of randomness.
    """
    # Loading it takes longer than most searches whose answer needs no trees.
    from sklearn.ensemble import GradientBoostingRegressor

    n_units = train[0].shape[1]
    model = GradientBoostingRegressor(
        init="zero",
        learning_rate=rate,
        max_depth=depth,
        n_estimators=0,
        min_samples_leaf=_SMALLEST_LEAF,
        max_features=max(min(n_units, 8), n_units // 4),
        random_state=seed,
        warm_start=True,
    )
    return _ScikitLearn(train, held_out, model, rate)


class _ScikitLearn(Boosting):
    def __init__(self, train: Training, held_out: HeldOut, model: Any, rate: float) -> None:
        self._train, self._held_out, self._model, self._rate = train, held_out, model, rate
        self._mean = float(train[1].mean())
        # What is left of the held-out values.
        self._left = held_out[1]
        self._trees: list[Forest] = []
        self._errors: list[float] = []
        self._n_trees = 0

    def grow(self, n_trees: int) -> float:
        self._n_trees += n_trees
        while self._n_trees > len(self._trees):
            self._boost_block()
        return self._errors[self._n_trees - 1]

    def _boost_block(self) -> None:
        masks, values = self._train
        self._model.set_params(n_estimators=len(self._trees) + _BLOCK)
        self._model.fit(masks, values - self._mean)
        trees = [
            _from_scikit_learn(t.tree_, self._rate) for t in self._model.estimators_[-_BLOCK:, 0]
        ]
        if not self._trees:
            # The first tree takes the mean of the values with it.
            trees[0] = replace(trees[0], value=trees[0].value + self._mean * (trees[0].unit < 0))
        self._trees += trees
        left = self._left - np.cumsum(join(trees).predict_trees(self._held_out[0]), axis=0)
        self._left = left[-1]
        self._errors += (left**2).sum(axis=1).tolist()

    def forest(self, n_trees: int) -> Forest:
        return join(self._trees[:n_trees])


def _from_scikit_learn(tree: Any, rate: float) -> Forest:
    itself, is_leaf = np.arange(tree.node_count), tree.children_left < 0
    return Forest(
        np.zeros(1, dtype=int),
        np.where(is_leaf, -1, tree.feature).astype(int),
        np.where(is_leaf, itself, tree.children_left).astype(int),
        np.where(is_leaf, itself, tree.children_right).astype(int),
        np.where(is_leaf, rate * tree.value[:, 0, 0], 0.0),
    )
