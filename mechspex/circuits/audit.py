"""The auditor: a circuit, whoever found it, tested exactly member by member."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from mechspex.circuits.circuit import Circuit
from mechspex.circuits.circuit_file import circuit_of_file
from mechspex.circuits.faithfulness import faithfulness
from mechspex.circuits.find_circuit import MOST_LINKED
from mechspex.circuits.gains import Gains, gains
from mechspex.circuits.verdicts import Verdicts
from mechspex.components.component_values import ComponentValues
from mechspex.core.checks import PROBABILITY, SEED, Only, Whole
from mechspex.core.doors import door
from mechspex.core.errors import AblationError, Refused, TaskError
from mechspex.core.units import Term
from mechspex.effects.validate import validate
from mechspex.models.load_model import Model, as_model
from mechspex.models.units import shape_of
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.run import Run, as_run
from mechspex.tasks.load_task import task_of
from mechspex.tasks.task import Task, as_task


@door(
    model=as_model,
    task=as_task,
    circuit=Only((Circuit, str, Path), "a Circuit, or the file of one"),
    ablation=Only((str,), "an ablation by its name", AblationError),
    n_others=Whole(0, 10**6),
    level=PROBABILITY,
    run=as_run,
    seed=SEED,
)
def audit(
    model: Model | str | Path,
    task: Task | str | Path,
    circuit: Circuit | str | Path,
    ablation: str = "mean",
    *,
    n_others: int = 50,
    level: float = 0.05,
    run: str | Path | Run | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Verdicts:
    """Test a circuit exactly: what it carries, which members it needs, and which it lacks.

    With C the circuit and all other units ablated, every member i is taken out and every one of
    some other units j is put in: g_i = f(C ∪ {i}) − f(C ∖ {i}), tested over prompts with one false
    discovery rate over all units of the model. A member is *needed* where g_i is surely on the
    side of the behaviour f(all) − f(∅); a unit outside with such a g_j is *missing*. All pairs of
    members (of the 24 that add most) are ablated together in the whole model, which tells AND
    from OR (see `Circuit.links`). A file whose graph leaves out edges between its nodes is tested
    edge by edge.

    Args:
        model: the model that the circuit lies in.
        task: prompts that were not used to find it, and metric; or the name of a task.
        circuit: a `Circuit`, or a file: ours, JSON of the MIB benchmark or of EAP-IG, or an
            attribution graph of heads and MLPs.
        ablation: what an ablated unit is replaced by, see `ComponentValues`.
        n_others: units outside the circuit that are put in: those with the largest gradient at it,
            where there are more.
        level: the expected share of false ones among all that is sure, 0.05.
        run: name or folder in which every value is kept.
        seed: the seed of random circuits, of the bootstrap, and of ``resample``.
        progress: progress bars on stderr.

    Raises:
        Refused: a file that holds no circuit of this model, or parts of MLPs; an empty circuit, or
            one of all units.
        TaskError: a single prompt, over which nothing can be tested.
        FailedMasksError: a mask of the circuit has no finite value.
    """
    assert isinstance(model, Model)
    if not isinstance(circuit, Circuit):
        circuit = circuit_of_file(Path(circuit), shape_of(model))
    task = task_of(model, task, spans=circuit.units.named_spans)
    if len(task) < 2:
        raise TaskError("one prompt has no spread to test anything by; give at least two")
    if not 0 < len(circuit) < len(circuit.units):
        raise Refused(
            f"the circuit has {len(circuit)} of {len(circuit.units)} units; one of some and not "
            "all can be tested"
        )
    values = ComponentValues(model, task, circuit.units, ablation, seed=seed)
    with Run.open(run, progress=progress) as run:
        recorded = run.record(values)
        recorded.stage = "the circuit and its members"
        scores = faithfulness(recorded, circuit, seed=seed)
        others = _others(recorded, circuit, n_others)
        recorded.stage = "members out, others in"
        found = gains(recorded, circuit.members, others, level)
        recorded.stage = "pairs of members"
        among = _strongest(found, circuit)
        terms = [*((i,) for i in among), *combinations(among, 2)]
        links = circuit.with_links(validate(recorded, terms, level=level)).links
        configuration = recorded.configuration
    judged = replace(circuit, configuration=configuration, links=links, scores=scores.to_dict())
    verdicts = Verdicts(judged, scores, found, level)
    run.keep(verdicts)
    return verdicts


def _others(recorded: RecordedValues, circuit: Circuit, most: int) -> Term:
    """Units outside the circuit: all, or those whose gradient at it is largest."""
    outside = np.flatnonzero(~circuit.mask)
    if len(outside) <= most:
        return tuple(outside.tolist())
    if not recorded.differentiable:
        return tuple(outside[:most].tolist())
    _, slopes = recorded.value_and_mean_gradient(circuit.mask[None].astype(np.float32))
    order = np.argsort(-np.abs(slopes[0][outside]), kind="stable")
    return tuple(sorted(outside[order[:most]].tolist()))


def _strongest(found: Gains, circuit: Circuit) -> Term:
    """The members of which pairs are measured."""
    size: dict[int, float] = dict(zip(found.columns, np.abs(found.means).tolist(), strict=True))
    members: list[Any] = sorted(circuit.members, key=lambda column: -size[column])
    return tuple(sorted(members[:MOST_LINKED]))
