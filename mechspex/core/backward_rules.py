"""Rules of a backward pass: what gradients are made by, where the chain rule alone misleads.

A gradient at the whole model sees what a small change does. Ablation is no small change: a softmax
that is saturated looks flat, norms and backups make good what is taken away, paths cancel. Each
rule here changes how one operation is differentiated, and leaves every value as it is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

from mechspex.core.errors import Refused


@dataclass(frozen=True)
class BackwardRules:
    """What a backward pass does in place of the chain rule; values stay as they are.

    With nothing given it is the chain rule.

    Attributes:
        temperature: the softmax of attention is differentiated at scores / temperature:
            diag(p) − p pᵀ with p = softmax(scores / temperature), which is less flat where
            attention is saturated (GIM, Edin et al. 2025).
        queries, keys, values: what the gradient that reaches them is multiplied by: shares of a
            product's effect, as two factors changed together are not the sum of both alone.
        pattern_frozen: attention patterns are constants; only values carry a gradient (the
            attention rule of LRP, Ali et al. 2022).
        norms_frozen: what norms divide by is a constant, so that a smaller contribution is not made
            good by a smaller norm (Ali et al. 2022).
        products_halved: each factor of a gate's product gets half of the gradient, so that what
            reaches both is the product once and not twice (Arras et al. 2019).
        gains: an activation is its input times a constant, act(z) = z · [act(z) / z]: the mean
            slope from 0 to z, not the slope at z (RelP, Jafari et al. 2025).
        blocks_dropped: what goes through one block is left out of the backward pass, one block at a
            time; the gradient has the mean size over the L blocks, Σ |g| / (L − 1), and the sign
            of the whole one (GradDrop of AtP*, Kramár et al. 2024): paths that cancel in the sum
            do not cancel in all of those. It takes L backward passes.
        pattern_recomputed: an edge into a query or a key has, in place of what the slope of the
            softmax says, the attention pattern A without it: Σ (A − A without it) · ∂f/∂A over all
            positions, exact in the pattern (the query and key fix of AtP*). A key counts for all
            heads of its group. It takes two forwards for each part that writes, and nothing where
            no units are edges.

    Raises:
        Refused: a temperature that is not above 0.
    """

    temperature: float = 1.0
    queries: float = 1.0
    keys: float = 1.0
    values: float = 1.0
    pattern_frozen: bool = False
    norms_frozen: bool = False
    products_halved: bool = False
    gains: bool = False
    blocks_dropped: bool = False
    pattern_recomputed: bool = False

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise Refused(f"temperature = {self.temperature}: give a number above 0")

    @property
    def changes_attention(self) -> bool:
        """Whether the inside of attention is differentiated in another way."""
        return self.pattern_frozen or (self.temperature, *self._shares) != (1, 1, 1, 1)

    @property
    def _shares(self) -> tuple[float, float, float]:
        return self.queries, self.keys, self.values

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of its text."""
        return hashlib.sha256(str(self).encode()).hexdigest()[:16]

    def __bool__(self) -> bool:
        """Whether anything differs from the chain rule."""
        return self != CHAIN

    def __str__(self) -> str:
        """What differs from the chain rule."""
        changed = {f.name: getattr(self, f.name) for f in fields(self)}
        told = [
            name if value is True else f"{name} {value:g}"
            for name, value in changed.items()
            if value != getattr(type(self), name)
        ]
        return ", ".join(told) or "the chain rule"


# Rules of papers, with their constants.
CHAIN = BackwardRules()
GIM = BackwardRules(temperature=2.0, queries=0.25, keys=0.25, values=0.5, norms_frozen=True)
RELP = BackwardRules(pattern_frozen=True, norms_frozen=True, products_halved=True, gains=True)
ATP_STAR = BackwardRules(blocks_dropped=True, pattern_recomputed=True)
