"""The best subset of every size, and the one nearest to the model: recovered, then measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from mechspex.circuits.surrogate_search import AT_RANDOM, SubsetRounds, Subsets, members
from mechspex.core.masks import both_ends, keep_only
from mechspex.decoders import Decoder
from mechspex.runs.recorded import RecordedValues
from mechspex.set_functions.set_function import SetFunction
from mechspex.subsets.best_subset import matching_subsets
from mechspex.subsets.gradient_climb import climb as climb_by_slopes

# Seconds for the programs that bound the front: of 270 heads they found no better subset in 30, and
# a bound that is tighter is `mechspex.front` of the recovered function with more time.
_PROOFS = 5.0


@dataclass(frozen=True)
class CircuitsBySize:
    """What was found among all masks measured.

    Attributes:
        function: recovered from them.
        best: {size: the units that do most by themselves}.
        matching: {size: the units that come nearest to the whole model}.
        front: one row a size.
        masks: all masks that were measured.
        values: their values.
    """

    function: SetFunction
    best: dict[int, tuple[int, ...]]
    matching: dict[int, tuple[int, ...]]
    front: pd.DataFrame
    masks: Bool[np.ndarray, "mask unit"]
    values: Float[np.ndarray, "mask output"]


@dataclass(frozen=True)
class Climb:
    """How the search climbs on the model itself.

    Attributes:
        recorded: where the slopes come from.
        attribution: the effect of each unit by a screen, whose subsets are measured as well.
        n_gradients: how many gradients the screen took.
    """

    recorded: RecordedValues
    attribution: Float[np.ndarray, " unit"]
    n_gradients: int

    def slopes(self, masks: Float[np.ndarray, "mask unit"]) -> Float[np.ndarray, "mask unit"]:
        """The gradient of the mean value at each soft mask."""
        return self.recorded.value_and_mean_gradient(masks)[1]


def circuits_by_size(
    recorded: RecordedValues,
    sizes: Sequence[int],
    *,
    n_masks: int,
    decoder: str | Decoder,
    seed: int,
    climb: Climb | None = None,
) -> CircuitsBySize:
    """Recover, look for the best subsets, measure around them, recover again; then climb.

    Args:
        recorded: the model.
        sizes: the sizes of the subsets.
        n_masks: masks of all densities and around the subsets.
        decoder: what recovers f̂.
        seed: the only source of randomness, for masks and search.
        climb: how to climb on the model; without it f̂ alone proposes.
    """
    n_units = recorded.n_units
    rounds = SubsetRounds(recorded, sizes, decoder, seed)
    sizes = rounds.sizes
    recorded.stage = "masks of all densities"
    attribution = None if climb is None else climb.attribution
    n_first = int(n_masks * AT_RANDOM)
    rng = np.random.default_rng(seed)
    density = rng.uniform(size=(n_first, 1))
    clean = rounds.measure(
        np.concatenate([both_ends(n_units), rng.random((n_first, n_units)) < density])
    )[0]

    def matching(function: SetFunction) -> list[Subsets]:
        return _matching(function, sizes, float(clean.mean()), attribution)

    rounds.run(n_masks - n_first, matching)
    if climb is not None:
        # What attribution would keep is measured too: nothing worse is reported.
        rounds.measure_subsets(_largest(-climb.attribution, sizes))
        recorded.stage = climb.recorded.stage = "climbing from the best subsets"
        function = rounds.recovered()
        rounds.measure_subsets(members(rounds.front(function)))
        climb_by_slopes(rounds.measure, climb.slopes, rounds.best(), n_units)
        rounds.measure_subsets(*matching(function))
        climb_by_slopes(rounds.measure, climb.slopes, rounds.best(clean), n_units, target=clean)
    recorded.stage = "best subsets"
    function = rounds.recovered()
    subsets = rounds.front(function, time_limit=_PROOFS)
    # Climbing has left behind what f̂ says is near to the model, but not all that it says is best.
    near = matching(function) if climb is None else []
    rounds.measure_subsets(members(subsets), *near)
    bounds = {subset.size: subset.bound for subset in subsets}
    best, nearest = rounds.best(), rounds.best(clean)
    table = _table(recorded, function, best, nearest, bounds)
    return CircuitsBySize(function, best, nearest, table, rounds.masks, rounds.values)


def _largest(effects: Float[np.ndarray, " unit"], sizes: Sequence[int]) -> dict[int, tuple]:
    """{size: the units with the largest effects}."""
    ranking = np.argsort(-effects, kind="stable").tolist()
    return {size: tuple(sorted(ranking[:size])) for size in sizes}


def _matching(
    function: SetFunction,
    sizes: Sequence[int],
    target: float,
    attribution: Float[np.ndarray, " unit"] | None,
) -> list[Subsets]:
    """Subsets that may do what the whole model does: the units with the largest effects, recovered
    in the whole model and on average over masks, or attributed, as they are and with some
    exchanged."""
    effects = [
        np.array([singles[(column,)] for column in range(function.n_units)])
        for singles in (function.to_basis("ablated"), function.to_basis("fourier"))
    ]
    found: list[Subsets] = []
    for effect in effects if attribution is None else [*effects, attribution]:
        ranking = np.argsort(-np.abs(effect), kind="stable").tolist()
        found.append(_largest(np.abs(effect), sizes))
        found.append(matching_subsets(function, sizes, target, ranking))
    return found


def _table(
    recorded: RecordedValues,
    function: SetFunction,
    best: Subsets,
    matching: Subsets,
    bounds: Mapping[int, float],
) -> pd.DataFrame:
    """One row a size: what f̂ and the model say of its best subset, and of the nearest one."""
    n_units, sizes = recorded.n_units, list(best)
    kept = keep_only(n_units, [(), range(n_units), *best.values(), *matching.values()])
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
