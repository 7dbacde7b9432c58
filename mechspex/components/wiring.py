"""How a model's residual stream is wired: what its parts read through, and what they write."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mechspex.core.errors import ModelError
from mechspex.forward.rebuild import bare_module
from mechspex.models.bridge import hook_point
from mechspex.models.hidden_keys import is_native
from mechspex.models.load_model import Model

# What the embedding writes: all that enters the first block, learned positions included.
STREAM = "blocks.0.hook_in"


@dataclass(frozen=True, eq=False)
class Projection:
    """The linear maps of the heads of a block, or of its groups of heads, from the stream.

    Attributes:
        weight: ``[head, d_out, d_model]``.
        bias: ``[head, d_out]``, or None.
        rows: where its outputs lie among those of the module that has queries, keys and values in
            one, ``[head, d_out]``; None where they have a module each, or the place is not known.
    """

    weight: Float[Tensor, "head d_out d_model"]
    bias: Float[Tensor, "head d_out"] | None
    rows: Int[Tensor, "head d_out"] | None = None

    def __call__(
        self, streams: Float[Tensor, "row head pos d_model"], heads: Sequence[int]
    ) -> Float[Tensor, "row pos head d_out"]:
        """What some heads make of a stream each."""
        chosen = list(heads)
        # The positions of all rows side by side: one product a head.
        inputs = streams.transpose(0, 1).flatten(1, 2)
        outputs = torch.bmm(inputs, self.weight[chosen].transpose(1, 2))
        if self.bias is not None:
            outputs = outputs + self.bias[chosen, None]
        return outputs.unflatten(1, (len(streams), -1)).permute(1, 2, 0, 3)


@dataclass(frozen=True, eq=False)
class Block:
    """How one block is wired.

    Attributes:
        norm: through which its heads read; None where they read the stream as it is.
        stream: the hook point that the stream which they read passes.
        projections: {``q``, ``k`` or ``v``: its map}.
        read: {the same: the hook point of what they make of it}.
        fused: the hook point of all three in a plain model, where one module makes them.
        heads: the hook point of the heads' outputs.
        written: what each head writes of its output, ``[head, d_model, d_head]``.
        output: the module that writes for all heads of a block together.
        norm_after: what that passes before it is added to the stream; None for nothing.
        mlp: the hook point of what the MLP makes; None without an MLP.
        mlp_stream: the hook point of what the MLP reads, before its own norm if it has one.
        mlp_norm: the norm which it shares with the heads; None where it has its own, or none.
        mlp_norm_after: what the MLP's output passes before it is added; None for nothing.
        scale: what both are multiplied by then.
    """

    norm: nn.Module | None
    stream: str
    projections: Mapping[str, Projection]
    read: Mapping[str, str]
    fused: str | None
    heads: str
    written: Float[Tensor, "head d_model d_head"]
    output: nn.Module
    norm_after: nn.Module | None
    mlp: str | None
    mlp_stream: str
    mlp_norm: nn.Module | None
    mlp_norm_after: nn.Module | None
    scale: float

    @classmethod
    def of(cls, model: Model, layer: int) -> Block:
        """How a block of a model is wired.

        Raises:
            ModelError: heads whose queries, keys and values are no linear maps of one stream.
        """
        block, name = model.blocks[layer], f"blocks.{layer}"
        # TransformerLens' own models have no configuration of transformers.
        config = getattr(model.original_model, "config", None)
        norm, own_norm = _part(block, "ln1"), _part(block, "ln2")
        attention: Any = block.attn
        output = _linear(model, attention, "o")
        heads = hook_point(model, "head", layer)
        assert heads is not None
        return cls(
            norm=norm,
            stream=f"{name}.attn.q.hook_in" if norm is None else f"{name}.ln1.hook_in",
            projections=_projections(model, attention),
            read={part: f"{name}.attn.{part}.hook_out" for part in "qkv"},
            fused=f"{name}.attn.qkv.hook_out" if _is_fused(attention) else None,
            heads=heads,
            written=_rows(output).unflatten(1, (model.cfg.n_heads, -1)).transpose(0, 1),
            output=output,
            norm_after=_part(block, "ln1_post"),
            mlp=None if model.cfg.attn_only else hook_point(model, "mlp", layer),
            mlp_stream=f"{name}.mlp.hook_in" if own_norm is None else f"{name}.ln2.hook_in",
            mlp_norm=norm if own_norm is None else None,
            mlp_norm_after=_part(block, "ln2_post"),
            scale=float(getattr(config, "residual_multiplier", 1)),
        )

    def read_at(self, *, fused: bool) -> list[str]:
        """The hook points of what its heads make of the stream; `fused` in a plain model."""
        return [self.fused] if fused and self.fused else list(self.read.values())

    def in_dtype(self, dtype: torch.dtype) -> Block:
        """The same in another dtype."""
        parts = {
            name: replace(
                part,
                weight=part.weight.to(dtype),
                bias=None if part.bias is None else part.bias.to(dtype),
            )
            for name, part in self.projections.items()
        }
        return replace(
            self,
            norm=_in_dtype(self.norm, dtype),
            projections=parts,
            written=self.written.to(dtype),
            output=_in_dtype(self.output, dtype) or self.output,
            norm_after=_in_dtype(self.norm_after, dtype),
            mlp_norm=_in_dtype(self.mlp_norm, dtype),
            mlp_norm_after=_in_dtype(self.mlp_norm_after, dtype),
        )


@dataclass(frozen=True, eq=False)
class Wiring:
    """How all blocks of a model are wired.

    Attributes:
        blocks: how each is.
        output: the hook point of the stream that the unembedding reads, before the last norm.
    """

    blocks: tuple[Block, ...]
    output: str

    @classmethod
    def of(cls, model: Model) -> Wiring:
        """How the blocks of a model are wired.

        Raises:
            ModelError: a residual stream that is no sum; and see `Block.of`.
        """
        last = "ln_final.hook_in"
        if last not in model.hook_dict and not is_native(model.blocks[0].attn):
            raise ModelError(
                f"{model.cfg.model_name} has no norm after its last block: those within its blocks "
                "act on the residual stream itself, which is then no sum of what is written; "
                "choose heads or MLPs"
            )
        return cls(
            tuple(Block.of(model, layer) for layer in range(model.cfg.n_layers)),
            last if last in model.hook_dict else "unembed.hook_in",
        )

    @property
    def writers(self) -> list[str]:
        """The hook points of all that is written."""
        each = [hook for b in self.blocks for hook in (b.heads, b.mlp) if hook is not None]
        return [STREAM, *each]

    def in_dtype(self, dtype: torch.dtype) -> Wiring:
        """The same in another dtype."""
        return replace(self, blocks=tuple(block.in_dtype(dtype) for block in self.blocks))


def _part(block: nn.Module, name: str) -> nn.Module | None:
    """A module of transformers under the name that the bridge gives it."""
    part = block._modules.get(name)
    return None if part is None else _ready(bare_module(part))


def _ready(module: nn.Module) -> nn.Module:
    """A module through which gradients go, wherever its tensors were made."""
    if not any(parameter.is_inference() for parameter in module.parameters()):
        return module
    copied = copy.deepcopy(module)
    for name, parameter in copied.named_parameters():
        owner, _, last = name.rpartition(".")
        fresh = nn.Parameter(parameter.clone(), requires_grad=False)
        setattr(copied.get_submodule(owner), last, fresh)
    return copied


def _in_dtype(module: nn.Module | None, dtype: torch.dtype) -> nn.Module | None:
    if module is None or all(parameter.dtype == dtype for parameter in module.parameters()):
        return module
    return copy.deepcopy(module).to(dtype)


def _linear(model: Model, attention: nn.Module, name: str) -> nn.Module:
    module = attention._modules.get(name)
    linear = None if module is None else bare_module(module)
    if not isinstance(linear, nn.Linear | Conv1D):
        raise ModelError(
            f"the attention of {model.cfg.architecture} has no linear map {name!r} of the residual "
            "stream, so it is not known what its heads read and write; choose heads or MLPs"
        )
    return _ready(linear)


def _rows(linear: Any) -> Float[Tensor, "out in"]:
    """The weight of a linear map; GPT-2's modules hold the transpose."""
    weight = linear.weight.detach()
    return weight.t() if isinstance(linear, Conv1D) else weight


