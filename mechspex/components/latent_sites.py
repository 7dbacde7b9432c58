"""Latents under ablation: what they write is taken from the stream, or put at its reference.

Of y = Σ_i a_i d_i + b_dec + error the ablated parts alone are changed,

    y − Σ_i (1 − m_i) (a_i − a_i°) d_i − (1 − m_e) (error − error°)

where a and the error are those of the activations under the same mask, and ° is a reference. With
everything kept nothing is added, so the model is untouched to the bit however well or ill a
dictionary reconstructs it. The decoder's bias belongs to no unit and stays.

Latents of a cross-layer transcoder write into later MLPs as well: from each of those
Σ_i (1 − m_i) (a_i − a_i°) d_i^{l→L} is taken too, after the parts of that layer itself were, since
its error is that of what its MLP wrote.

What is encoded are the latents among the units alone, ``[row, pos, latent]``; top-k latents take a
product over all latents besides, of a few positions at a time, and so does the error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor

from mechspex.components.masked_forward import Masks, Site
from mechspex.core.errors import AblationError, DictionaryError
from mechspex.core.units import Unit, UnitSet
from mechspex.models.dictionary import Dictionary, Place
from mechspex.models.latent_units import ERROR, LATENT, dictionary_of, is_of_dictionary
from mechspex.models.load_model import Model
from mechspex.tasks.teacher_forcing import ForcedRows
from mechspex.tasks.tokens import Tokens

if TYPE_CHECKING:
    from mechspex.components.mean_references import References

Edit = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class LatentSite:
    """A hook point whose activations a dictionary takes apart, and the units that it has there.

    Attributes:
        dictionary: the dictionary, where the model computes.
        reads, writes: the hook points of what it encodes and decodes, as this model calls them.
        chosen: the latents among the units.
        site: the columns of the units; their numbers are places among `chosen`, and the one after
            them is the error's.
        later: the hook points of later MLPs that its latents write into.
        earlier: {the hook point that an earlier layer reads: that layer's dictionary}, of a
            cross-layer transcoder whose error is a unit.
    """

    dictionary: Dictionary
    reads: str
    writes: str
    chosen: Tensor
    site: Site
    later: tuple[str, ...] = ()
    earlier: Mapping[str, Dictionary] = field(default_factory=dict)

    @property
    def hooks(self) -> tuple[str, ...]:
        """The hook points at which something is read or changed."""
        return (self.reads, self.writes, *self.later, *self.earlier)

    @property
    def first_block(self) -> int:
        """The first block that has to be run for its error."""
        return min((one.layer for one in self.earlier.values()), default=self.dictionary.layer)

    @property
    def error_columns(self) -> list[int]:
        """The columns of the masks that keep the error."""
        named = zip(self.site.columns, self.site.numbers, strict=True)
        at_places = ((column, unit.number) for column, unit in self.site.members)
        error = len(self.chosen)
        return [column for column, number in (*named, *at_places) if number == error]

    @property
    def has_error(self) -> bool:
        """Whether the error is a unit."""
        return bool(self.error_columns)

    @property
    def made(self) -> tuple[str, str]:
        """What the activations of its latents are called in references, and the error."""
        return f"{self.writes}.latents", f"{self.writes}.error"

    @property
    def floats_per_token(self) -> int:
        """How many numbers one token of a forward takes beside the model's own."""
        n_written = 6 + len(self.later) + 2 * len(self.earlier)
        return 4 * len(self.chosen) + n_written * self.dictionary.d_out

    @property
    def floats_per_token_with_gradients(self) -> int:
        """The same with all that gradients take."""
        every = 4 * self.dictionary.n_latents if self.has_error else 0
        return 3 * self.floats_per_token + every

    def on(self, forced: ForcedRows, tokens: Tokens) -> LatentSite:
        """The same on the rows of some prompts of a task.

        Args:
            forced: the prompts and their rows.
            tokens: the task, with its spans.

        Raises:
            UnknownUnitError, AblationError: see `PlacedUnits.of`.
        """
        return replace(self, site=self.site.on(forced, tokens))

    def recorded(self, activations: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The latents' activations and the error, from those at the hook points.

        Args:
            activations: {hook point: ``[row, pos, …]``}.
        """
        read, written = (activations[h].to(self.dtype) for h in (self.reads, self.writes))
        read = read.view(*written.shape[:2], -1)
        latents, error = self.made
        found = {latents: self.dictionary.activations(read, self.chosen)}
        if self.has_error:
            before = {h: activations[h].to(self.dtype).view_as(read) for h in self.earlier}
            found[error] = written - self.reconstruction(read, before)
        return found

    def reconstruction(self, read: Tensor, before: Mapping[str, Tensor]) -> Tensor:
        """What the latents of this layer and of earlier ones write here, with the bias."""
        written = self.dictionary.reconstruction(read)
        for hook, dictionary in self.earlier.items():
            written = written + dictionary.written_later(before[hook], self.dictionary.layer)
        return written

    def edits(
        self, masks: Masks, references: References, rows: slice, length: int
    ) -> tuple[list[tuple[str, Edit]], list[tuple[str, Edit]]]:
        """The edits of one forward, in order: what is read is kept, what is written is changed.

        Args:
            masks: ``[mask, 1 or row, unit]``, Boolean, or between 0 and 1.
            references: what replaces the latents' activations and the error.
            rows: the rows that are run, as a slice of the references.
            length: the length of the rows, in tokens.

        Returns:
            Those in this layer, and those in later MLPs, which come after all of the former.
        """
        columns = [*self.site.columns, *(column for column, _ in self.site.members)]
        if not masks.requires_grad and bool((masks[..., columns] == 1).all()):
            return [], []
        forward = _Forward(self, masks, references, rows, length)
        own = [(hook, forward.keeping(hook)) for hook in dict.fromkeys((*self.earlier, self.reads))]
        later = [(hook, forward.later(number)) for number, hook in enumerate(self.later)]
        return [*own, (self.writes, forward.change)], later

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which latents are computed."""
        return self.dictionary.w_enc.dtype


class _Forward:
    """What a site reads and changes in one forward of some masks.

    Args:
        at: the site.
        masks, references, rows, length: see `LatentSite.edits`.
    """

    def __init__(
        self, at: LatentSite, masks: Masks, references: References, rows: slice, length: int
    ) -> None:
        self._at, self._masks, self._references = at, masks, references
        self._rows, self._length = rows, length
        self._read: dict[str, Tensor] = {}
        # (1 − m_i) (a_i − a_i°), ``[mask, row, pos, latent]``.
        self._off = torch.empty(0)

    def keeping(self, hook: str) -> Edit:
        """An edit that changes nothing, and keeps what is read."""

        def keep(activation: Tensor) -> Tensor:
            self._read[hook] = activation
            return activation

        return keep

    def change(self, written: Tensor) -> Tensor:
        """What is written, without what is ablated."""
        at, dtype = self._at, self._at.dtype
        live = rearrange(written, "(mask row) ... -> mask row ...", mask=len(self._masks))
        n_positions = live.shape[2]
        read = {
            hook: one.reshape(*live.shape[:3], -1).to(dtype) for hook, one in self._read.items()
        }
        x = read[at.reads]
        positions = range(self._length - n_positions, self._length)
        n_latents = len(at.chosen)
        masks = self._masks.to(written.device)
        keep = at.site.keep(masks, self._rows, positions, n_latents + 1)
        absent = 1 - keep.to(dtype)

        def reference(name: str) -> Tensor:
            given = self._references[name]
            given = given[self._rows] if len(given) > 1 else given
            return given[:, -n_positions:].to(dtype)

        latents, error = at.made
        off = at.dictionary.activations(x, at.chosen) - reference(latents)
        self._off = absent[..., :n_latents] * off
        change = self._off @ at.dictionary.w_dec[at.chosen]
        of_error = absent[..., n_latents:]
        if at.has_error and (of_error.requires_grad or bool(of_error.any())):
            left = live.to(dtype) - at.reconstruction(x, read)
            change = change + of_error * (left - reference(error))
        return (live - change.to(live.dtype)).reshape(written.shape)

    def later(self, number: int) -> Edit:
        """The edit of a later MLP, by its number among those."""
        directions = self._at.dictionary.later[number][self._at.chosen]

        def edit(written: Tensor) -> Tensor:
            change = (self._off @ directions).to(written.dtype)
            return written - change.reshape(written.shape)

        return edit


def latent_sites(model: Model, units: UnitSet) -> tuple[LatentSite, ...]:
    """Where the dictionaries among some units lie in a model, from the first layer to the last.

    Args:
        model: the bridge.
        units: the columns of the masks, latents among them or not.

    Raises:
        AblationError: latents that came without their dictionary.
        DictionaryError: one that does not fit the model.
    """
    members: dict[str, list[tuple[int, Unit]]] = {}
    for column, unit in enumerate(units):
        if is_of_dictionary(unit):
            members.setdefault(dictionary_of(unit), []).append((column, unit))
    known: Mapping[str, Dictionary] = getattr(units, "dictionaries", {})
    for called, ((_, first), *_) in members.items():
        if called not in known:
            raise AblationError(
                f"unit {first.name!r} came without its dictionary, which no file of units holds; "
                "take it from latents(model, dictionary)"
            )
    sites = [_site(model, known[called], of_one) for called, of_one in members.items()]
    # What a transcoder reads is what autoencoders on the same hook point have left of it.
    return tuple(sorted(sites, key=lambda one: (one.dictionary.layer, one.reads != one.writes)))


def _site(model: Model, dictionary: Dictionary, members: list[tuple[int, Unit]]) -> LatentSite:
    reads, writes = hooks_of(model, dictionary)
    some = next(model.original_model.parameters())
    # Which latents are active turns on small differences: never in a coarser dtype.
    dtype = torch.promote_types(some.dtype, torch.float32)
    numbers = sorted({unit.number for _, unit in members if unit.kind == LATENT})
    place = {number: place for place, number in enumerate(numbers)}

    # Numbered by their place among the chosen; the error comes after them.
    members = [
        (column, unit._replace(number=len(numbers) if unit.kind == ERROR else place[unit.number]))
        for column, unit in members
    ]
    everywhere = [(column, unit) for column, unit in members if unit.position is None]
    site = Site(
        hook=writes,
        kind=LATENT,
        layer=dictionary.layer,
        columns=tuple(column for column, _ in everywhere),
        numbers=tuple(unit.number for _, unit in everywhere),
        members=tuple(member for member in members if member[1].position is not None),
    )
    chosen = torch.tensor(numbers, dtype=torch.long, device=some.device)
    here = dictionary.to(some.device, dtype)
    found = LatentSite(here, reads, writes, chosen, site, _later_hooks(model, dictionary))
    if not found.has_error:
        return found
    return replace(found, earlier={hooks_of(model, one)[0]: one for one in here.earlier})


def _later_hooks(model: Model, dictionary: Dictionary) -> tuple[str, ...]:
    """The hook points of the later MLPs that a dictionary writes into."""
    place = Place.named(dictionary.writes)
    hooks = [str(place._replace(layer=place.layer + 1 + n)) for n in range(len(dictionary.later))]
    for hook in hooks:
        _check_layer(model, hook)
    return tuple(_as_called(model, hook) for hook in hooks)


def hooks_of(model: Model, dictionary: Dictionary) -> tuple[str, str]:
    """The hook points of what a dictionary reads and writes, as a model calls them.

    Args:
        model: the bridge.
        dictionary: the dictionary.

    Raises:
        DictionaryError: the model has no such layer, no such hook point, or is of another width.
    """
    d_model = model.cfg.d_model
    for hook, width in ((dictionary.reads, dictionary.d_in), (dictionary.writes, dictionary.d_out)):
        _check_layer(model, hook)
        if width != d_model:
            raise DictionaryError(
                f"the dictionary at {hook} is {width:,} numbers wide, {model.cfg.model_name} "
                f"{d_model:,}; it is of another model"
            )
    return _as_called(model, dictionary.reads), _as_called(model, dictionary.writes)


def _check_layer(model: Model, hook: str) -> None:
    n_layers = model.cfg.n_layers
    if Place.named(hook).layer >= n_layers:
        raise DictionaryError(
            f"the dictionary lies at {hook}, and {model.cfg.model_name} has layers 0 … "
            f"{n_layers - 1}; it is of another model"
        )


def _as_called(model: Model, hook: str) -> str:
    """A hook point as a model calls it."""
    place = Place.named(hook)
    aliases = getattr(model.blocks[place.layer], "hook_aliases", {})
    point = aliases.get(place.point, place.point)
    # Before its norm an MLP reads what the block holds then.
    point = "ln2.hook_in" if point == "hook_mlp_in" else point
    name = f"blocks.{place.layer}.{point}"
    if name not in model.hook_dict:
        raise DictionaryError(
            f"{model.cfg.model_name} has no hook point {hook}; take a dictionary of another one"
        )
    return name
