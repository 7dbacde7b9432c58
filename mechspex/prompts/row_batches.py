"""Rows of tokens in batches: which rows share a forward, and what of it is computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

Row = Int[np.ndarray, " _"]
"""Token ids."""

# Rows are brought into order by so much of what they begin with, in shares of the longest.
_DEPTHS = (0.0, 0.125, 0.25, 0.5, 1.0)
# Looked at when a batch is filled: no forward has more rows.
_MOST_ROWS = 1 << 12
# So much of a batch may be filled up, at most ...
_MOST_FILLED = 0.1
# ... unless it takes no more than this share of what a forward takes: a smaller one is slow.
_SMALL = 0.125
_FILLED = -1


@dataclass(frozen=True)
class Batch:
    """Rows of one forward.

    Attributes:
        rows: their numbers.
        prefix: how many tokens they have in common at their beginning, none of those that are read
            among them.
        length: the length of the longest of them.
    """

    rows: Int[np.ndarray, " row"]
    prefix: int
    length: int

    @property
    def n_tokens(self) -> int:
        """How many tokens the forward takes when the prefix is known, those filled up included."""
        return len(self.rows) * (self.length - self.prefix)


class Rows:
    """Rows of tokens, filled up to the longest.

    Args:
        rows: their tokens.
        n_read: how many of the last positions of each are read.
    """

    def __init__(self, rows: Sequence[Row], n_read: int) -> None:
        self.lengths = np.array([len(row) for row in rows])
        self.n_read = n_read
        self.tokens = np.full((len(rows), int(self.lengths.max())), _FILLED, dtype=np.int32)
        for number, row in enumerate(rows):
            self.tokens[number, : len(row)] = row

    def in_order(self, tokens_at_once: int) -> Int[np.ndarray, " row"]:
        """The order in which batches of so many tokens take the fewest.

        Rows that begin alike share what they begin with, rows of one length are not filled up: of
        several orders between the two, the one whose batches take fewest tokens.
        """
        longest = self.tokens.shape[1]
        orders = [self._by_beginning(int(depth * longest)) for depth in _DEPTHS]
        return min(orders, key=lambda order: self._n_tokens(order, tokens_at_once))

    def next_batch(
        self, order: Int[np.ndarray, " row"], tokens_at_once: int, known: int = 0
    ) -> Batch:
        """The first rows of an order that fit in a forward; one at least.

        As many as can be without more than a tenth of their tokens being filled up; small batches
        may be filled up more.

        Args:
            order: rows that are still to be run.
            tokens_at_once: how many tokens a forward takes.
            known: how many tokens of the first row are known already: a row alone shares no more.
        """
        window = order[: min(_MOST_ROWS, tokens_at_once)]
        lengths = np.maximum.accumulate(self.lengths[window])
        shortest = np.minimum.accumulate(self.lengths[window])
        shared = np.minimum.accumulate(self._shared(window))
        prefixes = np.minimum(shared, shortest - self.n_read)
        counts = np.arange(1, len(window) + 1)
        n_tokens = counts * (lengths - prefixes)
        filled = counts * lengths - self.lengths[window].cumsum()
        full = (filled <= _MOST_FILLED * n_tokens) | (n_tokens <= _SMALL * tokens_at_once)
        fits = np.flatnonzero(full & (n_tokens <= tokens_at_once))
        n_rows = 1 + int(fits[-1]) if len(fits) else 1
        prefix = min(known, prefixes[0]) if n_rows == 1 else prefixes[n_rows - 1]
        return Batch(window[:n_rows], int(prefix), int(lengths[n_rows - 1]))

    def of_one_length(self, tokens_at_once: int) -> Iterator[Batch]:
        """Batches of rows of one length, none of which is filled up or begins elsewhere."""
        for length in np.unique(self.lengths):
            rows = np.flatnonzero(self.lengths == length)
            at_once = max(1, tokens_at_once // int(length))
            for first in range(0, len(rows), at_once):
                yield Batch(rows[first : first + at_once], 0, int(length))

    def shared_with(self, row: int, tokens: Row) -> int:
        """How many tokens a row and others begin with in common."""
        n = min(len(tokens), int(self.lengths[row]))
        differs = self.tokens[row, :n] != tokens[:n]
        return int(differs.argmax()) if differs.any() else n

    def _shared(self, window: Int[np.ndarray, " row"]) -> Int[np.ndarray, " row"]:
        """How many tokens each row of a window begins with in common with the first."""
        differs = self.tokens[window] != self.tokens[window[0]]
        differs[np.arange(len(window)), self.lengths[window] - 1] |= True
        shared = differs.argmax(axis=1)
        return np.minimum(shared, self.lengths[window[0]])

    def _by_beginning(self, depth: int) -> Int[np.ndarray, " row"]:
        """By the first tokens, rows that begin alike by length."""
        # As bytes, the larger ones first, rows compare as their tokens do.
        beginnings = [row.tobytes() for row in self.tokens[:, :depth].astype(">i4")]
        keys = list(zip(beginnings, (-self.lengths).tolist(), strict=True))
        return np.array(sorted(range(len(keys)), key=keys.__getitem__))

    def _n_tokens(self, order: Int[np.ndarray, " row"], tokens_at_once: int) -> int:
        total, before = 0, self.tokens[order[0], :0]
        while len(order):
            known = self.shared_with(int(order[0]), before)
            batch = self.next_batch(order, tokens_at_once, known)
            total += batch.n_tokens + max(0, batch.prefix - known)
            before = self.tokens[order[0], : max(known, batch.prefix)]
            order = order[len(batch.rows) :]
        return total
