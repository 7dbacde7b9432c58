"""The value function of model components: heads, neurons and MLPs under ablation."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechspex.errors import (
    AblationError,
    MeasurementError,
    ModelError,
    ShapeError,
    UnknownUnitError,
)
from mechspex.masked_forward import MaskedForward, sites_of
from mechspex.masks import check_masks
from mechspex.metrics import Metric, bind_metric
from mechspex.models import Model, weights_hash
from mechspex.references import record, reference_activations
from mechspex.tasks import Task, tokenize
from mechspex.units import UnitSet
from mechspex.values.value_function import name_of

_log = logging.getLogger(__name__)

# Tokens of one forward: past about two thousand, larger batches are no faster on a CPU.
_TOKENS_PER_FORWARD = 2048


@dataclass(frozen=True)
class _Group:
    """The prompts of one token length, which share a forward."""

    forward: MaskedForward
    prompts: tuple[int, ...]


class ComponentValues:
    """What a task's metric is when some components of a model are ablated.

    value[m, j] = metric of prompt j with unit i kept where m_i is True, and its activation
    replaced by the reference where m_i is False. Heads are ablated before the output projection
    (``hook_z``), neurons after gating (``mlp.hook_post``), MLPs at their output.

    Before anything is measured it is proved that every hook fires, that all-kept is the untouched
    model, and that ablation changes the output.

    Args:
        model: a bridge, in evaluation mode. Hooks of your own stay on it and run first.
        task: prompts and metric.
        units: the columns of the masks, from `heads`, `neurons`, `mlps` or a sum of them.
        ablation: ``mean`` (over the task's prompts, position by position), ``zero``,
            ``resample`` (another prompt's activation), ``corrupted`` (the paired prompt's), or
            your own {hook: activations}.
        seed: of ``resample``.

    Raises:
        ModelError: the model is in train mode.
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
        seed: int = 0,
    ) -> None:
        if not len(units):
            raise AblationError("there are no units to ablate; give heads(model) or the like")
        if model.original_model.training:
            raise ModelError(
                f"{model.cfg.model_name} is in train mode, where dropout makes values random; "
                "call model.eval() first"
            )
        if any(point.has_hooks() for point in model.hook_dict.values()):
            warnings.warn(
                "the model carries hooks of its own; they stay and are part of every value",
                stacklevel=2,
            )
        self.model = model
        self.task = task
        self.units = units
        self.ablation = ablation
        self.seed = seed
        self._device = next(model.original_model.parameters()).device
        self._tokens_per_forward = _TOKENS_PER_FORWARD
        with torch.inference_mode():
            self._groups, clean_logits = self._prepare()
            self._metric = self._bind(clean_logits)
            self._prove(clean_logits)

    @property
    def n_units(self) -> int:
        return len(self.units)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The prompts, one column of values each."""
        return tuple(self.task.prompts)

    @property
    def configuration(self) -> dict[str, str]:
        """Everything a value depends on but the mask."""
        metric = self.task.metric
        named = metric if isinstance(metric, str) else name_of(metric)
        ablation = self.ablation
        if isinstance(ablation, Mapping):
            ablation = "references " + _digest(*(ablation[hook] for hook in sorted(ablation)))
        elif ablation == "resample":
            ablation = f"resample, seed {self.seed}"
        tokens = self._tokens
        read = [tokens.answers, *([] if tokens.distractors is None else [tokens.distractors])]
        # A metric or hook that was edited keeps its name; these values mostly tell.
        clean, ablated = (f"{value:.4g}" for value in self._ends)
        return {
            "clean and ablated": f"{clean}, {ablated}",
            "model": f"{Path(self.model.cfg.model_name).name} {weights_hash(self.model)[:16]}",
            "dtype": str(self.model.cfg.dtype).removeprefix("torch."),
            "task": f"{self.task.name}, {len(self.task)} prompts {_digest(*tokens.prompts, *read)}",
            "metric": named,
            "units": f"{self.units.description} {_digest(' '.join(self.units.names))}",
            "ablation": ablation
            if tokens.corrupted is None or ablation != "corrupted"
            else f"corrupted {_digest(*tokens.corrupted)}",
        }

    def __call__(self, masks: np.ndarray | Tensor) -> Float[np.ndarray, "mask prompt"]:
        """Values ``float32[mask, prompt]`` of masks ``bool[mask, unit]``, in the metric's units.

        Raises:
            ShapeError: masks of another width or dtype.
            MeasurementError: out of memory even for one mask on one prompt.
        """
        given = masks.cpu().numpy() if isinstance(masks, Tensor) else masks
        masks = torch.from_numpy(check_masks(given, self.n_units).copy())
        values = torch.empty(len(masks), len(self.task))
        with torch.inference_mode():
            for group in self._groups:
                values[:, list(group.prompts)] = self._measure(group, masks)
        return values.numpy()

    def _prepare(self) -> tuple[list[_Group], Tensor]:
        """Prompts grouped by length, each group with its references; and the clean logits."""
        self._tokens = tokenize(self.task, self.model.tokenizer)
        sites = sites_of(self.units)
        by_length: dict[int, list[int]] = {}
        for number, prompt in enumerate(self._tokens.prompts):
            by_length.setdefault(len(prompt), []).append(number)
        groups, logits = [], {}
        for length, prompts in sorted(by_length.items()):
            tokens = torch.stack([self._tokens.prompts[j] for j in prompts]).to(self._device)
            clean, rows = record(self.model, [site.hook for site in sites], tokens)
            logits |= dict(zip(prompts, rows, strict=True))
            self._check_units(clean, length)
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
            forward = MaskedForward(self.model, tokens, sites, references)
            groups.append(_Group(forward, tuple(prompts)))
        return groups, torch.stack([logits[j] for j in range(len(self.task))])

    def _check_units(self, clean: Mapping[str, Tensor], length: int) -> None:
        cfg = self.model.cfg
        along = {"head": (cfg.n_heads, 4), "neuron": (cfg.d_mlp, 3), "mlp": (1, 3)}
        for site in sites_of(self.units):
            size, ndim = along[site.kind]
            shape = list(clean[site.hook].shape)
            if len(shape) != ndim or (site.kind != "mlp" and shape[2] != size):
                raise ModelError(
                    f"{site.hook} of {cfg.architecture} has shape {shape}, which is not one "
                    f"activation a {site.kind}; choose other units"
                )
            for number in (*site.numbers, *site.numbers_at):
                if not 0 <= number < size:
                    raise UnknownUnitError(
                        f"{site.hook} has no {site.kind} {number}; it has 0 … {size - 1}"
                    )
            for position in site.positions:
                if not 0 <= position < length:
                    raise UnknownUnitError(
                        f"no position {position} in a prompt of {length} tokens; "
                        f"it has 0 … {length - 1}"
                    )

    def _bind(self, clean_logits: Tensor) -> Metric:
        distractors = self._tokens.distractors
        return bind_metric(
            self.task.metric,
            answers=self._tokens.answers.to(self._device),
            distractors=None if distractors is None else distractors.to(self._device),
            clean=clean_logits,
        )

    def _prove(self, clean_logits: Tensor) -> None:
        prompts = torch.arange(len(self.task), device=self._device)
        untouched = self._value(clean_logits, prompts).cpu().numpy()
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
        tolerance = 64 * torch.finfo(clean_logits.dtype).eps * size
        if np.abs(kept - untouched).max() > tolerance:
            raise MeasurementError(
                f"with every unit kept the value is {kept}, the untouched model's is {untouched}; "
                "does a hook of your own depend on the batch?"
            )
        self._ends = (float(untouched.mean()), float(ablated.mean()))
        if np.array_equal(kept, ablated):
            raise AblationError(
                f"ablating all {self.n_units} units ({self.ablation!r}) changes no value; choose "
                "units that act on the last token, or another ablation"
            )

    def _measure(self, group: _Group, masks: Tensor) -> Tensor:
        """Values ``[mask, prompt]`` of one group, in as many forwards as memory asks for."""
        n_prompts, length = group.forward.tokens.shape
        values = torch.empty(len(masks), n_prompts)
        done = 0
        while done < len(masks):
            rows = max(1, self._tokens_per_forward // length)
            batch = masks[done : done + max(1, rows // n_prompts)]
            measured = self._try_forward(group, batch, min(rows, n_prompts))
            if measured is None:
                # Outside the except block, so that the failed forward's tensors are freed.
                self._halve(rows, length)
                continue
            values[done : done + len(batch)] = measured
            done += len(batch)
        return values

    def _try_forward(self, group: _Group, masks: Tensor, prompts_at_once: int) -> Tensor | None:
        """Values of a few masks; None when memory did not suffice."""
        n_prompts = len(group.prompts)
        on_device = masks.to(self._device)
        numbers = torch.tensor(group.prompts, device=self._device)
        columns = []
        try:
            for start in range(0, n_prompts, prompts_at_once):
                part = slice(start, start + prompts_at_once)
                logits = group.forward(on_device, part)
                prompts = numbers[part].repeat(len(masks))
                columns.append(self._value(logits, prompts).view(len(masks), -1).cpu())
        except (torch.OutOfMemoryError, MemoryError):
            return None
        except RuntimeError as error:  # the CPU allocator has no exception class of its own
            if "can't allocate memory" not in str(error):
                raise
            return None
        return torch.cat(columns, dim=1)

    def _value(self, logits: Tensor, prompts: Tensor) -> Tensor:
        values = self._metric(logits, prompts)
        if values.shape != prompts.shape:
            raise ShapeError(
                f"the metric returned shape {list(values.shape)} for {len(prompts)} rows of "
                f"logits; return one number a row, [{len(prompts)}]"
            )
        return values.float()

    def _halve(self, rows: int, length: int) -> None:
        if rows == 1:
            raise MeasurementError(
                f"out of memory for one row of {length} tokens with {self.n_units} units on "
                f"{self._device}; use shorter prompts, a smaller dtype or another device"
            )
        self._tokens_per_forward = rows // 2 * length
        _log.warning("out of memory with %d rows a forward; going on with %d", rows, rows // 2)


def _digest(*parts: str | Tensor) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else _bytes(part))
        digest.update(b"|")
    return digest.hexdigest()[:16]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
