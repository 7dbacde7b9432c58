"""Finding a circuit: masks of every density, a front over sizes, exact scores on fresh prompts."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mechspex.circuits.by_size import Climb, circuits_by_size
from mechspex.circuits.certify import Prompts, as_certified
from mechspex.circuits.circuit import Circuit
from mechspex.circuits.discovery import Discovery
from mechspex.circuits.faithfulness import faithfulness
from mechspex.circuits.goal import CircuitGoal
from mechspex.circuits.membership import membership
from mechspex.circuits.scoring import scored_discovery
from mechspex.core.checks import SEED, WHOLE, Only
from mechspex.core.counted import counted
from mechspex.core.doors import door
from mechspex.core.errors import MeasurementError, Refused
from mechspex.core.masks import both_ends, keep_only
from mechspex.core.old_keywords import takes_old
from mechspex.core.provenance import Provenance
from mechspex.core.statistics import Estimate, mean_estimate
from mechspex.core.units import check_same_units
from mechspex.core.value_function import ValueFunction, ValuesLike, as_value_function, as_values
from mechspex.decoders import Decoder, as_decoder
from mechspex.effects.validate import validate
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.run import VALIDATION, Run, as_run, may_be_read
from mechspex.screening import screen
from mechspex.screening.gradient_attribution import FirstOrder
from mechspex.set_functions.set_function import SetFunction
from mechspex.tasks.metric_names import DIFFERENCES

_FEWEST_RIGHT = 0.75
# The precision in which slopes may be: it has the range of float32.
_COARSE = "bf16"

# Members of which all pairs are measured: more are not told apart by a reader.
MOST_LINKED = 24


def _renew(given: dict[str, Any], old: dict[str, Any]) -> None:
    """Put the old keywords of `find_circuit` into its goal."""
    given["goal"] = replace(given.get("goal") or CircuitGoal(), **old)


@takes_old(
    {
        "fresh": "held_out",
        "budget": "n_masks",
        "size": "goal=CircuitGoal(size=…)",
        "target": "goal=CircuitGoal(target=…)",
        "objective": "goal=CircuitGoal(objective=…)",
        "sizes": "goal=CircuitGoal(sizes=…)",
    },
    _renew,
)
@door(
    value_function=as_values,
    held_out=as_values,
    goal=Only((CircuitGoal,), "CircuitGoal(size=…, target=…)"),
    n_masks=WHOLE,
    decoder=as_decoder,
    certified=as_certified,
    run=as_run,
    seed=SEED,
)
def find_circuit(
    value_function: ValuesLike,
    held_out: ValuesLike,
    *,
    goal: CircuitGoal | None = None,
    n_masks: int = 1_000,
    decoder: str | Decoder = "kernel",
    certified: bool | Prompts = False,
    run: str | Path | Run | None = None,
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
        held_out: the same units on other outputs (`ComponentValues.on` other prompts), for the
            scores.
        goal: which circuit is looked for; the smallest whose faithfulness lies within 1 ± 0.1 if
            not given.
        n_masks: masks of all densities and around the subsets. Measured besides: the subsets of all
            sizes that f̂ and the screen propose, and those met in climbing; of 270 units 350 to 750
            in all, and about a hundred gradients.
        decoder: what recovers f̂ from masks of all densities; ``kernel`` is the best at that.
        certified: whether the answer has a certificate of the circuit (see `mechspex.certify`),
            for which one more mask a unit is measured on `held_out`: True or ``sample``, where the
            prompts are drawn from more; ``census``, where `held_out` are all prompts that there
            are, those that are searched among them.
        run: name or folder in which every value and the circuit are kept.
        seed: the only source of randomness, for masks and search.
        progress: progress bars on stderr.

    Raises:
        Refused: the model does not do the task (see the message), other units in `held_out`, no
            size reaches the target.
    """
    value_function, held_out = as_value_function(value_function), as_value_function(held_out)
    check_same_units("held_out", held_out.units, "the value function", value_function.units)
    if n_masks < 50:
        raise Refused(f"n_masks = {n_masks}: give at least 50")
    goal = goal or CircuitGoal()
    wanted = goal.sizes_among(value_function.n_units)
    with Run.open(run, progress=progress) as run:
        # An earlier answer is that of another question, or is found again.
        for file in (Circuit.file, Discovery.file):
            run.remove(file)
        searched = run.record(value_function)
        scored = run.record(held_out.in_own_dtype, VALIDATION)
        try:
            check_behaviour(scored, census=certified == "census")
        except (Refused, MeasurementError):
            run.forget()
            raise
        climb = _climb(run, value_function, seed)
        options = {"n_masks": n_masks, "decoder": decoder, "seed": seed}
        found = circuits_by_size(searched, wanted, climb=climb, **options)
        size = goal.size_in(found.front)
        columns = (found.best if goal.objective == "best" else found.matching)[size]
        scored.stage = "scoring the circuit"
        scores = faithfulness(scored, columns, seed=seed)
        circuit = Circuit(
            units=value_function.units,
            members=columns,
            configuration=scored.configuration,
            method=f"{goal.words} {counted(size, 'unit')}, from {searched.used:,} masks searched",
            predicted=_predicted(found.function, columns),
            scores=scores.to_dict(),
            objective=goal.objective,
            n_searched=searched.used,
        )
        circuit = _linked(circuit, scored)
        masks = run.cost.masks + (0 if climb is None else climb.n_gradients)
        by_size = found.function, found.best, found.matching
        discovery = Discovery(circuit, *by_size, scores, found.front, masks)
        if certified != "census" and len(searched.outputs) > 1:
            drawn = (circuit.units, circuit.members), found.masks, found.values
            again = membership(*drawn, list(found.best), goal, seed)
            discovery = replace(discovery, membership=again)
        discovery = scored_discovery(
            discovery, held_out, scored, certified=certified, run=run, seed=seed
        )
        discovery = replace(discovery, cost=run.cost)
    run.keep(discovery.circuit, discovery)
    return discovery


