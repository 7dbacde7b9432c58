"""Stacks of linear layers, such as a multilayer perceptron, run for many masks at once."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

# Layers that do the same to every number, wherever it lies.
_ELEMENTWISE = (
    nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.SiLU, nn.GELU, nn.Tanh, nn.Sigmoid, nn.Softplus,
    nn.Identity,
)  # fmt: skip


class LinearStack:
    """A `torch.nn.Sequential` of linear layers and activations, without `torch.func.vmap`.

    Features stand before rows: the first layer of all masks is one large product,
    ``[mask · out, in] @ [in, row]``, and every further one a batched product of contiguous
    matrices.

    Args:
        layers: linear layers and activations by their names in the module.
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        self._layers = dict(layers)

    @classmethod
    def of(cls, module: nn.Module) -> LinearStack | None:
        """The stack that a model is; None of another one, or where hooks or frozen layers ask for
        more than products.

        Args:
            module: the model.
        """
        layers = dict(module.named_children())
        plain = type(module) is nn.Sequential and all(
            type(layer) in (nn.Linear, *_ELEMENTWISE) for layer in layers.values()
        )
        hooked = any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
        trained = all(p.requires_grad for p in module.parameters())
        return cls(layers) if plain and trained and not hooked else None

    def __call__(
        self, parameters: Mapping[str, Tensor], inputs: Float[Tensor, "row feature"]
    ) -> Float[Tensor, "mask row class"]:
        """What each model answers on the same inputs.

        Args:
            parameters: each model's, by their names in the module.
            inputs: the rows.
        """
        found = inputs.T
        for name, layer in self._layers.items():
            if not isinstance(layer, nn.Linear):
                found = layer(found)
                continue
            found = parameters[f"{name}.weight"] @ found
            if layer.bias is not None:
                found = found.add_(parameters[f"{name}.bias"][..., None])
        return found.mT
