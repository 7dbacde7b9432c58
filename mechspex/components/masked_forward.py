"""The masked forward: many masks in one batched, hooked forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from mechspex.components.edge_sites import EDGE
from mechspex.components.placed_units import PlacedUnits
from mechspex.components.words import EMBEDDING, WORD, PlacedWords, is_word
from mechspex.core.errors import AblationError, ModelError, UnknownUnitError
from mechspex.core.kinds import KINDS, Kind, listed_kinds
from mechspex.core.units import Unit, UnitSet
from mechspex.models.bridge import Edits, edited_logits, hook_point
from mechspex.models.hidden_keys import HiddenKeys
from mechspex.models.latent_units import is_of_dictionary
from mechspex.models.load_model import Model
from mechspex.models.units import shape_of
from mechspex.tasks.teacher_forcing import ForcedRows
from mechspex.tasks.tokens import Tokens

if TYPE_CHECKING:
    from mechspex.components.edge_ablation import EdgeAblation
    from mechspex.components.latent_sites import LatentSite

Masks = Bool[Tensor, "mask #row unit"] | Float[Tensor, "mask #row unit"]
"""Masks: one for all rows, or one each; soft ones lie between 0 and 1."""


@dataclass(frozen=True)
class Site:
    """One hook point and the units that are ablated there.

    Attributes:
        hook: its name in TransformerLens.
        kind: the kind of its units.
        layer: the block it lies in.
        columns: mask columns of the units ablated at every position.
        numbers: their places along the hook's unit axis.
        members: the units ablated at some positions alone, each with its mask column.
        placed: where those lie in the rows of a forward; None where there are none.
    """

    hook: str
    kind: Kind
    layer: int
    columns: tuple[int, ...]
    numbers: tuple[int, ...]
    members: tuple[tuple[int, Unit], ...]
    placed: PlacedUnits | None = None

    def n_along(self, activation: Tensor) -> int:
        """How many units of this kind an activation ``[row, pos, …]`` of this hook holds."""
        axis = KINDS[self.kind].axis
        return 1 if axis is None else activation.shape[axis]

    def on(self, forced: ForcedRows, tokens: Tokens) -> Site:
        """The same on the rows of some prompts of a task.

        Raises:
            UnknownUnitError, AblationError: see `PlacedUnits.of`.
        """
        return replace(self, placed=PlacedUnits.of(self.members, forced, tokens))

    def keep(
        self, masks: Masks, rows: slice, positions: range, n_along: int
    ) -> Shaped[Tensor, "mask *shared along"]:
        """How much of each unit here is kept; one row, or one position, stands for all where they
        are alike."""
        placed = self.placed
        n_rows = masks.shape[1] if placed is None else max(masks.shape[1], placed.n_rows_of(rows))
        n_positions = 1 if placed is None else len(positions)
        keep = masks.new_ones((len(masks), n_rows, n_positions, n_along))
        keep[..., _span(self.numbers)] = masks[:, :, None, _span(self.columns)]
        if placed is not None:
            placed.times_kept(keep, masks, rows, positions)
        return keep


def _span(indices: Sequence[int]) -> slice | list[int]:
    """Neighbours as a slice, which costs no copy."""
    if indices and list(indices) == list(range(indices[0], indices[0] + len(indices))):
        return slice(indices[0], indices[0] + len(indices))
    return list(indices)


def sites_of(model: Model, units: UnitSet) -> tuple[Site, ...]:
    """The hook points at which units of a model are ablated, from the first layer to the last.

    Words of a prompt are none of these, nor latents, nor edges; see `mechspex.components.words`,
    `mechspex.components.latent_sites` and `mechspex.components.edge_sites`.

    Raises:
        AblationError: a unit that is no activation of a model.
    """
    at: dict[tuple[int, Kind], list[tuple[int, Unit]]] = {}
    for column, unit in enumerate(units):
        if unit.kind != EDGE and not is_word(unit) and not is_of_dictionary(unit):
            at.setdefault((unit.layer, unit.kind), []).append((column, unit))
    sites = []
    for (layer, kind), members in sorted(at.items()):
        hook = hook_point(model, kind, layer)
        if hook is None:
            *most, last = listed_kinds()
            raise AblationError(
                f"unit {members[0][1].name!r} is not a {', '.join(k.kind for k in most)} or "
                f"{last.kind}, which a model has; take units from "
                + ", ".join(f"{k.asked_for}(model)" for k in (*most, last))
            )
        everywhere = [(column, unit) for column, unit in members if unit.position is None]
        sites.append(
            Site(
                hook=hook,
                kind=kind,
                layer=layer,
                columns=tuple(column for column, _ in everywhere),
                numbers=tuple(unit.number for _, unit in everywhere),
                members=tuple(member for member in members if member[1].position is not None),
            )
        )
    return tuple(sites)


def check_sites(model: Model, sites: Iterable[Site], clean: Mapping[str, Tensor]) -> None:
    """Hold sites against the activations found there.

    Raises:
        ModelError: a hook point that holds something else than one activation a unit.
        UnknownUnitError: a head or neuron that is not there.
    """
    sizes = shape_of(model)
    for site in sites:
        kind = KINDS[site.kind]
        size = 1 if kind.count is None else kind.count(sizes)
        shape = list(clean[site.hook].shape)
        if len(shape) != kind.ndim or (kind.axis is not None and shape[kind.axis] != size):
            raise ModelError(
                f"{site.hook} of {sizes.architecture} has shape {shape}, which is not one "
                f"activation a {site.kind}; choose other units"
            )
        for number in (*site.numbers, *(unit.number for _, unit in site.members)):
            if not 0 <= number < size:
                raise UnknownUnitError(
                    f"{site.hook} has no {site.kind} {number}; it has 0 … {size - 1}"
                )


@dataclass(frozen=True)
class Ablation:
    """What ablated activations become, on rows of one length.

    Activation at every site = keep · activation + (1 − keep) · reference. With `rescale` the kept
    heads of a layer are multiplied by (heads of the layer) / (heads kept), as in ProxySPEX's head
    pruning.

    Attributes:
        sites: where units are ablated.
        references: {hook: what replaces an ablated activation}, ``[1 or row, 1 or pos, …]``.
        length: the length of the rows, in tokens.
        words: the words among the units, where there are any.
        rescale: whether kept heads are multiplied.
        latents: where latents of dictionaries are ablated.
    """

    sites: tuple[Site, ...]
    references: Mapping[str, Tensor]
    length: int
    words: PlacedWords | None = None
    rescale: bool = False
    latents: tuple[LatentSite, ...] = ()

    @property
    def hooks(self) -> list[tuple[str, Kind]]:
        """The hook points of its edits, each with the kind of the units there."""
        at_sites = [(site.hook, site.kind) for site in self.sites]
        at_latents = [(hook, at.site.kind) for at in self.latents for hook in at.hooks]
        at_words = [(EMBEDDING, WORD)] if EMBEDDING in self.references else []
        return at_sites + at_latents + at_words

    @property
    def floats_per_token(self) -> int:
        """How many numbers one token of a forward takes beside the model's own."""
        return sum(at.floats_per_token for at in self.latents)

    @property
    def floats_per_token_with_gradients(self) -> int:
        """The same with all that gradients take."""
        return sum(at.floats_per_token_with_gradients for at in self.latents)

    def first_positions(self, n_units: int) -> Int[np.ndarray, " unit"]:
        """The first position at which each unit is ablated in any row; 0 where that is all."""
        first = np.zeros(n_units, dtype=int)
        if self.words is not None:
            first += self.words.first_positions(n_units)
        for site in (*self.sites, *(at.site for at in self.latents)):
            placed = {} if site.placed is None else site.placed.first_positions()
            first[list(placed)] = list(placed.values())
        return first

    def first_blocks(self, units: UnitSet) -> Int[np.ndarray, " unit"]:
        """The first block that has to be run for each unit to be ablated."""
        first = np.array([unit.layer for unit in units])
        for at in self.latents:
            first[at.error_columns] = at.first_block
        return first

    @property
    def crosses_layers(self) -> bool:
        """Whether a latent changes more than what its own block writes."""
        return any(at.later or at.earlier for at in self.latents)

    def without_bridge(self, dtype: torch.dtype) -> Ablation:
        """The same on a plain model, with its references in another dtype."""
        # Latents are counted finer than a model in a coarse dtype.
        fine = {name for at in self.latents for name in at.made}
        references = {k: r if k in fine else r.to(dtype) for k, r in self.references.items()}
        return replace(self, references=references)

    def edits(self, masks: Masks, rows: slice) -> Edits:
        """Edits of activations ``[(mask row), pos, unit, …]``.

        An activation of fewer positions than the rows have holds their last ones.

        Args:
            masks: ``[mask, 1 or row, unit]``, Boolean, or between 0 and 1.
            rows: the rows that are run, as a slice of the references.
        """
        edits = {site.hook: self._edit(site, masks, rows) for site in self.sites}
        if self.words is not None and WORD in self.words.at:
            edits[EMBEDDING] = self._edit_embedding(self.words, masks, rows)
        each = [at.edits(masks, self.references, rows, self.length) for at in self.latents]
        own = (one for first, _ in each for one in first)
        later = (one for _, second in each for one in second)
        for hook, edit in [*own, *later]:
            before = edits.get(hook)
            edits[hook] = edit if before is None else both(before, edit)
        return edits

    @property
    def by_layer(self) -> bool:
        """Whether each unit is ablated in its own block, at a site."""
        return not self.latents and not (self.words and self.words.at)

    def edits_by_hook(self, masks: Mapping[str, Masks], rows: slice) -> Edits:
        """`edits` where each hook point has masks of its own, and units are ablated `by_layer`.

        Args:
            masks: {hook point: its masks}; others are not edited.
            rows: the rows that are run, as a slice of the references.
        """
        return {
            site.hook: self._edit(site, masks[site.hook], rows)
            for site in self.sites
            if site.hook in masks
        }

    def hidden_keys(self, masks: Masks, rows: slice) -> HiddenKeys | None:
        """The positions that masks hide from attention, for the same rows as `edits`."""
        return None if self.words is None else self.words.hidden(masks, rows)

    def _reference(self, hook: str, rows: slice) -> Tensor:
        reference = self.references[hook]
        return reference[rows] if len(reference) > 1 else reference

    def _edit_embedding(
        self, words: PlacedWords, masks: Tensor, rows: slice
    ) -> Callable[[Tensor], Tensor]:
        reference = self._reference(EMBEDDING, rows)

        def edit(embedding: Tensor) -> Tensor:
            n_positions = embedding.shape[1]
            keep = words.kept(WORD, masks.to(embedding.device), rows)[..., -n_positions:, None]
            live = rearrange(embedding, "(mask row) ... -> mask row ...", mask=len(masks))
            edited = _blended(live, reference[:, -n_positions:].to(live), keep.to(live.dtype))
            return rearrange(edited, "mask row ... -> (mask row) ...")

        return edit

    def _edit(self, site: Site, masks: Tensor, rows: slice) -> Callable[[Tensor], Tensor]:
        reference = self._reference(site.hook, rows)

        def edit(activation: Tensor) -> Tensor:
            n_positions = activation.shape[1]
            positions = range(self.length - n_positions, self.length)
            along = site.n_along(activation)
            keep = site.keep(masks.to(activation.device), rows, positions, along)
            # Views, so neither masks nor references are repeated.
            live = rearrange(activation, "(mask row) ... -> mask row ...", mask=len(masks))
            if keep.requires_grad and not keep.any():
                # What is multiplied by 0 has a gradient of 0: no need to go back through it.
                live = live.detach()
            others = reference[:, -n_positions:].to(live)
            wide = keep.to(live.dtype).view(*keep.shape, *[1] * (live.ndim - 4))
            edited = _blended(live, others, wide)
            if self.rescale and KINDS[site.kind].rescaled:
                edited = torch.where(wide > 0, edited * _factor(keep, live), edited)
            return rearrange(edited, "mask row ... -> (mask row) ...")

        return edit


