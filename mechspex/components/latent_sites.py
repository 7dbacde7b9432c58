"""Latents under ablation: what they write is taken from the stream, or put at its reference.

Of y = Σ_i a_i d_i + b_dec + error the ablated parts alone are changed,

    y − Σ_i (1 − m_i) (a_i − a_i°) d_i − (1 − m_e) (error − error°)

where a and the error are those of the activations under the same mask, and ° is a reference. With
everything kept nothing is added, so the model is untouched to the bit however well or ill a
dictionary reconstructs it. The decoder's bias belongs to no unit and stays.

What is encoded are the latents among the units alone, ``[row, pos, latent]``; top-k latents take a
product over all latents besides, of a few positions at a time, and so does the error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
    """

    dictionary: Dictionary
    reads: str
    writes: str
    chosen: Tensor
    site: Site

    @property
    def has_error(self) -> bool:
        """Whether the error is a unit."""
        members = (unit.number for _, unit in self.site.members)
        return len(self.chosen) in (*self.site.numbers, *members)

    @property
    def made(self) -> tuple[str, str]:
        """What the activations of its latents are called in references, and the error."""
        return f"{self.writes}.latents", f"{self.writes}.error"

    @property
    def floats_per_token(self) -> int:
        """How many numbers one token of a forward takes beside the model's own."""
        return 4 * len(self.chosen) + 6 * self.dictionary.d_out

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
        read, written = (activations[h].to(self._dtype) for h in (self.reads, self.writes))
        read = read.view(*written.shape[:2], -1)
        latents, error = self.made
        found = {latents: self.dictionary.activations(read, self.chosen)}
        if self.has_error:
            found[error] = written - self.dictionary.reconstruction(read)
        return found

    def edits(
        self, masks: Masks, references: References, rows: slice, length: int
    ) -> list[tuple[str, Edit]]:
        """The edits of one forward, in order: what is read is kept, what is written is changed.

        Args:
            masks: ``[mask, 1 or row, unit]``, Boolean, or between 0 and 1.
            references: what replaces the latents' activations and the error.
            rows: the rows that are run, as a slice of the references.
            length: the length of the rows, in tokens.
        """
        columns = [*self.site.columns, *(column for column, _ in self.site.members)]
        if not masks.requires_grad and bool((masks[..., columns] == 1).all()):
            return []
        if self.reads == self.writes:
            return [(self.writes, lambda x: self._edited(x, x, masks, references, rows, length))]
        read: list[Tensor] = []

        def keep(activation: Tensor) -> Tensor:
            read.append(activation)
            return activation

        def edit(activation: Tensor) -> Tensor:
            return self._edited(read.pop(), activation, masks, references, rows, length)

        return [(self.reads, keep), (self.writes, edit)]

    def _edited(
        self,
        read: Tensor,
        written: Tensor,
        masks: Masks,
        references: References,
        rows: slice,
        length: int,
    ) -> Tensor:
        live = rearrange(written, "(mask row) ... -> mask row ...", mask=len(masks))
        n_positions = live.shape[2]
        x = read.reshape(*live.shape[:3], -1).to(self._dtype)
        at = range(length - n_positions, length)
        n_latents = len(self.chosen)
        keep = self.site.keep(masks.to(written.device), rows, at, n_latents + 1)
        absent = 1 - keep.to(self._dtype)

        def reference(name: str) -> Tensor:
            given = references[name]
            given = given[rows] if len(given) > 1 else given
            return given[:, -n_positions:].to(self._dtype)

        latents, error = self.made
        off = self.dictionary.activations(x, self.chosen) - reference(latents)
        change = (absent[..., :n_latents] * off) @ self.dictionary.w_dec[self.chosen]
        of_error = absent[..., n_latents:]
        if self.has_error and (of_error.requires_grad or bool(of_error.any())):
            left = live.to(self._dtype) - self.dictionary.reconstruction(x)
            change = change + of_error * (left - reference(error))
        return (live - change.to(live.dtype)).reshape(written.shape)

    @property
    def _dtype(self) -> torch.dtype:
        return self.dictionary.w_enc.dtype


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
    return LatentSite(dictionary.to(some.device, dtype), reads, writes, chosen, site)


def hooks_of(model: Model, dictionary: Dictionary) -> tuple[str, str]:
    """The hook points of what a dictionary reads and writes, as a model calls them.

    Args:
        model: the bridge.
        dictionary: the dictionary.

    Raises:
        DictionaryError: the model has no such layer, no such hook point, or is of another width.
    """
    n_layers, d_model = model.cfg.n_layers, model.cfg.d_model
    found = []
    for hook, width in ((dictionary.reads, dictionary.d_in), (dictionary.writes, dictionary.d_out)):
        place = Place.named(hook)
        if place.layer >= n_layers:
            raise DictionaryError(
                f"the dictionary lies at {hook}, and {model.cfg.model_name} has layers 0 … "
                f"{n_layers - 1}; it is of another model"
            )
        if width != d_model:
            raise DictionaryError(
                f"the dictionary at {hook} is {width:,} numbers wide, {model.cfg.model_name} "
                f"{d_model:,}; it is of another model"
            )
        aliases = getattr(model.blocks[place.layer], "hook_aliases", {})
        point = aliases.get(place.point, place.point)
        # Before its norm an MLP reads what the block holds then.
        point = "ln2.hook_in" if point == "hook_mlp_in" else point
        name = f"blocks.{place.layer}.{point}"
        if name not in model.hook_dict:
            raise DictionaryError(
                f"{model.cfg.model_name} has no hook point {hook}; take a dictionary of another one"
            )
        found.append(name)
    return found[0], found[1]
