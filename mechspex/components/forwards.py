"""How a task's prompts are measured under an ablation: what does not depend on the prompts, and
what does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechspex.components.batched_forward import BatchedForward
from mechspex.components.cached_forward import CachedForward
from mechspex.components.edge_sites import EDGE, EdgeSites
from mechspex.components.latent_sites import LatentSite, latent_sites
from mechspex.components.masked_forward import Site, sites_of
from mechspex.components.words import EMBEDDING, WORD, hides_any
from mechspex.core.backward_rules import BackwardRules
from mechspex.core.errors import AblationError
from mechspex.core.units import UnitSet
from mechspex.forward.plain_model import PlainModel
from mechspex.models.bridge import HookWatch, attentions
from mechspex.models.load_model import Model
from mechspex.models.weights import Weights, weights_of
from mechspex.tasks.metrics import Metric


@dataclass(frozen=True, eq=False)
class AblatedModel:
    """A model, the units that masks ablate in it, and what replaces them: no prompt yet.

    Attributes:
        model: the bridge.
        units: the columns of the masks.
        ablation: a name, or {hook: activations}.
        rescale: multiply what is kept of the heads of a layer.
        seed: the seed of ``resample``.
        calibration: texts over which means and draws are taken instead of the task's prompts.
        sites: where heads, MLPs and neurons are ablated.
        edges: where those lie; None where there are none.
        latents: where latents of dictionaries lie.
        hooks: a watch on the bridge.
        plain_model: (dtype, fused=…, n_blocks=…) → the model without its bridge, each built once.
        weights: the weights that those copies were made of.
        users_hooks: the hooks of the user's that the bridge carried then.
    """

    model: Model
    units: UnitSet
    ablation: str | Mapping[str, Tensor]
    rescale: bool
    seed: int
    calibration: tuple[str, ...] | None
    sites: tuple[Site, ...]
    edges: EdgeSites | None
    latents: tuple[LatentSite, ...]
    hooks: HookWatch
    plain_model: Callable[..., PlainModel]
    weights: Weights
    users_hooks: tuple[object, ...]

    @classmethod
    def of(
        cls,
        model: Model,
        units: UnitSet,
        ablation: str | Mapping[str, Tensor],
        *,
        rescale: bool,
        seed: int,
        calibration: tuple[str, ...] | None = None,
    ) -> AblatedModel:
        """Find the hook points of the units.

        Raises:
            AblationError: a unit that is no part of a transformer, words or latents beside edges,
                or latents beside the whole of what they are parts of.
            DictionaryError: a dictionary that does not fit the model.
            ModelError: a model from whose attention no word can be hidden, or whose residual stream
                is wired in an unknown way.
        """
        if hides_any(units):
            attentions(model)
        copies = cache(partial(PlainModel, model))
        edges = EdgeSites.of(model, units) if any(u.kind == EDGE for u in units.units) else None
        if edges is not None and rescale:
            raise AblationError("edges are not rescaled; leave out rescale, or choose heads")
        sites, hooks = sites_of(model, units), HookWatch(model)
        latents = latent_sites(model, units)
        _check_apart(sites, latents)
        weights = weights_of(model)
        return cls(
            model=model,
            units=units,
            ablation=ablation,
            rescale=rescale,
            seed=seed,
            calibration=calibration,
            sites=sites,
            edges=edges,
            latents=latents,
            hooks=hooks,
            plain_model=copies,
            weights=weights,
            users_hooks=hooks.users(),
        )

    @property
    def hooks_ablated(self) -> list[str]:
        """The hook points at which the units are ablated."""
        at_writers = [] if self.edges is None else self.edges.wiring.writers
        at_words = [EMBEDDING] if any(unit.kind == WORD for unit in self.units) else []
        return [*dict.fromkeys([*at_writers, *(site.hook for site in self.sites), *at_words])]

    @property
    def device(self) -> torch.device:
        return next(self.model.original_model.parameters()).device

    @property
    def has_changed(self) -> bool:
        """Whether the model has other weights now, or carries other hooks of the user's."""
        now, then = self.hooks.users(), self.users_hooks
        if len(now) != len(then) or any(a is not b for a, b in zip(now, then, strict=True)):
            return True
        return weights_of(self.model) != self.weights

    def as_it_is_now(self) -> AblatedModel:
        """The same, with copies of the model of now where that has changed."""
        if not self.has_changed:
            return self
        return AblatedModel.of(
            self.model,
            self.units,
            self.ablation,
            rescale=self.rescale,
            seed=self.seed,
            calibration=self.calibration,
        )


def _check_apart(sites: Sequence[Site], latents: Sequence[LatentSite]) -> None:
    """Refuse latents beside the whole of what they are parts of."""
    whole = {site.hook: site for site in sites}
    for one in latents:
        for hook in (one.writes, *one.later):
            if hook in whole:
                site = whole[hook]
                raise AblationError(
                    f"the {site.kind} of layer {site.layer} is a unit beside latents of what it "
                    "writes; take one or the other"
                )


@dataclass(frozen=True, eq=False)
class Forwards:
    """The metric of every mask on every prompt of a task.

    Attributes:
        groups: the forwards of prompts of one token length each.
    """

    groups: tuple[BatchedForward, ...]

    @property
    def n_prompts(self) -> int:
        return sum(len(group.prompts) for group in self.groups)

    def values(self, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, "mask prompt"]:
        """Values of masks, in the metric's units.

        Raises:
            MeasurementError: out of memory even for one mask on one prompt.
        """
        values = np.empty((len(masks), self.n_prompts), dtype=np.float32)
        with torch.inference_mode():
            for group in self.groups:
                values[:, list(group.prompts)] = group.values(masks)
        return values

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """What the last mask left behind is kept meanwhile, as `ValueFunction.in_turn` says."""
        with ExitStack() as stack:
            for group in self.groups:
                if group.cached is not None:
                    stack.enter_context(group.cached.last.kept())
            yield

    def values_and_gradients(
        self, masks: Float[np.ndarray, "mask unit"]
    ) -> tuple[Float[np.ndarray, "mask prompt"], Float[np.ndarray, "mask prompt unit"]]:
        """Values of soft masks and their gradients, as `values`."""
        both = np.empty((len(masks), self.n_prompts, 1 + masks.shape[1]), dtype=np.float32)
        with torch.inference_mode(False):  # the caller's
            for group in self.groups:
                both[:, list(group.prompts)] = group.values_and_gradients(masks)
        return both[..., 0], both[..., 1:]

    def with_backward(self, rules: BackwardRules) -> Forwards:
        """The same, with gradients by other rules."""
        return Forwards(tuple(group.with_backward(rules) for group in self.groups))

    def read_by(self, metric: Metric) -> Forwards:
        """The same forwards, read by another metric."""
        return Forwards(tuple(replace(group, metric=metric) for group in self.groups))

    def without_bridge(
        self,
        ablated: AblatedModel,
        dtype: torch.dtype,
        *,
        fused: bool,
        n_blocks: int | None = None,
    ) -> Forwards:
        """The same on the model without its bridge.

        Raises:
            ModelError: the model cannot do without it.
        """
        copy = ablated.plain_model(dtype, fused=fused, n_blocks=n_blocks)
        if hides_any(ablated.units):
            copy.attach_keys(ablated.model)
        return Forwards(
            tuple(
                group.without_bridge(
                    CachedForward.of(
                        copy,
                        group.plain.tokens,
                        group.plain.ablation.without_bridge(dtype),
                        ablated.units,
                        group.plain.n_read,
                    )
                )
                for group in self.groups
            )
        )
