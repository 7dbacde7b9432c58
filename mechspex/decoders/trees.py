"""Boosted regression trees as arrays of nodes, and their exact Fourier coefficients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

# Keys of sets of units stay below this, so that they fit an int64.
_LARGEST_KEY = 1 << 62


@dataclass(frozen=True)
class Forest:
    """Boosted trees whose sum is the model; one list holds the nodes of all trees.

    Attributes:
        roots: the first node of every tree, in the order in which they were boosted.
        unit: the unit whose masks a node splits; −1 for a leaf.
        ablated: the node that follows where that unit is ablated; a leaf follows itself.
        kept: the node that follows where that unit is kept; a leaf follows itself.
        value: a leaf's prediction; 0 for any other node.
    """

    roots: Int[np.ndarray, " tree"]
    unit: Int[np.ndarray, " node"]
    ablated: Int[np.ndarray, " node"]
    kept: Int[np.ndarray, " node"]
    value: Float[np.ndarray, " node"]

    @property
    def n_trees(self) -> int:
        """How many trees the forest has."""
        return len(self.roots)

    def predict_trees(self, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, "tree mask"]:
        """The prediction of every tree for every mask; the forest predicts their sum."""
        n_masks = len(masks)
        columns, rows = masks.T.ravel(), np.arange(n_masks)
        at = np.repeat(self.roots[:, None], n_masks, axis=1)
        unit = self.unit[at]
        while (unit >= 0).any():
            # A leaf asks the last unit, in vain: both ways lead back to it.
            kept = columns[unit % masks.shape[1] * n_masks + rows]
            at = np.where(kept, self.kept[at], self.ablated[at])
            unit = self.unit[at]
        return self.value[at]


def join(forests: Sequence[Forest]) -> Forest:
    """The trees of several forests, in their order."""
    sizes = [len(forest.unit) for forest in forests]
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    n_trees = [forest.n_trees for forest in forests]
    return Forest(
        np.concatenate([f.roots for f in forests]) + np.repeat(np.cumsum(sizes) - sizes, n_trees),
        np.concatenate([f.unit for f in forests]),
        np.concatenate([f.ablated for f in forests]) + starts,
        np.concatenate([f.kept for f in forests]) + starts,
        np.concatenate([f.value for f in forests]),
    )


def fourier(
    forests: Sequence[Forest], keep: float
) -> tuple[Int[np.ndarray, "term unit"], Float[np.ndarray, "term forest"]]:
    """Exact fourier(p) coefficients of some forests, on the terms that any of them has.

    Let E_ν be the mean over the design of the leaves below node ν. A split on unit u with children
    A (ablated) and K (kept) moves that mean by (m_u − p)(E_K − E_A). So a tree is

        E_root + Σ_ν [the mask reaches ν] · σ (E_K − E_A) · z_u,

    and the bracket is a product, over the splits above ν, of m_i = p + σ z_i or
    1 − m_i = q − σ z_i. This is the recursion of ProxySPEX, there at p = ½ (Butler et al. 2025,
    algorithm 1), in closed form and for every p.

    Args:
        forests: one forest an output.
        keep: the probability p, strictly between 0 and 1.

    Returns:
        The terms, a row of units each and −1 as a filler, the constant first; and the coefficients
        ``[term, forest]``.
    """
    constants = np.zeros((1, len(forests)))
    # By order of the terms: their units [term, order], coefficients and forests.
    by_order: dict[int, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    for number, forest in enumerate(forests):
        levels = _levels(forest)
        mean = forest.value.copy()
        for nodes, _, _ in reversed(levels):
            mean[nodes] = (1 - keep) * mean[forest.ablated[nodes]] + keep * mean[forest.kept[nodes]]
        constants[0, number] = mean[forest.roots].sum()
        for nodes, above, was_kept in levels:
            jumps = mean[forest.kept[nodes]] - mean[forest.ablated[nodes]]
            for members, values in _expand(forest.unit[nodes], jumps, above, was_kept, keep):
                by_order.setdefault(members.shape[1], []).append(
                    (members, values, np.full(len(values), number))
                )
    highest = max(by_order, default=0)
    terms: list[np.ndarray] = [np.full((1, highest), -1)]
    coefficients: list[np.ndarray] = [constants]
    for order in sorted(by_order):
        members, values, numbers = map(np.concatenate, zip(*by_order[order], strict=True))
        first, group = _equal_rows(members)
        filler = np.full((len(first), highest - order), -1)
        terms.append(np.column_stack([members[first], filler]))
        size = len(first) * len(forests)
        summed = np.bincount(group * len(forests) + numbers, values, size)
        coefficients.append(summed.reshape(len(first), len(forests)))
    return np.concatenate(terms), np.concatenate(coefficients)


def _levels(forest: Forest) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The splits, level by level: nodes, the units split above them, whether these are kept."""
    nodes = forest.roots
    above = np.empty((len(nodes), 0), dtype=np.int64)
    was_kept = np.empty((len(nodes), 0), dtype=bool)
    levels = []
    while len(nodes):
        split = forest.unit[nodes] >= 0
        nodes, above, was_kept = nodes[split], above[split], was_kept[split]
        levels.append((nodes, above, was_kept))
        above = np.tile(np.column_stack([above, forest.unit[nodes]]), (2, 1))
        is_kept = np.arange(2 * len(nodes)) >= len(nodes)
        was_kept = np.column_stack([np.tile(was_kept, (2, 1)), is_kept])
        nodes = np.concatenate([forest.ablated[nodes], forest.kept[nodes]])
    return levels


def _expand(
    units: np.ndarray, jumps: np.ndarray, above: np.ndarray, was_kept: np.ndarray, keep: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every subset of the splits above, together with the split itself, and its coefficient.

    A unit never splits twice on a path, so the sets are sets.
    """
    sigma = (keep * (1 - keep)) ** 0.5
    inside = np.where(was_kept, sigma, -sigma)
    outside = np.where(was_kept, keep, 1 - keep)
    depth = above.shape[1]
    for subset in range(2**depth):
        chosen = (subset >> np.arange(depth) & 1).astype(bool)
        members = np.sort(np.column_stack([above[:, chosen], units]), axis=1)
        factors = inside[:, chosen].prod(axis=1) * outside[:, ~chosen].prod(axis=1)
        yield members, sigma * jumps * factors


def _equal_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first of every group of equal rows, in lexicographic order, and each row's group."""
    base = int(rows.max(initial=0)) + 1
    key = np.zeros(len(rows), dtype=np.int64)
    for column in rows.T:
        if int(key.max(initial=0)) >= _LARGEST_KEY // base:
            key = np.unique(key, return_inverse=True)[1]
        key = key * base + column
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    return first, group
