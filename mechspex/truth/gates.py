"""Attention heads wired by hand into logic gates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechspex.models.load_model import native_model
from mechspex.models.units import heads
from mechspex.tasks.task import Task
from mechspex.truth.known_model import PAD, KnownModel, LogitOf, word_tokenizer

GateKind = Literal["and", "or", "adder"]

_VOCABULARY = (PAD, "0", "1", "=")
# A score that leaves the softmax no choice in float32.
_HARD = 200.0


@dataclass(frozen=True)
class Gate:
    """A gate of several heads, each of which carries one bit.

    Let s be the sum of the bits of k heads. The gate ``and`` is relu(s − k + 1), ``or`` is
    1 − relu(1 − s), and ``adder`` is s. It adds `weight` times that to the output.

    Attributes:
        kind: ``and``, ``or`` or ``adder``.
        heads: the numbers of the heads.
        weight: the weight, in logits.
    """

    kind: GateKind
    heads: tuple[int, ...]
    weight: float = 1.0

    def __call__(self, bits: Float[np.ndarray, "... head"]) -> Float[np.ndarray, "..."]:
        """What the gate adds to the output, in logits, by the definition above."""
        total = bits[..., list(self.heads)].sum(axis=-1)
        if self.kind == "and":
            total = np.maximum(total - len(self.heads) + 1, 0)
        elif self.kind == "or":
            total = 1 - np.maximum(1 - total, 0)
        return self.weight * total


def build_gates(name: str, what: str, gates: Sequence[Gate], n_heads: int) -> KnownModel:
    """One layer of `n_heads` heads, and an MLP with one neuron a gate.

    A prompt is one bit a head. Head i looks at token i and writes its bit to a slot of its own.
    The output is the logit of ``=`` at the last token, the sum of all gates. The two prompts are
    all ones and all zeros, each other's partners where a reference comes from another prompt. So
    a head carries the bit m_i·x + (1 − m_i)·x′. Here x is the prompt's bit, and x′ is 0 under
    zero ablation, the other prompt's bit under resample, and ½ under mean ablation.

    Under zero ablation the truth of an AND of k heads is one kept term of order k. That of an OR is
    one ablated term of order k, and that of an adder k single units. Under resample the prompt of
    zeros has the same gate of the heads that are *not* kept. Heads in no gate are idle, a negative
    control.

    Args:
        name: the model's name.
        what: the circuit, in a few words.
        gates: the gates, one neuron each.
        n_heads: how many heads the layer has.
    """
    bit, slots = 0, 1 + n_heads
    output = slots + n_heads
    d_model = output + 1
    weights = {
        "embed.weight": torch.zeros(len(_VOCABULARY), d_model),
        "pos_embed.weight": torch.zeros(n_heads, d_model),
        "blocks.0.attn.q.weight": torch.zeros(n_heads, d_model),
        "blocks.0.attn.q.bias": torch.full((n_heads,), _HARD),
        "blocks.0.attn.k.weight": torch.zeros(n_heads, d_model),
        "blocks.0.attn.k.bias": torch.zeros(n_heads),
        "blocks.0.attn.v.weight": torch.zeros(n_heads, d_model),
        "blocks.0.attn.v.bias": torch.zeros(n_heads),
        "blocks.0.attn.o.weight": torch.zeros(d_model, n_heads),
        "blocks.0.attn.o.bias": torch.zeros(d_model),
        "blocks.0.mlp.in.weight": torch.zeros(len(gates), d_model),
        "blocks.0.mlp.in.bias": torch.zeros(len(gates)),
        "blocks.0.mlp.out.weight": torch.zeros(d_model, len(gates)),
        "blocks.0.mlp.out.bias": torch.zeros(d_model),
        "unembed.weight": torch.zeros(len(_VOCABULARY), d_model),
        "unembed.bias": torch.zeros(len(_VOCABULARY)),
    }
    weights["embed.weight"][_VOCABULARY.index("1"), bit] = 1
    for head in range(n_heads):
        weights["pos_embed.weight"][head, 1 + head] = 1
        weights["blocks.0.attn.k.weight"][head, 1 + head] = 1
        weights["blocks.0.attn.v.weight"][head, bit] = 1
        weights["blocks.0.attn.o.weight"][slots + head, head] = 1
    for neuron, gate in enumerate(gates):
        _wire(gate, weights, neuron, [slots + head for head in gate.heads], output)
    weights["unembed.weight"][_VOCABULARY.index("="), output] = 1
    config = {
        "n_layers": 1, "n_heads": n_heads, "d_model": d_model, "d_head": 1, "d_mlp": len(gates),
        "n_ctx": n_heads, "d_vocab": len(_VOCABULARY), "act_fn": "relu",
        "normalization_type": None, "positional_embedding_type": "standard",
    }  # fmt: skip
    model = native_model(name, config, word_tokenizer(_VOCABULARY), weights)
    task = Task(
        prompts=[" ".join(word * n_heads) for word in "10"],
        answers=[" =", " ="],
        metric=LogitOf(_VOCABULARY.index("=")),
        prepend_bos=False,
        name=name,
    )
    return KnownModel(name, what, model, task, heads(model))


def _wire(
    gate: Gate, weights: dict[str, Tensor], neuron: int, slots: list[int], output: int
) -> None:
    """One neuron of the MLP as a gate."""
    sign = -1.0 if gate.kind == "or" else 1.0
    bias = {"and": 1.0 - len(slots), "or": 1.0, "adder": 1.0}[gate.kind]
    weights["blocks.0.mlp.in.weight"][neuron, slots] = sign
    weights["blocks.0.mlp.in.bias"][neuron] = bias
    weights["blocks.0.mlp.out.weight"][output, neuron] = sign * gate.weight
    # 1 − relu(1 − s), and relu(1 + s) − 1: a sum has no kink.
    constant = {"and": 0.0, "or": gate.weight, "adder": -gate.weight}[gate.kind]
    weights["blocks.0.mlp.out.bias"][output] += constant


def random_gates(n_heads: int, n_gates: int, seed: int) -> tuple[Gate, ...]:
    """Gates of two to four heads with random weights; they may share heads.

    Args:
        n_heads: how many heads there are to choose from.
        n_gates: how many gates; the kinds take turns.
        seed: the only source of randomness.
    """
    rng = np.random.default_rng(seed)
    gates = []
    for number in range(n_gates):
        kind = get_args(GateKind)[number % 3]
        chosen = rng.choice(n_heads, size=int(rng.integers(2, 5)), replace=False)
        weight = float(rng.choice([-1, 1]) * rng.integers(2, 5) / 2)
        gates.append(Gate(kind, tuple(sorted(chosen.tolist())), weight))
    return tuple(gates)


# {name: (what it is, heads in all, gates)}
GATES: dict[str, tuple[str, int, tuple[Gate, ...]]] = {
    "and2": ("AND of two heads", 6, (Gate("and", (1, 4)),)),
    "and3": ("AND of three heads", 8, (Gate("and", (0, 3, 6)),)),
    "and4": ("AND of four heads", 8, (Gate("and", (1, 2, 5, 7)),)),
    "or2": ("OR of two heads", 6, (Gate("or", (0, 5)),)),
    "or3": ("OR of three heads", 8, (Gate("or", (2, 3, 7)),)),
    "adder": ("sum of four heads", 8, (Gate("adder", (0, 1, 4, 6)),)),
    "gates12": ("three gates of twelve heads", 12, random_gates(12, 3, seed=0)),
    "gates12b": ("five gates of twelve heads", 12, random_gates(12, 5, seed=1)),
}


def load_gates(name: str) -> KnownModel:
    """The model of a name in `GATES`."""
    what, n_heads, gates = GATES[name]
    return build_gates(name, what, gates, n_heads)
