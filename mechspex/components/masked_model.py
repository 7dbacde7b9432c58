"""A model with some of its units ablated, on any text: to generate with, to hook in, to save."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from mechspex.components.masked_forward import Ablation, Site
from mechspex.components.proved import Proved
from mechspex.components.words import is_word
from mechspex.core.checks import PATH, WHOLE, Only
from mechspex.core.doors import door
from mechspex.core.errors import AblationError, ModelError, Refused
from mechspex.core.kinds import KINDS
from mechspex.core.masks import ablate_sets
from mechspex.core.units import Term
from mechspex.forward.rebuild import bare_module, rebuild
from mechspex.models.bridge import Edits, edited_logits, hook_owners, hook_point
from mechspex.models.load_model import Model
from mechspex.models.tokenizer import own_tokenizer
from mechspex.models.units import shape_of

Hook = Callable[[Tensor, object], Tensor]
# Of the largest logit: a checkpoint may use other kernels than the bridge.
_ROUNDING = 1e-3
_MODEL_FILES = ("config.json", "*.safetensors", "*.bin", "*.index.json", "*.gguf")


@dataclass(frozen=True, eq=False)
class MaskedModel:
    """A model with some units ablated at every position of any text.

    Made by `ComponentValues.masked_model` or `Circuit.model`. Nothing is done to the model itself.

    Attributes:
        model: the bridge.
        ablated: the names of the ablated units.
    """

    model: Model
    ablated: tuple[str, ...]
    _ablation: Ablation
    _mask: Tensor

    @classmethod
    def of(cls, proved: Proved, ablated: Term) -> MaskedModel:
        """A model with some columns of its units ablated.

        Args:
            proved: the model, its units and what replaces them.
            ablated: the columns.

        Raises:
            AblationError: references of the task's own positions, which another text does not have,
                or units that are at single positions of it.
        """
        units = proved.ablated.units
        ablation = proved.exact.groups[0].plain.ablation
        placed = any(is_word(unit) or unit.position is not None for unit in units)
        if placed or not isinstance(ablation, Ablation):
            raise AblationError(
                "edges, words and units at one position are of the task's prompts; for a model "
                "that reads any text take heads(model), neurons(model), mlps(model) or latents"
            )
        if proved.ablated.rescale:
            raise AblationError(
                "rescale counts the kept heads of a layer anew for each mask; leave it out for a "
                "model that reads any text"
            )
        name = proved.ablated.ablation
        if isinstance(name, str) and name not in ("zero", "position_mean"):
            raise AblationError(
                f"ablation {name!r} has a reference for each position of the task's prompts, which "
                "another text does not have; measure with 'zero' or 'position_mean'"
            )
        mask = torch.from_numpy(ablate_sets(len(units), [ablated])[:, None])
        names = tuple(units.names[column] for column in ablated)
        return cls(proved.ablated.model, names, replace(ablation, words=None), mask)

    @property
    def hooks(self) -> list[tuple[str, Hook]]:
        """Hook points of TransformerLens, each with what is done to its activation.

        For ``model.hooks(fwd_hooks=…)``, ``run_with_hooks`` and ``run_with_cache``.
        """
        edits = _InTurn(self._edits)
        return [(name, partial(edits, name)) for name in self._hooked]

    @property
    def _hooked(self) -> list[str]:
        return [*dict.fromkeys(name for name, _ in self._ablation.hooks)]

    def _edits(self, length: int) -> Edits:
        """Edits of one forward of rows of one length."""
        return self._on(length).edits(self._mask.to(self._device), slice(None))

    def _on(self, length: int) -> Ablation:
        """The ablation on rows of one length: the first position has a reference of its own."""
        references = {
            hook: _stretched(reference, length)
            for hook, reference in self._ablation.references.items()
        }
        return replace(self._ablation, references=references, length=length)

    def logits(self, tokens: Int[Tensor, "row pos"]) -> Float[Tensor, "row vocabulary"]:
        """Logits after the last token of every row.

        Args:
            tokens: the token ids.
        """
        edits = self._edits(tokens.shape[1])
        with torch.inference_mode():
            return edited_logits(self.model, tokens, edits)[:, -1]

    @door(text=Only((str,), "a text"), n_tokens=WHOLE)
    def generate(self, text: str, n_tokens: int = 20) -> str:
        """The text that follows, the likeliest token each time; it ends where the model ends it.

        Args:
            text: what is read first.
            n_tokens: so many tokens at most.

        Raises:
            Refused: no positive number of tokens.
        """
        if n_tokens < 1:
            raise Refused(f"n_tokens = {n_tokens}: give at least 1")
        tokenizer = self.model.tokenizer
        given = torch.tensor([own_tokenizer(tokenizer)(text).input_ids], device=self._device)
        tokens = given
        for _ in range(n_tokens):
            following = self.logits(tokens).argmax(-1, keepdim=True)
            tokens = torch.cat([tokens, following], dim=1)
            if following.item() == tokenizer.eos_token_id:
                break
        return str(tokenizer.decode(tokens[0, given.shape[1] :], skip_special_tokens=True))

    @property
    def _device(self) -> torch.device:
        return next(self.model.original_model.parameters()).device

    @door(folder=PATH)
    def save(self, folder: str | Path) -> None:
        """Write a checkpoint of the transformers library in which the ablated units are zeros.

        The weights that read an ablated head or neuron are 0, and those that an ablated MLP writes
        with; so shapes stay, and any program that reads the model reads this one. It is proved that
        the checkpoint gives this model's logits.

        Args:
            folder: where the weights, the configuration and the tokenizer are written; one that
                holds no model.

        Raises:
            AblationError: an ablation that is not by zeros, or latents: a checkpoint has no place
                for them.
            ModelError: no model of the transformers library, or weights that read several units.
            Refused: a folder that holds a model already, such as this one's own.
        """
        _refuse_a_model(Path(folder))
        if self._ablation.latents:
            raise AblationError(
                "a checkpoint has no place for latents, which are no weights; use hooks or generate"
            )
        if any(bool(reference.any()) for reference in self._ablation.references.values()):
            raise AblationError(
                "a checkpoint has no place for references that are not 0; measure with 'zero'"
            )
        own = self.model.original_model
        if not isinstance(own, PreTrainedModel):
            raise ModelError(
                f"{self.model.cfg.model_name} is no model of the transformers library, so it has "
                "no checkpoint; use hooks or generate"
            )
        some = next(own.parameters())
        pruned, bare = rebuild(own, some.dtype, False, some.device)
        paths = {id(module): path for path, module in bare.items()}
        for site in self._ablation.sites:
            self._zero(site, pruned, paths)
        self._prove(pruned)
        pruned.save_pretrained(folder)
        self.model.tokenizer.save_pretrained(folder)

    def _zero(self, site: Site, pruned: nn.Module, paths: Mapping[int, str]) -> None:
        """Put zeros where the ablated units of a site are read: an MLP is all of its neurons."""
        ablated = [
            number
            for number, column in zip(site.numbers, site.columns, strict=True)
            if not self._mask[0, 0, column]
        ]
        if not ablated:
            return
        whole = site.kind == "mlp"
        hook = hook_point(self.model, "neuron", site.layer) if whole else site.hook
        owner, at_input = hook_owners(self.model).get(hook or "", (None, False))
        path = None if owner is None else paths.get(id(bare_module(owner)))
        reader = None if path is None else pruned.get_submodule(path)
        if not (at_input and isinstance(reader, nn.Linear | Conv1D)):
            raise ModelError(
                f"{self.model.cfg.model_name}: what is at {site.hook} is read by no single matrix, "
                "so its units cannot be left out of a checkpoint; use hooks or generate"
            )
        weight = reader.weight.detach().clone()
        inputs = weight if isinstance(reader, Conv1D) else weight.T
        if whole:
            inputs.zero_()
            if reader.bias is not None:
                reader.bias = nn.Parameter(torch.zeros_like(reader.bias), requires_grad=False)
        else:
            per_layer = KINDS[site.kind].per_layer(shape_of(self.model))
            inputs.unflatten(0, (per_layer, -1))[ablated] = 0.0
        reader.weight = nn.Parameter(weight, requires_grad=False)

    def _prove(self, pruned: PreTrainedModel) -> None:
        """Hold a checkpoint against the hooked model on a row of tokens.

        Raises:
            ModelError: it gives other logits.
        """
        length = min(16, self.model.cfg.n_ctx)
        tokens = torch.arange(1, 1 + length, device=self._device)[None] % self.model.cfg.d_vocab
        with torch.inference_mode():
            saved, hooked = pruned(tokens).logits[:, -1].float(), self.logits(tokens).float()
        apart = float((saved - hooked).abs().max())
        if apart > _ROUNDING * float(hooked.abs().max()):
            raise ModelError(
                f"{self.model.cfg.model_name}: the checkpoint would differ by {apart:.2g} in its "
                "logits from the model under these ablations; use hooks or generate"
            )


def _refuse_a_model(folder: Path) -> None:
    """Weights that are written over are lost, and these are often the original ones."""
    if folder.is_file():
        raise Refused(f"{folder} is a file; name a folder")
    there = sorted(path.name for shape in _MODEL_FILES for path in folder.glob(shape))
    if there:
        raise Refused(f"{folder} already holds a model ({there[0]}); name another folder")


class _InTurn:
    """Edits that hooks make in turn, anew in each forward: latents are changed by what was read.

    Args:
        made: the edits of a forward, from the length of its rows.
    """

    def __init__(self, made: Callable[[int], Edits]) -> None:
        self._made = made
        self._edits: Edits = {}
        self._done: set[str] = set()

    def __call__(self, name: str, activation: Tensor, hook: object = None) -> Tensor:
        if name in self._done or not self._done:
            # A hook that comes again is the first of another forward.
            self._edits, self._done = self._made(activation.shape[1]), set()
        self._done.add(name)
        edit = self._edits.get(name)
        return activation if edit is None else edit(activation)


def _stretched(reference: Tensor, length: int) -> Tensor:
    """A reference ``[1, 1 or pos, …]`` on so many positions: all after the first are alike."""
    if reference.shape[1] == 1:
        return reference
    rest = reference[:, 1:2].expand(-1, length - 1, *reference.shape[2:])
    return torch.cat([reference[:, :1], rest], dim=1)
