"""The forwards of a task, proved to measure what they should before anything is measured."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float

from mechspex.components.batched_forward import BatchedForward, checked_values
from mechspex.components.clean_pass import CleanPass, bound_metric, clean_passes
from mechspex.components.context import check_context
from mechspex.components.edge_ablation import EdgeAblation
from mechspex.components.edge_proof import check_wiring
from mechspex.components.few_masks import RememberedForward, SharedPasses
from mechspex.components.forwards import AblatedModel, Forwards
from mechspex.components.masked_forward import Ablation, MaskedForward, check_sites
from mechspex.components.placed_units import tokens_at
from mechspex.components.precision import (
    AUTO,
    PRECISIONS,
    PrecisionError,
    check_that_it_pays,
)
from mechspex.components.references import reference_activations
from mechspex.components.words import PlacedWords, is_word, places_of_words
from mechspex.core.backward_rules import CHAIN, BackwardRules
from mechspex.core.checks import quoted
from mechspex.core.errors import AblationError, MeasurementError, ModelError
from mechspex.core.masks import sample_masks
from mechspex.core.units import Unit, UnitSet
from mechspex.forward.plain_model import PlainModel
from mechspex.forward.rounding import rounding_of
from mechspex.models.bridge import edited_logits
from mechspex.tasks.metrics import Metric
from mechspex.tasks.next_token import encode
from mechspex.tasks.task import Task
from mechspex.tasks.tokens import Tokens, tokenize

_log = logging.getLogger(__name__)

# Devices whose kernels are known to be wrong now and then.
_UNTRUSTED = ("mps",)
_FEW = "few masks are measured"
# Random masks of each density on which the cached forward is held against the plain one, and
# another precision against the model's own.
_DENSITIES, _TO_PROVE, _TO_COMPARE = (0.95, 0.7, 0.3), 1, 4


@dataclass(frozen=True, eq=False)
class Proved:
    """An ablated model on the prompts of a task: forwards, and what is known of their values.

    Attributes:
        ablated: the model.
        task: the prompts, in words.
        tokens: the prompts, in tokens.
        exact: the forwards in the model's own dtype.
        forwards: the forwards that measure: `exact`, or others in another precision.
        clean, empty: the mean value with all units kept and with all ablated.
        fused: attention is computed in one kernel where the bridge is done without.
        through_bridge: why the forwards go through the bridge; None where they do not.
        precision: the precision of `forwards`; None for the model's own dtype.
        precision_error: what that precision costs.
        n_blocks: how many blocks are run; None for all.
        rules: by which gradients are made.
        shared: the clean passes that others share with it; None where nobody does.
    """

    ablated: AblatedModel
    task: Task
    tokens: Tokens
    exact: Forwards
    forwards: Forwards
    clean: float
    empty: float
    fused: bool = True
    through_bridge: str | None = None
    precision: str | None = None
    precision_error: PrecisionError | None = None
    n_blocks: int | None = None
    rules: BackwardRules = CHAIN
    shared: SharedPasses | None = None

    def in_own_dtype(self) -> Proved:
        """The same in the model's own dtype."""
        return replace(self, forwards=self.exact, precision=None, precision_error=None)

    def in_precision(self, precision: str) -> Proved:
        """The same in another precision, and by how much that changes values.

        Raises:
            ModelError: the model cannot be measured in it, or not faster, or overflows.
        """
        if precision == AUTO:
            return self._in_what_pays()
        check_that_it_pays(precision, self.ablated.model.cfg.dtype, self.ablated.device)
        masks = _sample(self.ablated.units, _TO_COMPARE)
        values = self.exact.values(masks)
        try:
            forwards = self._without_bridge(PRECISIONS[precision])
        except ModelError as error:
            raise ModelError(
                f"{self.ablated.model.cfg.model_name} cannot be measured in {precision} ({error}); "
                "load the model with that dtype instead"
            ) from None
        error = PrecisionError.between(precision, forwards.values(masks), values)
        return replace(self, forwards=forwards, precision=precision, precision_error=error)

    def _in_what_pays(self) -> Proved:
        for precision in PRECISIONS:
            try:
                return self.in_precision(precision)
            except ModelError:
                continue
        return self

    @torch.inference_mode(False)
    def cut_after(self, n_blocks: int) -> Proved:
        """The same with the first `n_blocks` blocks of the model alone."""
        cut = replace(self, n_blocks=n_blocks, precision_error=None)
        exact = forwards = cut._without_bridge(self.ablated.model.cfg.dtype)
        if self.precision is not None:
            forwards = cut._without_bridge(PRECISIONS[self.precision])
        clean, empty = forwards.values(_ends(self.ablated.units)).mean(axis=1).tolist()
        return replace(cut, exact=exact, forwards=forwards, clean=clean, empty=empty)

    @torch.inference_mode(False)
    def with_backward(self, rules: BackwardRules) -> Proved:
        """The same with gradients by other rules; attention is not fused, as they act inside it."""
        exact = self.exact.with_backward(rules)
        changed = replace(self, exact=exact, forwards=exact, fused=False, rules=rules)
        if self.through_bridge is not None:
            return changed
        exact = forwards = changed._without_bridge(self.ablated.model.cfg.dtype)
        if self.precision is not None:
            forwards = changed._without_bridge(PRECISIONS[self.precision])
        return replace(changed, exact=exact, forwards=forwards)

    def read_by(
        self,
        other: Proved,
        metric: Metric,
        ends: Float[np.ndarray, "end prompt"],
        rounding: float,
    ) -> Proved | None:
        """The forwards here read by the metric of `other`, where nothing else differs.

        Args:
            other: the same model on a task, not shortened.
            metric: the metric of that task.
            ends: its values with all units kept and with all ablated.
            rounding: by how much rounding may move a value.
        """
        groups = zip(self.exact.groups, other.exact.groups, strict=False)
        if not (
            self.ablated is other.ablated
            and len(self.exact.groups) == len(other.exact.groups)
            and replace(self.task, metric=other.task.metric) == other.task
            and self.n_blocks is None
            and not self.rules
            and all(ours.plain.reads_as(theirs.plain) for ours, theirs in groups)
        ):
            return None
        if self.through_bridge is not None:
            return replace(other, fused=self.fused, through_bridge=self.through_bridge)
        exact = self.exact.read_by(metric)
        if not np.abs(exact.values(_ends(self.ablated.units)) - ends).max() <= rounding:
            return None
        return replace(other, exact=exact, forwards=exact, fused=self.fused)

    def known_on(self, ablated: AblatedModel, passes: list[CleanPass]) -> Forwards | None:
        """The forwards of a few masks, where they are those of this model on these rows."""
        groups = self.exact.groups
        same = (
            self.through_bridge == _FEW
            and self.ablated is ablated
            and len(groups) == len(passes)
            and all(
                group.prompts == one.forced.prompts
                and group.plain.n_read == one.logits.shape[1]
                and torch.equal(group.plain.tokens.cpu(), one.forced.rows.flatten(0, 1))
                for group, one in zip(groups, passes, strict=True)
            )
        )
        return self.exact if same else None

    def _without_bridge(self, dtype: torch.dtype) -> Forwards:
        options = {"fused": self.fused, "n_blocks": self.n_blocks}
        return self.exact.without_bridge(self.ablated, dtype, **options)


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
    passes = _clean_passes(ablated, task, tokens, shared)
    metric = bound_metric(task, tokens, passes)
    known = None if like is None else like.known_on(ablated, passes)
    if known is None:
        groups = _through_bridge(ablated, task, tokens, metric, passes)
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
            replace(plain, through_bridge=_FEW) if few is not None else _shortened(plain, rounding)
        )
    return found if precision is None else found.in_precision(precision)


