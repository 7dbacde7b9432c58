"""Finding a circuit: masks of every density, a front over sizes, exact scores on fresh prompts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from itertools import combinations
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from mechspex.circuits.by_size import circuits_by_size
from mechspex.circuits.circuit import Circuit
from mechspex.circuits.discovery import Discovery
from mechspex.circuits.faithfulness import faithfulness, mib_sizes
from mechspex.circuits.scoring import scored_discovery
from mechspex.core.masks import both_ends, keep_only
from mechspex.core.provenance import Provenance
from mechspex.core.statistics import mean_estimate
from mechspex.core.units import check_same_units
from mechspex.core.value_function import ValueFunction, ValuesLike, as_value_function
from mechspex.decoders import Decoder
from mechspex.effects.validate import validate
from mechspex.errors import Refused
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.run import VALIDATION, run_folder
from mechspex.screening import screen
from mechspex.set_functions.set_function import SetFunction
from mechspex.tasks.metric_names import DIFFERENCES

Objective = Literal["match", "best"]

_FEWEST_RIGHT = 0.75

# The smallest sizes, each of which is searched besides those of the MIB benchmark.
_SMALL = 20

# Members of which all pairs are measured: more are not told apart by a reader.
_MOST_LINKED = 24

_WORDS = {"best": "the best", "match": "the most faithful"}


def find_circuit(
    value_function: ValuesLike,
    fresh: ValuesLike,
    *,
    size: int | None = None,
    target: float = 0.9,
    objective: Objective = "match",
    budget: int = 1_000,
    sizes: Sequence[int] | None = None,
    decoder: str | Decoder = "kernel",
    run: str | Path | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Discovery:
    """Find the smallest set of units that carries the behaviour by itself.

    Masks of all densities are measured, f̂ is recovered from them, and the best subset of each size
    k, argmax_{|S|=k} f̂(S kept, the rest ablated), is measured with masks around it; these join the
    others for the next f̂. So the search learns where it looks; likewise subsets that match the
    whole model. Where the value function has gradients, both then climb on the model itself (see
    `mechspex.subsets.gradient_climb`). The smallest faithful subset is the circuit; it is scored,
    and all pairs of its members are measured, on fresh outputs.

    Args:
        value_function: the model on the outputs (prompts) that may be searched.
        fresh: the same units on other outputs, for the scores.
        size: of the circuit; None for the smallest faithful one.
        target: faithfulness to reach on the search's outputs.
        objective: ``match``, the circuit is to do what the whole model does: its faithfulness lies
            within 1 ± (1 − target). ``best``, it is to do as much as it can: the best subset of its
            size, which may do more than the whole model as it leaves out what opposes the
            behaviour.
        budget: masks of all densities and around the subsets. Measured besides: the subsets of all
            sizes that f̂ and the screen propose, and those met in climbing; of 270 units 350 to 750
            in all, and about a hundred gradients.
        sizes: that are searched; 1 … 20 and those of the MIB benchmark if not given.
        decoder: of masks of all densities; ``kernel`` is the best at that.
        run: name or folder in which every value and the circuit are kept.
        seed: of masks and search.
        progress: progress bars on stderr.

    Raises:
        Refused: the model does not do the task (see the message), other units in `fresh`, no size
            reaches the target.
    """
    value_function, fresh = as_value_function(value_function), as_value_function(fresh)
    check_same_units("fresh", fresh.units, "the value function", value_function.units)
    if objective not in get_args(Objective):
        raise Refused(f"objective = {objective!r}: choose {', '.join(get_args(Objective))}")
    if budget < 50:
        raise Refused(f"budget = {budget} masks: give at least 50")
    if seed < 0:
        raise Refused(f"seed = {seed}: give a whole number from 0 up")
    if not 0 < target < (np.inf if objective == "best" else 1):
        raise Refused(f"target = {target}: give a faithfulness above 0, below 1 to match the model")
    n_units = value_function.n_units
    wanted = _sizes(n_units, sizes, size)
    folder = None if run is None else run_folder(run)
    if folder is not None:
        # An earlier answer is that of another question, or is found again.
        for file in (Circuit.file, Discovery.file):
            (folder / file).unlink(missing_ok=True)
    with ExitStack() as stack:
        searched = RecordedValues(value_function, folder, progress=progress)
        searched = stack.enter_context(closing(searched))
        below = None if folder is None else folder / VALIDATION
        scored = RecordedValues(fresh.in_own_dtype, below, progress=progress)
        scored = stack.enter_context(closing(scored))
        check_behaviour(scored)
        exact, sloped, attributed, gradients = value_function.in_own_dtype, None, None, 0
        if exact.differentiable:
            below = None if folder is None else folder / "screen"
            screened = screen(exact, "first_order", run=below, seed=seed, progress=progress)
            attributed, gradients = screened.single_scores, screened.cost.masks
            sloped = RecordedValues(exact, below, progress=progress)
            stack.enter_context(closing(sloped))
        found = circuits_by_size(
            searched,
            wanted,
            budget=budget,
            decoder=decoder,
            seed=seed,
            sloped=sloped,
            attributed=attributed,
        )
        chosen = size if size is not None else _smallest(found.front, objective, target)
        columns = found.best[chosen] if objective == "best" else found.matching[chosen]
        scored.stage = "scoring the circuit"
        scores = faithfulness(scored, columns, seed=seed)
        circuit = Circuit(
            units=value_function.units,
            members=columns,
            configuration=fresh.configuration,
            method=f"{_WORDS[objective]} {chosen} units, from {searched.used:,} masks searched",
            predicted=_predicted(found.function, columns),
            scores=scores.to_dict(),
            objective=objective,
            n_searched=searched.used,
        )
        if len(columns) <= _MOST_LINKED:
            scored.stage = "pairs of members"
            terms = [(i,) for i in columns] + list(combinations(columns, 2))
            circuit = circuit.with_links(validate(scored, terms))
        masks = searched.used + scored.used + gradients + (sloped.used if sloped else 0)
        by_size = found.function, found.best, found.matching
        discovery = Discovery(circuit, *by_size, scores, found.front, masks)
        discovery = scored_discovery(
            discovery, fresh, scored, run=folder, seed=seed, progress=progress
        )
    if folder is not None:
        discovery.circuit.save(folder)
        discovery.save(folder)
    return discovery


def check_behaviour(value_function: ValueFunction) -> None:
    """Refuse a circuit of something that the model does not do.

    Raises:
        Refused: the value with all units kept is not above that with all ablated, or, of a metric
            that is 0 by chance, not above 0 on three quarters of the outputs; by the lower ends
            of 95% intervals over outputs.
    """
    clean, empty = value_function(both_ends(value_function.n_units)).astype(np.float64)
    provenance = Provenance.of(value_function.configuration)
    task, metric = provenance.task or "this", provenance.metric
    whole = mean_estimate(clean - empty)
    if not whole.low > 0:
        raise Refused(
            f"{task}: all units together make no difference that is surely above 0, "
            f"{whole:.3f}; no circuit is reported"
        )
    if metric not in DIFFERENCES:
        return
    score, right = mean_estimate(clean), float((clean > 0).mean())
    if right < _FEWEST_RIGHT or not score.low > 0:
        raise Refused(
            f"the model does not do {task}: {metric.replace('_', ' ')} "
            f"{score:.3f}, right on {right:.0%} of {len(clean)} prompts "
            f"({_FEWEST_RIGHT:.0%} are needed); no circuit is reported"
        )


def _sizes(n_units: int, sizes: Sequence[int] | None, size: int | None) -> list[int]:
    if size is not None and not 1 <= size < n_units:
        raise Refused(f"size = {size}: choose from 1 to {n_units - 1} units")
    if sizes is None:
        sizes = [*range(1, min(_SMALL, n_units - 1) + 1), *mib_sizes(n_units)]
    wanted = {k for k in sizes if k < n_units} | ({size} if size is not None else set())
    if not wanted or min(wanted) < 1:
        raise Refused(f"sizes = {list(sizes)}: give sizes from 1 to {n_units - 1} units")
    return sorted(wanted)


def _smallest(table: pd.DataFrame, objective: Objective, target: float) -> int:
    """The smallest size at which a subset is faithful."""
    share = table["faithfulness" if objective == "best" else "matching"].to_numpy()
    sizes = table["size"].to_numpy()
    away = np.abs(share - 1)
    faithful = share >= target if objective == "best" else away <= 1 - target + 1e-12
    if not faithful.any():
        nearest = away.argmin()
        raise Refused(
            f"no subset reaches a faithfulness of {target}: the nearest has {sizes[nearest]} units "
            f"and {share[nearest]:.3f}; give a size, a larger budget or a lower target"
        )
    return int(sizes[faithful].min())


def _predicted(function: SetFunction, columns: tuple[int, ...]) -> float:
    return float(function.predict(keep_only(function.n_units, [columns]))[0])
