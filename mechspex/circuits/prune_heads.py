"""Head pruning: keep a share of the units, chosen by a recovered function, and its rivals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from mechspex.circuits.pruning import Choice, Method, Pruning
from mechspex.circuits.surrogate_search import AT_RANDOM, SubsetRounds, members
from mechspex.core.checks import SEED, WHOLE, Several, as_number
from mechspex.core.doors import door
from mechspex.core.errors import BudgetError, FailedMasksError, Refused
from mechspex.core.finite import finite_rows, finite_values
from mechspex.core.masks import Stream, both_ends
from mechspex.core.old_keywords import takes_old
from mechspex.core.units import Term, check_same_units
from mechspex.core.value_function import ValueFunction, ValuesLike, as_value_function, as_values
from mechspex.decoders import Decoder, as_decoder, decode, find_decoder
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.run import Run, as_run
from mechspex.set_functions.set_function import SetFunction
from mechspex.subsets.best_subset import additive_choice

# A method, how many units it keeps, and which, a mask each.
Kept = tuple[Method, int, Bool[np.ndarray, "_ unit"]]

_FEWEST_MASKS = 50
# Seconds for the integer programs that prove the best subsets, of all sizes together.
_TO_PROVE = 30.0


@takes_old({"fresh": "held_out", "budget": "n_masks"})
@door(
    value_function=as_values,
    held_out=as_values,
    shares=Several(as_number, "numbers between 0 and 1"),
    n_masks=WHOLE,
    decoder=as_decoder,
    n_random=WHOLE,
    run=as_run,
    seed=SEED,
)
def prune_heads(
    value_function: ValuesLike,
    held_out: ValuesLike,
    *,
    shares: Sequence[float] = (1 / 2, 2 / 3, 5 / 6),
    n_masks: int = 1_000,
    decoder: str | Decoder = "kernel",
    n_random: int = 20,
    run: str | Path | Run | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Pruning:
    """Keep a share of the units by the recovered function, and test the choice against rivals.

    The experiment of ProxySPEX (Butler et al. 2025) on attention heads, with the paired tests on
    held-out outputs that tell its methods apart. For each k = share · n, rounded:

    - ``recovered``: argmax_{|S|=k} f̂(S kept, the rest ablated), measured with masks around it, in
      rounds: three fifths of the masks are random, the others lie where f̂ is best. Of those
      measured the best, f̂'s last answer among them;
    - ``additive``: the k largest coefficients of the additive decoder, from as many random masks;
    - ``best sampled``: of these with k units or fewer the one with the largest mean value;
    - ``random``: `n_random` subsets of k units.

    The random masks keep exactly k units, the sizes in turn. So a sampled mask of each size
    exists, and is no worse for having fewer units; and no mask is spent on how the value changes
    with the number kept, which no choice of k units can use. Within one size units are all but
    uncorrelated, −1/(n − 1).

    Args:
        value_function: the model on the outputs (prompts) that choose; a large value is good.
        held_out: the same units on other outputs, for the scores. Where the metric is a difference
            between right and wrong, a value above 0 is a right answer.
        shares: the shares of the units that are kept.
        n_masks: masks of each choice, at least 50; in all up to two fifths more are measured, as
            the rivals have random ones where the search has those around its best.
        decoder: the decoder that recovers the function; ``additive`` is the same search without
            interactions, which tells what these add.
        n_random: random subsets of each size, at least 2.
        run: name or folder in which every value is kept, and the answer as ``pruning.json``; the
            same call measures nothing twice.
        seed: the seed of masks, random subsets and search.
        progress: progress bars on stderr.

    Raises:
        Refused: other units in `held_out`, fewer than two held-out outputs, shares that leave no
            unit or all, or the same number twice; a decoder of another design.
        BudgetError: fewer masks than the decoder needs.
        FailedMasksError: a choice has no finite value, or no mask of the search has one.
    """
    value_function, held_out = as_value_function(value_function), as_value_function(held_out)
    sizes = _checked(value_function, held_out, shares, n_random)
    recoverer = _checked_decoder(decoder, value_function.n_units, n_masks)
    n_units = value_function.n_units
    rng = np.random.default_rng(seed)
    masks = _subsets([sizes[row % len(sizes)] for row in range(n_masks)], n_units, rng)
    # Drawn apart, so that they are the same for every number of masks.
    apart = np.random.default_rng((seed, Stream.RANDOM_SUBSETS))
    random = {size: _subsets([size] * n_random, n_units, apart) for size in sizes}
    with Run.open(run, progress=progress) as run:
        searched = run.record(value_function)
        scored = run.record(held_out.in_own_dtype, "fresh")
        masks, values = _measured(searched, masks)
        function, best = _searched(searched, sizes, recoverer, masks, seed)
        additive = decode(masks, values, decoder="additive", seed=seed)
        kept: list[Kept] = []
        for size in sizes:
            subsets: dict[Method, np.ndarray] = {
                "recovered": _mask(best[size], n_units),
                "additive": _mask(additive_choice(additive, size), n_units),
                "best sampled": _best_sampled(masks, values, size)[None],
                "random": random[size],
            }
            kept.extend((method, size, masked) for method, masked in subsets.items())
        scored.stage = "held-out outputs"
        clean, ablated, *choices = _scored(scored, kept)
    pruning = Pruning(
        units=value_function.units,
        configuration=scored.configuration,
        function=function,
        additive=additive,
        choices=tuple(
            Choice(method, size, tuple(map(_columns, subsets)), rows)
            for (method, size, subsets), rows in zip(kept, choices, strict=True)
        ),
        clean=clean[0],
        ablated=ablated[0],
        masks=searched.used,
    )
    run.keep(pruning)
    return pruning


def _measured(
    searched: RecordedValues, masks: Bool[np.ndarray, "mask unit"]
) -> tuple[Bool[np.ndarray, "finite unit"], Float[np.ndarray, "finite output"]]:
    """The masks that have a finite value, and their values."""
    searched.stage = "masks of the sizes"
    values = searched(masks).astype(np.float64)
    good = finite_rows(values)
    if not good.any():
        raise FailedMasksError(
            f"none of {len(masks):,} masks has a finite value; mend the value function"
        )
    return masks[good], values[good]


def _checked(
    value_function: ValueFunction, held_out: ValueFunction, shares: Sequence[float], n_random: int
) -> list[int]:
    """The sizes, ascending."""
    check_same_units("held_out", held_out.units, "the value function", value_function.units)
    if len(held_out.outputs) < 2:
        raise Refused(
            f"held_out has {len(held_out.outputs)} output; a paired test needs at least 2 prompts"
        )
    if n_random < 2:
        raise Refused(f"n_random = {n_random}: give at least 2 random subsets a size")
    if not np.isfinite(shares).all():
        raise Refused(f"shares = {list(shares)}: give numbers between 0 and 1")
    n_units = value_function.n_units
    if n_units < 2:
        raise Refused(f"there is {n_units} unit; pruning chooses among at least two units")
    sizes = sorted(round(share * n_units) for share in shares)
    if not sizes or not 1 <= sizes[0] <= sizes[-1] < n_units or len(set(sizes)) < len(sizes):
        raise Refused(
            f"shares = {list(shares)} keep {sizes} of {n_units} units; give shares that keep "
            f"different numbers from 1 to {n_units - 1}"
        )
    return sizes


def _checked_decoder(decoder: str | Decoder, n_units: int, n_masks: int) -> Decoder:
    chosen = find_decoder(decoder)
    if chosen.needs_design:
        raise Refused(
            f"decoder = {chosen.name!r} reads a design of its own; choose one for random masks, "
            "such as 'automatic'"
        )
    fewest = max(_FEWEST_MASKS, math.ceil(chosen.minimum_masks(n_units) / AT_RANDOM))
    if n_masks < fewest:
        raise BudgetError(f"n_masks = {n_masks}: {chosen.name} needs at least {fewest} here")
    return chosen


def _subsets(
    sizes: Sequence[int], n_units: int, rng: np.random.Generator
) -> Bool[np.ndarray, "mask unit"]:
    """A mask of each size, which units is uniform."""
    masks = np.zeros((len(sizes), n_units), dtype=bool)
    for mask, size in zip(masks, sizes, strict=True):
        mask[rng.permutation(n_units)[:size]] = True
    return masks


def _best_sampled(
    masks: Bool[np.ndarray, "mask unit"], values: Float[np.ndarray, "mask output"], size: int
) -> Bool[np.ndarray, " unit"]:
    """The mask of at most `size` units with the largest mean value; none at all if none is."""
    small = np.flatnonzero(masks.sum(axis=1) <= size)
    if not len(small):
        raise FailedMasksError(
            f"no mask of {size} units has a finite value; mend the value function or measure more"
        )
    return masks[small[np.argmax(values[small].mean(axis=1))]]


def _scored(scored: RecordedValues, kept: Sequence[Kept]) -> list[Float[np.ndarray, "_ output"]]:
    """Held-out values of all units, of none, and of the subsets of each choice."""
    ends = both_ends(scored.n_units)
    groups = [ends[:1], ends[1:], *(subsets for _, _, subsets in kept)]
    values = finite_values(scored, np.concatenate(groups), "held-out masks of the choices")
    return np.split(values, np.cumsum([len(group) for group in groups])[:-1])


def _searched(
    searched: RecordedValues,
    sizes: Sequence[int],
    decoder: Decoder,
    masks: Bool[np.ndarray, "mask unit"],
    seed: int,
) -> tuple[SetFunction, dict[int, Term]]:
    """f̂, and of each size the best of all masks of its rounds, which begin with random ones."""
    rounds = SubsetRounds(searched, sizes, decoder, seed)
    n_first = int(len(masks) * AT_RANDOM)
    rounds.measure(masks[:n_first])
    rounds.run(len(masks) - n_first)
    function = rounds.recovered()
    rounds.measure_subsets(members(rounds.front(function, time_limit=_TO_PROVE)))
    return function, rounds.best()


def _mask(columns: Sequence[int], n_units: int) -> Bool[np.ndarray, "1 unit"]:
    return np.isin(np.arange(n_units), columns)[None]


def _columns(mask: Bool[np.ndarray, " unit"]) -> Term:
    return tuple(np.flatnonzero(mask).tolist())
