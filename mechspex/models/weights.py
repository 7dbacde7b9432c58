"""The weights of a model: their hash, taken once, and whether they are still what they were."""

from __future__ import annotations

import hashlib
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from mechspex.models.load_model import Model

Weights = tuple[tuple[object, ...], ...]
"""What tells whether weights have changed, a row a tensor: cheap to make, compared by ==."""

# Numbers of each tensor that are looked at.
_LOOKED_AT = 256

_hashes: WeakKeyDictionary[Model, tuple[Weights, str]] = WeakKeyDictionary()


def weights_of(model: Model) -> Weights:
    """What tells whether the weights of a model have changed since.

    It rests on PyTorch counting in `_version` every change that an operation makes in place, and
    on the address of a tensor that was replaced. What goes round the count (`.data`, a view of
    NumPy) is seen where it changes one of 256 numbers spread over the tensor.
    """
    return tuple(
        (
            name,
            tensor.data_ptr(),
            # Tensors made in inference mode do not count.
            None if tensor.is_inference() else tensor._version,
            tensor.dtype,
            tensor.shape,
            _some_of(tensor),
        )
        for name, tensor in model.original_model.state_dict().items()
    )


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
    for name, tensor in sorted(model.original_model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _some_of(tensor: Tensor) -> bytes:
    if tensor.is_meta:  # accelerate keeps it on disk
        return b""
    # A contiguous tensor is flattened without a copy.
    few = tensor.detach().flatten()[:: 1 + tensor.numel() // _LOOKED_AT]
    return few.cpu().contiguous().view(torch.uint8).numpy().tobytes()
