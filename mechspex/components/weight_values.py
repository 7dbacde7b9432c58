"""The value function of two models' weights: which parts' weights make the difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mechspex.components.batched_forward import checked_values
from mechspex.components.clean_pass import bound_metric, clean_passes
from mechspex.components.context import check_context
from mechspex.components.provenance import provenance_of_prompts
from mechspex.core.checks import quoted
from mechspex.core.doors import door
from mechspex.core.errors import MeasurementError, ModelError, TaskError
from mechspex.core.masks import check_masks
from mechspex.core.recipe import Recipe
from mechspex.core.units import Unit, UnitSet
from mechspex.core.value_function import ValueFunction
from mechspex.forward.rounding import rounding_of
from mechspex.models.bridge import HookWatch, check_mode, edited_logits, in_parts
from mechspex.models.load_model import Model, as_model
from mechspex.models.lock import lock_of
from mechspex.models.weights import weights_hash, weights_of
from mechspex.tasks.load_task import task_of
from mechspex.tasks.task import Task, as_task
from mechspex.tasks.tokens import Tokens, tokenize

_REST = Unit("part", 0, 0, label="rest")


class WeightValues(ValueFunction):
    """What a task's metric is when some parts of a model have the weights of another.

    value[m, j] = metric of prompt j by the model whose part i has its weights of `after` where m_i
    is True, and of `before` where it is False: all kept is `after`, all ablated is `before`. The
    effect of a part is what a fine-tuning, an edit or a rounding of its weights has done, and an
    interaction what it did in several parts together; a part whose weights are the same has none.
    `compare_models` asks otherwise: which parts *act* otherwise, also those that only read what
    changed before them.

    The parts are those with other weights: ``L10MLP``, ``L10ATTN`` (the attention of a block, all
    its heads), and ``rest`` (embeddings, norms, unembedding). Neither model is changed; a mask
    costs a forward of the whole model on all prompts.

    >>> import mechspex as mx, torch
    >>> before, after = mx.load_model("tiny"), mx.load_model("tiny")
    >>> with torch.no_grad():
    ...     for weight in after.blocks[1].attn.parameters():
    ...         _ = weight.mul_(0.8)
    >>> values = mx.WeightValues(before, after, mx.load_task("induction", after, n_prompts=4))
    >>> values.units.names
    ('L1ATTN',)

    Args:
        before: a model, in evaluation mode, such as the original one; or the name of one to load.
        after: the other model: the same architecture, such as a fine-tuned or rounded copy.
        task: prompts and metric, or the name of a task.

    Raises:
        ModelError: models of other shapes or number formats, or with the same weights; in train
            mode, or with hooks of yours; or that differ in more than their weights.
        TaskError: prompts that do not fit the model, or are other tokens for one of the models.
        MeasurementError: the value of one of the models is not finite.
    """

    @door(before=as_model, after=as_model, task=as_task)
    def __init__(
        self, before: Model | str | Path, after: Model | str | Path, task: Task | str | Path
    ) -> None:
        assert isinstance(before, Model)
        assert isinstance(after, Model)
        self._before, self._after = before, after
        self._weights = _exchanged(before, after)
        self._units = UnitSet(tuple(self._weights))
        self._task = task_of(after, task, spans=False)
        self._tokens = _tokens(before, after, self._task)
        self._hooks = [HookWatch(model) for model in (before, after)]
        self._as_made = [weights_of(model) for model in (before, after)]
        with lock_of(after), torch.no_grad():
            self._check_models()
            self._passes = clean_passes(after, self._task, self._tokens)
            self._metric = bound_metric(self._task, self._tokens, self._passes)
            self._ends = self._proved_ends()

    @property
    def before(self) -> Model:
        """The model whose weights an ablated part has."""
        return self._before

    @property
    def after(self) -> Model:
        """The model whose weights a kept part has."""
        return self._after

    @property
    def task(self) -> Task:
        """Prompts and metric."""
        return self._task

    @property
    def units(self) -> UnitSet:
        return self._units

    @property
    def outputs(self) -> tuple[str, ...]:
        """The prompts, one column of values each."""
        return tuple(self._task.prompts)

    @door(task=as_task)
    def on(self, task: Task | str | Path) -> WeightValues:
        """The same two models on the prompts of another task.

        Args:
            task: the other prompts, and the metric.

        Raises:
            ModelError, TaskError, MeasurementError: for the same reasons as a new one.
        """
        return WeightValues(self._before, self._after, task)

    @property
    def configuration(self) -> dict[str, str]:
        """Everything a value depends on but the mask."""
        with lock_of(self._after):
            self._check_models()
            return self._provenance

    @property
    def recipe(self) -> Recipe:
        """How another process makes the same values: by the models' names and the task's texts.

        Raises:
            Refused: a metric of yours that cannot be imported.
        """
        from mechspex.components.recipe import recipe_of_weights

        return recipe_of_weights(self)

    def __call__(self, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, "mask prompt"]:
        """Values ``float32[mask, prompt]`` of masks ``bool[mask, unit]``, in the metric's units.

        Raises:
            ShapeError: masks of another width or dtype.
            ModelError: a model that was changed since, or carries hooks now.
        """
        checked = check_masks(masks, self.n_units)
        values = np.empty((len(checked), len(self._task)), dtype=np.float32)
        with lock_of(self._after), torch.no_grad():
            self._check_models()
            for number, mask in enumerate(checked):
                values[number] = self._with(mask)
        return values

    @cached_property
    def _provenance(self) -> dict[str, str]:
        found = provenance_of_prompts(self._after, self._task, self._tokens)
        return replace(
            found,
            clean=self._ends[0],
            ablated=self._ends[1],
            units=self._units.description,
            ablation=f"weights of {Path(self._before.cfg.model_name).name}",
            ablation_digest=weights_hash(self._before)[:16],
        ).to_configuration()

    def _with(self, mask: Bool[np.ndarray, " unit"]) -> Float[np.ndarray, " prompt"]:
        """The values of `after` with the weights of `before` in the ablated parts."""
        parts = zip(self._weights.values(), mask, strict=True)
        ablated = {own: other for part, kept in parts if not kept for own, other in part.items()}
        with _in_place(ablated):
            return self._values(self._after)

    def _values(self, model: Model) -> Float[np.ndarray, " prompt"]:
        values = np.empty(len(self._task), dtype=np.float32)
        for one in self._passes:
            rows = rearrange(one.forced.rows, "prompt sequence pos -> (prompt sequence) pos")
            parts = in_parts(rows.to(one.logits.device))
            n_read = one.logits.shape[1]
            logits = [edited_logits(model, part, {}, n_read) for part in parts]
            prompts = torch.tensor(one.forced.prompts, device=one.logits.device)
            found = checked_values(self._metric, torch.cat(logits), prompts)
            values[list(one.forced.prompts)] = found.cpu()
        return values

    def _proved_ends(self) -> tuple[float, float]:
        """The mean values of both models, once all parts exchanged are known to make `before`."""
        after, before = self._values(self._after), self._values(self._before)
        for model, values in ((self._after, after), (self._before, before)):
            if not np.isfinite(values).all():
                bad = int(np.flatnonzero(~np.isfinite(values))[0])
                raise MeasurementError(
                    f"the value of {model.cfg.model_name} on prompt {bad} is {values[bad]}: "
                    f"{quoted(self._task.prompts[bad])}; look at the prompt, the dtype and the "
                    "metric"
                )
        apart = float(np.abs(self._with(np.zeros(self.n_units, dtype=bool)) - before).max())
        largest = max(float(one.logits.abs().max()) for one in self._passes)
        size = max(largest, float(np.abs([after, before]).max()))
        if not apart <= rounding_of(self._passes[0].logits.dtype, size):
            raise ModelError(
                f"{self._after.cfg.model_name} with all weights of {self._before.cfg.model_name} "
                f"differs from it by {apart:.2g}: the models differ in more than their weights, "
                "such as their configuration; use compare_models"
            )
        return float(after.mean()), float(before.mean())

    def _check_models(self) -> None:
        for model, hooks, made in zip(
            (self._before, self._after), self._hooks, self._as_made, strict=True
        ):
            check_mode(model)
            if hooks.sees_any():
                raise ModelError(
                    f"{model.cfg.model_name} carries hooks; remove them, or exchange the weights "
                    "of a copy without them"
                )
            if weights_of(model) != made:
                raise ModelError(
                    f"the weights of {model.cfg.model_name} have changed since these values were "
                    "prepared; make new WeightValues"
                )


@contextmanager
def _in_place(weights: Mapping[nn.Parameter, Tensor]) -> Iterator[None]:
    """Parameters with other weights, and afterwards with their own again.

    `torch.func.functional_call` does not do here: a bridge holds a module under several names, and
    it would put back what it had put in.
    """
    own = {parameter: parameter.data for parameter in weights}
    try:
        for parameter, weight in weights.items():
            parameter.data = weight
        yield
    finally:
        for parameter, weight in own.items():
            parameter.data = weight


def _exchanged(before: Model, after: Model) -> dict[Unit, dict[nn.Parameter, Tensor]]:
    """{part: {parameter of `after`: the weight of `before`}}, of the parts that differ."""
    theirs, ours = (dict(m.original_model.named_parameters()) for m in (before, after))
    for name in sorted(theirs.keys() ^ ours.keys()):
        owner = before if name in theirs else after
        raise ModelError(
            f"only {owner.cfg.model_name} has the weight {name}; exchange weights of models of one "
            "architecture, both with theirs tied or neither"
        )
    parts: dict[Unit, dict[nn.Parameter, Tensor]] = {}
    places = _places(after)
    for name, own in ours.items():
        other = theirs[name]
        facts = [(list(one.shape), one.dtype, one.device) for one in (other, own)]
        if facts[0] != facts[1]:
            raise ModelError(
                f"{name} is {facts[0][1]} {facts[0][0]} on {facts[0][2]} in "
                f"{before.cfg.model_name} and {facts[1][1]} {facts[1][0]} on {facts[1][2]} in "
                f"{after.cfg.model_name}; exchange weights of models of one shape, loaded with one "
                "dtype on one device"
            )
        parts.setdefault(places.get(id(own), _REST), {})[own] = other.detach()
    ordered = sorted(parts, key=lambda unit: (unit == _REST, unit.layer, unit.kind == "mlp"))
    changed = {
        unit: parts[unit]
        for unit in ordered
        if not all(torch.equal(own, other) for own, other in parts[unit].items())
    }
    if not changed:
        raise ModelError(
            f"{before.cfg.model_name} and {after.cfg.model_name} have the same weights; give two "
            "models that differ"
        )
    return changed


def _places(model: Model) -> dict[int, Unit]:
    """{identity of a parameter: the attention or MLP that it belongs to}."""
    found: dict[int, Unit] = {}
    for layer, block in enumerate(model.blocks):
        called = {
            "attn": Unit("part", layer, 0, label=f"L{layer}ATTN"),
            "mlp": Unit("mlp", layer, 0),
        }
        weights = {name: list(part.parameters()) for name, part in block.named_children()}
        # The MLP of OPT is its whole block: a weight is that of the smallest part it lies in.
        for name in sorted(weights, key=lambda name: -len(weights[name])):
            found |= {id(weight): called.get(name, _REST) for weight in weights[name]}
    return found


def _tokens(before: Model, after: Model, task: Task) -> Tokens:
    """The prompts in tokens, which both models must read alike."""
    theirs, ours = (
        tokenize(task, model.tokenizer, with_corrupted=False) for model in (before, after)
    )
    check_context(after, task, ours)
    if _ids(theirs) != _ids(ours):
        raise TaskError(
            f"the prompts are other tokens for {before.cfg.model_name} than for "
            f"{after.cfg.model_name}; exchange weights of models with one tokenizer"
        )
    return ours


def _ids(tokens: Tokens) -> tuple[Sequence[object], ...]:
    return [ids.tolist() for ids in tokens.prompts], [tokens.answers, tokens.distractors]
