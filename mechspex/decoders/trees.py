"""Boosted regression trees and their exact Fourier coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from sklearn.ensemble import GradientBoostingRegressor

from mechspex.decoders.decoder import Samples
from mechspex.errors import MechspexError
from mechspex.set_function import Term

LEARNING_RATE = 0.1


class TreesUnavailable(MechspexError):
    """LightGBM is not installed or failed; the message says which."""


@dataclass(frozen=True)
class Tree:
    """A leaf (`unit` is None) with its `value`, or a split of the masks on one unit."""

    value: float = 0.0
    unit: int | None = None
    ablated: Tree | None = None
    kept: Tree | None = None


def fit_lightgbm(samples: Samples, *, depth: int, n_trees: int) -> list[Tree]:
    """Trees whose sum is the model, by LightGBM with one thread.

    Raises:
        TreesUnavailable: LightGBM cannot be imported, or fails.
    """
    try:
        import lightgbm
    except (ImportError, OSError) as error:
        raise TreesUnavailable(f"LightGBM could not be imported ({error})") from error
    parameters = {
        "objective": "regression",
        "learning_rate": LEARNING_RATE,
        "max_depth": depth,
        "num_leaves": 2**depth,
        "min_data_in_leaf": 5,
        "min_data_in_bin": 1,
        "max_bin": 3,
        "feature_pre_filter": False,
        "enable_bundle": False,
        "num_threads": 1,
        "deterministic": True,
        "force_col_wise": True,
        "seed": samples.seed,
        "verbosity": -1,
    }
    try:
        data = lightgbm.Dataset(samples.masks.astype(np.float64), samples.values)
        model = lightgbm.train(parameters, data, num_boost_round=n_trees).dump_model()
    except lightgbm.basic.LightGBMError as error:
        raise TreesUnavailable(f"LightGBM failed ({error})") from error
    return [_from_lightgbm(tree["tree_structure"]) for tree in model["tree_info"]]


def _from_lightgbm(node: dict[str, Any]) -> Tree:
    if "leaf_value" in node:
        return Tree(float(node["leaf_value"]))
    return Tree(
        unit=node["split_feature"],
        ablated=_from_lightgbm(node["left_child"]),
        kept=_from_lightgbm(node["right_child"]),
    )


def fit_scikit_learn(samples: Samples, *, depth: int, n_trees: int) -> list[Tree]:
    """The fallback: gradient-boosted trees of scikit-learn, slower, on a share of the units."""
    model = GradientBoostingRegressor(
        learning_rate=LEARNING_RATE,
        max_depth=depth,
        n_estimators=n_trees,
        min_samples_leaf=5,
        max_features=max(min(samples.n_units, 8), samples.n_units // 4),
        random_state=samples.seed,
    ).fit(samples.masks, samples.values)
    constant = Tree(float(samples.values.mean()))
    return [constant, *(_from_scikit_learn(m.tree_, 0) for m in model.estimators_[:, 0])]


def _from_scikit_learn(tree: Any, node: int) -> Tree:
    if tree.children_left[node] < 0:
        return Tree(LEARNING_RATE * float(tree.value[node, 0, 0]))
    return Tree(
        unit=int(tree.feature[node]),
        ablated=_from_scikit_learn(tree, int(tree.children_left[node])),
        kept=_from_scikit_learn(tree, int(tree.children_right[node])),
    )


def predictions(tree: Tree, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, " mask"]:
    """The tree's value for every mask."""
    values = np.empty(len(masks))
    pending = [(tree, np.arange(len(masks)))]
    while pending:
        node, rows = pending.pop()
        if node.unit is None or node.ablated is None or node.kept is None:
            values[rows] = node.value
        else:
            kept = masks[rows, node.unit]
            pending += [(node.kept, rows[kept]), (node.ablated, rows[~kept])]
    return values


def fourier(trees: Sequence[Tree], keep: float) -> dict[Term, float]:
    """The exact fourier(p) coefficients of a sum of trees.

    A leaf is {∅: v}. A split on unit i with children A (ablated) and K (kept) is
    A + m_i (K − A) with m_i = p + σ z_i, so N[S] = q·A[S] + p·K[S] and
    N[S ∪ {i}] = σ (K[S] − A[S]): ProxySPEX's recursion (Butler et al. 2025), there at p = ½.
    """
    total: dict[Term, float] = {}
    for tree in trees:
        for term, value in _tree_fourier(tree, keep).items():
            total[term] = total.get(term, 0.0) + value
    return total


def _tree_fourier(tree: Tree, keep: float) -> dict[Term, float]:
    if tree.unit is None or tree.ablated is None or tree.kept is None:
        return {(): tree.value}
    sigma = (keep * (1 - keep)) ** 0.5
    ablated, kept = _tree_fourier(tree.ablated, keep), _tree_fourier(tree.kept, keep)
    node: dict[Term, float] = {}
    # A unit never splits twice on a path, so S ∪ {i} is new for every S.
    for term in ablated | kept:
        a, k = ablated.get(term, 0.0), kept.get(term, 0.0)
        node[term] = (1 - keep) * a + keep * k
        node[tuple(sorted((*term, tree.unit)))] = sigma * (k - a)
    return node
