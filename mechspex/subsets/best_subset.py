"""Circuit search: the k units that a recovered function says are best, with a bound or a proof."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.checks import NUMBERS, SEED, WHOLE, Only, as_number, told
from mechspex.core.doors import door
from mechspex.core.errors import FailedMasksError, Refused
from mechspex.set_functions.set_function import SetFunction
from mechspex.subsets.front import Front, SearchMethod, Subset, SubsetObjective
from mechspex.subsets.integer_program import SubsetProgram
from mechspex.subsets.local_search import LocalSearch

Values = Callable[[Bool[np.ndarray, "mask unit"]], Float[np.ndarray, "mask ..."]]

# Values that differ by less than this share of Σ|c| are equal to the solver.
_TOLERANCE = 1e-6
# A program's subset replaces local search's if it is better by more than this share of that
# tolerance; a smaller difference is rounding.
_ROUNDING_OF_TOLERANCE = 1e-3
# Kicks of local search for each size.
_KICKS = 20
# The least share of the remaining time that one program of a front may use.
_SHARE = 0.1


@door(
    function=Only((SetFunction,), "a SetFunction, such as an explanation's function"),
    size=WHOLE,
    seed=SEED,
)
def best_subset(
    function: SetFunction,
    size: int,
    objective: SubsetObjective = "keep",
    *,
    time_limit: float = 60.0,
    seed: int = 0,
) -> Subset:
    """The `size` units that matter most to a set function (the mean over its outputs).

    ``keep``: argmax_{|S|=k} f(S kept, the rest ablated), the circuit that is sufficient.
    ``remove``: argmin_{|S|=k} f(S ablated, the rest kept), the units that are necessary.
    To prune k units and lose least, keep the n − k others. If a low value is good (a loss),
    negate the function.

    Local search comes first. Then an integer program over products of units (`SubsetProgram`)
    proves its answer the best, or finds a better one and proves that. There is no program where it
    would be too large: 10,000 variables, or 200,000 terms to write down in a change of basis. Where
    there is none, or its time ends, the answer is local search's. That is never worse than the
    additive choice or greedy, and `Subset.bound` says how much better another subset could be.

    >>> import mechspex as mx
    >>> function = mx.SetFunction.from_mapping(4, {(0,): 2.0, (1, 2): 3.0, (3,): 0.5}, basis="kept")
    >>> best = mx.best_subset(function, 2)
    >>> best.columns, best.value, best.proven
    ((1, 2), 3.0, True)

    Args:
        function: the set function, in any basis.
        size: k, from 0 to the number of units.
        objective: ``keep`` or ``remove``: what is done with the k units.
        time_limit: seconds for the program. Local search has no limit.
        seed: the seed of local search.

    Raises:
        Refused: a size outside 0 … n, an unknown objective, a time limit below 0.
    """
    return front(function, [size], objective, time_limit=time_limit, seed=seed)[size]


_FUNCTION = Only((SetFunction,), "a SetFunction, such as an explanation's function")


@door(function=_FUNCTION, sizes=NUMBERS, seed=SEED)
def front(
    function: SetFunction,
    sizes: Sequence[int] | None = None,
    objective: SubsetObjective = "keep",
    *,
    time_limit: float = 120.0,
    seed: int = 0,
) -> Front:
    """The best subset of each size; see `best_subset`.

    Local search walks up and down the sizes; each size starts from its neighbours. The time then
    goes to the size with the largest gap. Where the front is concave, one program serves all sizes:
    it has a price λ a unit in place of the size, v(λ) = max_S f(S) − λ|S|, and
    f(S) ≤ v(λ) + λ|S|. Where that proves nothing, or a neighbouring size was not asked for, a
    program for the one size follows. One program may use a tenth of the remaining time, or an even
    share of it if that is more.

    >>> import mechspex as mx
    >>> function = mx.SetFunction.from_mapping(4, {(0,): 2.0, (1, 2): 3.0, (3,): 0.5}, basis="kept")
    >>> [(subset.columns, subset.value) for subset in mx.front(function, [1, 2, 3])]
    [((0,), 2.0), ((1, 2), 3.0), ((0, 1, 2), 5.0)]

    Args:
        function: the set function, in any basis.
        sizes: the sizes of the subsets; 1 … n if not given.
        objective: ``keep`` or ``remove``: what is done with the units of a subset.
        time_limit: seconds for all programs together. Local search has no limit.
        seed: the seed of local search.

    Raises:
        Refused: a size outside 0 … n or no size at all, an unknown objective, a time limit below 0.
    """
    wanted = _checked_sizes(function.n_units, sizes)
    if not time_limit >= 0:
        raise Refused(f"time_limit = {time_limit}: give seconds, 0 for no program at all")
    start = time.perf_counter()
    score = score_of_choice(function, objective)
    search = LocalSearch(score)
    incumbents = {
        size: _Incumbent(chosen, search.value(chosen), search.ceiling())
        for size, chosen in search.best(wanted, n_kicks=_KICKS, seed=seed).items()
    }
    for size in {0, function.n_units} & incumbents.keys():
        incumbents[size].bound = incumbents[size].value
    search_seconds = time.perf_counter() - start
    tolerance = _prove(score, search, incumbents, time_limit)
    for incumbent in incumbents.values():
        incumbent.seconds += search_seconds / len(incumbents)
    return Front(
        tuple(_subset(size, incumbents[size], objective, tolerance) for size in wanted),
        time.perf_counter() - start,
    )


@door(
    function=Only((SetFunction,), "a SetFunction, such as an explanation's function"),
    sizes=NUMBERS,
    target=as_number,
    ranking=NUMBERS,
)
def matching_subsets(
    function: SetFunction, sizes: Sequence[int], target: float, ranking: Sequence[int]
) -> dict[int, tuple[int, ...]]:
    """Subsets of given sizes which, kept alone, come near a target value, by local search.

    The best subset of a size may do better than the whole model, since it leaves out units that
    oppose the behaviour. A matching subset does what the whole model does. Its search starts from
    the first units of a ranking, and exchanges one unit for another as long as f comes nearer to
    the target.

    >>> import mechspex as mx
    >>> terms = {(0,): 2.0, (1, 2): 3.0, (3,): -1.0}
    >>> function = mx.SetFunction.from_mapping(4, terms, basis="kept")
    >>> mx.matching_subsets(function, [2, 3], target=2.0, ranking=[1, 2, 0, 3])
    {2: (0, 2), 3: (1, 2, 3)}

    Args:
        function: the set function, in any basis.
        sizes: the sizes of the subsets.
        target: the value to match, such as that of the whole model.
        ranking: all units by column, the indispensable ones first.

    Returns:
        {size: columns of the units, ascending}.

    Raises:
        Refused: a size outside 0 … n, a target that is not finite, a ranking that does not hold
            every unit once.
    """
    wanted = _checked_sizes(function.n_units, sizes)
    if not np.isfinite(target):
        raise Refused(f"target = {target}: give a finite value to match")
    if len(ranking) != function.n_units or set(ranking) != set(range(function.n_units)):
        raise Refused(
            f"ranking = {told(ranking)}: give the column of every one of the {function.n_units} "
            "units once, the indispensable ones first"
        )
    search = LocalSearch(score_of_choice(function, "keep"))
    subsets = {}
    for size in wanted:
        start = np.zeros(function.n_units, dtype=bool)
        start[list(ranking[:size])] = True
        subsets[size] = tuple(np.flatnonzero(search.nearest(start, target)).tolist())
    return subsets


@door(function=_FUNCTION, size=WHOLE)
def additive_choice(
    function: SetFunction, size: int, objective: SubsetObjective = "keep"
) -> tuple[int, ...]:
    """The units that an additive view of the function takes, best first: a baseline.

    They have the largest coefficients in the best approximation of f by a sum of singles, each
    unit kept with probability p = `function.keep`.

    >>> import mechspex as mx
    >>> function = mx.SetFunction.from_mapping(4, {(0,): 2.0, (1, 2): 3.0, (3,): 0.5}, basis="kept")
    >>> mx.additive_choice(function, 2)  # f = 2 with units 0 and 1, 3 with units 1 and 2
    (0, 1)

    Args:
        function: the set function, in any basis; the mean over its outputs counts.
        size: how many units are chosen.
        objective: ``keep`` or ``remove``: what is done with the chosen units.

    Returns:
        Columns of the chosen units, best first.

    Raises:
        Refused: a size outside 0 … n, an unknown objective.
    """
    _checked_sizes(function.n_units, [size])
    order = LocalSearch(score_of_choice(function, objective)).additive_order()
    return tuple(order[:size].tolist())


def greedy(
    values: Values, n_units: int, size: int, objective: SubsetObjective = "keep"
) -> tuple[int, ...]:
    """The units that greedy choice takes one after another, measuring every candidate: a baseline.

    ``keep`` starts with all units ablated; each step keeps the unit that makes the value largest.
    ``remove`` starts with all units kept; each step ablates the unit that makes it smallest. The
    first k of the answer are the greedy choice of k units. Step k measures n − k + 1 masks in one
    call.

    >>> import mechspex as mx
    >>> function = mx.SetFunction.from_mapping(4, {(0,): 2.0, (1, 2): 3.0, (3,): 0.5}, basis="kept")
    >>> mx.greedy(function.predict, 4, 2)  # misses the AND of units 1 and 2
    (0, 3)

    Args:
        values: a value function, or ``function.predict``; the mean over outputs counts.
        n_units: the width of a mask.
        size: how many units are chosen.
        objective: ``keep`` or ``remove``: what is done with the chosen units.

    Returns:
        Columns of the chosen units, in the order of their choice.

    Raises:
        Refused: a size outside 0 … n, an unknown objective.
        FailedMasksError: a value that is not finite.
    """
    _checked_sizes(n_units, [size])
    _check_objective(objective)
    keep = objective == "keep"
    mask = np.full(n_units, not keep)
    chosen: list[int] = []
    for _ in range(size):
        candidates = np.flatnonzero(mask != keep)
        masks = np.repeat(mask[None], len(candidates), axis=0)
        masks[np.arange(len(candidates)), candidates] = keep
        measured = np.asarray(values(masks), dtype=np.float64).reshape(len(masks), -1).mean(axis=1)
        if not np.isfinite(measured).all():
            raise FailedMasksError(
                f"{(~np.isfinite(measured)).sum()} of {len(masks)} masks have no finite value at "
                f"step {len(chosen) + 1} of {size}; mend the value function"
            )
        chosen.append(int(candidates[np.argmax(measured if keep else -measured)]))
        mask[chosen[-1]] = keep
    return tuple(chosen)


@dataclass
class _Incumbent:
    """The best known subset of one size, valued by the score that is maximised."""

    chosen: Bool[np.ndarray, " unit"]
    value: float
    bound: float
    method: SearchMethod = "local search"
    seconds: float = 0.0

    @property
    def gap(self) -> float:
        return self.bound - self.value


def score_of_choice(function: SetFunction, objective: SubsetObjective) -> SetFunction:
    """A function of the chosen units alone that is to be large, in the basis of its mirror image.

    ``remove`` chooses what is ablated, m = 1 − z, and wants f small. A kept term becomes an ablated
    one, and the Fourier factor (m − p)/σ becomes −(z − (1 − p))/σ.

    Args:
        function: the set function f; the mean over its outputs counts.
        objective: ``keep`` or ``remove``: what is done with the chosen units.

    Raises:
        Refused: an unknown objective.
    """
    _check_objective(objective)
    mean = replace(function, output_coefficients=function.coefficients)
    if objective == "keep":
        return mean
    signs, basis = -np.ones(len(function)), function.basis
    if basis == "fourier":
        signs = np.array([-((-1.0) ** len(term)) for term in function.terms])
    else:
        basis = "ablated" if basis == "kept" else "kept"
    coefficients = signs * function.coefficients
    return replace(mean, output_coefficients=coefficients, basis=basis, keep=1 - function.keep)


def _prove(
    score: SetFunction, search: LocalSearch, incumbents: dict[int, _Incumbent], time_limit: float
) -> float:
    """Tighten bounds and better subsets by programs; return the solver's tolerance for values.

    A size is done once its gap is closed, or its own program has had its time.
    """
    deadline = time.perf_counter() + time_limit
    middle = sorted(incumbents)[len(incumbents) // 2]
    program = SubsetProgram.of(score, middle, time_limit) if time_limit > 0 else None
    coefficients = (score if program is None else program.function).coefficients
    tolerance = _TOLERANCE * float(np.abs(coefficients).sum())
    unsolved = {size for size in incumbents if incumbents[size].gap > tolerance}
    untried, unpriced = set(unsolved), set(unsolved)
    while program is not None and untried and (rest := deadline - time.perf_counter()) > 0:
        start = time.perf_counter()
        size = max(untried, key=lambda one: (incumbents[one].gap, one))
        price = _price(incumbents, size) if size in unpriced else None
        unpriced.discard(size)
        share = max(rest * _SHARE, rest / len(untried))
        if price is None:
            untried.discard(size)
            solution = program.solve(size, time_limit=share)
            incumbents[size].bound = min(incumbents[size].bound, solution.bound)
        else:
            solution = program.solve(price=price, time_limit=share)
            for other, incumbent in incumbents.items():
                incumbent.bound = min(incumbent.bound, solution.bound + price * other)
        if solution.chosen is not None:
            _adopt(solution.chosen, search, incumbents, tolerance)
        incumbents[size].seconds += time.perf_counter() - start
        untried = {one for one in untried if incumbents[one].gap > tolerance}
    for size in unsolved:
        if incumbents[size].gap <= tolerance:
            incumbents[size].method = "milp"
    return tolerance


def _price(incumbents: dict[int, _Incumbent], size: int) -> float | None:
    """The slope of the front at `size`; None where it has no neighbours or is not concave."""
    if size - 1 not in incumbents or size + 1 not in incumbents:
        return None
    before = incumbents[size].value - incumbents[size - 1].value
    after = incumbents[size + 1].value - incumbents[size].value
    return None if after > before else (before + after) / 2


def _adopt(
    chosen: Bool[np.ndarray, " unit"],
    search: LocalSearch,
    incumbents: dict[int, _Incumbent],
    tolerance: float,
) -> None:
    """Take a program's subset where it is better than the one that is known."""
    incumbent, value = incumbents.get(int(chosen.sum())), search.value(chosen)
    if incumbent is not None and value > incumbent.value + _ROUNDING_OF_TOLERANCE * tolerance:
        incumbent.chosen, incumbent.value, incumbent.method = chosen, value, "milp"


