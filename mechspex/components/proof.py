"""The forwards of a task, proved to measure what they should before anything is measured."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from mechspex.components.batched_forward import checked_values
from mechspex.components.bridge_forwards import forwards_through_bridge, passes_at_units
from mechspex.components.clean_pass import CleanPass, bound_metric
from mechspex.components.context import check_context
from mechspex.components.few_masks import RememberedForward, SharedPasses
from mechspex.components.forwards import AblatedModel, Forwards
from mechspex.components.proof_masks import both_ends, sample_of
from mechspex.components.proved import FEW, Proved
from mechspex.core.checks import quoted
from mechspex.core.errors import AblationError, MeasurementError
from mechspex.forward.plain_model import PlainModel
from mechspex.forward.rounding import rounding_of
from mechspex.models.bridge import edited_logits
from mechspex.tasks.task import Task
from mechspex.tasks.tokens import tokenize

_log = logging.getLogger(__name__)

# Devices whose kernels are known to be wrong now and then.
_UNTRUSTED = ("mps",)
# Random masks of each density on which the cached forward is held against the plain one.
_TO_PROVE = 1


@torch.inference_mode(False)
@torch.no_grad()
def proved(
    ablated: AblatedModel,
    task: Task,
    precision: str | None = None,
    *,
    like: Proved | None = None,
    few: SharedPasses | None = None,
) -> Proved:
    """Prepare the forwards of a task, and prove on its own prompts that they are right.

    Every hook fires, all-kept is the untouched model, and ablation changes the output. The model
    is done without its bridge where that gives the bridge's own values.

    Gradients use what is prepared as well, so there is no inference mode here, nor the caller's.

    Args:
        ablated: the model.
        task: the prompts and the metric.
        precision: the precision of the values; the model's own if not given.
        like: what was proved before. Where only the metric differs, its forwards are taken if
            they give the values of both ends.
        few: given where a few masks are all that will be measured, with the clean passes that
            they share with others. They go through the bridge, each once by whatever metric: to
            prove that it can be done without takes a dozen.

    Raises:
        TaskError, UnknownUnitError, AblationError, ModelError, MeasurementError: see
            `ComponentValues`.
    """
    paired = ablated.ablation == "corrupted"
    tokens = tokenize(task, ablated.model.tokenizer, with_corrupted=paired)
    check_context(ablated.model, task, tokens)
    shared = like.shared if few is None and like is not None else few
    passes = passes_at_units(ablated, task, tokens, shared)
    metric = bound_metric(task, tokens, passes)
    known = None if like is None else like.known_on(ablated, passes)
    if known is None:
        groups = forwards_through_bridge(ablated, task, tokens, metric, passes)
        if few is not None:
            groups = (replace(one, plain=RememberedForward.of(one.plain)) for one in groups)
        known = Forwards(tuple(groups))
    forwards = known.read_by(metric)
    ends, rounding = _checked(ablated, task, forwards, passes)
    clean, empty = ends.mean(axis=1).tolist()
    plain = Proved(ablated, task, tokens, forwards, forwards, clean, empty, shared=shared)
    found = None if like is None else like.read_by(plain, metric, ends, rounding)
    if found is None:
        found = (
            replace(plain, through_bridge=FEW) if few is not None else _shortened(plain, rounding)
        )
    return found if precision is None else found.in_precision(precision)


def _untouched(forwards: Forwards, passes: list[CleanPass]) -> Float[np.ndarray, " prompt"]:
    """The values of the untouched model."""
    values = np.empty(forwards.n_prompts, dtype=np.float32)
    for group, one in zip(forwards.groups, passes, strict=True):
        numbers = torch.tensor(group.prompts, device=one.logits.device)
        values[list(group.prompts)] = checked_values(group.metric, one.logits, numbers).cpu()
    return values


def _checked(
    ablated: AblatedModel, task: Task, forwards: Forwards, passes: list[CleanPass]
) -> tuple[Float[np.ndarray, "end prompt"], float]:
    """The values of both ends, and by how much rounding may move a value."""
    untouched = _untouched(forwards, passes)
    if not np.isfinite(untouched).all():
        bad = int(np.flatnonzero(~np.isfinite(untouched))[0])
        raise MeasurementError(
            f"the untouched model's value on prompt {bad} is {untouched[bad]}: "
            f"{quoted(task.prompts[bad])}; look at the prompt, the dtype and the metric"
        )
    kept, empty = forwards.values(both_ends(ablated.units))
    # Batches of other sizes take other kernels: the same up to the dtype's rounding.
    largest = max(float(one.logits.abs().max()) for one in passes)
    size = max(largest, float(np.abs(untouched).max()))
    dtype = passes[0].logits.dtype
    rounding = rounding_of(dtype, size)
    if np.abs(kept - untouched).max() > rounding:
        raise MeasurementError(
            f"with every unit kept the value is {kept}, the untouched model's is {untouched}; "
            "does a hook of your own depend on the batch?"
        )
    # On some processors even the rows of one batch differ in their last bit.
    if np.abs(kept - empty).max() <= torch.finfo(dtype).eps * size:
        raise AblationError(
            f"ablating all {len(ablated.units)} units ({ablated.ablation!r}) changes no value; "
            "choose units that act on the last token, or another ablation"
        )
    return np.stack([untouched, empty]), rounding


def _shortened(plain: Proved, rounding: float) -> Proved:
    """The same without the bridge, if that gives the same values."""
    ablated, reason = plain.ablated, ""
    name, dtype = ablated.model.cfg.model_name, ablated.model.cfg.dtype
    masks = sample_of(ablated.units, _TO_PROVE)
    values = plain.exact.values(masks)
    for fused in (True, False):
        try:
            forwards = plain.exact.without_bridge(ablated, dtype, fused=fused)
            apart = np.abs(forwards.values(masks) - values)
            # Beside the others the last mask begins where they do; alone, blocks are skipped.
            apart[-1] = np.maximum(apart[-1], np.abs(forwards.values(masks[-1:])[0] - values[-1]))
        except MeasurementError:
            raise
        except Exception as error:  # whatever a foreign model class stumbles over
            reason = str(error)
            break
        if apart.max() <= rounding:
            if ablated.device.type in _UNTRUSTED:
                _check_against_the_cpu(ablated, forwards, fused=fused)
            return replace(plain, exact=forwards, forwards=forwards, fused=fused)
        reason = f"values without it are off by {apart.max():.2g}"
        if not fused and apart[0].max() > rounding:
            warnings.warn(
                f"with nothing ablated, values of {name} through its bridge differ by "
                f"{apart[0].max():.2g} from those of the model it wraps; TransformerLens may not "
                "know this architecture",
                stacklevel=5,
            )
    _log.info("%s is measured through its bridge: %s", name, reason)
    return replace(plain, fused=fused, through_bridge=reason)


def _check_against_the_cpu(ablated: AblatedModel, forwards: Forwards, *, fused: bool) -> None:
    model, tokens = ablated.model, forwards.groups[0].plain.tokens
    cpu = PlainModel(model, model.cfg.dtype, fused=fused, device=torch.device("cpu"))
    here = edited_logits(model, tokens, {}).cpu()
    apart = float((cpu.logits(tokens.cpu(), {}) - here).abs().max())
    if not apart <= 1e-2 * float(here.abs().max()):
        warnings.warn(
            f"with nothing ablated, logits on {ablated.device} differ by {apart:.2g} from those "
            "on the CPU; measure on the CPU",
            stacklevel=6,
        )
