"""The masked forward: many masks in one batched, hooked forward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechspex.errors import AblationError
from mechspex.models import Model, last_logits
from mechspex.units import Kind, Unit, UnitSet

# Where a unit is ablated: a head before the output projection, a neuron after gating, an MLP at
# its output; the same names in every architecture of TransformerLens.
_HOOKS: dict[Kind, str] = {
    "head": "blocks.{layer}.attn.hook_z",
    "neuron": "blocks.{layer}.mlp.hook_post",
    "mlp": "blocks.{layer}.mlp.hook_out",
}


@dataclass(frozen=True)
class Site:
    """One hook point and the units that are ablated there.

    Attributes:
        hook: its name in TransformerLens.
        kind: of its units.
        columns: mask columns of the units ablated at every position.
        numbers: their places along the hook's unit axis.
        columns_at, numbers_at, positions: the same for units ablated at one position.
    """

    hook: str
    kind: Kind
    columns: tuple[int, ...]
    numbers: tuple[int, ...]
    columns_at: tuple[int, ...]
    numbers_at: tuple[int, ...]
    positions: tuple[int, ...]

    def n_along(self, activation: Tensor) -> int:
        """How many units of this kind an activation ``[row, pos, …]`` of this hook holds."""
        return 1 if self.kind == "mlp" else activation.shape[2]

    def keep(
        self, masks: Bool[Tensor, "mask unit"], n_positions: int, n_along: int
    ) -> Bool[Tensor, "mask pos along"]:
        """Which units of this site are kept; one position stands for all where it makes no odds."""
        n_positions = n_positions if self.positions else 1
        keep = masks.new_ones((len(masks), n_positions, n_along))
        keep[:, :, list(self.numbers)] = masks[:, None, list(self.columns)]
        if self.positions:
            keep[:, list(self.positions), list(self.numbers_at)] &= masks[:, list(self.columns_at)]
        return keep


def sites_of(units: UnitSet) -> tuple[Site, ...]:
    """The hook points at which `units` are ablated, from the first layer to the last.

    Raises:
        AblationError: a unit that is no part of a transformer.
    """
    at: dict[tuple[int, Kind], list[tuple[int, Unit]]] = {}
    for column, unit in enumerate(units):
        if unit.kind not in _HOOKS:
            raise AblationError(
                f"unit {unit.name!r} is not a head, neuron or MLP; take units from heads(model), "
                "neurons(model) or mlps(model)"
            )
        at.setdefault((unit.layer, unit.kind), []).append((column, unit))
    sites = []
    for (layer, kind), found in sorted(at.items()):
        everywhere = [(column, unit) for column, unit in found if unit.position is None]
        placed = [(c, unit, unit.position) for c, unit in found if unit.position is not None]
        sites.append(
            Site(
                hook=_HOOKS[kind].format(layer=layer),
                kind=kind,
                columns=tuple(column for column, _ in everywhere),
                numbers=tuple(unit.number for _, unit in everywhere),
                columns_at=tuple(column for column, _, _ in placed),
                numbers_at=tuple(unit.number for _, unit, _ in placed),
                positions=tuple(position for _, _, position in placed),
            )
        )
    return tuple(sites)


@dataclass(frozen=True)
class MaskedForward:
    """A model whose units can be ablated, row by row, on prompts of one length.

    Activation at every site = keep · activation + (1 − keep) · reference.

    Attributes:
        model: the bridge; its own hooks stay and run first.
        tokens: the prompts.
        sites: where units are ablated.
        references: {hook: what replaces an ablated activation}, ``[1 or prompt, 1 or pos, …]``.
    """

    model: Model
    tokens: Int[Tensor, "prompt pos"]
    sites: tuple[Site, ...]
    references: Mapping[str, Tensor]

    def __call__(
        self, masks: Bool[Tensor, "mask unit"], prompts: slice = slice(None)
    ) -> Float[Tensor, "row vocabulary"]:
        """Last-token logits of every mask on every prompt; row = mask · n_prompts + prompt."""
        tokens = self.tokens[prompts]
        n_masks, n_prompts = len(masks), len(tokens)
        hooks = [(site.hook, self._ablate(site, masks, prompts, n_prompts)) for site in self.sites]
        with self.model.hooks(fwd_hooks=hooks):
            return last_logits(self.model, tokens.repeat(n_masks, 1))

    def _ablate(
        self, site: Site, masks: Tensor, prompts: slice, n_prompts: int
    ) -> Callable[..., Tensor]:
        reference = self.references[site.hook]
        reference = reference[prompts] if len(reference) > 1 else reference

        def ablate(activation: Tensor, hook: object) -> Tensor:
            keep = site.keep(masks, activation.shape[1], site.n_along(activation))
            # [mask, prompt, pos, unit, …]: views, so neither masks nor references are repeated.
            rows = activation.unflatten(0, (len(masks), n_prompts))
            keep = keep[:, None].view(*keep[:, None].shape, *[1] * (rows.ndim - 4))
            return torch.where(keep, rows, reference.to(activation.device)).flatten(0, 1)

        return ablate
