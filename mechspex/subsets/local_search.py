"""Local search: good subsets of given sizes, by exchanging a chosen unit for one left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from mechspex.set_functions.bases import affine
from mechspex.set_functions.set_function import SetFunction

# Exchanges are tried between this many units of either side, by what each gains alone: this bounds
# memory.
_CANDIDATES = 500
# A gain below this share of Σ|c| is rounding.
_ROUNDING_OF_SUM = 1e-12


class LocalSearch:
    """Maximise a set function f(z) over subsets z of given sizes, in whatever basis f is given.

    Let u be the factor of a chosen unit and v that of another unit. A term of order o with r chosen
    units has the value u^r v^(o−r). So f follows from the counts r, and what each unit gains alone
    is one sparse product over the terms.

    Each size starts from the additive choice, from greedy upwards and downwards, and from the
    answers of the neighbouring sizes. It climbs by the best exchange of two units until none gains.
    Kicks then put all units of a random term in, or all out, and climb again: an AND pays only once
    it is whole, which no single exchange finds. The answer is at least as good as each of its
    starts, and the same for the same seed.

    Args:
        function: the function f; the mean over its outputs counts.
    """

    def __init__(self, function: SetFunction) -> None:
        self.n_units = function.n_units
        self._coefficients = function.coefficients
        self._terms = [np.array(term, dtype=int) for term in function.terms]
        self._orders = np.array([len(term) for term in function.terms], dtype=int)
        self._negligible = _ROUNDING_OF_SUM * float(np.abs(self._coefficients).sum())

        members = np.concatenate([*self._terms, np.zeros(0, dtype=int)])
        starts = np.concatenate([[0], np.cumsum(self._orders)])
        self._contains = csr_array(
            (np.ones(len(members)), members, starts), shape=(len(self._terms), self.n_units)
        )
        self._contained = csr_array(self._contains.T)
        # Every ordered pair of units that share a term, and that term.
        squares = self._orders**2
        self._pair_term = np.repeat(np.arange(len(squares)), squares)
        order = self._orders[self._pair_term]
        place = np.arange(squares.sum()) - np.repeat(np.cumsum(squares) - squares, squares)
        both = np.stack([place % order, place // order], axis=1)
        self._pairs = members[starts[self._pair_term, None] + both]

        slope, offset = affine(function.basis, function.keep)
        chosen = np.arange(self._orders.max(initial=0) + 1)
        others = np.maximum(chosen[:, None] - chosen, 0)
        self._powers = (slope + offset) ** chosen * offset**others
        # Least squares under the design: the other factors of a term count with their mean.
        mean = slope * function.keep + offset
        shares = slope * mean ** np.maximum(self._orders - 1, 0)
        self._additive = (self._coefficients * shares) @ self._contains

    def additive_order(self) -> Int[np.ndarray, " unit"]:
        """Units by their coefficient in the best additive approximation, largest first."""
        return np.argsort(-self._additive, kind="stable")

    def value(self, chosen: Bool[np.ndarray, " unit"]) -> float:
        """f(z), z being the chosen units."""
        counts = self._counts(chosen)
        return float(self._coefficients @ self._powers[self._orders, counts])

    def ceiling(self) -> float:
        """Σ_T max_r c_T φ_T(r): no subset of any size lies above it."""
        values = self._coefficients[:, None] * self._powers[self._orders]
        possible = np.arange(values.shape[1]) <= self._orders[:, None]
        return float(np.where(possible, values, -np.inf).max(axis=1, initial=-np.inf).sum())

    def best(
        self, sizes: Sequence[int], *, n_kicks: int, seed: int
    ) -> dict[int, Bool[np.ndarray, " unit"]]:
        """A subset of each size that no single exchange of two units makes better.

        Args:
            sizes: the sizes, ascending and without repetition.
            n_kicks: how many kicks each size gets.
            seed: the seed of the kicks.

        Returns:
            {size: the chosen units}.
        """
        rng = np.random.default_rng(seed)
        none = np.zeros(self.n_units, dtype=bool)
        additive = self.additive_order()
        upwards = self._path(none, sizes[-1])
        # Units in no term go first, at once: there may be tens of thousands.
        active = np.diff(self._contained.indptr) > 0
        dropped = self._path(active, min(sizes[0], int(active.sum())))
        downwards = np.concatenate([np.flatnonzero(~active), dropped])
        subsets: dict[int, Bool[np.ndarray, " unit"]] = {}
        for i, size in enumerate(sizes):
            starts = [
                self._flipped(none, additive[:size]),
                self._flipped(none, upwards[:size]),
                self._flipped(~none, downwards[: self.n_units - size]),
            ]
            if i:
                starts.append(self._resized(subsets[sizes[i - 1]], size))
            subset = self._better(*map(self._climb, starts))
            for _ in range(n_kicks):
                subset = self._better(subset, self._climb(self._kick(subset, rng)))
            subsets[size] = subset
        for i in range(len(sizes) - 2, -1, -1):
            smaller = self._climb(self._resized(subsets[sizes[i + 1]], sizes[i]))
            subsets[sizes[i]] = self._better(subsets[sizes[i]], smaller)
        return subsets

    def _counts(self, chosen: Bool[np.ndarray, " unit"]) -> Int[np.ndarray, " term"]:
        return (self._contains @ chosen.astype(float)).astype(int)

    def _changes(
        self, chosen: Bool[np.ndarray, " unit"]
    ) -> tuple[Float[np.ndarray, " term"], Float[np.ndarray, " term"]]:
        """What one more, and one fewer, chosen unit in each term adds to f."""
        counts, orders = self._counts(chosen), self._orders
        now = self._powers[orders, counts]
        more = self._powers[orders, np.minimum(counts + 1, orders)] - now
        fewer = self._powers[orders, np.maximum(counts - 1, 0)] - now
        return self._coefficients * more, self._coefficients * fewer

    def _path(
        self,
        chosen: Bool[np.ndarray, " unit"],
        size: int,
        frozen: Int[np.ndarray, " frozen"] | None = None,
    ) -> Int[np.ndarray, " step"]:
        """The units to add (or drop) one after another for `size` to be reached, best first."""
        chosen = chosen.copy()
        add = int(chosen.sum()) < size
        free = chosen != add
        if frozen is not None:
            free[frozen] = False
        path = []
        for _ in range(abs(int(chosen.sum()) - size)):
            gains = self._contained @ self._changes(chosen)[0 if add else 1]
            unit = int(np.argmax(np.where(free, gains, -np.inf)))
            chosen[unit], free[unit] = add, False
            path.append(unit)
        return np.array(path, dtype=int)

    def _resized(
        self,
        chosen: Bool[np.ndarray, " unit"],
        size: int,
        frozen: Int[np.ndarray, " frozen"] | None = None,
    ) -> Bool[np.ndarray, " unit"]:
        return self._flipped(chosen, self._path(chosen, size, frozen))

    def _flipped(
        self, chosen: Bool[np.ndarray, " unit"], units: Int[np.ndarray, " flipped"]
    ) -> Bool[np.ndarray, " unit"]:
        flipped = chosen.copy()
        flipped[units] ^= True
        return flipped

    def _better(self, *subsets: Bool[np.ndarray, " unit"]) -> Bool[np.ndarray, " unit"]:
        """The best of several, the first of those that differ by rounding."""
        best, best_value = subsets[0], self.value(subsets[0])
        for subset in subsets[1:]:
            if (value := self.value(subset)) > best_value + self._negligible:
                best, best_value = subset, value
        return best

    def nearest(
        self, chosen: Bool[np.ndarray, " unit"], target: float
    ) -> Bool[np.ndarray, " unit"]:
        """The subset after exchanges of two units, as long as each brings f nearer to `target`.

        Args:
            chosen: the subset to start from.
            target: the value to come near to.
        """
        value = self.value(chosen)
        while True:
            inside, outside, gains = self._exchanges(chosen)
            if not gains.size:
                return chosen
            distance = np.abs(value + gains - target)
            best = np.unravel_index(np.argmin(distance), gains.shape)
            if not distance[best] < abs(value - target) - self._negligible:
                return chosen
            chosen = self._flipped(chosen, np.array([inside[best[0]], outside[best[1]]]))
            value = self.value(chosen)

    def _climb(self, chosen: Bool[np.ndarray, " unit"]) -> Bool[np.ndarray, " unit"]:
        """Make the best exchange as long as one gains."""
        while True:
            inside, outside, gains = self._exchanges(chosen)
            if not gains.size:
                return chosen
            best = np.unravel_index(np.argmax(gains), gains.shape)
            if gains[best] <= self._negligible:
                return chosen
            chosen = self._flipped(chosen, np.array([inside[best[0]], outside[best[1]]]))

    def _exchanges(
        self, chosen: Bool[np.ndarray, " unit"]
    ) -> tuple[
        Int[np.ndarray, " inside"], Int[np.ndarray, " outside"], Float[np.ndarray, "inside outside"]
    ]:
        """Units to drop, units to add, and what f gains from each exchange of two of them."""
        more, fewer = self._changes(chosen)
        inside = _largest(self._contained @ fewer, chosen)
        outside = _largest(self._contained @ more, ~chosen)
        gains = (self._contained @ fewer)[inside, None] + (self._contained @ more)[outside]
        # A term with both units keeps its count: neither change happens to it.
        row, column = np.full((2, self.n_units), -1)
        row[inside], column[outside] = np.arange(len(inside)), np.arange(len(outside))
        rows, columns = row[self._pairs[:, 0]], column[self._pairs[:, 1]]
        shared = np.flatnonzero((rows >= 0) & (columns >= 0))
        both = (more + fewer)[self._pair_term[shared]]
        np.subtract.at(gains, (rows[shared], columns[shared]), both)
        return inside, outside, gains

    def _kick(
        self, chosen: Bool[np.ndarray, " unit"], rng: np.random.Generator
    ) -> Bool[np.ndarray, " unit"]:
        """All units of a term put in, or all out; greedy restores the size with the others."""
        weights = np.abs(self._coefficients) * (self._orders > 1)
        if not weights.any():
            return chosen
        size, term = int(chosen.sum()), self._terms[rng.choice(len(weights), p=_shares(weights))]
        put_in = bool(rng.integers(2))
        room = size if put_in else self.n_units - size
        moved = rng.permutation(term)[:room]
        kicked = chosen.copy()
        kicked[moved] = put_in
        return self._resized(kicked, size, moved)


def _largest(
    gains: Float[np.ndarray, " unit"], allowed: Bool[np.ndarray, " unit"]
) -> Int[np.ndarray, " candidate"]:
    """The allowed units with the largest gains, at most `_CANDIDATES`."""
    units = np.flatnonzero(allowed)
    return units[np.argsort(-gains[units], kind="stable")[:_CANDIDATES]]


def _shares(weights: Float[np.ndarray, " term"]) -> Float[np.ndarray, " term"]:
    return weights / weights.sum()
