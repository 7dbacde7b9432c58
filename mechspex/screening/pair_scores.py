"""All pairs of units scored, a block at a time: the best are kept, the rest is sampled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

# Units of one side of a block of scores: 64 MB.
_BLOCK = 4096


@dataclass(frozen=True)
class PairScores:
    """The predicted effect of every pair of units, without a table of all of them.

    Pairs of which one unit's row was measured have that row's score (the mean of both, where both
    were). The others are estimated from probes: with y = H v, E[y_i v_j] = H_ij for random signs
    v, where what the measured rows explain of y is taken off first.

    Attributes:
        columns: units whose rows were measured, in order.
        rows: their scores with every unit.
        signs: random signs, one probe a row; no probes where every row was measured.
        images: H v of each probe.
    """

    columns: Int[np.ndarray, " row"]
    rows: Float[np.ndarray, "row unit"]
    signs: Float[np.ndarray, "probe unit"]
    images: Float[np.ndarray, "probe unit"]
    _left: Float[np.ndarray, "probe unit"] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        left = self.images - self.signs[:, self.columns] @ self.rows
        object.__setattr__(self, "_left", left)

    @property
    def n_units(self) -> int:
        return self.rows.shape[1]

    @property
    def n_pairs(self) -> int:
        return self.n_units * (self.n_units - 1) // 2

    def block(self, down: slice, across: slice) -> Float[np.ndarray, "down across"]:
        """Scores of the pairs of two ranges of units."""
        n_probes = max(1, len(self.signs))
        scores = self._left[:, down].T @ self.signs[:, across]
        scores += self.signs[:, down].T @ self._left[:, across]
        scores /= 2 * n_probes
        in_down = np.flatnonzero((self.columns >= down.start) & (self.columns < down.stop))
        in_across = np.flatnonzero((self.columns >= across.start) & (self.columns < across.stop))
        at_down, at_across = self.columns[in_down] - down.start, self.columns[in_across]
        at_across = at_across - across.start
        scores[at_down] = self.rows[in_down, across]
        by_columns = self.rows[in_across, down].T
        by_columns[at_down] = (by_columns[at_down] + scores[np.ix_(at_down, at_across)]) / 2
        scores[:, at_across] = by_columns
        return scores

    def best(self, n_best: int) -> tuple[Int[np.ndarray, "pair 2"], Float[np.ndarray, " pair"]]:
        """The pairs with the largest scores in size, best first, and their scores."""
        found = np.empty((0, 3))
        least = 0.0
        for start, across, scores in self._blocks():
            size = np.abs(scores)
            i, j = np.nonzero(size > least)
            if start == across:
                i, j = i[i < j], j[i < j]
            new = np.stack([i + start, j + across, scores[i, j]], axis=1)
            found = np.concatenate([found, new])
            if len(found) > n_best:
                order = np.argpartition(-np.abs(found[:, 2]), n_best - 1)[:n_best]
                found = found[order]
                least = float(np.abs(found[:, 2]).min())
        order = np.lexsort((found[:, 1], found[:, 0], -np.abs(found[:, 2])))
        return found[order, :2].astype(np.int64), found[order, 2]

    def _blocks(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """Every pair once (and those within a block twice), with where the block begins."""
        n = self.n_units
        for start in range(0, n, _BLOCK):
            for across in range(start, n, _BLOCK):
                yield (
                    start,
                    across,
                    self.block(
                        slice(start, min(n, start + _BLOCK)), slice(across, min(n, across + _BLOCK))
                    ),
                )
