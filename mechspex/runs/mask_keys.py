"""Masks as the keys of a store: short where few of many units are ablated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from mechspex.core.errors import StoreError
from mechspex.core.masks import pack, unpack

# Up to so many units a packed mask is short enough.
_WIDE = 2048
# Bytes of a column's number.
_NUMBER = 4


def mask_keys(masks: Bool[np.ndarray, "mask unit"], schema: int) -> list[bytes]:
    """The key of each mask: its packed bits, or the ablated columns where these are shorter.

    Of 46,080 neurons packed bits take 5,760 bytes, and one ablated column takes 4. The two are told
    apart by their length: columns are only taken where they are shorter.

    Args:
        masks: the masks.
        schema: the schema of the store; that of schema 1 has packed bits alone.
    """
    packed = pack(masks)
    width, content = packed.shape[1], packed.tobytes()
    keys = [content[start : start + width] for start in range(0, len(content), width)]
    if schema == 1 or masks.shape[1] <= _WIDE:
        return keys
    few = np.flatnonzero(_NUMBER * np.count_nonzero(~masks, axis=1) < width)
    for row in few:
        keys[row] = np.flatnonzero(~masks[row]).astype("<u4").tobytes()
    return keys


def is_key_of(key: bytes, n_units: int) -> bool:
    """Whether a mask of so many units may have this key."""
    width = -(-n_units // 8)
    columns = n_units > _WIDE and len(key) < width and len(key) % _NUMBER == 0
    return len(key) == width or columns


def masks_of(keys: Sequence[bytes], n_units: int) -> Bool[np.ndarray, "mask unit"]:
    """The masks that have these keys.

    Args:
        keys: what `mask_keys` returned, for stores of any schema.
        n_units: the width of a mask.

    Raises:
        StoreError: a key that no mask of so many units has.
    """
    width = -(-n_units // 8)
    masks = np.ones((len(keys), n_units), dtype=bool)
    whole = [row for row, key in enumerate(keys) if len(key) == width]
    if whole:
        bits = np.frombuffer(b"".join(keys[row] for row in whole), dtype=np.uint8)
        masks[whole] = unpack(bits.reshape(-1, width), n_units)
    for row, key in enumerate(keys):
        if len(key) == width:
            continue
        columns = np.frombuffer(key, "<u4") if is_key_of(key, n_units) else None
        if columns is None or (columns >= n_units).any():
            raise StoreError(f"a key of {len(key)} bytes is that of no mask of {n_units} units")
        masks[row, columns] = False
    return masks
