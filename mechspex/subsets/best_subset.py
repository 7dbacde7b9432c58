"""Circuit search: the k units that a recovered function says are best, with a bound or a proof."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from mechspex.errors import FailedMasksError, Refused
from mechspex.set_functions.set_function import SetFunction
from mechspex.subsets.front import Front, Method, Objective, Subset
from mechspex.subsets.integer_program import SubsetProgram
from mechspex.subsets.local_search import LocalSearch

Values = Callable[[Bool[np.ndarray, "mask unit"]], Float[np.ndarray, "mask ..."]]

# What the solver cannot tell apart, as a share of Σ|c|.
_TOLERANCE = 1e-6
# A program finds a better subset than local search if it is better by more than this share of that.
_ROUNDING = 1e-3
# Kicks of local search for each size.
_KICKS = 20
# The least share of the time left that one program of a front may use.
_SHARE = 0.1


def best_subset(
    function: SetFunction,
    size: int,
    objective: Objective = "keep",
    *,
    time_limit: float = 60.0,
    seed: int = 0,
) -> Subset:
    """The `size` units that matter most to a set function (the mean over its outputs).

    ``keep``: argmax_{|S|=k} f(S kept, the rest ablated), the circuit that is sufficient.
    ``remove``: argmin_{|S|=k} f(S ablated, the rest kept), the units that are necessary.
    To prune k units and lose least, keep the n − k others. If a low value is good (a loss),
    negate the function.

    Local search first, then an integer program over products of units (`SubsetProgram`) that
    proves its answer the best, or finds a better one and proves that. The program is left out
    where it is too large (10,000 variables; 200,000 terms to write down in a change of basis), and
    its answer where the time ends with one no better. So at worst the answer is local search's,
    never below the additive choice or greedy, with a bound that says what is not excluded.

    Args:
        function: in any basis.
        size: k, from 0 to the number of units.
        objective: what is done with the k units.
        time_limit: seconds for the program; local search, before it, takes what it takes.
        seed: of local search.

    Raises:
        Refused: a size outside 0 … n, an unknown objective, a time limit below 0.
    """
    return front(function, [size], objective, time_limit=time_limit, seed=seed)[size]


def front(
    function: SetFunction,
    sizes: Sequence[int] | None = None,
    objective: Objective = "keep",
    *,
    time_limit: float = 120.0,
    seed: int = 0,
) -> Front:
    """The best subset of each size; see `best_subset`.

    Local search walks up and down the sizes, each starting from its neighbours. The time then goes
    to the size with the largest gap. Where the front is concave, a program with a price λ in place
    of the size, v(λ) = max_S f(S) − λ|S|, serves all sizes: f(S) ≤ v(λ) + λ|S|. Where that proves
    nothing, or neighbours are not asked for, a program for the one size follows. One program may
    use a tenth of the time left, or an even share of it if that is more.

    Args:
        function: in any basis.
        sizes: 1 … n if not given.
        objective: ``keep`` or ``remove``.
        time_limit: seconds for all programs; local search, before them, takes what it takes.
        seed: of local search.

    Raises:
        Refused: as `best_subset`; no size at all.
    """
    wanted = _checked_sizes(function.n_units, sizes)
    if not time_limit >= 0:
        raise Refused(f"time_limit = {time_limit}: give seconds, 0 for no program at all")
    start = time.perf_counter()
    score = _score(function, objective)
    search = LocalSearch(score)
    found = {
        size: _Found(chosen, search.value(chosen), search.ceiling())
        for size, chosen in search.best(wanted, n_kicks=_KICKS, seed=seed).items()
    }
    for size in {0, function.n_units} & found.keys():
        found[size].bound = found[size].value
    searched = time.perf_counter() - start
    tolerance = _prove(score, search, found, time_limit)
    for one in found.values():
        one.seconds += searched / len(found)
    return Front(
        tuple(_subset(size, found[size], objective, tolerance) for size in wanted),
        time.perf_counter() - start,
    )


def matching_subsets(
    function: SetFunction, sizes: Sequence[int], target: float, ranking: Sequence[int]
) -> dict[int, tuple[int, ...]]:
    """{size: units which, kept alone, come near a value}, by local search.

    The best subset of a size may do better than the whole model, as it leaves out units that
    oppose the behaviour; these are circuits that do the same. Each starts with the first units of a
    ranking and exchanges one for another as long as f̂ comes nearer to the value.

    Args:
        function: in any basis.
        sizes: of the subsets.
        target: value to match, such as that of the whole model.
        ranking: all units, those that must not be missing first.

    Raises:
        Refused: a size outside 0 … n, a target that is not finite.
    """
    wanted = _checked_sizes(function.n_units, sizes)
    if not np.isfinite(target):
        raise Refused(f"target = {target}: give a finite value to match")
    search = LocalSearch(_score(function, "keep"))
    found = {}
    for size in wanted:
        start = np.zeros(function.n_units, dtype=bool)
        start[list(ranking[:size])] = True
        found[size] = tuple(np.flatnonzero(search.nearest(start, target)).tolist())
    return found


def additive_choice(
    function: SetFunction, size: int, objective: Objective = "keep"
) -> tuple[int, ...]:
    """The units that an additive view of the function takes, best first: a baseline.

    The `size` largest coefficients of the best sum of singles under the design, each unit kept
    with probability `function.keep`; what ``keep`` wants in, ``remove`` wants out.

    Raises:
        Refused: a size outside 0 … n, an unknown objective.
    """
    _checked_sizes(function.n_units, [size])
    order = LocalSearch(_score(function, objective)).additive_order()
    return tuple(order[:size].tolist())


def greedy(
    values: Values, n_units: int, size: int, objective: Objective = "keep"
) -> tuple[int, ...]:
    """The units that greedy choice takes one after another, measuring every candidate: a baseline.

    ``keep`` starts with all units ablated and keeps the one that makes the value largest, and so
    on; ``remove`` starts with all kept and ablates the one that makes it smallest. The first k of
    the answer are the greedy choice of k units. It measures n + (n − 1) + … masks, `size` sums, in
    `size` calls of n or fewer.

    Args:
        values: a value function, or ``function.predict``; of several outputs the mean counts.
        n_units: width of a mask.
        size: how many units are chosen.
        objective: ``keep`` or ``remove``.

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
class _Found:
    """The best subset of one size so far, in terms of the score that is maximised."""

    chosen: Bool[np.ndarray, " unit"]
    value: float
    bound: float
    method: Method = "local search"
    seconds: float = 0.0

    @property
    def gap(self) -> float:
        return self.bound - self.value


