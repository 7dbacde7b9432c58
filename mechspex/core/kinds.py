"""Kinds of units: what a kind is called, where its units lie in a model, and how many there are.

A new kind is one more entry in the table below; names, hook points, shapes and counts are read
from it wherever they are needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

from mechspex.core.errors import ModelError, Refused

Kind = str
"""The name of a kind, a key of `KINDS`."""

# Where alone a unit is ablated: a position, or the name of a span.
_AT = r"(?:@(?:-?\d+|[^\W\d].*|\(.*))?"


@runtime_checkable
class Sizes(Protocol):
    """The numbers of a model from which its units follow; see `mechspex.models.shape.Shape`."""

    @property
    def name(self) -> str: ...
    @property
    def architecture(self) -> str: ...
    @property
    def n_layers(self) -> int: ...
    @property
    def n_heads(self) -> int: ...
    @property
    def d_mlp(self) -> int | None: ...
    @property
    def attention_only(self) -> bool: ...
    @property
    def n_experts(self) -> int: ...


@dataclass(frozen=True)
class UnitKind:
    """One kind of unit.

    A kind without `hook` is no single activation of a model: its units are measured by a value
    function that knows them (words of a prompt, training examples), and are called by their
    labels. A kind without `count` is in no list of a model's units, as it does not follow from the
    model's sizes alone (latents of a dictionary). Edges do, and lie between hook points.

    Attributes:
        kind: its name, as a `Unit` has it: ``head``.
        plural: what several are called; in lower case, what users ask for: ``heads``.
        named: the name of a unit, from its ``layer`` and ``number``; or its ``{label}``.
        hook: the hook point of TransformerLens at which such a unit of a ``layer`` is ablated.
        shape: the axes of the activation there: ``row pos``, then ``unit`` where the units of a
            layer lie side by side, then what belongs to one unit.
        moved: {(alias of TransformerLens, where it leads): the hook point in place of `hook`}, of
            architectures whose modules are cut otherwise.
        count: how many units a layer has; raises `ModelError` where the model has none.
        n_layers: how many layers have such units; all blocks if not given.
        rescaled: whether those kept may be multiplied by (units of the layer) / (units kept).
        labels: what labels look like, where they are not whatever users call their units.
    """

    kind: Kind
    plural: str
    named: str = "{label}"
    hook: str | None = None
    shape: str = ""
    moved: Mapping[tuple[str, str], str] = field(default_factory=dict)
    count: Callable[[Sizes], int] | None = None
    n_layers: Callable[[Sizes], int] = lambda sizes: sizes.n_layers
    rescaled: bool = False
    labels: re.Pattern[str] | None = None

    @property
    def asked_for(self) -> str:
        """What users write for all units of this kind."""
        return self.plural.lower()

    @property
    def labelled(self) -> bool:
        """Whether a unit is known by its label alone."""
        return "{label}" in self.named

    @property
    def in_models(self) -> bool:
        """Whether its units follow from a model's sizes."""
        return self.count is not None or self.labels is not None

    @property
    def numbered(self) -> bool:
        """Whether a layer has several, told apart by number."""
        return "{number}" in self.named

    @property
    def ndim(self) -> int:
        """How many axes its activation has."""
        return len(self.shape.split())

    @property
    def axis(self) -> int | None:
        """The axis along which the units of a layer lie; None where the activation is one unit."""
        axes = self.shape.split()
        return axes.index("unit") if "unit" in axes else None

    @property
    def joined(self) -> bool:
        """Whether a module sees all units of a layer in one axis, each with its own features."""
        return self.axis is not None and self.axis < self.ndim - 1

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        if self.labels is not None:
            return re.compile(self.labels.pattern + _AT, self.labels.flags)
        return re.compile(re.sub(r"\{\w+\}", r"\\d+", self.named) + _AT)

    def is_name(self, name: str) -> bool:
        """Whether a unit of this kind may be called so; never of labels that may be anything."""
        if self.labelled and self.labels is None:
            return False
        return self._pattern.fullmatch(name) is not None

    def per_layer(self, sizes: Sizes) -> int:
        """How many units a layer of a model has.

        Raises:
            ModelError: the model has none, or they do not follow from its sizes.
        """
        if self.count is None:
            raise ModelError(f"{self.plural} do not follow from a model; list them yourself")
        return self.count(sizes)

    def hook_point(self, layer: int, aliases: Mapping[str, object]) -> str | None:
        """The hook point of a layer, in a model whose blocks have these aliases."""
        for (alias, leads_to), moved in self.moved.items():
            if aliases.get(alias) == leads_to:
                return moved.format(layer=layer)
        return None if self.hook is None else self.hook.format(layer=layer)


