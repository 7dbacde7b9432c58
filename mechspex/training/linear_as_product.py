"""Linear layers as products of matrices, of which many masks share one."""

from __future__ import annotations

from typing import Any

from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode


class LinearAsProduct(TorchFunctionMode):
    """Within it ``torch.nn.functional.linear`` is (W xᵀ)ᵀ + b, features before rows in memory.

    Under `torch.func.vmap` with weights for each mask, inputs that all masks share meet the weights
    of all of them in one large product, ``[mask · out, in] @ [in, row]``; what follows from layer
    to layer are batched products of contiguous matrices.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not linear or kwargs:
            return func(*args, **(kwargs or {}))
        inputs, weight, *bias = args
        product = (weight @ inputs.mT).mT if inputs.ndim == 2 else inputs @ weight.mT
        return product + bias[0] if bias and bias[0] is not None else product
