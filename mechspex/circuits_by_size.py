"""Of every size the best subset and the one nearest to the model: recovered, then measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from mechspex.circuit_search import front, matching_subsets
from mechspex.climbing import climb
from mechspex.decoders import Decoder, decode
from mechspex.executors.local import RecordedValues
from mechspex.masks import ablate_sets, pack
from mechspex.set_function import SetFunction

Subsets = Mapping[int, tuple[int, ...]]

# Of the budget, what is drawn at all densities; the rest around the subsets found, in rounds.
_ALL_DENSITIES, _ROUNDS = 0.6, 3
# How many members of a subset change places in a mask around it, on average.
_MOVED = 3
# Seconds for the programs that bound the front.
_PROOFS = 60.0


@dataclass(frozen=True)
class CircuitsBySize:
    """What was found among all masks measured.

    Attributes:
        function: recovered from them.
        best: {size: the units that do most by themselves}.
        matching: {size: the units that come nearest to the whole model, output by output}.
        front: one row a size.
    """

    function: SetFunction
    best: dict[int, tuple[int, ...]]
    matching: dict[int, tuple[int, ...]]
    front: pd.DataFrame


def circuits_by_size(
    recorded: RecordedValues,
    sizes: Sequence[int],
    *,
    budget: int,
    decoder: str | Decoder,
    seed: int,
    sloped: RecordedValues | None = None,
    attributed: Float[np.ndarray, " unit"] | None = None,
) -> CircuitsBySize:
    """Recover, look for the best subsets, measure around them, recover again; then climb.

    Args:
        recorded: the model.
        sizes: of the subsets.
        budget: masks of all densities and around the subsets.
        decoder: of f̂.
        seed: of masks and search.
        sloped: where the slopes for climbing come from; without them f̂ alone proposes.
        attributed: the effect of each unit by a screen, whose subsets are measured as well.
    """
    n_units = recorded.n_units
    rng = np.random.default_rng(seed)
    measured = _Measured(recorded)
    recorded.stage = "masks of all densities"
    n_first = int(budget * _ALL_DENSITIES)
    density = rng.uniform(size=(n_first, 1))
    ends = np.repeat([[True], [False]], n_units, axis=1)
    clean = measured(np.concatenate([ends, rng.random((n_first, n_units)) < density]))[0]

    def decoded() -> SetFunction:
        masks, values = measured.distinct()
        return decode(masks, values, decoder=decoder, seed=seed)

    def proposed() -> list[Subsets]:
        function = decoded()
        best = {s.size: s.columns for s in front(function, sizes, time_limit=0.0, seed=seed)}
        return [best, *_matching(function, sizes, float(clean.mean()), attributed)]

    for left in range(_ROUNDS, 0, -1):
        tried = [columns for found in proposed() for columns in found.values()]
        number = (budget + len(ends) - len(measured.masks)) // left
        recorded.stage = "masks around the best subsets"
        measured(_around(tried, n_units, number, rng))
    if attributed is not None:
        # What attribution would keep is measured too: nothing worse is reported.
        measured.subsets([_largest(-attributed, sizes)])
    if sloped is not None:
        recorded.stage = sloped.stage = "climbing from the best subsets"

        def slopes(masks: Float[np.ndarray, "mask unit"]) -> Float[np.ndarray, "mask unit"]:
            return sloped.value_and_gradient(masks)[1]

        measured.subsets(proposed())
        climb(measured, slopes, measured.best(sizes), n_units)
        climb(measured, slopes, measured.nearest(sizes, clean), n_units, target=clean)
    recorded.stage = "best subsets"
    function = decoded()
    subsets = front(function, sizes, time_limit=_PROOFS, seed=seed)
    measured.subsets([{subset.size: subset.columns for subset in subsets}])
    measured.subsets(_matching(function, sizes, float(clean.mean()), attributed))
    best, matching = measured.best(sizes), measured.nearest(sizes, clean)
    bounds = {subset.size: subset.bound for subset in subsets}
    table = _table(recorded, function, best, matching, bounds)
    return CircuitsBySize(function, best, matching, table)


class _Measured:
    """All masks measured so far, in order, with their values."""

    def __init__(self, recorded: RecordedValues) -> None:
        self._recorded = recorded
        self.masks = np.zeros((0, recorded.n_units), dtype=bool)
        self.values = np.zeros((0, len(recorded.outputs)))

    def __call__(self, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, "mask output"]:
        values = self._recorded(masks).astype(np.float64)
        self.masks = np.concatenate([self.masks, masks])
        self.values = np.concatenate([self.values, values])
        return values

    def distinct(
        self,
    ) -> tuple[Bool[np.ndarray, "mask unit"], Float[np.ndarray, "mask output"]]:
        """Each mask with finite values once."""
        _, first = np.unique(pack(self.masks), axis=0, return_index=True)
        rows = np.sort(first[np.isfinite(self.values[first]).all(axis=1)])
        return self.masks[rows], self.values[rows]

    def subsets(self, found: Iterable[Subsets]) -> None:
        """Measure subsets kept alone."""
        sets = [columns for subsets in found for columns in subsets.values()]
        self(~ablate_sets(self._recorded.n_units, sets))

    def best(self, sizes: Sequence[int]) -> dict[int, tuple[int, ...]]:
        """{size: the subset with the largest mean}."""
        return self._largest(sizes, self.values.mean(axis=1))

    def nearest(
        self, sizes: Sequence[int], clean: Float[np.ndarray, " output"]
    ) -> dict[int, tuple[int, ...]]:
        """{size: the subset whose values, output by output, are nearest to the whole model's}."""
        return self._largest(sizes, -((self.values - clean) ** 2).mean(axis=1))

    def _largest(
        self, sizes: Sequence[int], scores: Float[np.ndarray, " mask"]
    ) -> dict[int, tuple[int, ...]]:
        # What has no finite value is never chosen.
        scores = np.where(np.isfinite(scores), scores, -np.inf)
        counts = self.masks.sum(axis=1)
        found = {}
        for size in sizes:
            rows = np.flatnonzero(counts == size)
            found[size] = tuple(np.flatnonzero(self.masks[rows[scores[rows].argmax()]]).tolist())
        return found


def _largest(effects: Float[np.ndarray, " unit"], sizes: Sequence[int]) -> dict[int, tuple]:
    """{size: the units with the largest effects}."""
    ranking = np.argsort(-effects, kind="stable").tolist()
    return {size: tuple(sorted(ranking[:size])) for size in sizes}


def _matching(
    function: SetFunction,
    sizes: Sequence[int],
    target: float,
    attributed: Float[np.ndarray, " unit"] | None,
) -> list[Subsets]:
    """Subsets that may do what the whole model does: the units with the largest effects, recovered
    in the whole model and on average over masks, or attributed, as they are and with some
    exchanged."""
    effects = [
        np.array([singles[(column,)] for column in range(function.n_units)])
        for singles in (function.to_basis("ablated"), function.to_basis("fourier"))
    ]
    found: list[Subsets] = []
    for effect in effects if attributed is None else [*effects, attributed]:
        ranking = np.argsort(-np.abs(effect), kind="stable").tolist()
        found.append(_largest(np.abs(effect), sizes))
        found.append(matching_subsets(function, sizes, target, ranking))
    return found


def _around(
    subsets: list[tuple[int, ...]], n_units: int, number: int, rng: np.random.Generator
) -> Bool[np.ndarray, "mask unit"]:
    """In turn a subset itself and a mask in which some of its units have changed places."""
    distinct = list(dict.fromkeys(subsets))
    rows = []
    for place in range(number):
        kept = np.zeros(n_units, dtype=bool)
        kept[list(distinct[place // 2 % len(distinct)])] = True
        if place % 2:
            inside, outside = np.flatnonzero(kept), np.flatnonzero(~kept)
            moved = min(1 + rng.poisson(_MOVED - 1), len(inside), len(outside))
            kept[rng.permutation(inside)[:moved]] = False
            kept[rng.permutation(outside)[:moved]] = True
        rows.append(kept)
    return np.array(rows, dtype=bool).reshape(-1, n_units)


def _table(
    recorded: RecordedValues,
    function: SetFunction,
    best: Subsets,
    matching: Subsets,
    bounds: Mapping[int, float],
) -> pd.DataFrame:
    """One row a size: what f̂ and the model say of its best subset, and of the nearest one."""
    n_units, sizes = recorded.n_units, list(best)
    kept = ~ablate_sets(n_units, [(), tuple(range(n_units)), *best.values(), *matching.values()])
    empty, clean, *means = recorded(kept).astype(np.float64).mean(axis=1)
    share = (np.array(means).reshape(2, len(sizes)) - empty) / (clean - empty)
    names = recorded.units.names
    named = [
        [", ".join(names[column] for column in columns) for columns in found.values()]
        for found in (best, matching)
    ]
    return pd.DataFrame(
        {
            "size": sizes,
            "predicted": function.predict(kept[2 : 2 + len(sizes)]),
            "bound": [bounds[size] for size in sizes],
            "value": means[: len(sizes)],
            "faithfulness": share[0],
            "units": named[0],
            "matching": share[1],
            "matching units": named[1],
        }
    )
