"""Early, middle and late heads, for the figures that ask the same of each."""

from __future__ import annotations

from mechspex.core.units import UnitSet
from mechspex.models.load_model import Model
from mechspex.models.units import heads


def layer_groups(model: Model, *, first: bool = True) -> dict[str, UnitSet]:
    """{layers: their heads}: a fifth of the layers at the beginning, in the middle, at the end.

    Args:
        model: the model.
        first: whether the first layers are among them.
    """
    n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
    size = max(1, n_layers // 5)
    starts = sorted({0, (n_layers - size) // 2, n_layers - size})
    every = heads(model)
    return {
        f"layers {start}–{start + size - 1}" if size > 1 else f"layer {start}": every[
            start * n_heads : (start + size) * n_heads
        ]
        for start in (starts if first else starts[1:])
    }
