"""Rounds of a search for the best subset of each size: recover, propose, measure around, again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.errors import FailedMasksError
from mechspex.core.finite import finite_rows
from mechspex.core.masks import Stream, as_neighbours, keep_only, pack
from mechspex.decoders import Decoder, decode, find_decoder
from mechspex.runs.recorded import RecordedValues
from mechspex.set_functions.set_function import SetFunction
from mechspex.subsets.best_subset import front
from mechspex.subsets.front import Front
from mechspex.subsets.gradient_climb import good

Subsets = Mapping[int, tuple[int, ...]]
Propose = Callable[[SetFunction], list[Subsets]]

# The share of the masks that are random, and the number of rounds in which the rest is drawn
# around the best subsets.
AT_RANDOM, _ROUNDS = 0.6, 3
# How many members of a subset change places in a mask around it, on average.
_MOVED = 3


class SubsetRounds:
    """Masks measured so far, and the next ones where f̂ says that good subsets lie.

    Args:
        recorded: the value function, which measures masks.
        sizes: the sizes of the subsets.
        decoder: the decoder that recovers f̂.
        seed: the seed of masks around subsets, and of the search.

    Attributes:
        masks: all masks that were measured, in order.
        values: their values.
    """

    def __init__(
        self, recorded: RecordedValues, sizes: Sequence[int], decoder: str | Decoder, seed: int
    ) -> None:
        self._recorded, self._decoder, self._seed = recorded, decoder, seed
        self._rng = np.random.default_rng((seed, Stream.AROUND_SUBSETS))
        self.sizes = tuple(sorted(set(sizes)))
        self.masks = np.zeros((0, recorded.n_units), dtype=bool)
        self.values = np.zeros((0, len(recorded.outputs)))

    def measure(self, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, "mask output"]:
        """Values of masks, which join the others."""
        order = as_neighbours(masks)
        values = np.empty((len(masks), len(self._recorded.outputs)))
        values[order] = self._recorded(masks[order])
        self.masks = np.concatenate([self.masks, masks])
        self.values = np.concatenate([self.values, values])
        return values

    def measure_subsets(self, *found: Subsets) -> Float[np.ndarray, "subset output"]:
        """Values of subsets kept alone."""
        sets = [columns for subsets in found for columns in subsets.values()]
        return self.measure(keep_only(self._recorded.n_units, sets))

    def recovered(self) -> SetFunction:
        """f̂ from all masks with finite values, each once if these are enough."""
        finite = finite_rows(self.values)
        rows = np.sort(np.unique(pack(self.masks), axis=0, return_index=True)[1])
        rows = rows[finite[rows]]
        # Of a handful of units there are fewer masks than a decoder asks for.
        if len(rows) < find_decoder(self._decoder).minimum_masks(self.masks.shape[1]):
            rows = np.flatnonzero(finite)
        self._recorded.say(f"decoding {len(rows):,} masks of {self.masks.shape[1]:,} units …")
        return decode(self.masks[rows], self.values[rows], decoder=self._decoder, seed=self._seed)

    def front(self, function: SetFunction, time_limit: float = 0.0) -> Front:
        """What f̂ says is best, of every size."""
        return front(function, self.sizes, time_limit=time_limit, seed=self._seed)

    def run(self, n_masks: int, propose: Propose | None = None) -> None:
        """Measure `n_masks` around the best subsets, and what `propose` adds to these."""
        self._recorded.stage = "masks around the best subsets"
        for left in range(_ROUNDS, 0, -1):
            function = self.recovered()
            found = [members(self.front(function)), *(propose(function) if propose else ())]
            tried = [columns for subsets in found for columns in subsets.values()]
            number = n_masks // left
            self.measure(self._around(tried, number))
            n_masks -= number

    def best(
        self, target: Float[np.ndarray, " output"] | None = None
    ) -> dict[int, tuple[int, ...]]:
        """{size: of all that were measured the subset that does most, or is nearest to a target}.

        Raises:
            FailedMasksError: no mask of a size has a finite value.
        """
        goodness = good(self.values, target)
        counts = self.masks.sum(axis=1)
        found = {}
        for size in self.sizes:
            rows = np.flatnonzero((counts == size) & (goodness > -np.inf))
            if not len(rows):
                raise FailedMasksError(
                    f"no mask of {size} units has a finite value; mend the value function"
                )
            found[size] = tuple(np.flatnonzero(self.masks[rows[goodness[rows].argmax()]]).tolist())
        return found

    def _around(self, subsets: list[tuple[int, ...]], number: int) -> Bool[np.ndarray, "mask unit"]:
        """Subsets, as far as half of the masks go, and masks in which some of their units have
        changed places."""
        distinct = list(dict.fromkeys(subsets))
        # There are more than masks for them: another part in each round.
        distinct = [distinct[place] for place in self._rng.permutation(len(distinct))]
        n_themselves = min(len(distinct), (number + 1) // 2)
        masks = np.zeros((number, self._recorded.n_units), dtype=bool)
        for place, kept in enumerate(masks):
            moving = place >= n_themselves
            kept[list(distinct[(place - moving * n_themselves) % len(distinct)])] = True
            if moving:
                inside, outside = np.flatnonzero(kept), np.flatnonzero(~kept)
                moved = min(1 + self._rng.poisson(_MOVED - 1), len(inside), len(outside))
                kept[self._rng.permutation(inside)[:moved]] = False
                kept[self._rng.permutation(outside)[:moved]] = True
        return masks


def members(found: Front) -> dict[int, tuple[int, ...]]:
    """{size: its units}."""
    return {subset.size: subset.columns for subset in found}