def _score(function: SetFunction, objective: Objective) -> SetFunction:
    """A function of the chosen units alone that is to be large, in the basis of its mirror image.

    ``remove`` chooses what is ablated, m = 1 − z, and wants f small. A kept term becomes an ablated
    one, and the Fourier factor (m − p)/σ becomes −(z − (1 − p))/σ.
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
    score: SetFunction, search: LocalSearch, found: dict[int, _Found], time_limit: float
) -> float:
    """Tighten bounds and better subsets by programs; return what the solver cannot tell apart.

    A size is left alone once its gap is closed, or its own program has had its time.
    """
    deadline = time.perf_counter() + time_limit
    middle = sorted(found)[len(found) // 2]
    program = SubsetProgram.of(score, middle, time_limit) if time_limit > 0 else None
    coefficients = (score if program is None else program.function).coefficients
    tolerance = _TOLERANCE * float(np.abs(coefficients).sum())
    unsolved = {size for size in found if found[size].gap > tolerance}
    untried, unpriced = set(unsolved), set(unsolved)
    while program is not None and untried and (left := deadline - time.perf_counter()) > 0:
        begun = time.perf_counter()
        size = max(untried, key=lambda one: (found[one].gap, one))
        price = _price(found, size) if size in unpriced else None
        unpriced.discard(size)
        share = max(left * _SHARE, left / len(untried))
        if price is None:
            untried.discard(size)
            solution = program.solve(size, time_limit=share)
            found[size].bound = min(found[size].bound, solution.bound)
        else:
            solution = program.solve(price=price, time_limit=share)
            for other, one in found.items():
                one.bound = min(one.bound, solution.bound + price * other)
        if solution.chosen is not None:
            _adopt(solution.chosen, search, found, tolerance)
        found[size].seconds += time.perf_counter() - begun
        untried = {one for one in untried if found[one].gap > tolerance}
    for size in unsolved:
        if found[size].gap <= tolerance:
            found[size].method = "milp"
    return tolerance


def _price(found: dict[int, _Found], size: int) -> float | None:
    """The slope of the front at `size`; None if neighbours are missing or it is not concave."""
    if size - 1 not in found or size + 1 not in found:
        return None
    before = found[size].value - found[size - 1].value
    after = found[size + 1].value - found[size].value
    return None if after > before else (before + after) / 2


def _adopt(
    chosen: Bool[np.ndarray, " unit"],
    search: LocalSearch,
    found: dict[int, _Found],
    tolerance: float,
) -> None:
    """Take a program's subset where it is better than what local search found."""
    one, value = found.get(int(chosen.sum())), search.value(chosen)
    if one is not None and value > one.value + _ROUNDING * tolerance:
        one.chosen, one.value, one.method = chosen, value, "milp"


def _subset(size: int, found: _Found, objective: Objective, tolerance: float) -> Subset:
    sign = 1.0 if objective == "keep" else -1.0
    # The solver's bound may lie below a value that it cannot tell from it.
    bound = max(found.bound, found.value)
    return Subset(
        columns=tuple(np.flatnonzero(found.chosen).tolist()),
        n_units=len(found.chosen),
        size=size,
        objective=objective,
        value=sign * found.value,
        bound=sign * bound,
        proven=bound - found.value <= tolerance,
        method=found.method,
        seconds=found.seconds,
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
