"""Reference activations: what an ablated unit's activation is replaced by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from mechspex.core.errors import AblationError, ShapeError
from mechspex.models.bridge import edited_logits, in_parts
from mechspex.models.load_model import Model

ABLATIONS = {
    "zero": "zeros",
    "mean": "the mean over the task's prompts, position by position",
    "resample": "the activation on another prompt of the task, drawn once by seed",
    "corrupted": "the activation on the paired corrupted prompt",
}


def record(
    model: Model, hooks: Iterable[str], tokens: Int[Tensor, "prompt pos"]
) -> tuple[dict[str, Tensor], Tensor]:
    """Activations ``[prompt, pos, …]`` at `hooks`, and the last-token logits, of one clean forward.

    Raises:
        AblationError: a hook point that the model does not have, or that never fires.
    """
    hooks = list(hooks)
    for name in hooks:
        if name not in model.hook_dict:
            raise AblationError(
                f"{model.cfg.model_name} has no hook point {name!r}; "
                "its units cannot be ablated there"
            )
    seen: dict[str, list[Tensor]] = {name: [] for name in hooks}

    def keep_as(name: str) -> Callable[[Tensor], Tensor]:
        def keep(activation: Tensor) -> Tensor:
            seen[name].append(activation.detach().clone())
            return activation

        return keep

    logits = [
        edited_logits(model, part, {name: keep_as(name) for name in hooks})
        for part in in_parts(tokens)
    ]
    silent = [name for name in hooks if not seen[name]]
    if silent:
        raise AblationError(
            f"hook point {silent[0]!r} of {model.cfg.model_name} never fires "
            f"({len(silent)} of {len(hooks)} are silent); its units cannot be ablated"
        )
    return {name: torch.cat(parts) for name, parts in seen.items()}, torch.cat(logits)


def reference_activations(
    model: Model,
    clean: Mapping[str, Tensor],
    ablation: str | Mapping[str, Tensor],
    *,
    corrupted: Int[Tensor, "prompt pos"] | None,
    seed: int,
) -> dict[str, Tensor]:
    """{hook: reference ``[1 or prompt, 1 or pos, …]``} for prompts of one length.

    Args:
        model: the model, for the corrupted prompts.
        clean: {hook: activations on the prompts}, from `record`.
        ablation: a name of `ABLATIONS`, or your own {hook: activations}, each of the shape of the
            clean ones, where the prompt and position axes may be 1.
        corrupted: the tokens of the corrupted prompts, for ``corrupted``.
        seed: the seed of ``resample``.

    Raises:
        AblationError: an unknown name, no corrupted prompts, or a single prompt where the
            reference would be its own activation.
        ShapeError: activations of a shape that does not fit.
    """
    if isinstance(ablation, Mapping):
        return {name: _checked(name, ablation, activation) for name, activation in clean.items()}
    if ablation == "zero":
        return {name: torch.zeros_like(activation[:1, :1]) for name, activation in clean.items()}
    if ablation == "corrupted":
        if corrupted is None:
            raise AblationError(
                "ablation 'corrupted' needs corrupted prompts; give the task a corrupted text for "
                "each prompt or choose 'mean', 'resample' or 'zero'"
            )
        return record(model, clean, corrupted)[0]
    if ablation not in ABLATIONS:
        raise AblationError(f"ablation {ablation!r} is unknown; choose {', '.join(ABLATIONS)}")
    n_prompts = len(next(iter(clean.values()))) if clean else 0
    if n_prompts == 1:
        raise AblationError(
            f"ablation {ablation!r} over a single prompt of its length would replace every "
            "activation by itself; give more prompts of equal token length or choose 'zero'"
        )
    if ablation == "mean":
        return {name: a.float().mean(0, keepdim=True).to(a.dtype) for name, a in clean.items()}
    other = _other_prompts(n_prompts, seed)
    return {name: activation[other] for name, activation in clean.items()}


def _other_prompts(n_prompts: int, seed: int) -> Tensor:
    """For every prompt another one: a random cycle through all of them."""
    cycle = np.random.default_rng(seed).permutation(n_prompts)
    other = np.empty(n_prompts, dtype=np.int64)
    other[cycle] = np.roll(cycle, 1)
    return torch.from_numpy(other)


def _checked(name: str, own: Mapping[str, Tensor], clean: Tensor) -> Tensor:
    if name not in own:
        raise AblationError(f"the reference has nothing for {name!r}; it has {sorted(own)}")
    shape, wanted = list(own[name].shape), list(clean.shape)
    fits = len(shape) == len(wanted) and shape[2:] == wanted[2:]
    if not fits or any(a not in (1, b) for a, b in zip(shape[:2], wanted[:2], strict=True)):
        raise ShapeError(
            f"the reference for {name!r} has shape {shape}, expected {wanted} "
            "(the first two may be 1)"
        )
    return own[name].to(clean)
