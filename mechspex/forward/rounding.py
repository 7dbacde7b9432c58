"""By how much two forwards of the same model may differ."""

from __future__ import annotations

import torch

# {bytes of a number: what a forward's roundings may add up to, in roundings of its largest logit}:
# products add in float32 whatever they are given.
_ROUNDINGS = {2: 8, 4: 64, 8: 64}


def rounding_of(dtype: torch.dtype, size: float) -> float:
    """By how much rounding may move what a forward gives.

    Args:
        dtype: the number format of the forward.
        size: the largest logit or value.
    """
    return _ROUNDINGS[dtype.itemsize] * torch.finfo(dtype).eps * size
