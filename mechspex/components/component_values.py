"""The value function of model components: heads, neurons and MLPs under ablation."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from mechspex.components.forwards import AblatedModel
from mechspex.components.masked_model import MaskedModel
from mechspex.components.next_tokens import likeliest_tokens
from mechspex.components.precision import AUTO, PRECISIONS, PrecisionError
from mechspex.components.proof import proved
from mechspex.components.proved import Proved
from mechspex.components.provenance import provenance_of
from mechspex.components.words import hides_any
from mechspex.core.backward_rules import BackwardRules
from mechspex.core.checks import SEED, WHOLE, Only
from mechspex.core.doors import door
from mechspex.core.errors import AblationError, ModelError, Refused, ShapeError
from mechspex.core.masks import check_masks
from mechspex.core.recipe import Recipe
from mechspex.core.terms import as_chosen, columns_of
from mechspex.core.units import UnitSet
from mechspex.core.value_function import ValueFunction
from mechspex.models.bridge import attentions, check_mode
from mechspex.models.hidden_keys import is_native
from mechspex.models.load_model import Model, as_model
from mechspex.models.lock import lock_of
from mechspex.models.units import as_units, units_of
from mechspex.tasks.load_task import task_of
from mechspex.tasks.task import Task, as_task


class ComponentValues(ValueFunction):
    """What a task's metric is when some components of a model are ablated.

    value[m, j] = metric of prompt j with unit i kept where m_i is True, and its activation
    replaced by the reference where m_i is False. Heads are ablated before the output projection
    (``hook_z``), neurons after gating (``mlp.hook_post``), MLPs at their output. Of an ablated edge
    the reader alone sees the writer's reference, all others see what it writes; see `edges`.

    Before anything is measured it is proved that every hook fires, that all-kept is the untouched
    model, and that ablation changes the output. Values are measured on a copy of the model without
    its bridge, which shares the weights and computes only what a mask changes, once that is proved
    to give the bridge's own values; else, and while the bridge carries hooks of yours, through the
    bridge. Where the weights or your hooks change later, the next call prepares and proves anew.
    Threads that share a model wait for one another.

    Args:
        model: a bridge, in evaluation mode, or the name of one to load. Hooks of your own stay on
            it and run first.
        task: prompts and metric, or the name of a task.
        units: the columns of the masks, from `heads`, `neurons`, `mlps` or a sum of them, or from
            `edges`; or their kinds, ``"heads+mlps"``, or names.
        ablation: ``mean`` (over the task's prompts, position by position, or span by span where
            they differ in length), ``position_mean`` (over their positions as well),
            ``leave_one_out`` (the mean over the other prompts), ``zero``, ``resample`` (another
            prompt's activation), ``corrupted`` (the paired prompt's), or your own {hook:
            activations}.
        rescale: multiply the kept heads of a layer by (heads of the layer) / (heads kept), as in
            the head pruning of ProxySPEX.
        precision: ``bf16`` measures in bfloat16, several times as fast where the processor has
            bfloat16 matrix units, and is refused where it has none; ``fp16`` likewise, more exactly
            and with a smaller range; `precision_error` says what that costs. ``auto``: what pays.
            None: the model's own dtype.
        seed: the seed of ``resample``.
        calibration: texts over which ``mean``, ``position_mean`` and ``resample`` are taken instead
            of the task's prompts; one prompt alone can be ablated so.

    Raises:
        ModelError: the model is in train mode, or cannot be measured in another precision.
        TaskError: prompts or answers that do not fit the model's tokenizer.
        UnknownUnitError: a unit that the model does not have.
        AblationError: an ablation that cannot be carried out or cannot change the output.
        MeasurementError: the clean value is not finite.
    """

    @door(
        model=as_model,
        task=as_task,
        units=as_units,
        ablation=Only((str, Mapping), "an ablation or {hook: activations}", AblationError),
        precision=Only((str,), "'bf16', 'fp16', 'auto', or None", ModelError),
        seed=SEED,
    )
    def __init__(
        self,
        model: Model | str | Path,
        task: Task | str | Path,
        units: UnitSet | str | Iterable[str],
        ablation: str | Mapping[str, Tensor] = "mean",
        *,
        rescale: bool = False,
        precision: str | None = None,
        seed: int = 0,
        calibration: Iterable[str] | None = None,
    ) -> None:
        assert isinstance(model, Model)
        units = units_of(model, units)
        task = task_of(model, task, spans=units.named_spans)
        if not len(units):
            raise AblationError("there are no units to ablate; give heads(model) or the like")
        if precision not in (None, AUTO, *PRECISIONS):
            names = ", ".join((*PRECISIONS, AUTO))
            raise ModelError(f"precision {precision!r} is unknown; choose {names}")
        check_mode(model)
        with lock_of(model):
            ablated = AblatedModel.of(
                model,
                units,
                ablation,
                rescale=rescale,
                seed=seed,
                calibration=None if calibration is None else tuple(calibration),
            )
            _warn_of_hooks(ablated)
            self._proved = proved(ablated, task, precision)

    @classmethod
    def _of(cls, proved: Proved) -> ComponentValues:
        values = cls.__new__(cls)
        values._proved = proved
        return values

    @property
    def model(self) -> Model:
        """The bridge."""
        return self._proved.ablated.model

    @property
    def task(self) -> Task:
        """Prompts and metric."""
        return self._proved.task

    @property
    def units(self) -> UnitSet:
        return self._proved.ablated.units

    @property
    def outputs(self) -> tuple[str, ...]:
        """The prompts, one column of values each."""
        return tuple(self.task.prompts)

    @property
    def ablation(self) -> str | Mapping[str, Tensor]:
        """What replaces an ablated activation."""
        return self._proved.ablated.ablation

    @property
    def rescale(self) -> bool:
        """Whether the kept heads of a layer are multiplied."""
        return self._proved.ablated.rescale

    @property
    def seed(self) -> int:
        """The seed of ``resample``."""
        return self._proved.ablated.seed

    @property
    def precision(self) -> str | None:
        """The precision of the values; None for the model's own dtype."""
        return self._proved.precision

    @property
    def precision_error(self) -> PrecisionError | None:
        """What the precision costs; None in the model's own dtype."""
        return self._proved.precision_error

    @property
    def through_bridge(self) -> str | None:
        """Why values are measured through the bridge; None where they are not."""
        return self._proved.through_bridge

    @property
    def n_blocks(self) -> int | None:
        """How many blocks are run, where that is not all of them (see `early_exit`)."""
        return self._proved.n_blocks

    @property
    def in_own_dtype(self) -> ComponentValues:
        """The same values measured in the model's own dtype, whatever the precision here."""
        return self if self.precision is None else self._of(self._proved.in_own_dtype())

    @door(task=as_task)
    def on(self, task: Task | str | Path) -> ComponentValues:
        """The same value function on the prompts of another task.

        Its values are those of a new one with the same arguments. What does not depend on prompts
        is not prepared again. That the values are right is proved on these prompts as well; where
        the prompts are these and only the metric is another, the forwards that were proved are
        read by it.

        Args:
            task: the other prompts, and the metric.

        Raises:
            ModelError, TaskError, UnknownUnitError, AblationError, MeasurementError: for the same
                reasons as a new one.
        """
        task = task_of(self.model, task, spans=self.units.named_spans)
        check_mode(self.model)
        with lock_of(self.model):
            ablated = self._proved.ablated.as_it_is_now()
            _warn_of_hooks(ablated)
            values = self._of(proved(ablated, task, self.precision, like=self._proved))
        values = values if self.n_blocks is None else values.early_exit(self.n_blocks)
        return values.with_backward(self._proved.rules)

    @door(n_blocks=WHOLE)
    def early_exit(self, n_blocks: int) -> ComponentValues:
        """A cheaper model of the same units: its first `n_blocks` blocks, then the unembedding.

        It is a proxy for `mechspex.screen`; `mechspex.agreement` says how far it can be trusted.
        Units of later blocks have no effect in it.

        Args:
            n_blocks: how many blocks are run.

        Raises:
            ModelError: the model does not have so many blocks, those hold no unit, the units are
                edges, or the model can only be measured through its bridge.
        """
        n_layers = self.model.cfg.n_layers
        first = 1 + min(unit.layer for unit in self.units)
        if not first <= n_blocks <= n_layers:
            raise ModelError(
                f"n_blocks = {n_blocks}: {self.model.cfg.model_name} has {n_layers} blocks, the "
                f"first with units is block {first - 1}; give {first} … {n_layers}"
            )
        if self._proved.ablated.edges is not None:
            raise ModelError(
                "edges are read up to the output, so every block is run; take fewer prompts as the "
                "proxy instead"
            )
        if self.through_bridge is not None:
            raise ModelError(
                f"{self.model.cfg.model_name} is measured through its bridge, which runs every "
                f"block ({self.through_bridge}); take fewer prompts as the proxy instead"
            )
        with lock_of(self.model):
            proxy = self._of(self._proved.cut_after(n_blocks))
        proxy._refuse_hooks()
        return proxy

    def with_backward(self, rules: BackwardRules) -> ComponentValues:
        """The same values, with gradients by other rules than the chain rule.

        Attention is computed without its kernel, as rules act inside it.

        Args:
            rules: the rules.

        Raises:
            ModelError: at the first gradient, where the model computes what a rule is about in a
                way that is not known.
        """
        if rules == self._proved.rules:
            return self
        with lock_of(self.model):
            return self._of(self._proved.with_backward(rules))

    @property
    def configuration(self) -> dict[str, str]:
        """Everything a value depends on but the mask."""
        # The hash in it is taken once, and anew when weights have changed.
        with lock_of(self.model):
            self._renew()
        return provenance_of(self._proved).to_configuration()

    @property
    def recipe(self) -> Recipe:
        """How another process makes the same values: by the model's name and the task's texts.

        Raises:
            Refused: a metric of yours that cannot be imported.
        """
        from mechspex.components.recipe import recipe_of

        return recipe_of(self)

    @property
    def first_batch(self) -> int:
        """Few: on a slow machine a killed process would lose 32 whole; they are doubled by time."""
        return 4

    def __call__(self, masks: np.ndarray | Tensor) -> Float[np.ndarray, "mask prompt"]:
        """Values ``float32[mask, prompt]`` of masks ``bool[mask, unit]``, in the metric's units.

        Raises:
            ShapeError: masks of another width or dtype.
            MeasurementError: out of memory even for one mask on one prompt.
        """
        array = masks.cpu().numpy() if isinstance(masks, Tensor) else masks
        checked = check_masks(array, self.n_units)
        with lock_of(self.model):
            self._renew()
            return self._proved.forwards.values(checked)

    def in_turn(self) -> AbstractContextManager[None]:
        """A context in which a mask goes on from the one before, up to which both begin alike."""
        return self._proved.forwards.in_turn()

    @property
    def differentiable(self) -> bool:
        """Whether masks may lie between 0 and 1; not where words are hidden from the attention of
        TransformerLens' own models, which know no key that is hidden in part."""
        hides = hides_any(self.units)
        return not (hides and any(map(is_native, attentions(self.model))))

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
        with lock_of(self.model):
            self._renew()
            return self._proved.forwards.values_and_gradients(soft)

    @door(ablated=as_chosen, n_tokens=WHOLE)
    def next_tokens(
        self, ablated: str | Iterable[int | str] = (), n_tokens: int = 3
    ) -> pd.DataFrame:
        """What the model says after each prompt while some units are ablated.

        One row a prompt and rank: the likeliest tokens t with their probability, softmax(logits)_t,
        in the model's own dtype. Forwards of its own: nothing is kept in a run.

        Args:
            ablated: units by name or column; none if not given. All others are kept.
            n_tokens: how many tokens a prompt.

        Raises:
            Refused: no number of tokens, or a column out of range.
            UnknownUnitError: an unknown name in `ablated`.
        """
        columns = columns_of(ablated, self.units)
        if not 1 <= n_tokens <= self.model.cfg.d_vocab:
            raise Refused(
                f"n_tokens = {n_tokens}: give a whole number from 1 to {self.model.cfg.d_vocab}"
            )
        with lock_of(self.model):
            self._renew()
            return likeliest_tokens(self._proved, columns, n_tokens)

    @door(ablated=as_chosen)
    def masked_model(self, ablated: str | Iterable[int | str]) -> MaskedModel:
        """The model with some units ablated, on any text: to generate with, to hook in, to save.

        Args:
            ablated: units by name or column. All others are kept.

        Raises:
            Refused: a column out of range.
            UnknownUnitError: an unknown name.
            AblationError: references of the task's own positions, which other texts do not have:
                take ``zero`` or ``position_mean``.
        """
        with lock_of(self.model):
            self._renew()
            return MaskedModel.of(self._proved, columns_of(ablated, self.units))

    def _renew(self) -> None:
        """Prepare and prove anew where the model's weights or hooks have changed since."""
        self._refuse_hooks()
        old = self._proved
        if not old.ablated.has_changed:
            return
        check_mode(self.model)
        ablated = old.ablated.as_it_is_now()
        _warn_of_hooks(ablated)
        new = proved(ablated, old.task, old.precision)
        new = new if old.n_blocks is None else new.cut_after(old.n_blocks)
        self._proved = new.with_backward(old.rules) if old.rules else new

    def _refuse_hooks(self) -> None:
        """An early exit leaves out blocks, which hooks of the user's, on the bridge, would not."""
        if self.n_blocks is not None and self._proved.ablated.hooks.sees_any():
            raise ModelError(
                f"{self.model.cfg.model_name} carries hooks now, which its first {self.n_blocks} "
                "blocks are measured without; remove them, or measure the whole model"
            )


def _warn_of_hooks(ablated: AblatedModel) -> None:
    if ablated.hooks.sees_users():
        warnings.warn(
            "the model carries hooks of its own; they stay and are part of every value",
            stacklevel=3,
        )
