"""The value function of model components: heads, neurons and MLPs under ablation."""

from __future__ import annotations

import copy
import hashlib
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechspex.components.batched_forward import BatchedForward, checked_values
from mechspex.components.cached_forward import ShortForward
from mechspex.components.masked_forward import Ablation, MaskedForward, check_sites, sites_of
from mechspex.components.precision import PRECISIONS, PrecisionError
from mechspex.components.references import record, reference_activations
from mechspex.core.masks import check_masks, sample_masks
from mechspex.core.provenance import Provenance
from mechspex.core.units import UnitSet
from mechspex.core.value_function import name_of
from mechspex.errors import AblationError, MeasurementError, ModelError, ShapeError
from mechspex.forward.plain_model import Twin
from mechspex.models.bridge import HookWatch, edited_logits
from mechspex.models.load_model import Model, weights_hash
from mechspex.tasks.metrics import Metric, bind_metric
from mechspex.tasks.task import Task
from mechspex.tasks.tokens import tokenize

_log = logging.getLogger(__name__)

# {bytes of a number: what a forward's roundings may add up to, in roundings of its largest logit}:
# products add in float32 whatever they are given.
_ROUNDINGS = {2: 8, 4: 64, 8: 64}
# Devices whose kernels are known to be wrong now and then.
_UNTRUSTED = ("mps",)
# Random masks of each density on which the short forward is held against the plain one, and
# another precision against the model's own.
_DENSITIES, _TO_PROVE, _TO_COMPARE = (0.95, 0.7, 0.3), 1, 4