def _subset(
    size: int, incumbent: _Incumbent, objective: SubsetObjective, tolerance: float
) -> Subset:
    sign = 1.0 if objective == "keep" else -1.0
    # The solver's bound may lie below a value that it cannot tell from it.
    bound = max(incumbent.bound, incumbent.value)
    return Subset(
        columns=tuple(np.flatnonzero(incumbent.chosen).tolist()),
        n_units=len(incumbent.chosen),
        size=size,
        objective=objective,
        value=sign * incumbent.value,
        bound=sign * bound,
        proven=bound - incumbent.value <= tolerance,
        method=incumbent.method,
        seconds=incumbent.seconds,
    )


def _checked_sizes(n_units: int, sizes: Sequence[int] | None) -> list[int]:
    """The sizes, ascending and without repetition."""
    wanted = list(range(1, n_units + 1)) if sizes is None else sorted(set(sizes))
    if not wanted:
        raise Refused(f"sizes = {sizes}: give at least one, from 0 to {n_units} units")
    for size in wanted:
        if not 0 <= size <= n_units:
            raise Refused(f"size = {size}: choose from 0 to {n_units} units")
    return wanted


def _check_objective(objective: str) -> None:
    if objective not in ("keep", "remove"):
        raise Refused(f"objective = {objective!r}: choose 'keep' or 'remove'")
