"""A forward whose backward pass follows other rules than the chain rule.

Rules act on operations, not on architectures: while a forward runs, PyTorch shows every function it
calls (`TorchFunctionMode`), and hooks say in which part of the model that is. A rule leaves the
value of an operation and gives it the gradient of another one. So the softmax of an attention, or
the root in a norm, is found in whatever model class calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mechspex.core.backward_rules import BackwardRules
from mechspex.core.errors import ModelError
from mechspex.forward.patterns import SOFTMAX, Patterns
from mechspex.forward.plain_model import PlainModel
from mechspex.models.hidden_keys import is_native
from mechspex.models.load_model import Model

# Functions by name: as functions of torch, of torch.nn.functional, as methods and operators.
_PRODUCTS = ("matmul", "__matmul__", "bmm", "baddbmm", "einsum")
_GATES = ("mul", "__mul__", "__rmul__", "multiply")
# Zero at zero, so that they are a gain times their input.
_ACTIVATIONS = (
    "silu", "gelu", "relu", "leaky_relu", "mish", "elu", "square", "pow", "__pow__",
)  # fmt: skip
# What multiplies the input of other activations: a gate that has no input of its own.
_GATING = ("sigmoid", "tanh", "erf", "softplus")
# What a norm divides by.
_SCALES = ("rsqrt", "sqrt", "std", "var", "norm", "vector_norm")


@dataclass(frozen=True)
class Places:
    """Where the parts of a model are that rules tell apart.

    Attributes:
        name: the model's name in messages.
        has_mlps: whether it has MLPs or experts.
        blocks: the modules of its blocks, in order.
        attentions: the modules of attention.
        norms: the modules of norms, by the names of their classes.
        functions: the modules without others and without matrices inside, such as activations.
        is_sum: whether the residual stream is a sum of what blocks write.
    """

    name: str
    has_mlps: bool
    blocks: tuple[nn.Module, ...]
    attentions: tuple[nn.Module, ...]
    norms: tuple[nn.Module, ...]
    functions: tuple[nn.Module, ...]
    is_sum: bool = True

    @classmethod
    def of(
        cls, model: Model, plain_model: PlainModel | None, others: Iterable[nn.Module] = ()
    ) -> Places:
        """The places in what is run.

        Args:
            model: the bridge.
            plain_model: the copy of it that is run; None where the bridge itself is.
            others: norms that lie elsewhere.
        """
        blocks = list(model.blocks)
        attentions = [block.attn for block in blocks if "attn" in block._modules]
        root = model.original_model
        if plain_model is not None:
            blocks = [plain_model.copy_of(block) for block in blocks]
            attentions = [plain_model.copy_of(attention) for attention in attentions]
            root = plain_model.module
        norms = [m for m in root.modules() if "norm" in type(m).__name__.lower()]
        distinct = {id(module): module for module in (*norms, *others)}
        inside = [m for block in blocks for m in block.modules() if id(m) not in distinct]
        functions = [m for m in inside if not [*m.children(), *_matrices(m)]]
        has_last_norm = "ln_final.hook_in" in model.hook_dict
        return cls(
            model.cfg.model_name,
            not model.cfg.attn_only,
            tuple(blocks),
            tuple(attentions),
            tuple(distinct.values()),
            tuple(functions),
            has_last_norm or all(map(is_native, attentions)),
        )


class BackwardPass(TorchFunctionMode):
    """A context in which a forward is run; its gradients are then those of some rules.

    Args:
        rules: the rules.
        places: where they apply.
        keeps_patterns: whether gradients in attention patterns are wanted as well.
    """

    def __init__(
        self, rules: BackwardRules, places: Places, *, keeps_patterns: bool = False
    ) -> None:
        super().__init__()
        self._rules, self._places, self._keeps_patterns = rules, places, keeps_patterns
        self._patterns: dict[int, Tensor] = {}
        self._inside: list[_Part] = []
        self._dropped: int | None = None
        self._n_activations = 0

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Run a forward by these rules.

        Raises:
            ModelError: the model computes what a rule is about in a way that is not known.
        """
        hooks = []
        for kind, modules in self._modules().items():
            for number, module in enumerate(modules):
                part = _Part(kind, number, type(module).__name__)
                hooks.append(module.register_forward_pre_hook(self._enter(part), prepend=True))
                hooks.append(module.register_forward_hook(self._leave(part)))
        try:
            with self:
                yield
        finally:
            self._inside.clear()
            for hook in hooks:
                hook.remove()

    def gradient(
        self, value: Float[Tensor, ""], soft: Float[Tensor, "mask prompt unit"]
    ) -> Float[Tensor, "mask prompt unit"]:
        """The gradient of a value of that forward in the masks that it was computed from."""
        return self.combined(self.passes(value, soft)[0])

    def passes(
        self, value: Float[Tensor, ""], soft: Float[Tensor, "mask prompt unit"]
    ) -> tuple[list[Float[Tensor, "mask prompt unit"]], Patterns]:
        """The gradients of the whole backward pass, then of those without each block that is
        dropped, in the masks and in the patterns that are kept."""
        if self._rules.gains and self._places.has_mlps and not self._n_activations:
            raise self._unknown("its MLPs have no activation that is known", "gains")
        n_blocks = len(self._places.blocks)
        # Of a single block nothing would be left.
        drops = self._rules.blocks_dropped and n_blocks > 1
        wanted, found = (soft, *self._patterns.values()), []
        for self._dropped in (None, *range(n_blocks if drops else 0)):
            # A unit's own block leaves nothing of it: zeros.
            left = torch.autograd.grad(value, wanted, retain_graph=drops, materialize_grads=True)
            found.append(left)
        self._dropped = None
        in_masks, *in_patterns = zip(*found, strict=True)
        kept = {number: pattern.detach() for number, pattern in self._patterns.items()}
        of_layers = dict(zip(kept, map(torch.stack, in_patterns), strict=True))
        return list(in_masks), Patterns(self._places.attentions, kept, of_layers)

    def combined(
        self, passes: Sequence[Float[Tensor, "mask prompt unit"]]
    ) -> Float[Tensor, "mask prompt unit"]:
        """The gradient by the rules, of those of each of the `passes`."""
        whole, *without = passes
        if not without:
            return whole
        size = torch.zeros_like(whole)
        for gradient in without:
            size += gradient.abs()
        return torch.where(whole < 0, -1, 1) * size / (len(without) - 1)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        part = self._inside[-1] if self._inside else None
        if part is None or not torch.is_grad_enabled():
            return func(*args, **given)
        name = getattr(func, "__name__", "")
        if part.kind == "norm":
            return self._in_norm(part, name, func, args, given)
        if part.kind == "attention" and self._inside_attention:
            if name in SOFTMAX:
                return self._kept(part, self._softmax(part, func, args, given))
            if name in _PRODUCTS:
                return self._product(part, func, args, given)
            if name == "scaled_dot_product_attention":
                raise self._unknown(f"{part.called} has its softmax in one kernel", "attention")
        return self._in_block(part, name, func, args, given)

    @property
    def _inside_attention(self) -> bool:
        """Whether it is about what happens inside attention."""
        return self._rules.changes_attention or self._keeps_patterns

    def _kept(self, part: _Part, pattern: Tensor) -> Tensor:
        if not self._keeps_patterns:
            return pattern
        if self._rules.pattern_frozen:
            pattern.requires_grad_()
        if pattern.requires_grad:
            self._patterns[part.number] = pattern
        return pattern

    def _in_norm(self, part: _Part, name: str, func: Any, args: Any, given: Any) -> Any:
        output = func(*args, **given)
        if not self._rules.norms_frozen:
            return output
        if name in _SCALES or (name in ("pow", "__pow__") and _exponent(args, given) < 0):
            part.seen = True
            return output.detach()
        if name in ("layer_norm", "rms_norm"):
            part.seen = True
            centred = name == "layer_norm"
            return _instead(output, _with_frozen_scale(centred, *args, **given))
        return output

    def _softmax(self, part: _Part, func: Any, args: Any, given: Any) -> Any:
        scores, *others = args
        pattern = func(scores, *others, **given)
        part.seen = True
        if self._rules.pattern_frozen:
            return pattern.detach()
        temperature = self._rules.temperature
        if temperature == 1 or not pattern.requires_grad:
            return pattern
        # The slope of softmax(s / t) in s has 1 / t in it, which the rule has not.
        return _instead(pattern, temperature * func(scores / temperature, *others, **given))

    def _product(self, part: _Part, func: Any, args: Any, given: Any) -> Any:
        """Scores are the product of queries and keys; after the softmax comes that with values."""
        rules, factors = self._rules, list(args)
        tensors = [place for place, value in enumerate(factors) if isinstance(value, Tensor)]
        first, second = tensors[-2:] if len(tensors) > 1 else (None, None)
        if first is None or second is None:
            return func(*args, **given)
        if part.seen:
            factors[second] = _scaled(factors[second], rules.values)
        elif factors[first].requires_grad and factors[second].requires_grad:
            factors[first] = _scaled(factors[first], rules.queries)
            factors[second] = _scaled(factors[second], rules.keys)
        return func(*factors, **given)

    def _in_block(self, part: _Part, name: str, func: Any, args: Any, given: Any) -> Any:
        rules = self._rules
        if rules.gains and name in (*_ACTIVATIONS, *_GATING) and args and _varies(args[0]):
            in_attention = part.kind == "attention"
            if name in _ACTIVATIONS and not in_attention:
                self._n_activations += 1
                entering = args[0]
                output = func(*args, **given)
                # Nothing comes of an input of 0, whatever its gain.
                gain = torch.where(entering == 0, 0, output / entering).detach()
                return _instead(output, entering * gain)
            if name == "sigmoid" or not in_attention:
                self._n_activations += not in_attention
                return func(*args, **given).detach()
        output = func(*args, **given)
        # Within an activation a product is no gate.
        is_gate = name in _GATES and part.kind != "function" and all(map(_varies, args))
        return _scaled(output, 0.5) if rules.products_halved and is_gate else output

    def _modules(self) -> dict[str, tuple[nn.Module, ...]]:
        places = self._places
        return {
            "block": places.blocks,
            "attention": places.attentions,
            "norm": places.norms,
            "function": places.functions,
        }

    def _enter(self, part: _Part) -> Callable[..., None]:
        def pre_hook(_module: nn.Module, _args: object) -> None:
            # An attention may have a module for its softmax.
            is_softmax = part.kind == "function" and self._inside[-1].kind == "attention"
            part.seen = False
            self._inside.append(self._inside[-1] if is_softmax else part)

        return pre_hook

    def _leave(self, part: _Part) -> Callable[..., Any]:
        def post_hook(_module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            self._inside.pop()
            rules = self._rules
            if part.kind == "norm" and part.seen and self._inside:
                # A norm of the bridge holds one of the model.
                self._inside[-1].seen |= self._inside[-1].kind == "norm"
            if part.kind == "norm" and rules.norms_frozen and not part.seen:
                raise self._unknown(f"{part.called} divides by no root", "norms_frozen")
            if part.kind == "attention" and self._inside_attention and not part.seen:
                raise self._unknown(f"{part.called} has no softmax", "attention")
            if part.kind == "block" and rules.blocks_dropped:
                return self._droppable(part, args, output)
            return None

        return post_hook

    def _droppable(self, part: _Part, args: tuple[Any, ...], output: Any) -> Any:
        leaving = output[0] if isinstance(output, tuple) else output
        entering = args[0] if args else None
        adds = (
            self._places.is_sum
            and isinstance(entering, Tensor)
            and isinstance(leaving, Tensor)
            and entering.shape == leaving.shape
        )
        if not adds:
            raise self._unknown(f"{part.called} does not add to its stream", "blocks_dropped")
        if not leaving.requires_grad:
            return None
        passed: Any = _Droppable.apply(entering, leaving, lambda: self._dropped == part.number)
        return (passed, *output[1:]) if isinstance(output, tuple) else passed

    def _unknown(self, why: str, rule: str) -> ModelError:
        return ModelError(
            f"the rule {rule!r} does not apply to {self._places.name}: {why}; leave it out, or "
            "screen by 'first_order'"
        )


@dataclass
class _Part:
    """A part of the model while it runs; `seen`: what a rule is about was met in it."""

    kind: str
    number: int
    called: str
    seen: bool = False


class _Instead(torch.autograd.Function):
    """The first tensor, with the gradient of the second."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, other: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, gradients[0]


def _instead(value: Tensor, other: Tensor) -> Tensor:
    instead: Any = _Instead.apply(value.detach(), other)
    return instead


class _Scaled(torch.autograd.Function):
    """A tensor whose gradient is multiplied."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.factor * gradients[0], None


def _scaled(value: Tensor, factor: float) -> Tensor:
    if factor == 1 or not value.requires_grad:
        return value
    scaled: Any = _Scaled.apply(value, factor)
    return scaled


class _Droppable(torch.autograd.Function):
    """What leaves a block; its gradient goes around the block where that is dropped."""

    @staticmethod
    def forward(ctx: Any, entering: Tensor, leaving: Tensor, dropped: Callable[[], bool]) -> Tensor:
        ctx.dropped = dropped
        return leaving.view_as(leaving)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        return (gradient, None, None) if ctx.dropped() else (None, gradient, None)


def _with_frozen_scale(
    centred: bool,
    input: Tensor,
    normalized_shape: Iterable[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float | None = None,
    *_: Any,
) -> Tensor:
    """A layer norm, or one by the root mean square, whose scale is a constant."""
    axes = tuple(range(-len(tuple(normalized_shape)), 0))
    least = torch.finfo(input.dtype).eps if eps is None else eps
    moved = input - input.mean(axes, keepdim=True) if centred else input
    scaled = moved * (moved.detach().pow(2).mean(axes, keepdim=True) + least).rsqrt()
    scaled = scaled if weight is None else scaled * weight
    return scaled if bias is None else scaled + bias


def _matrices(module: nn.Module) -> list[Tensor]:
    return [parameter for parameter in module.parameters() if parameter.ndim > 1]


def _varies(factor: object) -> bool:
    """Whether a factor depends on the masks."""
    return isinstance(factor, Tensor) and factor.requires_grad and not factor.is_leaf


def _exponent(args: tuple[Any, ...], given: Mapping[str, Any]) -> float:
    exponent = args[1] if len(args) > 1 else given.get("exponent", 1)
    return float(exponent) if isinstance(exponent, int | float) else 1.0