def _heads(sizes: Sizes) -> int:
    return sizes.n_heads


def _mlps(sizes: Sizes) -> int:
    if sizes.attention_only:
        raise ModelError(f"{sizes.name} is attention-only: it has heads, but no MLPs; choose heads")
    return 1


def _neurons(sizes: Sizes) -> int:
    _mlps(sizes)
    if sizes.n_experts or sizes.d_mlp is None:
        raise ModelError(
            f"{sizes.architecture} routes its MLPs over {sizes.n_experts} experts: its "
            "hook_post has no fixed neurons; use mlps(model) or heads(model)"
        )
    return sizes.d_mlp


ARROW = "→"
# Of a writer of the residual stream to a later reader; see `mechspex.models.edges`.
_EDGE = re.compile(
    rf"(embed|L\d+(H\d+|MLP)){ARROW}(output|L\d+(H\d+\.[qkv]|G\d+\.[kv]|MLP))", re.ASCII
)

# Hook points have the same names in every architecture of TransformerLens.
KINDS: dict[Kind, UnitKind] = {
    kind.kind: kind
    for kind in (
        UnitKind(
            kind="head",
            plural="heads",
            named="L{layer}H{number}",
            # Before the output projection.
            hook="blocks.{layer}.attn.hook_z",
            shape="row pos unit d_head",
            count=_heads,
            rescaled=True,
        ),
        UnitKind(
            kind="mlp",
            plural="MLPs",
            named="L{layer}MLP",
            hook="blocks.{layer}.mlp.hook_out",
            shape="row pos d_model",
            # The MLP modules of BLOOM and MPT add the residual stream; their projections do not.
            moved={("hook_mlp_out", "mlp.out.hook_out"): "blocks.{layer}.mlp.out.hook_out"},
            count=_mlps,
        ),
        UnitKind(
            kind="neuron",
            plural="neurons",
            named="L{layer}N{number}",
            # After gating.
            hook="blocks.{layer}.mlp.hook_post",
            shape="row pos unit",
            count=_neurons,
        ),
        UnitKind(kind="edge", plural="edges", labels=_EDGE),
        # Of a dictionary of a hook point's activations; see `mechspex.models.latent_units`.
        UnitKind(kind="latent", plural="latents"),
        UnitKind(kind="error", plural="error terms"),
        UnitKind(kind="part", plural="parts"),
        UnitKind(
            kind="word",
            plural="words",
            # What transformers calls inputs_embeds: before positions are added to it.
            hook="embed.hook_out",
            shape="row pos d_model",
        ),
        # A word as a key of every attention, which is at no one hook point.
        UnitKind(kind="hidden_word", plural="hidden words"),
        UnitKind(kind="example", plural="examples"),
    )
}


def listed_kinds() -> list[UnitKind]:
    """The kinds whose units follow from a model's sizes."""
    return [kind for kind in KINDS.values() if kind.in_models]


def find_kind(kind: Kind) -> UnitKind:
    """The entry of a kind.

    Raises:
        Refused: there is none of that name.
    """
    if kind not in KINDS:
        raise Refused(f"no kind of unit is called {kind!r}; choose {', '.join(KINDS)}")
    return KINDS[kind]


def kind_of_name(name: str) -> Kind | None:
    """The kind of the units that are called so; None of a label."""
    return next((kind.kind for kind in KINDS.values() if kind.is_name(name)), None)


def as_named(name: str) -> str:
    """The name of a unit of a model as it is listed, however it was typed; a label as it is.

    >>> as_named("l9h6"), as_named("l9h6->L10H0.Q"), as_named("l9h6@S2"), as_named("salt")
    ('L9H6', 'L9H6→L10H0.q', 'L9H6@S2', 'salt')
    """
    part, *place = re.split("(?=@)", name, maxsplit=1)
    ends = re.split(rf"\s*(?:->|{ARROW})\s*", part)
    listed = ARROW.join(map(_end_as_named, ends)) if len(ends) == 2 else part.upper()
    listed = "".join([listed, *place])
    return listed if kind_of_name(listed) else name


def _end_as_named(end: str) -> str:
    part, dot, vector = end.partition(".")
    plain = part.lower() in ("embed", "output")
    return (part.lower() if plain else part.upper()) + dot + vector.lower()