class ComponentValues:
    """What a task's metric is when some components of a model are ablated.

    value[m, j] = metric of prompt j with unit i kept where m_i is True, and its activation
    replaced by the reference where m_i is False. Heads are ablated before the output projection
    (``hook_z``), neurons after gating (``mlp.hook_post``), MLPs at their output.

    Before anything is measured it is proved that every hook fires, that all-kept is the untouched
    model, and that ablation changes the output. Values are measured on a copy of the model without
    its bridge, which shares the weights and computes only what a mask changes, once that is proved
    to give the bridge's own values; else, and while the bridge carries hooks of yours, through the
    bridge.

    Args:
        model: a bridge, in evaluation mode. Hooks of your own stay on it and run first.
        task: prompts and metric.
        units: the columns of the masks, from `heads`, `neurons`, `mlps` or a sum of them.
        ablation: ``mean`` (over the task's prompts, position by position), ``zero``,
            ``resample`` (another prompt's activation), ``corrupted`` (the paired prompt's), or
            your own {hook: activations}.
        rescale: multiply the kept heads of a layer by (heads of the layer) / (heads kept), as in
            the head pruning of ProxySPEX.
        precision: ``bf16`` measures in bfloat16, several times as fast where the processor has
            bfloat16 matrix units; `precision_error` then says what that costs. None: the model's
            own dtype.
        seed: of ``resample``.

    Attributes:
        precision_error: None in the model's own dtype.
        through_bridge: why values are measured through the bridge; None where the faster copy of
            the model is used.
        n_blocks: how many blocks are run, where that is not all of them (see `early_exit`).

    Raises:
        ModelError: the model is in train mode, or cannot be measured in another precision.
        TaskError: prompts or answers that do not fit the model's tokenizer.
        UnknownUnitError: a unit that the model does not have.
        AblationError: an ablation that cannot be carried out or cannot change the output.
        MeasurementError: the clean value is not finite.
    """

    def __init__(
        self,
        model: Model,
        task: Task,
        units: UnitSet,
        ablation: str | Mapping[str, Tensor] = "mean",
        *,
        rescale: bool = False,
        precision: str | None = None,
        seed: int = 0,
    ) -> None:
        if not len(units):
            raise AblationError("there are no units to ablate; give heads(model) or the like")
        if precision is not None and precision not in PRECISIONS:
            raise ModelError(f"precision {precision!r} is unknown; choose {', '.join(PRECISIONS)}")
        if model.original_model.training:
            raise ModelError(
                f"{model.cfg.model_name} is in train mode, where dropout makes values random; "
                "call model.eval() first"
            )
        hooks = HookWatch(model)
        if hooks.sees_users():
            warnings.warn(
                "the model carries hooks of its own; they stay and are part of every value",
                stacklevel=2,
            )
        self.model = model
        self.task = task
        self.units = units
        self.ablation = ablation
        self.rescale = rescale
        self.precision = precision
        self.precision_error: PrecisionError | None = None
        self.through_bridge: str | None = None
        self.n_blocks: int | None = None
        self._fused = True
        self.seed = seed
        self._device = next(model.original_model.parameters()).device
        # No inference mode here: what is prepared is also used by gradients.
        with torch.no_grad():
            plain, clean_logits = self._prepare()
            metric = self._bind(clean_logits)
            self._groups = [
                BatchedForward.of(prompts, metric, forward, hooks)
                for prompts, forward in plain.items()
            ]
            self._prove(metric, clean_logits)
            self._shorten()
            if precision is not None:
                self._change_precision(precision)

    @property
    def n_units(self) -> int:
        return len(self.units)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The prompts, one column of values each."""
        return tuple(self.task.prompts)

    @property
    def in_own_dtype(self) -> ComponentValues:
        """The same values measured in the model's own dtype, whatever the precision here."""
        if self.precision is None:
            return self
        own = copy.copy(self)
        own.precision, own.precision_error, own._groups = None, None, self._own_groups
        return own

    def early_exit(self, n_blocks: int) -> ComponentValues:
        """A cheaper model of the same units: its first `n_blocks` blocks, then the unembedding.

        A proxy for `mechspex.screen`; `mechspex.agreement` says how far it can be trusted. Units of
        later blocks have no effect in it.

        Raises:
            ModelError: the model does not have so many blocks, those hold no unit, or the model can
                only be measured through its bridge.
        """
        n_layers = self.model.cfg.n_layers
        first = 1 + min(unit.layer for unit in self.units)
        if not first <= n_blocks <= n_layers:
            raise ModelError(
                f"n_blocks = {n_blocks}: {self.model.cfg.model_name} has {n_layers} blocks, the "
                f"first with units is block {first - 1}; give {first} … {n_layers}"
            )
        if self.through_bridge is not None:
            raise ModelError(
                f"{self.model.cfg.model_name} is measured through its bridge, which runs every "
                f"block ({self.through_bridge}); take fewer prompts as the proxy instead"
            )
        proxy = copy.copy(self)
        proxy.n_blocks, proxy.precision_error = n_blocks, None
        with torch.no_grad():
            proxy._groups = proxy._own_groups = proxy._on_twin(self.model.cfg.dtype)
            if self.precision is not None:
                proxy._groups = proxy._on_twin(PRECISIONS[self.precision])
        clean, ablated = proxy(np.repeat([[True], [False]], self.n_units, axis=1)).mean(axis=1)
        proxy._ends = (float(clean), float(ablated))
        return proxy

    @property
    def configuration(self) -> dict[str, str]:
        """Everything a value depends on but the mask."""
        metric = self.task.metric
        named = metric if isinstance(metric, str) else name_of(metric)
        tokens, ablation, taken_from = self._tokens, self.ablation, None
        if isinstance(ablation, Mapping):
            taken_from = [ablation[hook] for hook in sorted(ablation)]
            ablation = "references"
        elif ablation == "corrupted":
            taken_from = tokens.corrupted
        read = [tokens.answers, *([] if tokens.distractors is None else [tokens.distractors])]
        # A metric or hook that was edited keeps its name; the values at both ends mostly tell.
        clean, ablated = self._ends
        return Provenance(
            clean=clean,
            ablated=ablated,
            model=Path(self.model.cfg.model_name).name,
            n_blocks=self.n_blocks,
            weights_digest=weights_hash(self.model)[:16],
            dtype=str(self.model.cfg.dtype).removeprefix("torch."),
            precision=self.precision,
            task=self.task.name,
            n_prompts=len(self.task),
            prompts_digest=_digest(*tokens.prompts, *read),
            metric=named,
            units=self.units.description,
            units_digest=_digest(" ".join(self.units.names)),
            ablation=ablation,
            ablation_digest=None if taken_from is None else _digest(*taken_from),
            seed=self.seed if ablation == "resample" else None,
            rescaled=self.rescale,
        ).to_configuration()

    def __call__(self, masks: np.ndarray | Tensor) -> Float[np.ndarray, "mask prompt"]:
        """Values ``float32[mask, prompt]`` of masks ``bool[mask, unit]``, in the metric's units.

        Raises:
            ShapeError: masks of another width or dtype.
            MeasurementError: out of memory even for one mask on one prompt.
        """
        given = masks.cpu().numpy() if isinstance(masks, Tensor) else masks
        checked = check_masks(given, self.n_units)
        self._refuse_hooks()
        values = np.empty((len(checked), len(self.task)), dtype=np.float32)
        with torch.inference_mode():
            for group in self._groups:
                values[:, list(group.prompts)] = group.values(checked)
        return values

    def value_and_gradient(
        self, masks: np.ndarray | Tensor
    ) -> tuple[Float[np.ndarray, "mask prompt"], Float[np.ndarray, "mask prompt unit"]]:
        """Values of soft masks and their gradients, ∂ value[m, j] / ∂ m_i.

        Activation = m_i · activation + (1 − m_i) · reference, with m_i between 0 and 1.

        Args:
            masks: ``float[mask, unit]``; Boolean ones are taken as 0 and 1.

        Raises:
            ShapeError: masks of another width.
            MeasurementError: out of memory even for one mask on one prompt.
        """
        soft = np.asarray(masks.cpu() if isinstance(masks, Tensor) else masks, dtype=np.float32)
        if soft.ndim != 2 or soft.shape[1] != self.n_units:
            raise ShapeError(
                f"soft masks have shape {list(soft.shape)}, expected [mask, {self.n_units}]"
            )
        self._refuse_hooks()
        found = np.empty((len(soft), len(self.task), 1 + self.n_units), dtype=np.float32)
        for group in self._groups:
            found[:, list(group.prompts)] = group.values_and_gradients(soft)
        return found[..., 0], found[..., 1:]

    def _refuse_hooks(self) -> None:
        """An early exit leaves out blocks, which hooks of the user's, on the bridge, would not."""
        if self.n_blocks is not None and self._groups[0].hooks.sees_any():
            raise ModelError(
                f"{self.model.cfg.model_name} carries hooks now, which its first {self.n_blocks} "
                "blocks are measured without; remove them, or measure the whole model"
            )

    def _prepare(self) -> tuple[dict[tuple[int, ...], MaskedForward], Tensor]:
        """{prompts of one length: their forward}, and the clean logits of all prompts."""
        self._tokens = tokenize(self.task, self.model.tokenizer)
        sites = sites_of(self.model, self.units)
        by_length: dict[int, list[int]] = {}
        for number, prompt in enumerate(self._tokens.prompts):
            by_length.setdefault(len(prompt), []).append(number)
        forwards, logits = {}, {}
        for length, prompts in sorted(by_length.items()):
            tokens = torch.stack([self._tokens.prompts[j] for j in prompts]).to(self._device)
            clean, rows = record(self.model, [site.hook for site in sites], tokens)
            logits |= dict(zip(prompts, rows, strict=True))
            check_sites(self.model, sites, clean, length)
            paired = self._tokens.corrupted
            references = reference_activations(
                self.model,
                clean,
                self.ablation,
                corrupted=None
                if paired is None
                else torch.stack([paired[j] for j in prompts]).to(self._device),
                seed=self.seed,
            )
            ablation = Ablation(sites, references, length, self.rescale)
            forwards[tuple(prompts)] = MaskedForward(self.model, tokens, ablation)
        return forwards, torch.stack([logits[j] for j in range(len(self.task))])

    def _bind(self, clean_logits: Tensor) -> Metric:
        distractors = self._tokens.distractors
        return bind_metric(
            self.task.metric,
            answers=self._tokens.answers.to(self._device),
            distractors=None if distractors is None else distractors.to(self._device),
            clean=clean_logits,
        )

    def _prove(self, metric: Metric, clean_logits: Tensor) -> None:
        prompts = torch.arange(len(self.task), device=self._device)
        untouched = checked_values(metric, clean_logits, prompts).cpu().numpy()
        if not np.isfinite(untouched).all():
            bad = int(np.flatnonzero(~np.isfinite(untouched))[0])
            raise MeasurementError(
                f"the untouched model's value on prompt {bad} is {untouched[bad]}: "
                f"{self.task.prompts[bad]!r}; look at the prompt, the dtype and the metric"
            )
        both = np.array([[True] * self.n_units, [False] * self.n_units])
        kept, ablated = self(both)
        # Batches of other sizes take other kernels: the same up to the dtype's rounding.
        size = max(float(clean_logits.abs().max()), float(np.abs(untouched).max()))
        dtype = clean_logits.dtype
        self._rounding = _ROUNDINGS[dtype.itemsize] * torch.finfo(dtype).eps * size
        if np.abs(kept - untouched).max() > self._rounding:
            raise MeasurementError(
                f"with every unit kept the value is {kept}, the untouched model's is {untouched}; "
                "does a hook of your own depend on the batch?"
            )
        self._ends = (float(untouched.mean()), float(ablated.mean()))
        # On some processors even the rows of one batch differ in their last bit.
        if np.abs(kept - ablated).max() <= torch.finfo(dtype).eps * size:
            raise AblationError(
                f"ablating all {self.n_units} units ({self.ablation!r}) changes no value; choose "
                "units that act on the last token, or another ablation"
            )

    def _shorten(self) -> None:
        """Measure on the model's twin from here on, if that gives the same values."""
        masks, plain_groups = self._sample(_TO_PROVE), self._groups
        plain = self(masks)
        for fused in (True, False):
            try:
                self._fused = fused
                self._groups = self._on_twin(self.model.cfg.dtype)
                apart = np.abs(self(masks) - plain)
            except MeasurementError:
                raise
            except Exception as error:  # whatever a foreign model class stumbles over
                self.through_bridge = str(error)
                break
            if apart.max() <= self._rounding:
                self.through_bridge = None
                if self._device.type in _UNTRUSTED:
                    self._check_against_the_cpu(fused=fused)
                return
            self.through_bridge = f"values without it are off by {apart.max():.2g}"
            if not fused and apart[0].max() > self._rounding:
                warnings.warn(
                    f"with nothing ablated, values of {self.model.cfg.model_name} through its "
                    f"bridge differ by {apart[0].max():.2g} from those of the model it wraps; "
                    "TransformerLens may not know this architecture",
                    stacklevel=4,
                )
        self._groups = plain_groups
        _log.info(
            "%s is measured through its bridge: %s", self.model.cfg.model_name, self.through_bridge
        )

    def _check_against_the_cpu(self, *, fused: bool) -> None:
        plain = self._groups[0].plain
        cpu = Twin(self.model, self.model.cfg.dtype, fused=fused, device=torch.device("cpu"))
        here = edited_logits(self.model, plain.tokens, {}).cpu()
        apart = float((cpu.logits(plain.tokens.cpu(), {}) - here).abs().max())
        if not apart <= 1e-2 * float(here.abs().max()):
            warnings.warn(
                f"with nothing ablated, logits on {self._device} differ by {apart:.2g} from those "
                "on the CPU; measure on the CPU",
                stacklevel=5,
            )

    def _on_twin(self, dtype: torch.dtype) -> list[BatchedForward]:
        twin = Twin(self.model, dtype, fused=self._fused, n_blocks=self.n_blocks)
        return [
            group.shortened(
                ShortForward.of(
                    twin, group.plain.tokens, group.plain.ablation.in_dtype(dtype), self.units
                )
            )
            for group in self._groups
        ]

    def _change_precision(self, precision: str) -> None:
        """Measure in `precision` from here on, and by how much that changes values."""
        masks = self._sample(_TO_COMPARE)
        exact = self(masks)
        self._own_groups = self._groups
        try:
            self._groups = self._on_twin(PRECISIONS[precision])
        except ModelError as error:
            raise ModelError(
                f"{self.model.cfg.model_name} cannot be measured in {precision} ({error}); load "
                "the model with that dtype instead"
            ) from None
        self.precision_error = PrecisionError.between(precision, self(masks), exact)

    def _sample(self, n_each: int) -> Bool[np.ndarray, "sample unit"]:
        """Everything kept, random masks of several densities, and the one that changes least."""
        drawn = [sample_masks(self.n_units, n_each, keep=keep, seed=0) for keep in _DENSITIES]
        last = max(self.units, key=lambda u: (-1 if u.position is None else u.position, u.layer))
        latest = np.array([[unit != last for unit in self.units]])
        return np.concatenate([np.ones_like(latest), *drawn, latest])


def _digest(*parts: str | Tensor) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else _bytes(part))
        digest.update(b"|")
    return digest.hexdigest()[:16]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