def _clean_passes(
    ablated: AblatedModel, task: Task, tokens: Tokens, shared: SharedPasses | None = None
) -> list[CleanPass]:
    """The untouched model at the hook points of the units."""
    if shared is not None:
        return shared.on(ablated, task, tokens)
    return clean_passes(ablated.model, task, tokens, ablated.hooks_ablated, ablated.latents)


def _through_bridge(
    ablated: AblatedModel,
    task: Task,
    tokens: Tokens,
    metric: Metric,
    passes: list[CleanPass],
) -> Iterator[BatchedForward]:
    """The forwards of the rows of each clean pass, through the bridge."""
    model = ablated.model
    for one in passes:
        check_sites(model, ablated.sites, one.activations)
    sites = [tuple(site.on(one.forced, tokens) for site in ablated.sites) for one in passes]
    every = reference_activations(
        model,
        passes,
        ablated.ablation,
        tokens,
        calibration=_calibration(ablated, task.prepend_bos),
        seed=ablated.seed,
    )
    places = places_of_words(ablated.units, task, tokens, model.tokenizer)
    for one, placed, references in zip(passes, sites, every, strict=True):
        prompts, length = one.forced.prompts, one.forced.length
        rows = rearrange(one.forced.rows, "prompt sequence pos -> (prompt sequence) pos")
        words = PlacedWords.of(ablated.units, places, one.forced, ablated.device)
        latents = tuple(at.on(one.forced, tokens) for at in ablated.latents)
        parts = Ablation(placed, references, rows.shape[1], words, ablated.rescale, latents)
        ablation: Ablation | EdgeAblation = parts
        if ablated.edges is not None:
            at = torch.from_numpy(tokens_at(ablated.edges.places, one.forced, tokens))
            ablation = EdgeAblation(
                ablated.edges, references, one.activations, rows.shape[1], at, parts
            )
        plain = MaskedForward(model, rows.to(ablated.device), ablation, one.logits.shape[1])
        if ablated.edges is not None and one is passes[0]:
            check_wiring(plain)
        yield BatchedForward.of(prompts, length, metric, plain, ablated.hooks)


