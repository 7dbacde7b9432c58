"""A transformers model built anew around the tensors of another."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mechspex.core.errors import ModelError


def rebuild(
    own: PreTrainedModel, dtype: torch.dtype, fused: bool, device: torch.device | None
) -> tuple[PreTrainedModel, dict[str, nn.Module]]:
    """A new model of the same configuration with the tensors of `own`, and where its modules are.

    Returns:
        The model, and {path in it: the module of `own` behind the bridge}.
    """
    config = copy.deepcopy(own.config)
    # The bridge asks for attention patterns, which fused attention does not give.
    config.output_attentions = False
    # Nor can it cap its scores.
    fused &= bool(own._supports_sdpa) and not getattr(config, "attn_logit_softcapping", None)
    with torch.device("meta"):
        module = type(own)._from_config(
            config, attn_implementation="sdpa" if fused else "eager", dtype=dtype
        )
    bare = {path: _at(own, path) for path, _ in module.named_modules(remove_duplicate=False)}
    for path, part in module.named_modules():
        source = bare[path]
        for name, meta in part._parameters.items():
            if meta is not None:
                tensor = _tensor(source._parameters, path, name).detach()
                part._parameters[name] = nn.Parameter(
                    _as(tensor, dtype, device), requires_grad=False
                )
        for name, meta in part._buffers.items():
            if meta is not None:
                tensor = _tensor(source._buffers, path, name)
                # Rotary frequencies stay in float32 whatever the dtype, as transformers has them.
                part._buffers[name] = _as(tensor, meta.dtype, device)
    return module.eval(), bare


def _as(tensor: Tensor, dtype: torch.dtype, device: torch.device | None) -> Tensor:
    moved = tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
    # No gradient goes through tensors that were made in inference mode.
    return moved.clone() if moved.is_inference() else moved


def _tensor(tensors: Mapping[str, Tensor | None], path: str, name: str) -> Tensor:
    tensor = tensors.get(name)
    if tensor is None:
        raise ModelError(f"the bridge has no tensor {path}.{name}")
    return tensor


def bare_module(module: Any) -> nn.Module:
    """A module of transformers, out of whatever components of the bridge wrap it."""
    while "_original_component" in module._modules:
        module = module._modules["_original_component"]
    return module


def _at(own: nn.Module, path: str) -> nn.Module:
    module = bare_module(own)
    for name in path.split(".") if path else ():
        if name not in module._modules:
            raise ModelError(f"the bridge has no module {path}")
        module = bare_module(module._modules[name])
    return module