def both(
    first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """Two edits of one activation, in order."""
    return lambda activation: second(first(activation))


def _blended(live: Tensor, reference: Tensor, keep: Tensor) -> Tensor:
    # Exact for masks of zeros and ones, and several times as fast as choosing by them.
    return torch.addcmul(reference * (1 - keep), live, keep)


def _factor(keep: Tensor, rows: Tensor) -> Tensor:
    """(heads of the layer) / (heads kept), 1 where none is kept, in the shape of the rows."""
    kept = keep.sum(-1, keepdim=True).clamp(min=1)
    return (keep.shape[-1] / kept).to(rows.dtype).view(*kept.shape, *[1] * (rows.ndim - 4))


@dataclass(frozen=True)
class MaskedForward:
    """A model whose units can be ablated, row by row, on rows of one length.

    The plain way: every block, every position, through the hooks of the bridge.

    Attributes:
        model: the bridge; its own hooks stay and run first.
        tokens: the prompts, each with what is forced after it.
        ablation: what ablated activations become.
        n_read: how many of the last positions are read.
    """

    model: Model
    tokens: Int[Tensor, "row pos"]
    ablation: Ablation | EdgeAblation
    n_read: int = 1

    def __call__(
        self, masks: Masks, rows: slice = slice(None)
    ) -> Float[Tensor, "masked_row read vocabulary"]:
        """Logits of every mask on every row, where the model is read; masked row: (mask row).

        Args:
            masks: ``[mask, 1 or row, unit]``, Boolean, or between 0 and 1.
        """
        tokens = repeat(self.tokens[rows], "row pos -> (mask row) pos", mask=len(masks))
        edits, keys = self.ablation.edits(masks, rows), self.ablation.hidden_keys(masks, rows)
        return edited_logits(self.model, tokens, edits, self.n_read, keys=keys)

    def reads_as(self, other: MaskedForward) -> bool:
        """Whether the same tokens are read at the same places."""
        return self.n_read == other.n_read and torch.equal(self.tokens, other.tokens)