def _is_fused(attention: nn.Module) -> bool:
    return "qkv" in attention._modules


def _projections(model: Model, attention: nn.Module) -> dict[str, Projection]:
    n_heads = model.cfg.n_heads
    n_groups = getattr(model.cfg, "n_key_value_heads", None) or n_heads
    found = {}
    for part, number in (("q", n_heads), ("k", n_groups), ("v", n_groups)):
        linear: Any = _linear(model, attention, part)
        bias = None if linear.bias is None else linear.bias.detach().unflatten(0, (number, -1))
        found[part] = Projection(_rows(linear).unflatten(0, (number, -1)), bias)
    if not _is_fused(attention):
        return found
    rows = _places(_rows(_linear(model, attention, "qkv")), found)
    return {part: replace(projection, rows=rows.get(part)) for part, projection in found.items()}


def _places(fused: Tensor, parts: Mapping[str, Projection]) -> dict[str, Tensor]:
    """Where the rows of queries, keys and values lie in one matrix; nothing where that is not seen.

    They lie side by side, or so in each of several blocks: one a head, a group, a processor.
    """
    sizes = {part: projection.weight.shape[:2].numel() for part, projection in parts.items()}
    every = torch.arange(len(fused), device=fused.device)
    if sum(sizes.values()) != len(fused):
        return {}
    for n_blocks in sorted({1, 4, len(parts["k"].weight), len(parts["q"].weight)}):
        if any(size % n_blocks for size in sizes.values()):
            continue
        blocks = every.unflatten(0, (n_blocks, -1))
        for order in permutations(parts):
            split = blocks.split([sizes[part] // n_blocks for part in order], dim=1)
            rows = {part: where.flatten() for part, where in zip(order, split, strict=True)}
            if all(torch.equal(fused[rows[p]], parts[p].weight.flatten(0, 1)) for p in parts):
                shapes = {part: parts[part].weight.shape[:2] for part in parts}
                return {part: where.view(shapes[part]) for part, where in rows.items()}
    return {}
