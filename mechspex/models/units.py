"""The units a model is made of: heads, neurons, MLPs."""

from __future__ import annotations

from collections.abc import Iterable

from mechspex.core.units import Kind, Unit, UnitSet
from mechspex.errors import ModelError, UnknownUnitError
from mechspex.models.load_model import Model


def heads(
    model: Model, layers: Iterable[int] | None = None, positions: Iterable[int] | None = None
) -> UnitSet:
    """The attention heads, layer by layer: ``L0H0``, ``L0H1``, …

    Args:
        layers: only those of these layers.
        positions: one unit a head and token position (``L9H6@12``) in place of one a head.

    Raises:
        UnknownUnitError: a layer that the model does not have.
    """
    return _units(model, "head", model.cfg.n_heads, layers, positions)


def neurons(
    model: Model, layers: Iterable[int] | None = None, positions: Iterable[int] | None = None
) -> UnitSet:
    """The MLP neurons (after gating), layer by layer: ``L0N0``, ``L0N1``, …

    Raises:
        UnknownUnitError: a layer that the model does not have.
        ModelError: the model has no MLPs, or mixtures of experts in their place.
    """
    _check_mlps(model)
    if model.cfg.num_experts or model.cfg.d_mlp is None:
        raise ModelError(
            f"{model.cfg.architecture} routes its MLPs over {model.cfg.num_experts} experts: its "
            "hook_post has no fixed neurons; use mlps(model) or heads(model)"
        )
    return _units(model, "neuron", model.cfg.d_mlp, layers, positions)


def mlps(
    model: Model, layers: Iterable[int] | None = None, positions: Iterable[int] | None = None
) -> UnitSet:
    """The whole MLPs, one a layer: ``L0MLP``, ``L1MLP``, …

    Raises:
        UnknownUnitError: a layer that the model does not have.
        ModelError: the model has no MLPs.
    """
    _check_mlps(model)
    return _units(model, "mlp", 1, layers, positions)


def _check_mlps(model: Model) -> None:
    if model.cfg.attn_only:
        raise ModelError(f"{model.cfg.model_name} is attention-only: it has heads, but no MLPs")


def _units(
    model: Model,
    kind: Kind,
    per_layer: int,
    layers: Iterable[int] | None,
    positions: Iterable[int] | None,
) -> UnitSet:
    chosen = range(model.cfg.n_layers) if layers is None else list(layers)
    for layer in chosen:
        if not 0 <= layer < model.cfg.n_layers:
            raise UnknownUnitError(
                f"no layer {layer} in {model.cfg.model_name}; "
                f"it has layers 0 … {model.cfg.n_layers - 1}"
            )
    places = [None] if positions is None else list(positions)
    return UnitSet(
        tuple(
            Unit(kind, layer, number, position)
            for layer in chosen
            for number in range(per_layer)
            for position in places
        )
    )