def _climb(run: Run, function: ValueFunction, seed: int) -> Climb | None:
    """Where the slopes for climbing come from, and the effects that a screen attributes."""
    own, part = function.in_own_dtype, "screen"
    if not own.differentiable:
        return None
    # Slopes only propose what is measured, so those in bf16 do; where a run was begun with slopes
    # in the model's own dtype, it goes on with these.
    begun = run.folder is not None and may_be_read(run.folder / part)
    if Provenance.of(function.configuration).precision == _COARSE and not begun:
        own, part = function, f"screen-{_COARSE}"
    # The tables of circuits are measured with the midpoint.
    midpoint = FirstOrder(at=0.5)
    screened = screen(own, midpoint, run=run.below(part), seed=seed)
    recorded = run.record(own, part)
    return Climb(recorded, screened.single_scores, screened.cost.masks)


def _linked(circuit: Circuit, scored: RecordedValues) -> Circuit:
    """The circuit with all pairs of its members measured, where a reader can tell them apart."""
    if len(circuit.members) > MOST_LINKED:
        return circuit
    scored.stage = "pairs of members"
    terms = [(i,) for i in circuit.members] + list(combinations(circuit.members, 2))
    return circuit.with_links(validate(scored, terms))


def check_behaviour(value_function: ValueFunction, *, census: bool = False) -> None:
    """Refuse a circuit of something that the model does not do.

    Args:
        value_function: the model on the outputs that score the circuit.
        census: whether these are all outputs that there are: their means are then without a doubt.

    Raises:
        Refused: the value with all units kept is not above that with all ablated, or, of a metric
            that is 0 by chance, not above 0 on three quarters of the outputs; by the lower ends
            of 95% intervals over outputs.
        MeasurementError: one of these is not finite.
    """
    clean, empty = value_function(both_ends(value_function.n_units)).astype(np.float64)
    provenance = Provenance.of(value_function.configuration)
    task, metric = provenance.task or "this", provenance.metric
    estimate = _exactly if census else mean_estimate
    whole = estimate(clean - empty)
    if not np.isfinite(clean - empty).all():
        end = "kept" if not np.isfinite(clean).all() else "ablated"
        raise MeasurementError(
            f"{task}: with all units {end} the value is not finite on every output; mend the value "
            "function, or look at the prompts, the dtype and the metric"
        )
    if not whole.low > 0:
        raise Refused(
            f"{task}: all units together make no difference that is surely above 0, "
            f"{whole:.3f}; no circuit is reported"
        )
    if metric not in DIFFERENCES:
        return
    score, right = estimate(clean), float((clean > 0).mean())
    if right < _FEWEST_RIGHT or not score.low > 0:
        raise Refused(
            f"the model does not do {task}: {metric.replace('_', ' ')} "
            f"{score:.3f}, right on {right:.0%} of {len(clean)} prompts "
            f"({_FEWEST_RIGHT:.0%} are needed); no circuit is reported"
        )


def _exactly(values: Float[np.ndarray, " output"]) -> Estimate:
    mean = float(values.mean())
    return Estimate(mean, mean, mean)


def _predicted(function: SetFunction, columns: tuple[int, ...]) -> float:
    return float(function.predict(keep_only(function.n_units, [columns]))[0])