def _calibration(
    ablated: AblatedModel, prepend_bos: bool | None
) -> tuple[list[CleanPass], Tokens] | None:
    """The clean passes of the calibration prompts, where there are any."""
    if ablated.calibration is None:
        return None
    model, texts = ablated.model, ablated.calibration
    # Nothing is read there but the texts.
    task = Task(texts, texts, metric="kl_divergence", name="calibration")
    ids = [encode(model.tokenizer, text, prepend_bos) for text in texts]
    tokens = Tokens(tuple(map(torch.tensor, ids)), None, tuple(((0,),) for _ in ids), None)
    check_context(model, task, tokens)
    return _clean_passes(ablated, task, tokens), tokens


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
    kept, empty = forwards.values(_ends(ablated.units))
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
    masks = _sample(ablated.units, _TO_PROVE)
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


def _ends(units: UnitSet) -> Bool[np.ndarray, "end unit"]:
    return np.array([[True] * len(units), [False] * len(units)])


def _sample(units: UnitSet, n_each: int) -> Bool[np.ndarray, "sample unit"]:
    """Everything kept, random masks of several densities, and those that change least."""
    masks = [sample_masks(len(units), n_each, keep=keep, seed=0) for keep in _DENSITIES]
    words = [unit for unit in units if is_word(unit)]
    others = [unit for unit in units if not is_word(unit)]
    last = [max(words, key=lambda u: u.span or (u.number, 0))] if words else []
    if others:
        last.append(max(others, key=_lateness))
    latest = np.array([[unit != one for unit in units] for one in last])
    return np.concatenate([np.ones_like(latest[:1]), *masks, latest])


def _lateness(unit: Unit) -> tuple[int, int]:
    """Sorting key: by position, as far as that is known, then by layer."""
    return unit.position if isinstance(unit.position, int) else -1, unit.layer
