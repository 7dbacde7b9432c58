"""The units a model is made of: heads, neurons, MLPs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mechspex.core.checks import NAMES, NUMBERS, Only, told
from mechspex.core.doors import door
from mechspex.core.errors import ModelError, Refused
from mechspex.core.kinds import Kind, listed_kinds
from mechspex.core.units import Unit, UnitSet
from mechspex.models.bridge import hook_point
from mechspex.models.edges import edges_of
from mechspex.models.load_model import Model
from mechspex.models.shape import Shape, at_places
from mechspex.models.shipped import SHAPES


def _a_model(name: str, given: object) -> Any:
    """Reads a model that is loaded, or the name of one that need not be."""
    return Only((Model, str), "a model, such as load_model('tiny')", ModelError)(name, given)


@door(model=_a_model, layers=NUMBERS, positions=NUMBERS, spans=NAMES)
def heads(
    model: Model | str,
    layers: int | Iterable[int] | None = None,
    positions: int | Iterable[int] | None = None,
    spans: str | Iterable[str] | None = None,
) -> UnitSet:
    """The attention heads, layer by layer: ``L0H0``, ``L0H1``, …; of the layers that have some.

    Args:
        model: a loaded model, or the name of a shipped one.
        layers: the layers, or the one layer, whose units are taken; all if not given.
        positions: token positions, from the end where they are negative; there is then one unit a
            head and position (``L9H6@12``, ``L9H6@-1``).
        spans: names of spans of the task's prompts (``S2``), of what lies between them
            (``(after S2)``), or ``end``, the last token of the prompt; there is then one unit a
            head and span (``L9H6@S2``), at the tokens that each prompt has there. Prompts may be
            of any length.

    Raises:
        Refused: positions and spans.
        UnknownUnitError: a layer that the model does not have.
        ModelError: a name that is not that of a shipped model.
    """
    return shape_of(model).of_kind("head", _several(layers), places_of(positions, spans))


@door(model=_a_model, layers=NUMBERS, positions=NUMBERS, spans=NAMES)
def neurons(
    model: Model | str,
    layers: int | Iterable[int] | None = None,
    positions: int | Iterable[int] | None = None,
    spans: str | Iterable[str] | None = None,
) -> UnitSet:
    """The MLP neurons (after gating), layer by layer: ``L0N0``, ``L0N1``, …

    Args:
        model, layers, positions, spans: see `heads`.

    Raises:
        Refused: positions and spans.
        UnknownUnitError: a layer that the model does not have.
        ModelError: the model has no MLPs, or mixtures of experts in their place.
    """
    return shape_of(model).of_kind("neuron", _several(layers), places_of(positions, spans))


@door(model=_a_model, layers=NUMBERS, positions=NUMBERS, spans=NAMES)
def mlps(
    model: Model | str,
    layers: int | Iterable[int] | None = None,
    positions: int | Iterable[int] | None = None,
    spans: str | Iterable[str] | None = None,
) -> UnitSet:
    """The whole MLPs, one a layer: ``L0MLP``, ``L1MLP``, …

    Args:
        model, layers, positions, spans: see `heads`.

    Raises:
        Refused: positions and spans.
        UnknownUnitError: a layer that the model does not have.
        ModelError: the model has no MLPs.
    """
    return shape_of(model).of_kind("mlp", _several(layers), places_of(positions, spans))


@door(
    model=_a_model,
    layers=NUMBERS,
    among=Only((UnitSet,), "units such as heads(model)"),
    positions=NUMBERS,
    spans=NAMES,
)
def edges(
    model: Model | str,
    layers: int | Iterable[int] | None = None,
    among: UnitSet | None = None,
    positions: int | Iterable[int] | None = None,
    spans: str | Iterable[str] | None = None,
) -> UnitSet:
    """The edges from what writes into the residual stream to what reads it later, reader by reader.

    ``L9H6→L10H0.q`` goes from a head to another one's query. Writers are ``embed`` (all that enters
    the first block), heads and MLPs; readers are each head's ``.q``, ``.k`` and ``.v``, MLPs and
    ``output``. Where heads share their keys and values, ``L10G0.k`` and ``L10G0.v`` are those of
    the first group of heads. Where attention and MLP are parallel, an MLP does not read the heads
    of its layer.

    Args:
        model: a loaded model, or the name of a shipped one.
        layers: the layers, or the one layer, whose readers are taken; all, and the output, if not
            given.
        among: heads and MLPs between which edges are taken, and from the embedding and to the
            output; all if not given.
        positions, spans: see `heads`; the reader alone sees the writer's reference, at these
            tokens (``L9H6→L10H0.q@S2``).

    Raises:
        Refused: positions and spans.
        UnknownUnitError: a layer, a head or an MLP that the model does not have.
        ModelError: a model of whose layers some have no attention.
    """
    names = None if among is None else among.names
    units = edges_of(shape_of(model), _several(layers), names)
    places = places_of(positions, spans)
    return units if places is None else at_places(units, places)


def as_units(name: str, given: object) -> Any:
    """Reads units, their kinds, ``"heads+mlps"``, or names; `units_of` makes them units of a model.

    Raises:
        Refused: something else.
    """
    if isinstance(given, UnitSet | str):
        return given
    if isinstance(given, Unit):
        return UnitSet((given,))
    wanted = "heads(model), kinds such as 'heads+mlps', or a list of names"
    if not isinstance(given, Iterable):
        raise Refused(f"{name} = {told(given)}: give {wanted}")
    listed = [Only((Unit, str), wanted)(name, one) for one in given]
    units = tuple(one for one in listed if isinstance(one, Unit))
    return UnitSet(units) if len(units) == len(listed) else [getattr(u, "name", u) for u in listed]


def units_of(model: Model, units: UnitSet | str | Iterable[str]) -> UnitSet:
    """Units as they are; those of kinds, ``"heads+mlps"``; or those of some names.

    Raises:
        Refused: a text that names neither kinds nor units.
        UnknownUnitError, ModelError: what the model does not have.
    """
    return units if isinstance(units, UnitSet) else shape_of(model).units(units)


def shape_of(model: Model | str) -> Shape:
    """The numbers of layers, heads and neurons of a loaded model, or of a shipped one by name.

    Raises:
        ModelError: a name that is not that of a shipped model.
    """
    if isinstance(model, str):
        if model not in SHAPES:
            raise ModelError(f"{model!r} is a name; give the model itself, load_model({model!r})")
        return SHAPES[model]
    config = model.cfg
    return Shape(
        name=config.model_name,
        n_layers=config.n_layers,
        n_heads=config.n_heads,
        d_mlp=config.d_mlp,
        attention_only=bool(config.attn_only),
        n_experts=config.num_experts or 0,
        architecture=str(config.architecture),
        absent={kind.kind: _layers_without(model, kind.kind) for kind in listed_kinds()},
        n_groups=_n_groups(config),
        parallel=bool(getattr(config, "parallel_attn_mlp", False)),
    )


def _n_groups(config: Any) -> int | None:
    n_groups = getattr(config, "n_key_value_heads", None)
    return None if n_groups in (None, config.n_heads) else int(n_groups)


def _layers_without(model: Model, kind: Kind) -> frozenset[int]:
    """The layers in which a kind of unit has no hook point; none where no layer has one."""
    layers, points = range(model.cfg.n_layers), model.hook_dict
    absent = frozenset(n for n in layers if hook_point(model, kind, n) not in points)
    return absent if len(absent) < len(layers) else frozenset()


def places_of(
    positions: int | Iterable[int] | None, spans: str | Iterable[str] | None
) -> Iterable[int | str] | None:
    """Where units are ablated."""
    if positions is not None and spans is not None:
        raise Refused("positions and spans are both given; choose one, and add up the units")
    return _several(positions) if spans is None else [spans] if isinstance(spans, str) else spans


def _several(layers: int | Iterable[int] | None) -> Iterable[int] | None:
    return [layers] if isinstance(layers, int) else layers
