"""What a few masks on the same prompts have in common: clean passes, and forwards that several
metrics read."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from mechspex.components.clean_pass import CleanPass, clean_passes
from mechspex.components.forwards import AblatedModel
from mechspex.components.masked_forward import MaskedForward, Masks
from mechspex.tasks.task import Task
from mechspex.tasks.tokens import Tokens

# What a forward remembers at most, in numbers: of a few masks, read at one token.
_MOST_REMEMBERED = 1 << 26


class SharedPasses:
    """Clean passes for several references and metrics, of a model that does not change meanwhile.

    They take memory for as long as this is held.
    """

    def __init__(self) -> None:
        self._of: AblatedModel | None = None
        self._passes: list[CleanPass] = []

    def on(self, ablated: AblatedModel, task: Task, tokens: Tokens) -> list[CleanPass]:
        """The untouched model at the hook points of the units; the same objects for the same rows.

        Args:
            ablated: the model, and what is ablated in it.
            task: the task.
            tokens: its prompts in tokens.
        """
        before = self._of
        if before is None or before.units != ablated.units or before.has_changed:
            self._of, self._passes = ablated, []
        hooks, latents = ablated.hooks_ablated, ablated.latents
        passes = clean_passes(ablated.model, task, tokens, hooks, latents, known=self._passes)
        self._passes += [one for one in passes if not any(one is had for had in self._passes)]
        return passes


@dataclass(frozen=True)
class RememberedForward(MaskedForward):
    """A masked forward that is run once for each mask, by however many metrics it is read.

    Attributes:
        logits: {(the mask, its rows): ``[row, read, vocabulary]``}.
    """

    logits: dict[tuple[bytes, int, int], Tensor] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, plain: MaskedForward) -> RememberedForward:
        """The same forward, which remembers."""
        return cls(plain.model, plain.tokens, plain.ablation, plain.n_read)

    def __call__(
        self, masks: Masks, rows: slice = slice(None)
    ) -> Float[Tensor, "masked_row read vocabulary"]:
        if masks.dtype != torch.bool or masks.shape[1] > 1:
            return super().__call__(masks, rows)
        start, stop, _ = rows.indices(len(self.tokens))
        keys = [(mask.cpu().numpy().tobytes(), start, stop) for mask in masks]
        missing = [place for place, key in enumerate(keys) if key not in self.logits]
        new = {}
        if missing:
            found = super().__call__(masks[missing], rows).split(stop - start)
            new = {keys[place]: logits for place, logits in zip(missing, found, strict=True)}
        both = self.logits | new
        if sum(logits.numel() for logits in both.values()) <= _MOST_REMEMBERED:
            self.logits.update(new)
        return torch.cat([both[key] for key in keys])
