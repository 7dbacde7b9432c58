"""A circuit's scores under several references: what it carries depends on what ablation puts in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from mechspex.circuits.circuit import Circuit
from mechspex.circuits.faithfulness import behaviour, scorer
from mechspex.circuits.score_table import ReferenceScores
from mechspex.components.component_values import ComponentValues
from mechspex.core.checks import SEED, Only
from mechspex.core.doors import door
from mechspex.core.errors import FailedMasksError, MeasurementError, Refused, TaskError
from mechspex.core.finite import finite_values
from mechspex.core.provenance import Provenance
from mechspex.core.statistics import Estimate, proportion
from mechspex.models.load_model import Model, as_model
from mechspex.runs.run import Run, as_run
from mechspex.tasks.metric_names import DIFFERENCES
from mechspex.tasks.task import Task

_KL = "kl_divergence"


@door(
    model=as_model,
    task=Only((Task,), "a Task, such as load_task('ioi', model)", TaskError),
    circuit=Only((Circuit,), "a Circuit"),
    run=as_run,
    seed=SEED,
)
def reference_scores(
    model: Model,
    task: Task,
    circuit: Circuit,
    references: Sequence[str] | None = None,
    *,
    run: str | Path | Run | None = None,
    seed: int = 0,
    progress: bool = False,
) -> ReferenceScores:
    """Score a circuit under several references.

    Args:
        model: the model that the circuit lies in.
        task: prompts that were not used to find it.
        circuit: a circuit of heads, neurons or MLPs.
        references: ablations by name; if not given ``mean``, ``zero``, ``resample`` and, where the
            task has corrupted prompts, ``corrupted``.
        run: name or folder in which the values are kept, one folder a reference.
        seed: the seed of ``resample`` and of the bootstrap.
        progress: progress bars on stderr.

    Raises:
        Refused: no reference gives scores. Where only some do, the answer says why others do not.
    """
    values_of = partial(ComponentValues, model, task, circuit.units, seed=seed)
    return scores_by_reference(
        values_of, task, circuit, references, run=run, seed=seed, progress=progress
    )


def scores_by_reference(
    values_of: Callable[[str], ComponentValues],
    task: Task,
    circuit: Circuit,
    references: Sequence[str] | None = None,
    *,
    run: str | Path | Run | None = None,
    seed: int = 0,
    progress: bool = False,
) -> ReferenceScores:
    """`reference_scores`, of values that are made or there already.

    Args:
        values_of: the values of the circuit's units on the task, by the name of the reference.
        task: prompts that were not used to find the circuit.
        circuit: a circuit of heads, neurons or MLPs.
        references: ablations by name; those of `reference_scores` if not given.
        run: name or folder in which the values are kept, one folder a reference.
        seed: the seed of the bootstrap.
        progress: progress bars on stderr.

    Raises:
        Refused: no reference gives scores.
    """
    if references is None:
        references = ["mean", "zero", "resample", *(["corrupted"] if task.corrupted else [])]
    # The whole model, nothing, the circuit alone, and all the others.
    alone = circuit.mask
    kept = np.stack([np.ones_like(alone), np.zeros_like(alone), alone, ~alone])
    scores, refused = {}, {}
    with Run.open(run, progress=progress) as run:
        for reference in references:
            try:
                own = values_of(reference)
                values = _measured(own, kept, run)
                (divergence,) = _measured(own.on(replace(task, metric=_KL)), kept[2:3], run)
                is_difference = task.metric in DIFFERENCES
                scores[reference] = _scores(values, divergence, is_difference, seed)
            except (Refused, FailedMasksError, MeasurementError) as error:
                refused[reference] = str(error)
    if not scores:
        reasons = dict.fromkeys(refused.values())
        raise Refused(f"no reference gives scores: {'; '.join(reasons) or 'name at least one'}")
    return ReferenceScores(scores, refused, len(task))


def _measured(
    values: ComponentValues, kept: Bool[np.ndarray, "mask unit"], run: Run
) -> Float[np.ndarray, "mask prompt"]:
    metric = str(Provenance.of(values.configuration).metric)
    # Closed at once: a large model prepared for every reference would not fit in memory.
    with Run.open(run) as run:
        recorded = run.record(values, f"references/{values.ablation}/{metric}")
        recorded.stage = f"{metric.replace('_', ' ')}, reference {values.ablation}"
        return finite_values(recorded, kept, "masks of the circuit")


def _scores(
    values: Float[np.ndarray, "4 prompt"],
    divergence: Float[np.ndarray, " prompt"],
    is_difference: bool,
    seed: int,
) -> dict[str, Estimate]:
    clean, empty, alone, others = values
    share = scorer(behaviour(clean, empty), seed)
    scores = {
        "faithfulness": share(alone - empty),
        "completeness": share(others - empty),
        _KL: scorer(np.ones_like(clean), seed)(divergence),
    }
    if is_difference:
        scores |= {"accuracy": proportion(alone > 0), "clean_accuracy": proportion(clean > 0)}
    return scores
