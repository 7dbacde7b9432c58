"""Two models on the same masks: which units and which interactions have changed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mechspex.components.component_values import ComponentValues
from mechspex.core.checks import PROBABILITY, SEED, WHOLE, Only
from mechspex.core.doors import door
from mechspex.core.errors import AblationError, Refused, TaskError, UnknownUnitError
from mechspex.core.finite import finite_values
from mechspex.core.masks import ablate_sets, all_masks, sample_masks
from mechspex.core.provenance import Provenance
from mechspex.core.statistics import paired_difference
from mechspex.core.units import Term, UnitSet, by_order, subsets_of
from mechspex.decoders import Decoder, as_decoder, find_decoder
from mechspex.effects.validate import exact_changes, exact_effects
from mechspex.explanation.designs import usual_keep
from mechspex.explanation.explain import strongest_terms
from mechspex.explanation.mask_search import exact_recovery, fresh_masks
from mechspex.explanation.model_difference import ModelDifference
from mechspex.explanation.plan import check_enough, has_few_masks
from mechspex.models.load_model import Model, as_model
from mechspex.models.units import as_units, units_of
from mechspex.recovery.recover import TermTests, recover
from mechspex.recovery.recovery import Recovery
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.run import VALIDATION, Run, as_run
from mechspex.tasks.load_task import task_of
from mechspex.tasks.task import Task, as_task

# Two prompts have a spread, and as many more are searched.
_FEWEST_PROMPTS, _FEWEST_MASKS = 4, 50
# Held-out masks: one to so many that are decoded, and no fewer than this.
_PER_TEST, _FEWEST_TESTS = 5, 100

Pair = tuple[RecordedValues, RecordedValues]
"""The value function of one model and that of the other."""


@door(
    before=as_model,
    after=as_model,
    task=as_task,
    units=as_units,
    ablation=Only((str,), "an ablation by its name", AblationError),
    n_masks=WHOLE,
    decoder=as_decoder,
    level=PROBABILITY,
    run=as_run,
    seed=SEED,
)
def compare_models(
    before: Model | str | Path,
    after: Model | str | Path,
    task: Task | str | Path,
    units: UnitSet | str | Iterable[str] = "heads",
    ablation: str = "mean",
    *,
    n_masks: int = 500,
    decoder: str | Decoder = "automatic",
    level: float = 0.05,
    run: str | Path | Run | None = None,
    seed: int = 0,
    progress: bool = False,
) -> ModelDifference:
    """Find which units and which interactions act otherwise in one model than in another.

    Both are measured on the same masks and prompts, each with its own references of the same kind.
    d(m) = f_after(m) − f_before(m) is decoded from random masks on the first half of the prompts.
    On the other half, the effect ablated(T) of every single unit and of the strongest interactions
    of d is measured exactly in both models, and the change of each is tested by Student's paired t
    over prompts, with one false discovery rate over all of them (see `validate`). Models of which
    all is equal that values depend on are measured once.

    Args:
        before: a model, such as the original one, or the name of one to load.
        after: the other model, such as a fine-tuned, quantised or pruned one, with the same units
            and the same tokens.
        task: prompts and metric, at least four prompts; or the name of a task.
        units: heads, MLPs, neurons or edges that both models have; kinds, or names.
        ablation: what an ablated unit is replaced by, see `ComponentValues`.
        n_masks: random masks on which the difference is decoded, at least 50; a fifth as many, at
            least 100, score it. All masks are measured where there are no more, and the difference
            is exact.
        decoder: what recovers the difference from the values under random masks.
        level: the expected share of false changes among the confirmed.
        run: name or folder in which every value is kept, and the answer as
            ``model_difference.json``.
        seed: the only source of randomness, for masks, decoder and ``resample``.
        progress: progress bars on stderr.

    Raises:
        UnknownUnitError: units that only one of the models has.
        TaskError: fewer than four prompts, or prompts that are other tokens for one of them.
        Refused: fewer than 50 masks.
        BudgetError: fewer masks than the decoder needs.
        FailedMasksError: a mask has no finite value in one of the models.
    """
    assert isinstance(before, Model)
    assert isinstance(after, Model)
    shared = _shared_units(before, after, units)
    task = task_of(before, task, spans=shared.named_spans)
    if n_masks < _FEWEST_MASKS:
        raise Refused(f"n_masks = {n_masks}: give at least {_FEWEST_MASKS}")
    if len(task) < _FEWEST_PROMPTS:
        raise TaskError(
            f"{len(task)} prompts: two are searched and two others test what is found, at least; "
            f"give {_FEWEST_PROMPTS} or more"
        )
    if not _measures_all(len(shared), n_masks):
        check_enough(n_masks, find_decoder(decoder), len(shared))
    n_searched = len(task) // 2
    searched, tested = task.split(n_searched, len(task) - n_searched)
    ours, theirs = (
        ComponentValues(model, searched, shared, ablation, seed=seed) for model in (before, after)
    )
    _refuse_other_tokens(ours, theirs)
    with Run.open(run, progress=progress) as run:
        recovery = _decoded(_recorded(run, ours, theirs), n_masks, decoder, level, seed)
        fresh = _recorded(run, ours.on(tested), theirs.on(tested), VALIDATION)
        difference = _tested(fresh, recovery, level)
    run.keep(difference)
    return difference


def _shared_units(before: Model, after: Model, units: UnitSet | str | Iterable[str]) -> UnitSet:
    ours, theirs = units_of(before, units), units_of(after, units)
    if ours == theirs:
        return ours
    alone = set(ours.names) ^ set(theirs.names) or ours.names
    raise UnknownUnitError(
        f"the models have other units: {before.cfg.model_name} {len(ours)}, "
        f"{after.cfg.model_name} {len(theirs)}, and only one of them {min(alone)}; compare models "
        "of one shape, or name units that both have"
    )


def _refuse_other_tokens(before: ComponentValues, after: ComponentValues) -> None:
    ours, theirs = (Provenance.of(values.configuration) for values in (before, after))
    if ours.prompts_digest != theirs.prompts_digest:
        raise TaskError(
            f"the prompts are other tokens for {ours.model} than for {theirs.model}; compare "
            "models with one tokenizer"
        )


def _recorded(run: Run, before: ComponentValues, after: ComponentValues, part: str = "") -> Pair:
    """Both with a store; one and the same where nothing that values depend on differs."""
    ours = run.record(before, part)
    if before.configuration == after.configuration:
        return ours, ours
    return ours, run.record(after, f"after/{part}" if part else "after")


def _decoded(pair: Pair, n_masks: int, decoder: str | Decoder, level: float, seed: int) -> Recovery:
    """The difference: exact where all masks are measured, else decoded from random masks and scored
    on others."""
    if _measures_all(pair[0].n_units, n_masks):
        every = all_masks(pair[0].n_units)
        return exact_recovery(every, _differences(pair, every), find_decoder(decoder).max_order)
    masks, test_masks, keep = _masks(pair[0].n_units, n_masks, seed)
    values, test_values = (_differences(pair, some) for some in (masks, test_masks))
    # What is proposed is tested exactly: it need not be selected again on halves of the masks.
    tests = TermTests(level=level, resamples=0)
    options: dict[str, Any] = {"decoder": decoder, "keep": keep, "tests": tests, "seed": seed}
    return recover(masks, values, test_masks, test_values, **options)


def _measures_all(n_units: int, n_masks: int) -> bool:
    return has_few_masks(n_units, n_masks + _n_tests(n_masks))


def _n_tests(n_masks: int) -> int:
    return max(_FEWEST_TESTS, n_masks // _PER_TEST)


def _masks(
    n_units: int, n_masks: int, seed: int
) -> tuple[Bool[np.ndarray, "mask unit"], Bool[np.ndarray, "test unit"], float]:
    """Masks to decode, others to score with, and the density of both."""
    keep = usual_keep(n_units, n_masks)
    masks = sample_masks(n_units, n_masks, keep=keep, seed=seed)
    return masks, fresh_masks(masks, keep, seed, _n_tests(n_masks)), keep


def _differences(
    pair: Pair, masks: Bool[np.ndarray, "mask unit"]
) -> Float[np.ndarray, "mask prompt"]:
    """after − before."""
    before, after = _both(pair, masks, "masks")
    return after - before


def _both(
    pair: Pair, masks: Bool[np.ndarray, "mask unit"], stage: str
) -> list[Float[np.ndarray, "mask prompt"]]:
    found = []
    for name, recorded in zip(("before", "after"), pair, strict=True):
        recorded.stage = f"{stage}, {name}"
        found.append(finite_values(recorded, masks, f"masks of the model {name}"))
    return found


def _tested(pair: Pair, recovery: Recovery, level: float) -> ModelDifference:
    """All singles and the strongest interactions of the difference, exact in both models."""
    units = pair[0].units
    singles: list[Term] = [(column,) for column in range(len(units))]
    together = [term for term in strongest_terms(recovery.function) if len(term) > 1]
    terms = (*singles, *together)
    subsets = sorted({s for term in [(), *terms] for s in subsets_of(term)}, key=by_order)
    measured = _both(pair, ablate_sets(len(units), subsets), "exact effects")
    before, after = (dict(zip(subsets, values, strict=True)) for values in measured)
    return ModelDifference(
        units=units,
        configuration=pair[0].configuration,
        configuration_after=pair[1].configuration,
        recovery=recovery,
        before=exact_effects(units, terms, before, level=level),
        after=exact_effects(units, terms, after, level=level),
        changes=exact_changes(units, terms, before, after, level=level),
        clean=paired_difference(after[()], before[()][None]),
    )
