"""The weights of a model: their hash, taken once, and whether they are still what they were."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from mechspex.models.load_model import Model

Weights = tuple[object, ...]
"""What tells whether weights have changed: cheap to make, compared by ==."""

# Numbers of each tensor that are looked at.
_LOOKED_AT = 256

_hashes: WeakKeyDictionary[Model, tuple[Weights, str]] = WeakKeyDictionary()


def weights_of(model: Model) -> Weights:
    """What tells whether the weights of a model have changed since.

    It rests on PyTorch counting in `_version` every change that an operation makes in place, and
    on the address of a tensor that was replaced. What goes round the count (`.data`, a view of
    NumPy) is seen where it changes one of 256 numbers spread over the tensor.
    """
    named = list(_each_once(model))
    # Tensors made in inference mode do not count.
    facts = [
        (name, t.data_ptr(), None if t.is_inference() else t._version, t.dtype, t.shape)
        for name, t in named
    ]
    return *facts, _some_of(t for _, t in named)


def weights_hash(model: Model) -> str:
    """SHA-256 of every parameter's and buffer's name, dtype, shape and bytes: what a model is.

    Taken once, and anew only after the weights have changed, see `weights_of`.
    """
    weights = weights_of(model)
    known = _hashes.get(model)
    if known is None or known[0] != weights:
        known = _hashes[model] = weights, _hash(model)
    return known[1]


def _hash(model: Model) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(_state(model).items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _state(model: Model) -> dict[str, Any]:
    return model.original_model.state_dict(keep_vars=True)


def _each_once(model: Model) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of `_state`, and its name in the module that holds it.

    A bridge holds most of its modules under several names, and this is asked at every commit:
    each module is looked at once.
    """
    seen = set()
    for module in model.original_model.modules():
        others = module._non_persistent_buffers_set
        held = [*module._parameters.items(), *module._buffers.items()]
        for name, tensor in held:
            if tensor is not None and name not in others and id(tensor) not in seen:
                seen.add(id(tensor))
                yield name, tensor


def _some_of(tensors: Iterable[Tensor]) -> bytes:
    """Some numbers of each tensor; those of a device and dtype in one copy, which devices wait for.

    What accelerate keeps on disk has none.
    """
    few: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        if not tensor.is_meta:
            # A contiguous tensor is flattened without a copy.
            some = tensor.detach().flatten()[:: 1 + tensor.numel() // _LOOKED_AT]
            few.setdefault((tensor.device, tensor.dtype), []).append(some)
    each = [torch.cat(some).cpu().view(torch.uint8) for some in few.values()]
    return b"".join(one.numpy().tobytes() for one in each)
